"""`SqlStorage`: what `outbox.interface` promises, carried out in SQL on PostgreSQL and on SQLite.

Locks are taken in the order saga key, saga, inbox, held, timer, outbox, dead letter. On PostgreSQL `save` is one
statement, whatever it writes. On SQLite the host's clock decides, read when a transaction has begun.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from outbox import abandoned, accused, aliases, enqueue, held, inbox, keys, store
from outbox.interface import CLAIM_BYTES, Accused, Claimed, DueTimer, HistoryRow, Locked, Suspect
from sagas.items import with_bodies, with_owed
from storage import definitions, instances, items, stalls, timers
from storage.dead_letters import Letters
from storage.statements import Batch, Part, Statement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from outbox.holding import Held, KnownType, RipeHeld
    from outbox.interface import Changes, ClaimedRow, Destination, InboxEntry, KeyClaim, KeyOwner, Outgoing, RowOutcome
    from outbox.naming import AliasClaim, AliasOwner, Named
    from outbox.pressure import Backlog
    from outbox.unlocked import Unlocked
    from sagas.items import Items, Want
    from storage.database import Database, Session

_KEEP_ORDER = Statement.both("select pg_advisory_xact_lock(hashtextextended(cast(:lane as text), 0))")


class SqlUnit:
    """One transaction; see `outbox.interface.Unit`. `session` is for whoever has further rows to write in it."""

    def __init__(self, session: Session, now: datetime) -> None:
        self.session = session
        self._now = now  # the host's; only SQLite uses it
        self._claimed: dict[UUID, keys.Key] = {}

    async def claim_keys(self, claims: Sequence[KeyClaim]) -> Sequence[KeyOwner]:
        """See `outbox.interface.Unit.claim_keys`."""
        owners = await keys.claim(self.session, claims, self._now)
        for claim, owner in zip(claims, owners, strict=True):
            if owner.mine:
                self._claimed[claim.saga_id] = keys.key_of(claim)
        return owners

    async def latest_keys(self, saga_type: str, wanted: Collection[str]) -> Mapping[str, KeyOwner]:
        """See `outbox.interface.Unit.latest_keys`."""
        return await keys.latest(self.session, saga_type, wanted)

    async def aliased(self, saga_type: str, wanted: Collection[Named]) -> Mapping[Named, UUID]:
        """See `outbox.interface.Unit.aliased`."""
        return await aliases.find(self.session, saga_type, wanted)

    async def take_aliases(
        self, claims: Sequence[AliasClaim], *, reusing: Collection[str], over: Collection[UUID]
    ) -> Sequence[AliasOwner]:
        """See `outbox.interface.Unit.take_aliases`."""
        return await aliases.take(self.session, claims, reusing, over)

    async def give_up_aliases(self, claims: Sequence[AliasClaim]) -> None:
        """See `outbox.interface.Unit.give_up_aliases`."""
        await aliases.give_up(self.session, claims)

    async def lock(self, saga_ids: Collection[UUID], *, wait: bool = False) -> Locked:
        """See `outbox.interface.Unit.lock`."""
        locked, busy, now = await instances.lock(self.session, saga_ids, wait=wait)
        if locked and now is None:
            now = self._now
        return Locked(instances=locked, busy=busy, now=now)

    async def look(self, saga_ids: Collection[UUID]) -> Sequence[Suspect]:
        """See `outbox.interface.Unit.look`."""
        found, now = await instances.read(self.session, saga_ids)
        now = now or self._now
        around = await stalls.surroundings(self.session, [instance.saga_id for instance in found], now)
        return [Suspect(instance=instance, seen=around[instance.saga_id], now=now) for instance in found]

    async def claim_inbox(self, consumer: str, token: UUID, entries: Sequence[InboxEntry]) -> Claimed:
        """See `outbox.interface.Unit.claim_inbox`."""
        return await inbox.claim(self.session, consumer, token, entries, self._now)

    async def awaited(self, saga_type: str, saga_ids: Collection[UUID]) -> frozenset[UUID]:
        """See `outbox.interface.Unit.awaited`."""
        return await held.awaited(self.session, saga_type, saga_ids)

    async def held_for(self, saga_type: str, saga_ids: Collection[UUID]) -> Sequence[Held]:
        """See `outbox.interface.Unit.held_for`."""
        return await held.locked_for(self.session, saga_type, saga_ids)

    async def held_by_alias(self, saga_type: str, wanted: Collection[Named]) -> Sequence[Held]:
        """See `outbox.interface.Unit.held_by_alias`."""
        return await held.locked_by_alias(self.session, saga_type, wanted)

    async def lock_held(self, held_ids: Collection[int]) -> Sequence[Held]:
        """See `outbox.interface.Unit.lock_held`."""
        return await held.locked(self.session, held_ids)

    async def consumes(self, saga_type: str, name: str) -> bool:
        """See `outbox.interface.Unit.consumes`."""
        return await definitions.consumes(self.session, saga_type, name)

    async def withdraw(self, message_ids: Collection[str]) -> frozenset[str]:
        """See `outbox.interface.Unit.withdraw`."""
        return await store.withdraw(self.session, message_ids)

    async def items(self, saga_id: UUID, have: Items, want: Want) -> Items:
        """See `outbox.interface.Unit.items`."""
        if want.path is not None:
            known = len(have.owed.get(want.path, ()))
            owed = await items.owed(self.session, saga_id, want.path, want.before, known)
            return with_owed(have, want.path, owed)
        bodies = await items.bodies(self.session, saga_id, want.list_field, want.indexes)
        return with_bodies(have, want.list_field, bodies)

    async def unsent(self, saga_ids: Collection[UUID]) -> Mapping[UUID, frozenset[str]]:
        """See `outbox.interface.Unit.unsent`."""
        return await store.unsent(self.session, saga_ids)

    async def sent(self, sends: Collection[tuple[UUID, str]]) -> Mapping[tuple[UUID, str], HistoryRow]:
        """See `outbox.interface.Unit.sent`."""
        rows = await instances.sent(self.session, sends)
        return {
            send: HistoryRow(saga_id=row.saga_id, at=row.at, entry=row.entry, patch=row.patch)
            for send, row in rows.items()
        }

    async def save(self, changes: Changes, also: Batch | None = None) -> Sequence[ClaimedRow]:
        """See `outbox.interface.Unit.save`. `also` holds further writes, which come first."""
        batch = Batch()
        keys.release(batch, [self._claimed[saga_id] for saga_id in changes.released])
        keys.reassign(batch, changes.reassigned)
        inbox.dispose(batch, changes.consumer, changes.dispositions)
        return await self._write(batch, changes, also)

    async def _write(
        self,
        batch: Batch,
        changes: Changes,
        also: Batch | None = None,
        head: Part | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> Sequence[ClaimedRow]:
        """Write what was decided, behind what is in the batch."""
        _gather(batch, changes)
        batch.writes[:0] = also.writes if also is not None else ()
        rows = enqueue.distinct(changes.outgoing, changes.closed)
        claim = self._claim(changes)
        lone = len(changes.inserted) + len(changes.updated) == 1
        if not rows:
            await self.session.write(batch, self._now, head=head, parameters=parameters, lone=lone)
            return ()
        if not self.session.postgresql:
            return await self.session.write_directly(
                batch, self._now, lambda direct: enqueue.add_on_sqlite(direct, rows, claim, self._now)
            )
        tail, added = enqueue.tail(batch, rows, claim, lone=lone)
        bound = {**added, **(parameters or {})}
        found = await self.session.write(batch, self._now, head=head, tail=tail, parameters=bound, lone=lone)
        if claim is None:
            return ()
        return [enqueue.born(rows[row.item][0], row.amount, claim) for row in sorted(found, key=lambda row: row.item)]

    def _claim(self, changes: Changes) -> enqueue.Claim | None:
        if changes.claim is None or changes.claim_limit <= 0:
            return None
        token, lease = changes.claim
        return enqueue.Claim(
            token=token, lease=lease, limit=changes.claim_limit, until=self._now + timedelta(seconds=lease)
        )


def _gather(batch: Batch, changes: Changes) -> None:
    instances.save(batch, inserted=changes.inserted, updated=changes.updated)
    batch.add(
        instances.INSERT_EVENT,
        [instances.history_row(row.saga_id, row.at, row.entry, row.patch) for row in changes.history],
    )
    held.save(batch, held=changes.held, reheld=changes.reheld, ripened=changes.ripened, unheld=changes.unheld)
    _dead_letters(changes).save(batch)
    if changes.listed or changes.rested:
        items.save(batch, changes.listed, changes.rested)
    timers.save(batch, [*((None, instance) for instance in changes.inserted), *changes.updated])
    store.confirm(batch, changes.confirmed)


def _dead_letters(changes: Changes) -> Letters:
    letters = Letters()
    for letter in changes.dead_letters:
        letters.add(
            consumer=letter.consumer,
            source=letter.source,
            message_id=letter.message_id,
            name=letter.name,
            raw=letter.raw,
            body_hash=letter.body_hash,
            reason=letter.reason,
            error=letter.error,
            error_class=letter.error_class,
            saga_id=letter.saga_id,
            queue=letter.queue,
        )
    return letters


class SqlStorage:
    """The database; see `outbox.interface.Storage`."""

    def __init__(self, database: Database, unlocked: Unlocked | None = None) -> None:
        """`database` stays the caller's, who closes it. `published` is called after each `publish`."""
        self.database = database
        self.unlocked = unlocked
        self.published: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlUnit]:
        """See `outbox.interface.Storage.transaction`."""
        async with self.database.write() as session:
            yield SqlUnit(session, self._now())

    async def due_timers(
        self, saga_types: Collection[str], limit: int, *, skip: int = 0
    ) -> tuple[Sequence[DueTimer], float | None]:
        """See `outbox.interface.Storage.due_timers`."""
        async with self.database.read() as session:
            found, following = await timers.due(session, saga_types, limit, self._now(), skip=skip)
        return [_due_timer(row) for row in found], following

    async def ripe_held(
        self, known: Collection[KnownType], limit: int, without: Collection[UUID] = ()
    ) -> Sequence[RipeHeld]:
        """See `outbox.interface.Storage.ripe_held`."""
        async with self.database.read() as session:
            return await held.ripe(session, known, limit, without, self._now())

    async def suspects(self, after: UUID, limit: int) -> Sequence[UUID]:
        """See `outbox.interface.Storage.suspects`."""
        async with self.database.read() as session:
            return await stalls.suspects(session, after, limit, self._now())

    async def claim_outbox(
        self,
        *,
        token: UUID,
        lease: float,
        limit: int,
        max_bytes: int = CLAIM_BYTES,
        closed: Collection[Destination] = (),
    ) -> Sequence[ClaimedRow]:
        """See `outbox.interface.Storage.claim_outbox`."""
        async with self.database.single() as session:
            now = self._now()
            until = now + timedelta(seconds=lease)
            due = store.Due(limit=limit, max_bytes=max_bytes, now=now, closed=closed)
            return await store.claim(session, due, token=token, lease=lease, until=until)

    async def claim_probe(self, destination: Destination, *, token: UUID, lease: float) -> Sequence[ClaimedRow]:
        """See `outbox.interface.Storage.claim_probe`."""
        async with self.database.single() as session:
            now = self._now()
            probe = store.Probe(destination=destination, now=now)
            return await store.claim(session, probe, token=token, lease=lease, until=now + timedelta(seconds=lease))

    async def backlog(self) -> Backlog:
        """See `outbox.interface.Storage.backlog`."""
        async with self.database.read() as session:
            return await store.backlog(session, self._now())

    async def hurry_outbox(self, destination: Destination) -> None:
        """See `outbox.interface.Storage.hurry_outbox`."""
        async with self.database.single() as session:
            await store.hurry(session, destination, self._now())

    async def abandon(self, queue: str, age: float) -> Sequence[int | None]:
        """See `outbox.interface.Storage.abandon`."""
        async with self.database.write() as session:
            return await abandoned.abandon(session, queue, age, self._now())

    async def consumed_events(self) -> frozenset[str]:
        """See `outbox.interface.Storage.consumed_events`."""
        return frozenset(await definitions.consumed_events(self.database))

    async def settle_outbox(
        self, *, confirmed: Sequence[tuple[int, UUID]] = (), failed: Sequence[RowOutcome] = ()
    ) -> None:
        """See `outbox.interface.Storage.settle_outbox`. A row that may have been sent stays `unknown`."""
        now = self._now()
        batch = Batch()
        store.confirm(batch, confirmed)
        store.fail(batch, [(outcome, now + timedelta(seconds=outcome.retry_in)) for outcome in failed])
        async with self.database.single() as session:
            await session.write(batch, now)

    async def renew_leases(self, token: UUID, outbox_ids: Sequence[int], lease: float) -> frozenset[int]:
        """See `outbox.interface.Storage.renew_leases`."""
        async with self.database.single() as session:
            until = self._now() + timedelta(seconds=lease)
            return await store.renew(session, token, outbox_ids, lease, until)

    async def release_leases(self, rows: Sequence[tuple[int, UUID]]) -> None:
        """See `outbox.interface.Storage.release_leases`. One that may have been sent before stays `unknown`."""
        batch = Batch()
        store.release(batch, rows)
        async with self.database.single() as session:
            await session.write(batch, self._now())

    async def probe(self) -> None:
        """See `outbox.interface.Storage.probe`."""
        token = self.database.runner.token()
        nobody = Accused(consumer="", source="", message_id=str(token), body_hash=b"")
        async with self.database.write() as session:
            await accused.probe(session, nobody, token, self._now())

    async def note_accused(self, message: Accused, life: UUID) -> int:
        """See `outbox.interface.Storage.note_accused`."""
        async with self.database.write() as session:
            return await accused.note(session, message, life, self._now())

    async def noted(self, wanted: Sequence[Accused]) -> Sequence[int]:
        """See `outbox.interface.Storage.noted`."""
        async with self.database.read() as session:
            return await accused.noted(session, wanted)

    async def in_hand(self, wanted: Sequence[Accused]) -> Sequence[bool]:
        """See `outbox.interface.Storage.in_hand`."""
        async with self.database.read() as session:
            return [notes > 0 for notes in await accused.noted(session, wanted, just=self._now())]

    async def withdraw_notes(self, life: UUID) -> None:
        """See `outbox.interface.Storage.withdraw_notes`."""
        async with self.database.write() as session:
            await accused.withdraw(session, life)

    async def acquit(self, message: Accused) -> None:
        """See `outbox.interface.Storage.acquit`."""
        async with self.database.write() as session:
            await accused.acquit(session, message)

    async def end_leases(self) -> int:
        """Make every claimed row due at once, and say how many there were.

        For a process that knows that it is the only one: whoever claimed them is no more.
        """
        async with self.database.single() as session:
            return await store.end_leases(session, self._now())

    async def publish(self, outgoing: Outgoing) -> None:
        """Put one message into the outbox, due at once; rows of one path without a saga go out in commit order.

        Opens a transaction of its own.
        """
        async with self.database.write(joins=True) as session:
            if session.postgresql and outgoing.saga_id is None and outgoing.path is not None:
                await session.fetch(_KEEP_ORDER, {"lane": f"{self.database.namespace}/{outgoing.path}"})
            rows = [(outgoing, True)]
            if session.postgresql:
                tail, parameters = enqueue.tail(Batch(), rows, None, lone=True)
                await session.write(Batch(), self._now(), tail=tail, parameters=parameters)
            else:
                now = self._now()
                await session.directly(lambda direct: enqueue.add_on_sqlite(direct, rows, None, now))
        self.published()

    def _now(self) -> datetime:
        return self.database.runner.now()


def _due_timer(row: timers.DueRow) -> DueTimer:
    return DueTimer(saga_id=row.saga_id, saga_type=row.saga_type, name=row.name, fence=row.generation, late=row.late)
