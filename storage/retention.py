"""What is old enough to go, and how it goes: in small transactions of their own that wait for nobody.

A step locks its rows with `skip locked`, so that it never waits and several processes share the work; whoever waits for
a step waits for a few hundred rows. Ages are in seconds by the database's clock. The key of an instance is never
removed, nor what an instance still needs: it goes as a whole, when nothing is left to do for it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from messages.value import value
from storage.statements import Batch, Statement, Write, as_time, as_uuid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row

    from storage.database import Database, Session

CHILDREN = ("saga_event", "saga_alias", "saga_item", "saga_item_step")
"""What goes with an instance. A row of any of these is written under the lock of its instance, and by nobody else."""

REASONS_TO_STAY = {
    "attention": "",
    "timer": "",
    "outbox": "",
    "held": "",
    "dead_letter": "and dead_letter.status = 'open'",
}
"""Rows that keep an ended instance: an operator is wanted, or something is still under way."""

INSTANCES, HISTORY, ROWS = 200, 10_000, 1_000
"""How many go in one transaction: instances, rows of their history (of one more when it alone has more), other rows."""


Place: TypeAlias = "tuple[object, object]"
"""Where a walk goes on: behind the row that this is the key of. Each kind of rows has places of its own."""


@value
class Step:
    """What one transaction removed, and where the next one begins; None when it would find nothing."""

    removed: int
    following: Place | None = None


_FIRST_MOMENT = datetime.min.replace(tzinfo=UTC)
_ANYWHERE: Place = (None, None)  # what was removed is in nobody's way any more


def _old(column: str, *, postgresql: str, sqlite: str) -> Statement:
    """The same in both, where `{old}` says that the column is older than the age."""
    return Statement.of(
        postgresql=postgresql.replace("{old}", f"{column} < now() - cast(:age as float8) * interval '1 second'"),
        sqlite=sqlite.replace("{old}", f"{column} < :before"),
    )


# now() can use an index, clock_timestamp() cannot; every step is a transaction that has just begun.
_ENDED = """
    select saga_id, ended_at, seq from saga
    where {{old}} and (ended_at, saga_id) > ({place})
    order by ended_at, saga_id limit {limit}
"""
_LOCK_ENDED = _old(
    "ended_at",
    postgresql=_ENDED.format(place="cast(:at as timestamptz), cast(:id as uuid)", limit="cast(:limit as bigint)")
    + " for update skip locked",
    sqlite=_ENDED.format(place=":at, :id", limit=":limit"),
)
_DONE_WITH = " and ".join(
    f"not exists (select 1 from {table} where {table}.saga_id = saga.saga_id {which})"
    for table, which in REASONS_TO_STAY.items()
)


def _delete(table: str, column: str, kind: str, condition: str = "true") -> Statement:
    """Delete rows by one of their columns, and return what it held."""
    sql = f"delete from {table} where {column} in ({{ids}}) and {condition} returning {column}"
    return Statement.of(
        postgresql=sql.replace("in ({ids})", f"= any(cast(:ids as {kind}[]))"),
        sqlite=sql.format(ids="select value from json_each(:ids)"),
    )


_DELETE_SAGAS = _delete("saga", "saga_id", "uuid", _DONE_WITH)
_DELETE_CHILDREN = [_delete(table, "saga_id", "uuid") for table in CHILDREN]

# What is held still has its id in the inbox: a copy that came meanwhile would be taken for new.
_NOT_HELD = """
    not exists (
        select 1 from held
        where held.saga_type = inbox.consumer and held.source = inbox.source and held.message_id = inbox.message_id
    )
"""
_OLD_INBOX = f"""
    select {{row}} from inbox where {{{{old}}}} and {_NOT_HELD} order by received_at limit {{limit}}
"""
_DELETE_INBOX = _old(
    "received_at",
    postgresql="delete from inbox where ctid = any(array("
    + _OLD_INBOX.format(row="ctid", limit="cast(:limit as bigint)")
    + " for update skip locked)) returning 1",
    sqlite=f"delete from inbox where rowid in ({_OLD_INBOX.format(row='rowid', limit=':limit')}) returning 1",
)

# Whoever was met alone and came to no end, long ago: it is gone, or has become a dead letter elsewhere.
_OLD_SUSPECTS = "select {row} from suspect where {{old}} limit {limit}"
_DELETE_SUSPECTS = _old(
    "noted_at",
    postgresql="delete from suspect where ctid = any(array("
    + _OLD_SUSPECTS.format(row="ctid", limit="cast(:limit as bigint)")
    + " for update skip locked)) returning 1",
    sqlite=f"delete from suspect where rowid in ({_OLD_SUSPECTS.format(row='rowid', limit=':limit')}) returning 1",
)

# An open one was not resolved yet, or is so no more: its time is null. What is on its way back may be opened again.
_OLD_LETTERS = """
    select dead_letter_id from dead_letter
    where {{old}}
      and not exists (select 1 from outbox where outbox.dead_letter_id = dead_letter.dead_letter_id)
    order by resolved_at limit {limit}
"""
_DELETE_LETTERS = _old(
    "resolved_at",
    postgresql="delete from dead_letter where dead_letter_id = any(array("
    + _OLD_LETTERS.format(limit="cast(:limit as bigint)")
    + " for update skip locked)) returning dead_letter_id",
    sqlite=f"delete from dead_letter where dead_letter_id in ({_OLD_LETTERS.format(limit=':limit')}) "
    "returning dead_letter_id",
)
_DELETE_RECORDS = _delete("dead_letter_event", "dead_letter_id", "bigint")

_OLD_ITEMS = """
    select {row} from dead_letter_job_item i join dead_letter_job j on j.job_id = i.job_id
    where {{old}} order by i.job_id, i.position limit {limit}
"""
# Whoever was at it may be gone: a job that has not ended is as old as its latest verdict.
_LAST_VERDICT = "(select max(w.at) from dead_letter_job_item w where w.job_id = j.job_id)"
_DELETE_ITEMS = _old(
    f"coalesce(j.ended_at, {_LAST_VERDICT}, j.created_at)",
    postgresql="delete from dead_letter_job_item where ctid = any(array("
    + _OLD_ITEMS.format(row="i.ctid", limit="cast(:limit as bigint)")
    + " for update skip locked)) returning 1",
    sqlite="delete from dead_letter_job_item where rowid in ("
    + _OLD_ITEMS.format(row="i.rowid", limit=":limit")
    + ") returning 1",
)
_EMPTY = """
    delete from dead_letter_job where {old} and not exists (
        select 1 from dead_letter_job_item i where i.job_id = dead_letter_job.job_id
    ) returning job_id
"""
_DELETE_JOBS = _old("coalesce(ended_at, created_at)", postgresql=_EMPTY, sqlite=_EMPTY)
_PARTICIPANTS_ROW = """
    select participant, {id} as id, idempotency_key, {{old}} as old from {table}
    where (participant, {id}) > ({begin}) order by participant, {id} limit {limit}
"""


def _walk(table: str, column: str, moment: str) -> tuple[Statement, Write]:
    """The next rows of a participant by their key, and how some of them are deleted."""
    look = _old(
        moment,
        postgresql=_PARTICIPANTS_ROW.format(
            table=table,
            id=column,
            begin="cast(:participant as text), cast(:id as text)",
            limit="cast(:limit as bigint)",
        ),
        sqlite=_PARTICIPANTS_ROW.format(table=table, id=column, begin=":participant, :id", limit=":limit"),
    )
    delete = Write(
        name=f"{table}_delete",
        columns={"participant": "text", "id": "text"},
        postgresql=f"""
            delete from {table} where ctid = any(array(
                select t.ctid from {{rows}} join {table} t on t.participant = r.participant and t.{column} = r.id
                for update of t skip locked
            ))
        """,
        sqlite=f"delete from {table} where participant = :participant and {column} = :id",
    )
    return look, delete


_COMMANDS = _walk("participant_message", "message_id", "received_at")
_EFFECTS = _walk("participant_effect", "idempotency_key", "at")
_LIVING = Statement.of(
    postgresql="select saga_id from saga where saga_id = any(cast(:ids as uuid[]))",
    sqlite="select saga_id from saga where saga_id in (select value from json_each(:ids))",
)

_OLDEST = f"""
    select {{now}} as now, (select min(ended_at) from saga where ended_at is not null) as ended,
           (select received_at from inbox where {_NOT_HELD} order by received_at limit 1) as handled
"""
_LOOK = Statement.of(postgresql=_OLDEST.format(now="now()"), sqlite=_OLDEST.format(now=":now"))


@value
class Oldest:
    """How many seconds ago the first of what is still kept ended or was handled; None: there is nothing."""

    ended: float | None
    handled: float | None


class Expiry:
    """Removes what is older than an age, step by step: each a transaction of its own.

    Every step raises `Trouble` when nothing was removed, or nobody knows; a further one finds out.
    """

    def __init__(
        self, database: Database, *, instances: int = INSTANCES, history: int = HISTORY, rows: int = ROWS
    ) -> None:
        """`database` stays the caller's. So many instances, rows of history and other rows go in one step."""
        self._database = database
        self._instances = instances
        self._history = history
        self._rows = rows

    async def sagas(self, age: float, begin: Place | None = None) -> Step:
        """Instances that ended so long ago, with their history; those with a reason to stay are passed over."""
        at, saga_id = begin or (_FIRST_MOMENT, UUID(int=0))
        async with self._database.write() as session:
            found = await session.fetch(
                _LOCK_ENDED, {**self._older(session, age), "at": at, "id": saga_id, "limit": self._instances}
            )
            if not found:
                return Step(removed=0)
            few = self._few(found)
            gone = await session.fetch(_DELETE_SAGAS, {"ids": [as_uuid(row.saga_id) for row in few]})
            await _follow(session, _DELETE_CHILDREN, [as_uuid(row.saga_id) for row in gone])
        last = (as_time(few[-1].ended_at), as_uuid(few[-1].saga_id))
        more = len(few) < len(found) or len(found) == self._instances
        return Step(removed=len(gone), following=last if more else None)

    def _few(self, found: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
        """As many of them as one transaction bears: at least one, whatever the length of its history."""
        lengths = accumulate(row.seq for row in found)
        return found[: max(1, sum(length <= self._history for length in lengths))]

    async def inbox(self, age: float, _: Place | None = None) -> Step:
        """The ids of messages that were handled so long ago."""
        async with self._database.write() as session:
            gone = await session.fetch(_DELETE_INBOX, self._some(session, age))
        return self._counted(len(gone))

    async def suspects(self, age: float, _: Place | None = None) -> Step:
        """Notes of messages that may have killed a process, so long after the last."""
        async with self._database.write() as session:
            gone = await session.fetch(_DELETE_SUSPECTS, self._some(session, age))
        return self._counted(len(gone))

    async def dead_letters(self, age: float, _: Place | None = None) -> Step:
        """Dead letters that were replayed or discarded so long ago, with the record of it. Open ones stay."""
        async with self._database.write() as session:
            gone = await session.fetch(_DELETE_LETTERS, self._some(session, age))
            await _follow(session, [_DELETE_RECORDS], [row.dead_letter_id for row in gone])
        return self._counted(len(gone))

    async def jobs(self, age: float, _: Place | None = None) -> Step:
        """The verdicts of replays that ended so long ago (or began, if they were stopped), and then the replays."""
        async with self._database.write() as session:
            gone = await session.fetch(_DELETE_ITEMS, self._some(session, age))
            await session.fetch(_DELETE_JOBS, self._older(session, age))
        return self._counted(len(gone))

    async def commands(self, age: float, begin: Place | None = None) -> Step:
        """The commands that participants answered so long ago, but for those of instances that are still there."""
        return await self._remembered(_COMMANDS, age, begin)

    async def effects(self, age: float, begin: Place | None = None) -> Step:
        """What participants applied so long ago, but for instances that are still there."""
        return await self._remembered(_EFFECTS, age, begin)

    async def _remembered(self, walk: tuple[Statement, Write], age: float, begin: Place | None) -> Step:
        """Walk on by the key: an index by time would cost every command something, for what hardly anybody removes."""
        look, delete = walk
        participant, last = begin or ("", "")
        async with self._database.write() as session:
            rows = await session.fetch(look, {**self._some(session, age), "participant": participant, "id": last})
            sagas = {row: _saga_of(row.idempotency_key) for row in rows if row.old}
            asked = {saga_id for saga_id in sagas.values() if saga_id is not None}
            found = await session.fetch(_LIVING, {"ids": sorted(asked)}) if asked else ()
            living = {as_uuid(row.saga_id) for row in found}
            gone = [(row.participant, row.id) for row, saga_id in sagas.items() if saga_id not in living]
            batch = Batch()
            batch.add(delete, gone)
            await session.write(batch, self._database.runner.now())
        following = (rows[-1].participant, rows[-1].id) if len(rows) == self._rows else None
        return Step(removed=len(gone), following=following)

    async def oldest(self) -> Oldest:
        """The oldest instance that has ended and the oldest id of the inbox, held ones left out; only reads."""
        async with self._database.read() as session:
            parameters = {} if session.postgresql else {"now": self._database.runner.now()}
            [row] = await session.fetch(_LOOK, parameters)
        ages = {
            name: None if value is None else (as_time(row.now) - as_time(value)).total_seconds()
            for name, value in (("ended", row.ended), ("handled", row.handled))
        }
        return Oldest(**ages)

    def _counted(self, removed: int) -> Step:
        return Step(removed=removed, following=_ANYWHERE if removed == self._rows else None)

    def _some(self, session: Session, age: float) -> dict[str, object]:
        return {**self._older(session, age), "limit": self._rows}

    def _older(self, session: Session, age: float) -> dict[str, object]:
        if session.postgresql:
            return {"age": age}
        return {"before": self._database.runner.now() - timedelta(seconds=age)}


async def _follow(session: Session, statements: Sequence[Statement], ids: Sequence[object]) -> None:
    if ids:
        for statement in statements:
            await session.fetch(statement, {"ids": ids})


def _saga_of(idempotency_key: str | None) -> UUID | None:
    """The instance whose command it was, where the key is one of ours: `<saga id>/<path>/...`."""
    try:
        return UUID((idempotency_key or "").partition("/")[0])
    except ValueError:
        return None
