"""What the demo hears of its engine: which orders are under way, and what happened last."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from handlers.facts import SagaMoved
from running import happens

if TYPE_CHECKING:
    from collections.abc import Callable

    from running import Runner

_ENDS = frozenset({"completed", "compensated", "parked"})


class Screen(Protocol):
    """Where people follow the orders while they are under way."""

    def placed(self, key: str) -> None:
        """An order is under way."""
        ...

    def moved(self, key: str, kind: str, step: str | None) -> None:
        """Something happened to it: a kind of history row, and the step that it concerns."""
        ...

    def ended(self, key: str, kind: str) -> None:
        """It has come to its end."""
        ...


class Watch:
    """Takes every fact of the engine, after the commit that made it true."""

    def __init__(self, runner: Runner, screen: Screen, log: Callable[[object], None]) -> None:
        """What concerns no order goes to `log`."""
        self.open: set[str] = set()
        self.seen: set[str] = set()
        self._runner = runner
        self._screen = screen
        self._log = log
        self._moved_at = runner.monotonic()
        self._news = asyncio.Event()

    def __call__(self, fact: object) -> None:
        """See the class."""
        if isinstance(fact, SagaMoved):
            self._moved(fact.key, fact.entry.kind, fact.entry.step)
        else:
            self._log(fact)

    def expect(self, key: str) -> None:
        """An order that was placed, now or by an earlier process."""
        self.seen.add(key)
        self.open.add(key)
        self._screen.placed(key)

    @property
    def idle(self) -> float:
        """Seconds since anything happened to any order."""
        return self._runner.monotonic() - self._moved_at

    async def news(self, seconds: float) -> None:
        """Wait until something happens, at most so long."""
        await happens(self._news, self._runner, within=seconds)

    def wake(self) -> None:
        """Let whoever waits for news look again."""
        self._news.set()
        self._news = asyncio.Event()

    def _moved(self, key: str, kind: str, step: str | None) -> None:
        if key not in self.seen:
            self.expect(key)
        self._moved_at = self._runner.monotonic()
        self._screen.moved(key, kind, step)
        if kind in _ENDS and key in self.open:
            self.open.discard(key)
            self._screen.ended(key, kind)
        self.wake()
