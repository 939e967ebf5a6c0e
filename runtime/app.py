"""One process from start to exit: its health first, then the engine, then a signal, a drain and an exit code."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from runtime.exits import OK, TRY_AGAIN
from runtime.facts import (
    DrainTimedOut,
    HttpListening,
    ProcessReady,
    ProcessStarting,
    ProcessStopped,
    ProcessStopping,
)
from runtime.processes.parent import Parent
from runtime.readiness import Readiness
from runtime.signals import stop_at_once, stop_signals, unless
from runtime.startup import Patience
from runtime.supervise import Supervised

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from running import Runner
    from runtime.engine import Engine
    from runtime.http import HttpServer
    from runtime.settings import Settings

CLOSING = 10.0
"""Seconds for closing connections after the drain; the process ends then, whatever is still open."""


class App:
    """A process that runs an engine until a signal."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        *,
        http: bool,
        runner: Runner,
        report: Callable[[object], None],
        parent: socket.socket | None = None,
    ) -> None:
        """`parent` is this process's end of the channel to the one that started it, and counts the signals."""
        self._engine = engine
        self._settings = settings
        self._runner = runner
        self._report = report
        self._stopping = asyncio.Event()
        self._readiness = Readiness(runner)
        engine.add_checks(self._readiness)
        self._http = self._health_endpoints() if http else None
        self._parent = None if parent is None else Parent(parent, self._readiness, self._asked_to_stop, runner)

    async def run(self) -> int:
        """Start, wait for a signal, drain; returns the exit code.

        Raises:
            ConfigurationError: something is set up wrongly.
            Trouble: the database or the broker was not there in time.
        """
        with stop_signals(
            self._asked_to_stop, on_next=stop_at_once if self._parent is None else _is_left_to_the_parent
        ):
            self._report(ProcessStarting(pid=os.getpid(), parts=", ".join(self._engine.parts)))
            serving = self._serve()
            try:
                if not await unless(self._stopping, self._engine.start(self._patience()), self._runner, name="start"):
                    return OK
                self._report(
                    ProcessReady(
                        sagas=", ".join(self._engine.saga_types) or "none",
                        participants=", ".join(self._engine.participants) or "none",
                    )
                )
                if self._parent is not None:
                    self._parent.ready()
                await self._stopping.wait()
                return await self._drain()
            finally:
                await self._close(serving)

    def _asked_to_stop(self, signal: str) -> None:
        if self._stopping.is_set():
            return
        self._report(ProcessStopping(signal=signal))
        self._readiness.drain()
        self._stopping.set()

    def _patience(self) -> Patience:
        return Patience(self._settings.startup_timeout, self._runner, self._report)

    def _health_endpoints(self) -> HttpServer:
        from runtime.http import HttpServer, application  # a process that serves none does without a web server

        return HttpServer(application(self._readiness), host=self._settings.http_host, port=self._settings.http_port)

    def _serve(self) -> tuple[Supervised, asyncio.Task[None]] | None:
        """Have whoever asks told how this process is: over HTTP, or by its parent."""
        if self._http is not None:
            self._http.open()
            self._report(HttpListening(address=self._http.address))
        health = self._http or self._parent
        if health is None:
            return None
        server = Supervised(health, self._runner, self._report)
        return server, self._runner.start(server.run(), name=health.name)

    async def _drain(self) -> int:
        try:
            async with self._runner.timeout(self._settings.drain_timeout):
                await self._engine.drain()
        except TimeoutError:
            unfinished = ", ".join(self._engine.unfinished)
            self._report(DrainTimedOut(unfinished=unfinished, seconds=self._settings.drain_timeout))
            return TRY_AGAIN
        self._report(ProcessStopped())
        return OK

    async def _close(self, serving: tuple[Supervised, asyncio.Task[None]] | None) -> None:
        """Let everything go, what tells of its health last, and not for ever."""
        try:
            async with self._runner.timeout(CLOSING):
                await self._engine.close()
                if serving is not None:
                    server, task = serving
                    server.stop()
                    await task
        except TimeoutError:
            return


def _is_left_to_the_parent() -> None:
    """One Ctrl-C reaches the parent and its processes, and so may the SIGTERM of whoever runs them all."""
