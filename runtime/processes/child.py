"""One of the processes, as its parent sees it: started, asked how it is, told to stop; whichever fills its place."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.exits import OK, TRY_AGAIN
from runtime.processes import entry
from runtime.processes.channel import Channel
from runtime.readiness import PATIENCE, Finding

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable, Collection
    from typing import Any

    from running import Runner

ANSWER = PATIENCE + 1.0
"""Seconds within which a process answers: each of its checks has `PATIENCE`."""


class Child:
    """A place among the processes, as a component: `run` is the life of the process that fills it now."""

    def __init__(self, number: int, parts: Collection[str], runner: Runner, failed: Callable[[Child], None]) -> None:
        """`failed` is told when its start failed: it ended with an exit code of its own before it was ever ready."""
        self.number = number
        self.name = f"process {number}"
        self.pid = 0
        self.ending = ""
        self.code = OK
        self.was_ready = asyncio.Event()
        self._parts = tuple(parts)
        self._runner = runner
        self._failed = failed
        self._stopping = False
        self._state = "not started yet"
        self._process: Process | None = None
        self._channel: Channel | None = None
        self._answer: asyncio.Future[dict[str, Finding] | None] | None = None

    async def run(self) -> None:
        """Start a process and see to it until it ends. Cancelling this kills it.

        Raises:
            OSError: it cannot be started.
        """
        ours, theirs = socket.socketpair()
        channel = await Channel.over(ours)
        try:
            with theirs:
                self._process = await self._start(theirs)
            self.pid = self._process.pid
            await self._live(self._process, channel)
        finally:
            channel.close()
            if self._process is not None:
                self.kill()
                self._ended(await self._process.wait())

    def stop(self) -> None:
        """Have the process finish what it has begun and end."""
        self._stopping = True
        if self._channel is not None:
            self._channel.say({"stop": True})

    def kill(self) -> None:
        """End the process, if there is one, without asking."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def findings(self) -> dict[str, Finding]:
        """What its checks find, each under its name; or why they cannot be asked for."""
        try:
            async with self._runner.timeout(ANSWER):
                found = await self._ask()
        except TimeoutError:
            return {self.name: Finding(ok=False, detail=f"pid {self.pid} gives no answer within {ANSWER:g} s")}
        if found is None:
            return {self.name: Finding(ok=False, detail=self._state)}
        return {f"{self.name}: {check}": finding for check, finding in found.items()}

    async def _start(self, theirs: socket.socket) -> Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", str(Path(entry.__file__))),
            *("--process", str(self.number), "--channel", str(theirs.fileno())),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sys.stdout.fileno(),
            stderr=sys.stderr.fileno(),
            pass_fds=[theirs.fileno()],
        )

    async def _live(self, process: Process, channel: Channel) -> None:
        channel.say({"path": sys.path, "parts": self._parts})
        self._channel = channel
        if self._stopping:
            self.stop()
        hearing = self._runner.start(self._hear(channel), name=f"{self.name}.channel")
        try:
            await process.wait()
        finally:
            hearing.cancel()
            await asyncio.wait([hearing])
        if not hearing.cancelled():
            hearing.result()

    async def _hear(self, channel: Channel) -> None:
        """Take in what it says. Once it cannot be understood, it is left alone and ends."""
        try:
            while (message := await channel.hear()) is not None:
                if "ready" in message:
                    self.was_ready.set()
                elif self._answer is not None and not self._answer.done():
                    self._answer.set_result(_read(message["findings"]))
        finally:
            channel.close()

    async def _ask(self) -> dict[str, Finding] | None:
        """Its findings; None when there is no process. Several who ask at once get the same answer."""
        if self._channel is None:
            return None
        if self._answer is None or self._answer.done():
            self._answer = asyncio.get_running_loop().create_future()
            self._channel.say({"ask": "findings"})
        return await asyncio.shield(self._answer)

    def _ended(self, code: int) -> None:
        self.ending = _in_words(code)
        self._state = f"pid {self.pid} ended ({self.ending}), and is replaced"
        self._process = self._channel = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)
        if self._stopping:
            self.code = code if code >= 0 else TRY_AGAIN
        elif code > 0 and code != TRY_AGAIN and not self.was_ready.is_set():
            self.code = code
            self._failed(self)


def _read(findings: dict[str, Any]) -> dict[str, Finding]:
    return {name: Finding(ok=bool(each["ok"]), detail=str(each["detail"])) for name, each in findings.items()}


def _in_words(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"
