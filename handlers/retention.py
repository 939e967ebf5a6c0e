"""The loop that removes what has been kept long enough, a little at a time and never in anybody's way.

Every round goes through one kind of rows after another. Between two steps it rests for as long as the last one took, so
that it takes at most half of a database that is slow. Several processes side by side share the work.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, TypeAlias

from messages.errors import Trouble
from messages.value import value
from outbox.facts import LoopTroubled, RowsRemoved
from running import happens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from running import Runner
    from storage.retention import Expiry, Place, Step

NEVER = math.inf
"""The age of what is never removed."""

MINUTELY, DAILY = 60.0, 86_400.0

Removal: TypeAlias = "Callable[[float, Place | None], Awaitable[Step]]"
"""One step: what is older than so many seconds, from this place on."""


@value
class Kind:
    """Rows of one kind, how they are removed, and at what age in seconds; `NEVER` keeps them."""

    name: str
    remove: Removal
    age: float


def of_sagas(expiry: Expiry, *, sagas: float, inbox: float, dead_letters: float) -> list[Kind]:
    """What sagas leave: instances count from their end, ids from their arrival, letters from their resolution.

    Notes of suspects go with the ids: what has not come for so long does not come any more.
    """
    return [
        Kind(name="sagas", remove=expiry.sagas, age=sagas),
        Kind(name="inbox", remove=expiry.inbox, age=inbox),
        Kind(name="suspects", remove=expiry.suspects, age=inbox),
        Kind(name="dead_letters", remove=expiry.dead_letters, age=dead_letters),
        Kind(name="jobs", remove=expiry.jobs, age=dead_letters),
    ]


def of_participants(expiry: Expiry, *, age: float) -> list[Kind]:
    """What participants remember of the commands they have carried out."""
    return [
        Kind(name="commands", remove=expiry.commands, age=age),
        Kind(name="effects", remove=expiry.effects, age=age),
    ]


class Retention:
    """One or two per process. `run` until `stop`."""

    def __init__(
        self,
        kinds: Sequence[Kind],
        runner: Runner,
        report: Callable[[object], None],
        *,
        name: str = "retention",
        every: float = MINUTELY,
        rest: float = 0.05,
    ) -> None:
        """`every` is the pause between two rounds and `rest` the shortest between two steps, in seconds."""
        self.name = name
        self._kinds = [kind for kind in kinds if kind.age != NEVER]
        self._runner = runner
        self._report = report
        self._every = every
        self._least_rest = rest
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Remove what is old, round by round, until stopped."""
        while not self._stopping.is_set():
            pause = self._every * (0.5 + self._runner.random())  # so that processes do not meet at every round
            for kind in self._kinds:
                try:
                    await self._remove(kind)
                except Trouble as error:
                    self._report(LoopTroubled(loop=self.name, error=str(error), retry_in=pause))
            await happens(self._stopping, self._runner, within=pause)

    def stop(self) -> None:
        """Return from `run` after the step under way."""
        self._stopping.set()

    async def _remove(self, kind: Kind) -> None:
        removed, place, more = 0, None, True
        try:
            while more and not self._stopping.is_set():
                began = self._runner.monotonic()
                step = await kind.remove(kind.age, place)
                removed, place, more = removed + step.removed, step.following, step.following is not None
                if more:
                    await happens(
                        self._stopping, self._runner, within=max(self._least_rest, self._runner.monotonic() - began)
                    )
        finally:
            if removed:
                self._report(RowsRemoved(kind=kind.name, amount=removed, age=kind.age))
