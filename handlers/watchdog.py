"""The watchdog: tells people of instances that wait in vain, before the statement of rule 16 would show them, and takes
it back when they wait no longer.

Every process has one, whatever part of the work it does, and each sees what became of the others' work. It looks
without a lock first: only what has to change is locked, looked at again and saved, and an instance that another process
holds waits for the next round.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

from handlers.facts import AttentionCleared, AttentionRaised
from messages.errors import Trouble
from messages.printable import in_words
from outbox.facts import LoopTroubled
from outbox.interface import Changes, HistoryRow
from running import happens
from sagas.patch import patch
from sagas.watching import watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from outbox.interface import Storage, Suspect
    from running import Runner
    from sagas.outcome import Decision
    from sagas.watching import Here

INTERVAL = 15.0
"""Most seconds between two rounds. With the patience of `sagas.watching` it stays below that of the statement."""

_CONSUMER = "watchdog"
_FIRST = UUID(int=0)
_PAGES = 200  # found by one statement, which costs the same whatever it finds: a broker's outage makes all suspects
_JITTER = 0.25  # part of the interval, so that processes started together do not all look at once

Watching = tuple["Suspect", "Decision"]


class Watchdog:
    """One per process. `run` until `stop`."""

    name = "watchdog"

    def __init__(
        self,
        here: Here,
        *,
        storage: Storage,
        runner: Runner,
        report: Callable[[object], None],
        interval: float = INTERVAL,
        page: int = 100,
    ) -> None:
        """`here` is what this process knows; `interval` are the seconds from round to round; `page` is how many
        instances one transaction looks at."""
        self._here = here
        self._storage = storage
        self._runner = runner
        self._report = report
        self._interval = interval
        self._page = page
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Look again and again, until stopped. The first look comes after a pause: what is due is fired meanwhile."""
        while not await self._pause():
            try:
                await self.look()
            except Trouble as error:
                self._report(LoopTroubled(loop=self.name, error=str(error), retry_in=self._interval))

    def stop(self) -> None:
        """Return from `run` after the page under way."""
        self._stopped.set()

    async def look(self) -> None:
        """One round: look at whatever may be in trouble or is marked so, page by page.

        Raises:
            Trouble: the database is away or busy; what was decided before stands.
        """
        found: Sequence[UUID] = [_FIRST]
        while found and not self._stopped.is_set():
            found = await self._storage.suspects(found[-1], self._page * _PAGES)
            for begin in range(0, len(found), self._page):
                if not self._stopped.is_set():
                    await self._judge(found[begin : begin + self._page])

    async def _judge(self, page: Sequence[UUID]) -> None:
        """Judge them together, or one by one where one of them cannot be read or written."""
        if not page:
            return
        try:
            changed = await self._save(page)
        except Trouble:
            raise
        except Exception as error:  # whatever it is: the others are judged
            if len(page) == 1:
                text = f"instance {page[0]} cannot be watched: {in_words(error)}"
                self._report(LoopTroubled(loop=self.name, error=text, retry_in=self._interval))
                return
        else:
            for fact in _facts(changed):
                self._report(fact)
            return
        for saga_id in page:
            await self._judge([saga_id])

    async def _save(self, page: Sequence[UUID]) -> list[Watching]:
        """One transaction; what it changed, once it is committed."""
        async with self._storage.transaction() as unit:
            changing = [suspect.instance.saga_id for suspect, _ in self._changed(await unit.look(page))]
            if not changing:
                return []
            locked = await unit.lock(changing)
            changed = self._changed(await unit.look(locked.instances))
            await unit.save(
                Changes(
                    consumer=_CONSUMER,
                    updated=[(suspect.instance, decision.instance) for suspect, decision in changed],
                    history=[row for suspect, decision in changed for row in _rows(suspect, decision)],
                )
            )
        return changed

    def _changed(self, suspects: Sequence[Suspect]) -> list[Watching]:
        judged = [(each, watch(each.instance, each.seen, self._here, each.now)) for each in suspects]
        return [(suspect, decision) for suspect, decision in judged if decision.history]

    async def _pause(self) -> bool:
        """Wait for the next round; whether it was stopped."""
        within = self._interval * (1 - _JITTER * self._runner.random())
        return await happens(self._stopped, self._runner, within=within)


def _rows(suspect: Suspect, decision: Decision) -> Iterator[HistoryRow]:
    """The first row of the decision carries the patch that it made."""
    change: bytes | None = patch(suspect.instance, decision.instance)
    for entry in decision.history:
        yield HistoryRow(saga_id=decision.instance.saga_id, at=suspect.now, entry=entry, patch=change)
        change = None


def _facts(changed: Sequence[Watching]) -> Iterator[AttentionRaised | AttentionCleared]:
    for suspect, decision in changed:
        instance = suspect.instance
        for entry in decision.history:
            reason, error = entry.detail["reason"], entry.detail.get("error")
            if error is None:
                yield AttentionCleared(
                    saga_id=instance.saga_id, saga_type=instance.saga_type, key=instance.key, reason=reason
                )
            else:
                yield AttentionRaised(
                    saga_id=instance.saga_id, saga_type=instance.saga_type, key=instance.key, reason=reason, error=error
                )
