"""One process from start to exit: health endpoints first, then the engine, then a signal, a drain and an exit code."""

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
from runtime.http import HttpServer, application
from runtime.readiness import Readiness
from runtime.signals import stop_signals
from runtime.startup import Patience
from runtime.supervise import Supervised

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from running import Runner
    from runtime.engine import Engine
    from runtime.settings import Settings

CLOSING = 10.0
"""Seconds for closing connections after the drain; the process ends then, whatever is still open."""


class App:
    """A process that runs an engine until a signal."""

    def __init__(
        self, engine: Engine, settings: Settings, *, http: bool, runner: Runner, report: Callable[[object], None]
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._runner = runner
        self._report = report
        self._stopping = asyncio.Event()
        self._readiness = Readiness(runner)
        engine.add_checks(self._readiness)
        self._http = (
            HttpServer(application(self._readiness), host=settings.http_host, port=settings.http_port) if http else None
        )

    async def run(self) -> int:
        """Start, wait for a signal, drain; returns the exit code.

        Raises:
            ConfigurationError: something is set up wrongly.
            Trouble: the database or the broker was not there in time.
        """
        with stop_signals(self._asked_to_stop):
            self._report(ProcessStarting(pid=os.getpid(), parts=", ".join(self._engine.parts)))
            serving = self._serve()
            try:
                if not await self._until_stop(self._engine.start(self._patience()), name="start"):
                    return OK
                self._report(
                    ProcessReady(
                        sagas=", ".join(self._engine.saga_types) or "none",
                        participants=", ".join(self._engine.participants) or "none",
                    )
                )
                await self._stopping.wait()
                return await self._drain()
            finally:
                await self._close(serving)

    def _asked_to_stop(self, signal: str) -> None:
        self._report(ProcessStopping(signal=signal))
        self._readiness.drain()
        self._stopping.set()

    def _patience(self) -> Patience:
        return Patience(self._settings.startup_timeout, self._runner, self._report)

    def _serve(self) -> tuple[Supervised, asyncio.Task[None]] | None:
        if self._http is None:
            return None
        self._http.open()
        self._report(HttpListening(address=self._http.address))
        server = Supervised(self._http, self._runner, self._report)
        return server, self._runner.start(server.run(), name="http")

    async def _until_stop(self, work: Coroutine[Any, Any, None], *, name: str) -> bool:
        """Do the work; False when a signal came first, then the work is cancelled."""
        working = self._runner.start(work, name=name)
        stopping = self._runner.start(self._stopping.wait(), name="stop")
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if working.done():
            await working
            return True
        working.cancel()
        await asyncio.wait([working])
        return False

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
        """Let everything go, the health endpoints last, and not for ever."""
        try:
            async with self._runner.timeout(CLOSING):
                await self._engine.close()
                if serving is not None:
                    server, task = serving
                    server.stop()
                    await task
        except TimeoutError:
            return
