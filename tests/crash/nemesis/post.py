"""The places of a sidecar and of the participants, where a process is started again whenever one was killed."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from tests.crash.driver import Sidecar, participants
from tests.crash.process import ChildError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.crash.driver import Setup
    from tests.crash.forking import Program
    from tests.crash.laboratory import Wires
    from tests.crash.process import Child
    from tests.crash.proxy.server import Proxy
    from tests.crash.script import Script


@dataclass(slots=True, kw_only=True)
class Post:
    """An async context: its process is dead when the block ends. `lives` counts the processes there were."""

    name: str
    wires: Wires
    command: Program
    settings: Mapping[str, str] = field(default_factory=dict)
    lives: int = 0
    halting: asyncio.Lock = field(default_factory=asyncio.Lock)  # of those who kill it or halt it, one at a time
    _sidecar: Sidecar | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sidecar is not None:
            await self._sidecar.kill()

    @property
    def sidecar(self) -> Sidecar:
        """The process there is now."""
        assert self._sidecar is not None, "use `async with`"
        return self._sidecar

    @property
    def pid(self) -> int:
        """Its id."""
        return self.sidecar.pid

    def proxy(self, server: str) -> Proxy:
        """The wire to one of the servers: `pg` or `amqp`."""
        return self.wires.pg if server == "pg" else self.wires.amqp

    async def start(self) -> None:
        """Start a process; does not wait until it is ready."""
        self.lives += 1
        started = await Sidecar.start(self.wires.setup, self.name, command=self.command, **self.settings)
        self._sidecar = started

    async def again(self) -> None:
        """Start the next one where one was killed.

        Raises:
            ChildError: it was not killed, but lives or ended in another way.
        """
        await self.sidecar.killed()
        await self.sidecar.kill()  # which gives its port back
        await self.start()

    def alive(self) -> None:
        """Nothing, if it lives, or somebody is at it.

        Raises:
            ChildError: it has ended, and nobody killed it.
        """
        if not self.halting.locked() and not self.sidecar.child.running:
            raise ChildError(f"{self.name} has ended by itself\n{self.sidecar.child.tail()}")

    def go_on(self) -> None:
        """Wake it up if it was halted."""
        self.sidecar.child.signal(signal.SIGCONT)

    async def healed(self) -> None:
        """Everything works again: wait until the process is ready, the next one if it was killed.

        Raises:
            ChildError: it has ended in another way, or is not ready in time.
        """
        self.go_on()
        for proxy in (self.wires.pg, self.wires.amqp):
            proxy.heal()
        try:
            await self.sidecar.ready()
        except ChildError:
            if self.sidecar.child.running:
                raise
            await self.again()
            await self.sidecar.ready()


@dataclass(slots=True, kw_only=True)
class Crew:
    """All participants in one process, straight at the broker. An async context like the other."""

    setup: Setup
    script: Script
    _child: Child | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._child is not None:
            await self._child.kill()

    @property
    def child(self) -> Child:
        """The process there is now."""
        assert self._child is not None, "use `async with`"
        return self._child

    async def start(self) -> None:
        """Start a process, which goes on with the books of the one before."""
        seed, mix = self.script.seed, self.script.mix
        self._child = await participants(self.setup, self.setup.broker_url, seed=seed, mix=mix)

    async def again(self) -> None:
        """Kill it and start the next one.

        Raises:
            ChildError: it had ended before, by itself.
        """
        if not self.child.running:
            raise ChildError(f"the participants have ended\n{self.child.tail()}")
        await self.child.kill()
        await self.start()

    async def healed(self) -> None:
        """Start a process if there is none."""
        if not self.child.running:
            await self.start()
