"""The loop of the timers: what is due by the database's clock is decided under the lock of its saga.

Candidates are read without a lock and mean nothing by themselves: the saga is locked first, and the instance knows
which of its timers still stand. Sagas that another process holds are left for the next round.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

from handlers.aliases import Aliases
from handlers.blame import is_to_blame
from handlers.suspects import CROWD, MOST_NOTES, Suspects, accused_timer
from handlers.work import Work
from messages.errors import MessageError, Trouble
from outbox.facts import LoopTroubled
from outbox.interface import Changes
from running import happens
from sagas.heard import newly_awaited
from sagas.outcome import TimerFired

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from handlers.work import Definitions
    from outbox.interface import Accused, ClaimedRow, DueTimer, Locked, Storage, Unit
    from outbox.relay import Lease, Relay
    from running import Runner
    from sagas.instance import Timer

_CONSUMER = "timers"
_MISSED = 10  # looks at the table that went by without its being fired
_LONGEST_PUT_OFF = 60.0
_MOST_PUT_OFF = 10_000


class Timers:
    """One per process. `run` until `stop`."""

    name = "timers"

    def __init__(
        self,
        types: Mapping[str, Definitions],
        *,
        namespace: str,
        storage: Storage,
        relay: Relay,
        runner: Runner,
        report: Callable[[object], None],
        sweep: float = 1.0,
        batch: int = 200,
        suspects: Suspects | None = None,
    ) -> None:
        """`sweep` is the longest pause in seconds between two looks. `suspects` are those of the whole process."""
        self._types = types
        self._namespace = namespace
        self._storage = storage
        self._relay = relay
        self._runner = runner
        self._report = report
        self._sweep_seconds = sweep
        self._batch = batch
        self._suspects = suspects or Suspects(storage, runner)
        self._later: dict[UUID | Accused, tuple[float, float]] = {}  # what is put off: until when, after what pause
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Fire what is due, until stopped."""
        while not self._stopping.is_set():
            pause = self._sweep_seconds
            try:
                next_in = await self._round()
                pause = pause if next_in is None else min(pause, next_in)
            except Trouble as error:
                self._report(LoopTroubled(loop=self.name, error=str(error), retry_in=pause))
            await happens(self._stopping, self._runner, within=pause)

    async def _round(self) -> float | None:
        """Fire everything that is due, and say in how many seconds the next one is.

        What cannot be fired now, because another process holds its saga or this one lacks its version, stays due: it
        is passed over, so that those behind it do not wait for it. So is what fails, until all others have had their
        turn; then it is tried saga by saga.
        """
        passed, next_in = 0, None
        failed: list[DueTimer] = []
        while not self._stopping.is_set():
            due, next_in = await self._storage.due_timers(list(self._types), self._batch, skip=passed)
            fired = await self._met([timer for timer in due if not self._is_put_off(timer)], failed)
            passed += len(due) - fired
            if len(due) < self._batch:
                next_in = 0.0 if fired else next_in  # what fired may have set another that is due already
                break
        for saga_id, timers in _by_saga(failed).items():
            if self._stopping.is_set():
                break
            if await self._fired(timers, []):
                self._later.pop(saga_id, None)
            else:
                self._put_off(saga_id)
        return next_in

    async def _met(self, due: Sequence[DueTimer], failed: list[DueTimer]) -> int:
        """Fire them, warily if any is long overdue: perhaps because it kills whoever fires it. How many are done.

        Together all the same, after a note: many are overdue after a mere outage, and that should cost little. But
        where somebody has died of it they are fired one by one, the least suspected first.
        """
        if not any(timer.late >= _MISSED * self._sweep_seconds for timer in due):
            return await self._fired(due, failed)
        async with self._suspects.alone():
            notes = await self._suspects.noted([accused_timer(timer) for timer in due])
            noted = sorted(zip(due, notes, strict=True), key=lambda each: each[1])
            if await self._suspects.note_crowd():
                fired = await self._fired([timer for timer, notes in noted if not notes], failed)
                noted = [(timer, notes) for timer, notes in noted if notes]
            else:
                fired = 0
            for timer, _ in noted:
                fired += await self._met_alone(timer, failed)
            await self._suspects.acquit(CROWD)
        return fired

    async def _met_alone(self, timer: DueTimer, failed: list[DueTimer]) -> int:
        accused = accused_timer(timer)
        if not await self._suspects.note(accused):
            error = (
                f"timer {timer.name} of instance {timer.saga_id} is fired no more: {MOST_NOTES} processes died of it; "
                "find out why, mend it, then retry the step or cancel the instance"
            )
            self._report(LoopTroubled(loop=self.name, error=error, retry_in=_LONGEST_PUT_OFF))
            self._put_off(accused)
            return 0
        fired = await self._fired([timer], failed)
        await self._suspects.acquit(accused)
        return fired

    async def _fired(self, due: Sequence[DueTimer], failed: list[DueTimer]) -> int:
        """Fire them together; how many are done. Those of a transaction that fails by its own doing are `failed`."""
        if not due:
            return 0
        try:
            return await self.fire(due)
        except MessageError as error:
            self._report(LoopTroubled(loop=self.name, error=str(error), retry_in=self._sweep_seconds))
        except Trouble as error:
            if not await is_to_blame(self._storage, error):
                raise
            self._report(LoopTroubled(loop=self.name, error=str(error), retry_in=self._sweep_seconds))
        failed.extend(due)
        return 0

    def _is_put_off(self, timer: DueTimer) -> bool:
        if not self._later:
            return False
        until = max(self._later.get(each, (0.0, 0.0))[0] for each in (timer.saga_id, accused_timer(timer)))
        return self._runner.monotonic() < until

    def _put_off(self, one: UUID | Accused) -> None:
        """Try a saga's timers again after a growing pause, or a thousand of its kind would take every round's time."""
        _, pause = self._later.pop(one, (0.0, self._sweep_seconds / 2))
        pause = min(pause * 2, _LONGEST_PUT_OFF)
        self._later[one] = (self._runner.monotonic() + pause, pause)
        if len(self._later) > _MOST_PUT_OFF:
            del self._later[next(iter(self._later))]

    def stop(self) -> None:
        """Return from `run` after the round under way."""
        self._stopping.set()

    async def fire(self, due: Sequence[DueTimer]) -> int:
        """Decide on due timers in one transaction. Returns how many of them are due no longer.

        Raises:
            Trouble: nothing was committed, or nobody knows; a timer that did fire is gone, so a new look tells.
            MessageError: the database refuses the data of one of them; nothing was committed.
        """
        lease, confirmed = self._relay.lease(), self._relay.take_confirmed()
        try:
            async with self._storage.transaction() as unit:
                locked = await unit.lock({timer.saga_id for timer in due})
                if locked.now is None:
                    self._relay.give_back(confirmed)
                    return 0
                work = Work(self._namespace, locked.now)
                await self._decide(unit, work, locked, due)
                rows = await self._save(unit, work, lease, confirmed)
        except BaseException:
            self._relay.give_back(confirmed)
            raise
        for fact in work.facts():
            self._report(fact)
        await self._relay.publish(rows, lease.until)
        changed = {after.saga_id for _, after in work.updated()}
        return sum(timer.saga_id in changed for timer in due)

    async def _decide(self, unit: Unit, work: Work, locked: Locked, due: Sequence[DueTimer]) -> None:
        by_saga = _by_saga(due)
        unsent = await unit.unsent(locked.instances)
        for saga_id, instance in locked.instances.items():
            definition = self._types.get(instance.saga_type, {}).get(instance.version)
            if definition is None:
                continue
            fold = work.load(definition, instance)
            for timer in by_saga[saga_id]:
                waiting = self._waiting(unsent.get(saga_id, frozenset()), instance.armed.get(timer.name), locked.now)
                await work.decide(unit, fold, TimerFired(name=timer.name, fence=timer.fence, unsent=waiting))

    def _waiting(self, unsent: frozenset[str], timer: Timer | None, now: datetime | None) -> frozenset[str]:
        """What was not sent before the timer fell due.

        In process the row of a command stands until its participant has settled it, sent or not.
        """
        if timer is None or now is None:
            return unsent
        on_time = (now - timer.due_at).total_seconds()
        return unsent - {message_id for message_id, ago in self._relay.handed_over().items() if ago > on_time}

    async def _save(
        self, unit: Unit, work: Work, lease: Lease, confirmed: Sequence[tuple[int, UUID]]
    ) -> Sequence[ClaimedRow]:
        if any(fold.definition.aliases for fold in work.folds.values()):
            await Aliases(unit, work).settle()  # what is held for these the sweep finds
        return await unit.save(
            Changes(
                consumer=_CONSUMER,
                updated=work.updated(),
                history=work.history(),
                listed=work.listed,
                rested=work.rested,
                ripened=[after.saga_id for before, after in work.updated() if newly_awaited(before, after)],
                outgoing=await work.outgoing(unit),
                claim=(lease.token, lease.seconds),
                claim_limit=lease.limit,
                closed=lease.closed,
                confirmed=confirmed,
            )
        )


def _by_saga(due: Sequence[DueTimer]) -> dict[UUID, list[DueTimer]]:
    by_saga: dict[UUID, list[DueTimer]] = defaultdict(list)
    for timer in due:
        by_saga[timer.saga_id].append(timer)
    return by_saga
