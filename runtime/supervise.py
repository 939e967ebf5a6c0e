"""Keeping long-running loops alive: one that ends without being asked to is started again, with a pause.

Knows nothing of what the loops do.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from running import happens
from runtime.facts import LoopEnded

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from running import Runner

STEADY = 5.0
"""Seconds a loop must have run before its earlier failures are forgiven."""

DOWN_TOO_LONG = 10.0
"""Seconds a loop may be down before the process is no longer ready."""

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 30.0

_DOUBLINGS = 10  # beyond the longest pause; a loop may fail for days, and a power of that has no float


class Component(Protocol):
    """A long-running loop: `run` returns after `stop`, having finished what it had begun."""

    @property
    def name(self) -> str:
        """What people call it, in logs and checks."""
        ...

    async def run(self) -> None:
        """Work until `stop`."""
        ...

    def stop(self) -> Coroutine[Any, Any, None] | None:
        """Ask `run` to finish, at once or by what is returned. May be called more than once, and before `run`."""
        ...


class Supervised:
    """One component, restarted for as long as nobody asked it to stop."""

    def __init__(self, component: Component, runner: Runner, report: Callable[[object], None]) -> None:
        self.name = component.name
        self.restarts = 0
        self._component = component
        self._runner = runner
        self._report = report
        self._stopping = asyncio.Event()
        self._failures = 0
        self._down_since: float | None = None
        self._running_since: float | None = None
        self._asking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Run the component until `stop`. Cancelling this cancels the component and does not restart it."""
        while not self._stopping.is_set():
            self._running_since = self._runner.monotonic()
            error = await self._once()
            if not self._stopping.is_set():
                await self._pause(error)
        if self._asking is not None:
            await asyncio.wait([self._asking])

    def stop(self) -> None:
        """Ask the component to finish, and do not start it again."""
        self._stopping.set()
        asked = self._component.stop()
        if asked is not None:
            self._asking = self._runner.start(asked, name=f"{self.name}.stop")

    @property
    def down_for(self) -> float:
        """Seconds since it went down; 0 when it runs steadily. A loop that fails again at once is still down."""
        self._forgive()
        return 0.0 if self._down_since is None else self._runner.monotonic() - self._down_since

    async def _once(self) -> BaseException | None:
        """One life of the component, in a task of its own: its cancellation is not ours."""
        task = self._runner.start(self._component.run(), name=self.name)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        if task.cancelled():
            return asyncio.CancelledError("cancelled, and nobody asked for it")
        return task.exception()

    async def _pause(self, error: BaseException | None) -> None:
        self._forgive()
        self.restarts += 1
        self._failures += 1
        if self._down_since is None:
            self._down_since = self._runner.monotonic()
        self._running_since = None
        pause = min(FIRST_PAUSE * 2 ** min(self._failures - 1, _DOUBLINGS), LONGEST_PAUSE) * (
            1 + self._runner.random() / 4
        )
        self._report(LoopEnded(component=self.name, error=error, restarts=self.restarts, retry_in=pause))
        await happens(self._stopping, self._runner, within=pause)

    def _forgive(self) -> None:
        """Forget earlier failures once it has run steadily."""
        if self._running_since is not None and self._runner.monotonic() - self._running_since >= STEADY:
            self._failures = 0
            self._down_since = None
