"""What a parent and a process say to each other, and what each makes of the other's end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from running import AsyncioRunner
from runtime.processes.channel import Channel
from runtime.processes.child import Child
from runtime.processes.parent import Parent
from runtime.readiness import Readiness

if TYPE_CHECKING:
    from pathlib import Path


async def pair() -> tuple[Channel, socket.socket]:
    ours, theirs = socket.socketpair()
    return await Channel.over(ours), theirs


async def test_who_is_gone_is_heard_to_be_even_in_the_middle_of_a_line() -> None:
    channel, other = await pair()
    with other:
        other.sendall(b'{"ready": true}\n{"findings": {"brok')
    assert await channel.hear() == {"ready": True}
    assert await channel.hear() is None
    channel.say({"ask": "findings"})  # to nobody, and no harm
    channel.close()
    channel.say({"stop": True})


async def test_a_process_answers_its_parent_and_is_asked_to_stop_by_its_word_or_its_end() -> None:
    async def away() -> str:
        return "away" * 1_000

    channel, end = await pair()
    runner, reasons = AsyncioRunner(), asyncio.Queue[str]()
    readiness = Readiness(runner)
    readiness.add("broker", away)
    parent = Parent(end, readiness, reasons.put_nowait, runner)
    parent.ready()
    running = asyncio.create_task(parent.run())
    assert await channel.hear() == {"ready": True}
    channel.say({"ask": "findings"})
    answer = await channel.hear()
    assert answer is not None
    assert answer["findings"]["broker"] == {"ok": False, "detail": "away" * 500}
    channel.say({"stop": True})
    assert await reasons.get() == "parent"
    channel.close()
    assert await reasons.get() == "parent_gone"
    assert not running.done()
    parent.stop()
    await asyncio.wait_for(running, 10)


async def test_a_process_that_has_to_be_killed_when_it_should_end_ran_out_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failed: list[Child] = []
    child = Child(1, (), AsyncioRunner(), failed.append)
    assert (await child.findings())["process 1"].detail == "not started yet"
    running = asyncio.create_task(child.run())
    while not child.pid:  # noqa: ASYNC110 - nothing tells of it but the process itself
        await asyncio.sleep(0)
    os.kill(child.pid, signal.SIGSTOP)
    child.stop()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (child.code, child.ending, failed) == (75, "killed by SIGKILL", [])
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
