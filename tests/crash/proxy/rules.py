"""Which event, how often, on which side, under which condition: and whether it ever came to that."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.crash.proxy.faults import Action, Side
    from tests.crash.proxy.wire import Event


class Bell:
    """Rings at every change; whoever waits for a condition looks again."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """Wake everyone who waits."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()

    async def until(self, condition: Callable[[], bool], *, timeout: float) -> None:  # noqa: ASYNC109 - a bound for tests
        """Wait until `condition` holds.

        Raises:
            TimeoutError: it did not, within `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            while not condition():
                waiting = asyncio.get_running_loop().create_future()
                self._waiting.add(waiting)
                await waiting


@dataclass(slots=True, kw_only=True, eq=False)
class Rule:
    """At the `nth` matching event, and at `times - 1` matching ones after it, carry out the actions in order."""

    event: str
    actions: Sequence[Action]
    nth: int
    times: int | None  # None: every one from the nth on
    side: Side
    when: Callable[[Event], bool] | None
    bell: Bell
    armed: bool = True
    matched: int = 0
    fired: int = 0

    def is_due(self, event: Event) -> bool:
        """Whether the rule acts at this event; counts it if it matches at all."""
        if not self.armed or event.name != self.event or (self.when is not None and not self.when(event)):
            return False
        self.matched += 1
        return self.matched >= self.nth and (self.times is None or self.matched < self.nth + self.times)

    def fires(self) -> None:
        """The rule acts now; whoever waits for it is told."""
        self.fired += 1
        self.bell.ring()

    def disarm(self) -> None:
        """Act no more. A rule that never acted still makes `assert_fired` fail."""
        self.armed = False

    async def has_fired(self, times: int = 1, *, timeout: float = 30) -> None:  # noqa: ASYNC109 - a bound for tests
        """Wait until the rule has acted `times` times.

        Raises:
            TimeoutError: it has not, within `timeout` seconds.
        """
        await self.bell.until(lambda: self.fired >= times, timeout=timeout)

    def __str__(self) -> str:
        deeds = " then ".join(str(action) for action in self.actions)
        return f"{deeds} {self.side} {self.event} (nth={self.nth}): matched {self.matched}, fired {self.fired}"
