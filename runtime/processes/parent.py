"""What one of several processes knows of its parent: it answers its questions, and stops when it says so or is gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runtime.processes.channel import Channel

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from running import Runner
    from runtime.readiness import Readiness

LONGEST = 2_000
"""Characters of a finding's detail that the parent is told."""


class Parent:
    """The parent as a component of its process: `run` listens to it."""

    name = "parent"

    def __init__(
        self, end: socket.socket, readiness: Readiness, asked_to_stop: Callable[[str], None], runner: Runner
    ) -> None:
        """`end` is this process's end of the channel; `asked_to_stop` is told the reason, once or more."""
        self._end = end
        self._readiness = readiness
        self._asked_to_stop = asked_to_stop
        self._runner = runner
        self._channel: Channel | None = None
        self._ready = False
        self._stopped = asyncio.Event()
        self._answering: asyncio.Task[None] | None = None

    def ready(self) -> None:
        """Tell it that everything runs."""
        self._ready = True
        if self._channel is not None:
            self._channel.say({"ready": True})

    async def run(self) -> None:
        """Listen until `stop`."""
        if self._channel is None:
            self._channel = await Channel.over(self._end)
            if self._ready:
                self.ready()
        while (message := await self._channel.hear()) is not None:
            if "stop" in message:
                self._asked_to_stop("parent")
            elif "ask" in message:
                self._answering = self._runner.start(self._answer(self._channel), name="answer")
        if not self._stopped.is_set():
            self._asked_to_stop("parent_gone")
        await self._stopped.wait()

    def stop(self) -> None:
        """Be gone for the parent."""
        self._stopped.set()
        if self._channel is not None:
            self._channel.close()

    async def _answer(self, channel: Channel) -> None:
        findings = await self._readiness.findings()
        told = {name: {"ok": each.ok, "detail": each.detail[:LONGEST]} for name, each in findings.items()}
        channel.say({"findings": told})
