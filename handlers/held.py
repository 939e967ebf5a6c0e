"""The loop that looks after held messages: what was unblocked is applied, what waited too long becomes a dead letter.

Whoever starts or resumes an instance applies what is held for it at once. This loop is for the rest: a message held in
the very moment in which its instance was being born, one that waits for a version that this process brings, one that
came too early for something that never came, and one that keeps a birth or a resume from being done.

They are applied together, after a note. Where a process has died of that they are met one by one, each after a note of
its own; where one of them fails by its own doing the others are done without it. A culprit ends as a dead letter.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from handlers.aliases import find_aliases, still_there
from handlers.blame import Failures, is_to_blame
from handlers.deciding import Deciding
from handlers.facts import MessageDeadLettered
from handlers.keeping import EARLY, KEPT, UNAWAITED, decode_held
from handlers.routing import Router
from handlers.saga_types import claim_keys, leaving_held
from handlers.suspects import Suspects, accused_held, held_crowd, killed_process
from handlers.work import Work
from messages import CancelSaga
from messages.errors import HeldTooLong, MessageError, Trouble
from outbox.facts import LoopTroubled
from outbox.holding import KnownType
from outbox.interface import Changes, DeadLetter
from running import happens
from sagas.outcome import Disposition

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from uuid import UUID

    from handlers.saga_types import SagaType
    from messages.codec import Limits
    from outbox.holding import Held, RipeHeld
    from outbox.interface import Locked, Storage, Unit
    from outbox.relay import Relay
    from running import Runner

_BATCH = 100
_REST = 9.0  # times as long as the look before: where very much is held each look is dear, and takes a tenth at most
_LONGEST_PUT_OFF = 15.0
_REMEMBERED = 60.0  # seconds after it could be tried again


@dataclass(slots=True, kw_only=True)
class _Failing:
    """A message that fails alone by its own doing: it, and what came behind it for its instance, waits `until`."""

    saga_id: UUID | None
    failures: Failures = field(default_factory=Failures)
    until: float = 0.0


class HeldMessages:
    """One per process. `run` until `stop`."""

    name = "held"

    def __init__(
        self,
        sagas: Collection[SagaType],
        *,
        storage: Storage,
        relay: Relay,
        runner: Runner,
        report: Callable[[object], None],
        limits: Limits,
        sweep: float = 1.0,
        suspects: Suspects | None = None,
    ) -> None:
        """`sweep` is the least pause in seconds between two looks at the table. `suspects` are the whole process's."""
        self._sagas = {saga.name: saga for saga in sagas}
        self._known = [_known(saga) for saga in sagas]
        self._storage = storage
        self._relay = relay
        self._runner = runner
        self._report = report
        self._limits = limits
        self._sweep_seconds = sweep
        self._suspects = suspects or Suspects(storage, runner)
        self._failing: dict[int | None, _Failing] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Look for messages that may be applied now, until stopped."""
        while not self._stopping.is_set():
            pause, more = self._sweep_seconds, True
            try:
                while more and not self._stopping.is_set():
                    began = self._runner.monotonic()
                    more = await self.sweep()
                    pause = max(self._sweep_seconds, _REST * (self._runner.monotonic() - began))
            except Trouble as error:
                pause = self._sweep_seconds
                self._report(LoopTroubled(loop=self.name, error=str(error), retry_in=pause))
            await happens(self._stopping, self._runner, within=pause)

    def stop(self) -> None:
        """Return from `run` after the messages under way."""
        self._stopping.set()

    async def sweep(self) -> bool:
        """Deal with what is ripe, and say whether there may be more of it that can be dealt with now.

        What another process holds the instance of is passed over, with all else that waits for that instance; so is
        what fails.

        Raises:
            Trouble: nothing more was done, or nobody knows; what was done is ripe no longer.
        """
        self._forget()
        passed = self._put_off()
        while len(ripe := await self._storage.ripe_held(self._known, _BATCH, passed)) == _BATCH:
            if await self._deal_with(ripe):
                return True
            held_up = {each.held.saga_id for each in ripe if each.held.saga_id is not None}
            if not held_up:
                return False
            passed |= held_up
        await self._deal_with(ripe)
        return False

    async def _deal_with(self, ripe: Sequence[RipeHeld]) -> int:
        done = 0
        for saga_type in sorted({each.held.saga_type for each in ripe}):
            saga = self._sagas[saga_type]
            ours = [each for each in ripe if each.held.saga_type == saga_type]
            done += await self._expire(saga, [each.held for each in ours if each.expired])
            done += await self._meet(saga, [each.held for each in ours if not each.expired])
        return done

    async def _meet(self, saga: SagaType, ripe: Sequence[Held]) -> int:
        """Apply them, unless another process is at it. How many are done.

        Together, after a note; one by one where somebody has died of it, the least suspected first. What is behind
        another one for its instance does not overtake it.
        """
        if not ripe:
            return 0
        crowd, accused = held_crowd(saga.name), [accused_held(row) for row in ripe]
        async with self._suspects.alone():
            died, *notes = await self._suspects.noted([crowd, *accused])
            if (died or any(notes)) and any(await self._suspects.in_hand([crowd, *accused])):
                return 0
            weighed = self._weighed(ripe, notes)
            together = [row for weight, row in weighed if not weight and not died]
            if together:
                await self._suspects.note(crowd)
            done = await self._apply(saga, together)
            for _, row in weighed[len(together) :]:
                done += await self._meet_alone(saga, row)
            await self._suspects.acquit(crowd)
        return done

    def _weighed(self, ripe: Sequence[Held], notes: Sequence[int]) -> list[tuple[int, Held]]:
        """What stands against each, or against one before it for its instance; the least suspected first."""
        weights: dict[UUID | int | None, int] = {}
        weighed = []
        for row, noted in zip(ripe, notes, strict=True):
            place = row.saga_id or row.held_id
            weights[place] = max(weights.get(place, 0), noted, int(row.held_id in self._failing))
            weighed.append((weights[place], row))
        return sorted(weighed, key=lambda each: each[0])

    async def _meet_alone(self, saga: SagaType, row: Held) -> int:
        accused = accused_held(row)
        if await self._suspects.note(accused):
            done = await self._apply(saga, [row])
        else:
            done = await self._expire(saga, [row], killed_process(accused))
        if done:
            await self._suspects.acquit(accused)
        else:
            await self._suspects.withdraw()
        return done

    async def _apply(self, saga: SagaType, ripe: Sequence[Held]) -> int:
        """Apply messages together, or one by one where one of them may be to blame for what goes wrong."""
        ripe = [row for row in ripe if not self._is_put_off(row)]
        if not ripe:
            return 0
        try:
            return await self._applied(saga, ripe)
        except MessageError as error:
            if len(ripe) == 1:
                return await self._expire(saga, ripe, error)
        except Trouble as error:
            if not await is_to_blame(self._storage, error):
                raise
            if len(ripe) == 1:
                return await self._failed(saga, ripe[0], error)
        return sum([await self._apply(saga, [each]) for each in ripe])

    async def _failed(self, saga: SagaType, row: Held, error: Trouble) -> int:
        """It failed alone by its own doing: it is tried again later or, often and long enough, given up."""
        failing = self._failing.setdefault(row.held_id, _Failing(saga_id=row.saga_id))
        now = self._runner.monotonic()
        if (refusal := failing.failures.another(error, now)) is not None:
            return await self._expire(saga, [row], refusal)
        pause = min(self._sweep_seconds * 2.0**failing.failures.times, _LONGEST_PUT_OFF)
        failing.until = now + pause
        text = f"{row.name} {row.message_id}, which is held: {error}"
        self._report(LoopTroubled(loop=self.name, error=text, retry_in=pause))
        return 0

    def _put_off(self) -> set[UUID]:
        """The instances for which something is put off now, so that nothing overtakes it."""
        return {each.saga_id for each in self._failing.values() if each.saga_id and self._is_later(each)}

    def _is_put_off(self, row: Held) -> bool:
        failing = self._failing.get(row.held_id)
        return row.saga_id in self._put_off() or (failing is not None and self._is_later(failing))

    def _is_later(self, failing: _Failing) -> bool:
        return failing.until > self._runner.monotonic()

    def _forget(self) -> None:
        """What somebody has dealt with: it was not ripe any more when it could have been tried again."""
        gone = [
            held_id for held_id, each in self._failing.items() if each.until + _REMEMBERED < self._runner.monotonic()
        ]
        for held_id in gone:
            del self._failing[held_id]

    async def _applied(self, saga: SagaType, ripe: Sequence[Held]) -> int:
        messages = {each.held_id: decode_held(each, saga.latest, self._limits) for each in ripe}
        lease, confirmed = self._relay.lease(), self._relay.take_confirmed()
        try:
            async with self._storage.transaction() as unit:
                owners = await claim_keys(saga, unit, list(messages.values()))
                aliases = await find_aliases(saga, unit, messages.values())
                router = Router(saga.latest, saga.namespace, owners, aliases)
                locked = await unit.lock(router.wanted(messages.values()))
                aliases = still_there(aliases, locked)
                there = await unit.lock_held([held_id for held_id in messages if held_id is not None])
                now = (await unit.claim_inbox(saga.name, lease.token, ())).now
                deciding = Deciding(saga, unit, now, self._limits, leaving_held(owners), aliases=aliases)
                await deciding.apply_held(there, locked)
                changes = await deciding.changes(lease, confirmed)
                claimed = await unit.save(changes)
        except BaseException:
            self._relay.give_back(confirmed)
            raise
        for fact in (*deciding.facts, *deciding.work.facts()):
            self._report(fact)
        await self._relay.publish(claimed, lease.until)
        return len(changes.unheld)

    async def _expire(self, saga: SagaType, ripe: Sequence[Held], error: MessageError | None = None) -> int:
        if not ripe:
            return 0
        async with self._storage.transaction() as unit:
            locked = await unit.lock({each.saga_id for each in ripe if each.saga_id is not None})
            there = await unit.lock_held([each.held_id for each in ripe if each.held_id is not None])
            gone = [row for row in there if error is not None or row.reason in (EARLY, UNAWAITED)]
            gone = [row for row in gone if row.saga_id not in locked.busy]
            letters = [_letter(row, error) for row in gone]
            work = _kept_no_longer(saga, gone, [letter for letter, _ in letters], locked)
            await self._bury(unit, saga, letters, work)
        for _, held_id in letters:
            self._failing.pop(held_id, None)
        for fact in work.facts() if work is not None else ():
            self._report(fact)
        for letter, _ in letters:
            self._report(
                MessageDeadLettered(
                    consumer=letter.consumer,
                    message_id=letter.message_id,
                    name=letter.name,
                    reason=letter.reason,
                    error=letter.error,
                    saga_id=letter.saga_id,
                )
            )
        return len(letters)

    async def _bury(
        self, unit: Unit, saga: SagaType, letters: Sequence[tuple[DeadLetter, int]], work: Work | None
    ) -> None:
        await unit.save(
            Changes(
                consumer=saga.name,
                updated=work.updated() if work is not None else (),
                history=work.history() if work is not None else (),
                dispositions={
                    (letter.source, letter.message_id): Disposition.DEAD_LETTERED.value for letter, _ in letters
                },
                dead_letters=[letter for letter, _ in letters],
                unheld=[held_id for _, held_id in letters],
            )
        )


def _kept_no_longer(saga: SagaType, gone: Sequence[Held], letters: Sequence[DeadLetter], locked: Locked) -> Work | None:
    """What the instances are told that know that these messages were kept for them."""
    if locked.now is None:
        return None
    work = Work(saga.namespace, locked.now)
    for row, letter in zip(gone, letters, strict=True):
        instance = locked.instances.get(row.saga_id) if row.saga_id is not None else None
        if instance is not None and row.reason in KEPT:
            fold = work.load(saga.definitions.get(instance.version, saga.latest), instance)
            work.bury(fold, row.message_id, row.name, letter.reason)
    return work


def _known(saga: SagaType) -> KnownType:
    events = {name: event.schema_version for name, event in saga.latest.events.items()}
    events[CancelSaga.message_name] = CancelSaga.schema_version
    return KnownType(saga_type=saga.name, versions=frozenset(saga.definitions), events=events)


def _letter(row: Held, error: MessageError | None) -> tuple[DeadLetter, int]:
    cause = error or HeldTooLong(
        f"{row.name} was held since it arrived because it came too early, and what it is for has not come"
    )
    return (
        DeadLetter(
            consumer=row.saga_type,
            source=row.source,
            message_id=row.message_id,
            name=row.name,
            raw=row.raw,
            body_hash=row.body_hash,
            reason=cause.reason,
            error=str(cause),
            error_class=cause.error_class,
            saga_id=_existing(row),
        ),
        row.held_id or 0,
    )


def _existing(row: Held) -> UUID | None:
    """The instance, unless that is what has not come."""
    return None if row.reason == EARLY else row.saga_id
