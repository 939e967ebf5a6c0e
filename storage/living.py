"""The read side of whoever asks what a definition is still needed for: live instances, and messages kept for them.

Nothing here writes: PostgreSQL and SQLite are told so. What may be very many is read in batches, each in a transaction
of its own, so that a look at a million instances holds up no vacuum and no memory.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sagas.instance import PARKING
from storage.answers import SagaSummary
from storage.instances import COLUMNS, loaded, read
from storage.properties import unpacked
from storage.queries import summary
from storage.statements import Statement, as_time, as_uuid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Row

    from messages.envelope import Raw
    from sagas.instance import Instance
    from storage.database import Database, Session

INSTANCES = 500
MESSAGES = 50
"""So many in one batch: a message may be as long as the limit of its process."""

_READ_ONLY = Statement.of(postgresql="set transaction read only", sqlite="pragma query_only = on")
_LIVE = "phase in ('running', 'compensating')"
_PARKING = ", ".join(f"'{reason}'" for reason in PARKING)
_STANDING = Statement.both(f"""
    select s.saga_type, s.version, s.phase, count(*) as amount, count(p.saga_id) as parked,
           min(s.started_at) as oldest
    from saga s
    left join (select distinct saga_id from attention where reason in ({_PARKING})) p on p.saga_id = s.saga_id
    where s.{_LIVE} group by s.saga_type, s.version, s.phase
""")
_OF_VERSION = "saga_type = cast(:type as text) and version = cast(:version as bigint)"
_OLDEST = Statement.either(f"""
    with live as materialized (select saga_id, started_at from saga where {_LIVE} and {_OF_VERSION})
    select {", ".join(SagaSummary.__dataclass_fields__)} from v_saga
    where saga_id in (select saga_id from live order by started_at, saga_id limit cast(:limit as bigint))
    order by started_at, saga_id
""")
_NEEDED = Statement.either(f"""
    select (select count(*) from saga where {_LIVE} and {_OF_VERSION}) as live,
           (select count(*) from held h join saga s on s.saga_id = h.saga_id and s.saga_type = h.saga_type
            where s.{_OF_VERSION.replace(" version", " s.version")}) as held,
           (select count(*) from dead_letter d join saga s on s.saga_id = d.saga_id and s.saga_type = d.consumer
            where d.status = 'open' and s.{_OF_VERSION.replace(" version", " s.version")}) as letters
""")
_INSTANCES = Statement.either(f"""
    select {", ".join(COLUMNS)} from saga where {_LIVE} and saga_id > cast(:after as uuid)
    order by saga_id limit cast(:limit as bigint)
""")
_INSTANCES_OF = Statement.either(f"""
    select {", ".join(COLUMNS)} from saga where {_LIVE} and {_OF_VERSION} and saga_id > cast(:after as uuid)
    order by saga_id limit cast(:limit as bigint)
""")
_HELD = Statement.either("""
    select held_id as number, saga_type as consumer, name, reason, saga_id, business_key, body, properties
    from held where held_id > cast(:after as bigint) order by held_id limit cast(:limit as bigint)
""")
_LETTERS = Statement.either("""
    select dead_letter_id as number, consumer, name, reason, saga_id, null as business_key, body, properties
    from dead_letter where status = 'open' and dead_letter_id > cast(:after as bigint)
    order by dead_letter_id limit cast(:limit as bigint)
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How many live instances stand on one version of a saga: by what people see, and when the oldest began."""

    running: int = 0
    compensating: int = 0
    parked: int = 0
    oldest: datetime | None = None

    @property
    def live(self) -> int:
        """All of them."""
        return self.running + self.compensating + self.parked


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """What needs a version of a saga: live instances, the oldest of them first, and messages kept for instances."""

    live: int
    held: int
    letters: int
    oldest: tuple[SagaSummary, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether nothing does."""
        return not (self.live or self.held or self.letters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A message that is held, or an open dead letter, with the instance it is for where that is there."""

    number: int
    consumer: str
    name: str
    reason: str
    business_key: str | None
    raw: Raw
    saga_id: UUID | None
    instance: Instance | None


class Living:
    """Questions to one database; each opens transactions that only read."""

    def __init__(self, database: Database) -> None:
        """`database` stays the caller's, who closes it."""
        self._database = database

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Session]:
        """A transaction in which the database refuses to write."""
        async with self._database.read() as session:
            await session.fetch(_READ_ONLY, {})
            yield session

    async def standing(self) -> dict[tuple[str, int], Standing]:
        """The live instances of every version, by (type, version); none for a version on which none stands."""
        async with self.reading() as session:
            rows = await session.fetch(_STANDING, {})
        found: dict[tuple[str, int], Standing] = {}
        for row in rows:
            before = found.get((row.saga_type, row.version), Standing())
            counts = {phase: getattr(before, phase) for phase in ("running", "compensating")}
            counts[row.phase] += row.amount - row.parked
            oldest = min(filter(None, (before.oldest, as_time(row.oldest))))
            found[row.saga_type, row.version] = Standing(**counts, parked=before.parked + row.parked, oldest=oldest)
        return found

    async def needed(self, saga_type: str, version: int, *, examples: int = 5) -> Needed:
        """What needs that version, with so many of its instances."""
        of: dict[str, object] = {"type": saga_type, "version": version}
        async with self.reading() as session:
            [row] = await session.fetch(_NEEDED, of)
            oldest = await session.fetch(_OLDEST, {**of, "limit": examples}) if row.live and examples else ()
        return Needed(live=row.live, held=row.held, letters=row.letters, oldest=tuple(map(summary, oldest)))

    async def instances(self, size: int = INSTANCES) -> AsyncIterator[Sequence[Instance]]:
        """Every live instance, in batches, in the order of their ids."""
        async for batch in self._batches(_INSTANCES, {}, size):
            yield batch

    async def instances_of(self, saga_type: str, version: int, size: int) -> AsyncIterator[Sequence[Instance]]:
        """Every live instance of a version, likewise; those that leave it meanwhile may be among them."""
        async for batch in self._batches(_INSTANCES_OF, {"type": saga_type, "version": version}, size):
            yield batch

    async def _batches(
        self, statement: Statement, of: Mapping[str, object], size: int
    ) -> AsyncIterator[Sequence[Instance]]:
        after = UUID(int=0)
        while True:
            async with self.reading() as session:
                rows = await session.fetch(statement, {**of, "after": after, "limit": size})
            if not rows:
                return
            batch = [loaded(row) for row in rows]
            after = batch[-1].saga_id
            yield batch

    async def held(self, size: int = MESSAGES) -> AsyncIterator[Sequence[Kept]]:
        """Every held message, in batches, the oldest first."""
        async for batch in self._kept(_HELD, size):
            yield batch

    async def letters(self, size: int = MESSAGES) -> AsyncIterator[Sequence[Kept]]:
        """Every open dead letter, in batches, the oldest first."""
        async for batch in self._kept(_LETTERS, size):
            yield batch

    async def _kept(self, statement: Statement, size: int) -> AsyncIterator[Sequence[Kept]]:
        after = 0
        while True:
            async with self.reading() as session:
                rows = await session.fetch(statement, {"after": after, "limit": size})
                ids = {as_uuid(row.saga_id) for row in rows if row.saga_id is not None}
                found = (await read(session, ids))[0] if ids else []
            if not rows:
                return
            known = {instance.saga_id: instance for instance in found}
            after = rows[-1].number
            yield [_kept(row, known.get) for row in rows]


def _kept(row: Row[Any], instance_of: Callable[[UUID], Instance | None]) -> Kept:
    saga_id = None if row.saga_id is None else as_uuid(row.saga_id)
    return Kept(
        number=row.number,
        consumer=row.consumer,
        name=row.name,
        reason=row.reason,
        business_key=row.business_key,
        raw=unpacked(bytes(row.body), row.properties),
        saga_id=saga_id,
        instance=None if saga_id is None else instance_of(saga_id),
    )
