"""SIGTERM and SIGINT: the first asks for an orderly stop, the second stops at once. And work that a stop interrupts."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runtime.exits import TRY_AGAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any

    from running import Runner

STOPPING = (signal.SIGTERM, signal.SIGINT)


def stop_at_once() -> None:
    """End the process here and now.

    That needs no cleaning up: whatever was not committed is delivered again, whatever was not confirmed is sent again,
    and the lock of an SQLite file goes with the process.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(TRY_AGAIN)


@contextmanager
def stop_signals(on_first: Callable[[str], None], on_next: Callable[[], None] = stop_at_once) -> Iterator[None]:
    """Within the block, the first signal calls `on_first` with its name, and each further one `on_next`."""
    loop = asyncio.get_running_loop()
    seen: list[signal.Signals] = []

    def received(number: signal.Signals) -> None:
        if seen:
            on_next()
            return
        seen.append(number)
        on_first(number.name)

    for number in STOPPING:
        loop.add_signal_handler(number, received, number)
    try:
        yield
    finally:
        for number in STOPPING:
            loop.remove_signal_handler(number)


async def unless(stopping: asyncio.Event, work: Coroutine[Any, Any, object], runner: Runner, *, name: str) -> bool:
    """Do the work; False when the stop came first, and then the work is cancelled."""
    working = runner.start(work, name=name)
    waiting = runner.start(stopping.wait(), name="stop")
    try:
        await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if working.done():
        await working
        return True
    working.cancel()
    await asyncio.wait([working])
    return False
