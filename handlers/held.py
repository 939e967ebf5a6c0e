"""The loop that looks after held messages: what was unblocked is applied, what waited too long becomes a dead letter.

Whoever starts or resumes an instance applies what is held for it at once. This loop is for the rest: a message held in
the very moment in which its instance was being born, one that waits for a version that this process brings, and one
that came too early for something that never came.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from handlers.deciding import EARLY, Deciding, claim_keys
from handlers.decoding import decode
from handlers.facts import MessageDeadLettered
from handlers.routing import Router
from messages.errors import HeldTooLong, MessageError, Trouble
from outbox.facts import LoopTroubled
from outbox.interface import Changes, DeadLetter, KnownType
from running import happens
from sagas.decision import Disposition

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from uuid import UUID

    from handlers.deciding import SagaType
    from messages.codec import Limits
    from outbox.interface import Held, RipeHeld, Storage, Unit
    from outbox.relay import Relay
    from running import Runner

_BATCH = 100
_REST = 9.0  # times as long as the look before: where very much is held each look is dear, and takes a tenth at most


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
    ) -> None:
        """`sweep` is the least pause in seconds between two looks at the table."""
        self._sagas = {saga.name: saga for saga in sagas}
        self._known = [_known(saga) for saga in sagas]
        self._storage = storage
        self._relay = relay
        self._runner = runner
        self._report = report
        self._limits = limits
        self._sweep_seconds = sweep
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

        What another process holds the instance of is passed over, with all else that waits for that instance.

        Raises:
            Trouble: nothing more was done, or nobody knows; what was done is ripe no longer.
        """
        passed: set[UUID] = set()
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
            done += await self._apply(saga, [each.held for each in ours if not each.expired])
        return done

    async def _apply(self, saga: SagaType, ripe: Sequence[Held]) -> int:
        """Apply messages together, or one by one where the database refuses what one of them makes."""
        if not ripe:
            return 0
        try:
            return await self._applied(saga, ripe)
        except MessageError as error:
            if len(ripe) == 1:
                return await self._expire(saga, ripe, error)
        return sum([await self._apply(saga, [each]) for each in ripe])

    async def _applied(self, saga: SagaType, ripe: Sequence[Held]) -> int:
        messages = {each.held_id: decode(each.raw, saga.latest, self._limits) for each in ripe}
        lease, confirmed = self._relay.lease(), self._relay.take_confirmed()
        try:
            async with self._storage.transaction() as unit:
                owners = await claim_keys(saga, unit, list(messages.values()))
                router = Router(saga.latest, saga.namespace, owners)
                locked = await unit.lock(router.wanted(messages.values()))
                there = await unit.lock_held([held_id for held_id in messages if held_id is not None])
                now = (await unit.claim_inbox(saga.name, lease.token, ())).now
                deciding = Deciding(saga, unit, now, self._limits, owners)
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
            there = await unit.lock_held([each.held_id for each in ripe if each.held_id is not None])
            letters = [_letter(row, error) for row in there if error is not None or row.reason == EARLY]
            await self._bury(unit, saga, letters)
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

    async def _bury(self, unit: Unit, saga: SagaType, letters: Sequence[tuple[DeadLetter, int]]) -> None:
        await unit.save(
            Changes(
                consumer=saga.name,
                dispositions={
                    (letter.source, letter.message_id): Disposition.DEAD_LETTERED.value for letter, _ in letters
                },
                dead_letters=[letter for letter, _ in letters],
                unheld=[held_id for _, held_id in letters],
            )
        )


def _known(saga: SagaType) -> KnownType:
    events = {name: event.schema_version for name, event in saga.latest.events.items()}
    return KnownType(saga_type=saga.name, versions=frozenset(saga.definitions), events=events)


def _letter(row: Held, error: MessageError | None) -> tuple[DeadLetter, int]:
    cause = error or HeldTooLong(
        f"{row.name} was held since it arrived because it came too {row.reason}, and what it is for has not come"
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
