"""Waiting for what is away at the start: patiently, in the open, and not for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from messages.errors import Trouble
from runtime.facts import DependencyAway, DependencyReached

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from running import Runner

Dependency: TypeAlias = Literal["database", "broker"]

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 5.0

ATTEMPT = 15.0
"""Seconds one attempt may take; longer than any one wait within it, whose own error says more than a timeout."""

SHORTEST = 1.0
"""Seconds the last attempt gets when hardly any time is left."""


class Patience:
    """The time that all dependencies together have to appear, counted from the creation of this object."""

    def __init__(self, seconds: float, runner: Runner, report: Callable[[object], None]) -> None:
        self._runner = runner
        self._report = report
        self._seconds = seconds
        self._end = runner.monotonic() + seconds

    async def reach(self, dependency: Dependency, address: str, attempt: Callable[[], Awaitable[None]]) -> None:
        """Try until it works. `address` is where it should be, as people may see it.

        Raises:
            Trouble: It did not appear in time; the text names the dependency and the setting.
            ConfigurationError: Trying again will not help: the address or the credentials are wrong.
        """
        count = 0
        while True:
            count += 1
            trouble = await self._try(address, attempt)
            if trouble is None:
                self._report(DependencyReached(dependency=dependency, attempt=count))
                return
            pause = self._pause(count)
            left = self._end - self._runner.monotonic()
            if left <= pause:
                raise self._gave_up(dependency, trouble)
            self._report(
                DependencyAway(dependency=dependency, error=str(trouble), attempt=count, retry_in=pause, left=left)
            )
            await self._runner.sleep(pause)

    async def _try(self, address: str, attempt: Callable[[], Awaitable[None]]) -> Trouble | None:
        bound = min(ATTEMPT, max(self._end - self._runner.monotonic(), SHORTEST))
        try:
            async with self._runner.timeout(bound):
                await attempt()
        except TimeoutError:
            return Trouble(f"{address}: no answer in time")
        except Trouble as trouble:
            return trouble
        return None

    def _pause(self, count: int) -> float:
        grown: float = min(FIRST_PAUSE * 2.0 ** min(count - 1, 10), LONGEST_PAUSE)
        return grown * (1 + self._runner.random() / 4)

    def _gave_up(self, dependency: Dependency, trouble: Trouble) -> Trouble:
        return type(trouble)(
            f"the {dependency} did not answer within {self._seconds:g} s: {trouble}; start it, "
            f"correct ANTIPHON_{dependency.upper()}_URL, or give it longer with ANTIPHON_STARTUP_TIMEOUT"
        )
