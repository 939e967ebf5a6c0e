"""The parent from start to exit: one process goes ahead, the others follow, and all of them stop together.

It does no work itself. What ends one process at its start (a setting, a module, the schema) ends the whole, told once
by the process that went ahead; one that dies later is started again.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from runtime.app import CLOSING
from runtime.exits import OK
from runtime.facts import (
    DrainTimedOut,
    HttpListening,
    LoopEnded,
    ProcessEnded,
    ProcessesReady,
    ProcessesStarting,
    ProcessStopped,
    ProcessStopping,
)
from runtime.http import HttpServer, application
from runtime.processes.child import Child
from runtime.readiness import Readiness
from runtime.signals import stop_at_once, stop_signals, unless
from runtime.supervise import Supervised

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from running import Runner
    from runtime.readiness import Finding
    from runtime.settings import Settings

LEEWAY = 2.0
"""Seconds beyond the drain and the closing of connections that a process has to end, before it is killed."""


class Several:
    """A parent that keeps its processes running until a signal."""

    def __init__(
        self,
        settings: Settings,
        count: int,
        parts: Collection[str],
        *,
        http: bool,
        runner: Runner,
        report: Callable[[object], None],
    ) -> None:
        """`parts` is what each of the `count` processes runs; none means all."""
        self._settings = settings
        self._runner = runner
        self._report = report
        self._stopping = asyncio.Event()
        self._readiness = Readiness(runner)
        self._children = [Child(number + 1, parts, runner, self._start_failed) for number in range(count)]
        self._running: list[tuple[Child, Supervised, asyncio.Task[None]]] = []
        self._http = HttpServer(application(self), host=settings.http_host, port=settings.http_port) if http else None

    async def run(self) -> int:
        """Start, wait for a signal, drain; returns the worst exit code of the processes.

        Raises:
            ConfigurationError: the port is taken, or is none of this host.
        """
        with stop_signals(self._asked_to_stop, on_next=self._stop_at_once):
            self._report(ProcessesStarting(pid=os.getpid(), processes=len(self._children)))
            serving = self._serve()
            try:
                if await unless(self._stopping, self._start(), self._runner, name="start"):
                    self._report(ProcessesReady(processes=len(self._children)))
                await self._stopping.wait()
                return await self._drain()
            finally:
                await self._close(serving)

    async def findings(self) -> dict[str, Finding]:
        """What the checks of every process find; see `runtime.readiness.Health`."""
        asked = [self._runner.start(child.findings(), name=f"ask {child.name}") for child in self._children]
        found = {name: finding for answer in await asyncio.gather(*asked) for name, finding in answer.items()}
        return found | await self._readiness.findings()

    async def _start(self) -> None:
        """One goes ahead, so that what is wrong is told once, and not by all."""
        first, *others = self._children
        for those in ([first], others):
            for child in those:
                supervised = Supervised(child, self._runner, self._told(child))
                self._running.append((child, supervised, self._runner.start(supervised.run(), name=child.name)))
            for child in those:
                await child.was_ready.wait()

    def _told(self, child: Child) -> Callable[[object], None]:
        """What is told of the end of a process: what a loop's end tells, and how it ended."""

        def report(fact: object) -> None:
            if isinstance(fact, LoopEnded) and fact.error is None:
                fact = _ended(child, fact.restarts, fact.retry_in)
            self._report(fact)

        return report

    def _start_failed(self, child: Child) -> None:
        self._report(_ended(child, 0, None))
        self._stop()

    def _asked_to_stop(self, signal: str) -> None:
        if not self._stopping.is_set():
            self._report(ProcessStopping(signal=signal))
        self._stop()

    def _stop(self) -> None:
        self._readiness.drain()
        self._stopping.set()
        for _, supervised, _ in self._running:
            supervised.stop()

    def _stop_at_once(self) -> None:
        for child in self._children:
            child.kill()
        stop_at_once()

    def _serve(self) -> tuple[Supervised, asyncio.Task[None]] | None:
        if self._http is None:
            return None
        self._http.open()
        self._report(HttpListening(address=self._http.address))
        server = Supervised(self._http, self._runner, self._report)
        return server, self._runner.start(server.run(), name=self._http.name)

    async def _drain(self) -> int:
        within = self._settings.drain_timeout + CLOSING + LEEWAY
        if late := await self._late(within):
            self._report(DrainTimedOut(unfinished=", ".join(late), seconds=within))
        code = max(child.code for child in self._children)
        if code == OK:
            self._report(ProcessStopped())
        return code

    async def _late(self, within: float) -> list[str]:
        """Wait for the ends of all; the names of those that had to be killed."""
        try:
            async with self._runner.timeout(within):
                await self._end()
        except TimeoutError:
            late = [child.name for child, _, task in self._running if not task.done()]
            await self._kill()
            return late
        return []

    async def _kill(self) -> None:
        for _, _, task in self._running:
            task.cancel()
        await self._end()

    async def _end(self) -> None:
        if self._running:
            await asyncio.wait([task for _, _, task in self._running])

    async def _close(self, serving: tuple[Supervised, asyncio.Task[None]] | None) -> None:
        """Leave no process behind, and no port taken."""
        await self._kill()
        if serving is not None:
            server, task = serving
            server.stop()
            await task


def _ended(child: Child, restarts: int, retry_in: float | None) -> ProcessEnded:
    return ProcessEnded(process=child.number, pid=child.pid, ending=child.ending, restarts=restarts, retry_in=retry_in)
