"""The rows of replay jobs: which letters, in which order, and the verdict on each, so that a job survives its process.

A job belongs to nobody: whoever resumes it goes on with what has no verdict yet. What was done is done once, whoever
does it, because each letter is replayed under the job's own request id.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from messages.printable import printable
from storage.dead_letters import MAX_ERROR, MAX_NAME
from storage.statements import Batch, Statement, Write, as_time, as_uuid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Row

    from storage.database import Database, Session

RUNNING = "running"
STOPPED = "stopped"
DONE = "done"

_CREATE = Statement.of(
    postgresql="""
        insert into dead_letter_job (actor, why, wanted, created_at, state)
        values (cast(:actor as text), cast(:why as text), cast(:wanted as text), clock_timestamp(), 'running')
        returning job_id
    """,
    sqlite="""
        insert into dead_letter_job (actor, why, wanted, created_at, state)
        values (:actor, :why, :wanted, :now, 'running') returning job_id
    """,
)
_ADD_ITEM = Write(
    name="replay_job_item_add",
    columns={"job_id": "bigint", "position": "bigint", "dead_letter_id": "bigint"},
    postgresql="""
        insert into dead_letter_job_item (job_id, position, dead_letter_id)
        select job_id, position, dead_letter_id from {rows}
    """,
    sqlite="""
        insert into dead_letter_job_item (job_id, position, dead_letter_id)
        values (:job_id, :position, :dead_letter_id)
    """,
)
_JUDGE = Write(
    name="replay_job_item_judge",
    columns={"job_id": "bigint", "position": "bigint", "outcome": "text", "detail": "text"},
    postgresql="""
        update dead_letter_job_item i set outcome = r.outcome, detail = r.detail, at = clock_timestamp()
        from {rows} where i.job_id = r.job_id and i.position = r.position
    """,
    sqlite="""
        update dead_letter_job_item set outcome = :outcome, detail = :detail, at = :now
        where job_id = :job_id and position = :position
    """,
)
_RETRACT = Write(
    name="replay_job_item_retract",
    columns={"job_id": "bigint", "outcome": "text"},
    postgresql="""
        update dead_letter_job_item i set outcome = null
        from {rows} where i.job_id = r.job_id and i.outcome = r.outcome
    """,
    sqlite="update dead_letter_job_item set outcome = null where job_id = :job_id and outcome = :outcome",
)
_TURN = Write(
    name="replay_job_turn",
    columns={"job_id": "bigint", "state": "text"},
    postgresql="""
        update dead_letter_job j set
            state = r.state, ended_at = case when r.state = 'done' then clock_timestamp() end
        from {rows} where j.job_id = r.job_id
    """,
    sqlite="""
        update dead_letter_job set state = :state, ended_at = case when :state = 'done' then :now end
        where job_id = :job_id
    """,
)
_JOBS = Statement.either("""
    select j.job_id, j.actor, j.why, j.wanted, j.created_at, j.state, j.ended_at,
           (select count(*) from dead_letter_job_item i where i.job_id = j.job_id) as letters,
           (select count(*) from dead_letter_job_item i where i.job_id = j.job_id and outcome is not null) as judged,
           (select max(at) from dead_letter_job_item i where i.job_id = j.job_id) as judged_at
    from dead_letter_job j
    where (cast(:only as bigint) is null or j.job_id = cast(:only as bigint))
      and (cast(:before as bigint) is null or j.job_id < cast(:before as bigint))
    order by j.job_id desc limit cast(:limit as bigint)
""")
_ITEMS = Statement.either("""
    select i.position, i.dead_letter_id, i.outcome, i.detail, i.at,
           d.name, d.message_id, d.saga_id, d.replayed_seq as seq
    from dead_letter_job_item i left join dead_letter d on d.dead_letter_id = i.dead_letter_id
    where i.job_id = cast(:job as bigint) order by i.position
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A replay of dead letters. `wanted` is how they were chosen; `judged` of its `letters` have a verdict.

    `state` is `running` (also when its process is no more: `judged_at`, the time of the latest verdict, tells),
    `stopped` or `done`.
    """

    job_id: int
    actor: str
    why: str
    wanted: Mapping[str, Any]
    created_at: datetime
    state: str
    ended_at: datetime | None
    letters: int
    judged: int
    judged_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A letter of a job; while it is kept, what it says and has caused. Without `outcome` its turn is to come."""

    position: int
    dead_letter_id: int
    outcome: str | None
    detail: str | None
    at: datetime | None
    name: str | None
    message_id: str | None
    saga_id: UUID | None
    seq: int | None


class ReplayJobs:
    """The jobs of one database; every call is a transaction of its own."""

    def __init__(self, database: Database) -> None:
        """`database` stays the caller's, who closes it."""
        self._database = database

    async def begin(self, ids: Sequence[int], *, actor: str, why: str, wanted: Mapping[str, object]) -> int:
        """The id of a new job over those letters, in that order."""
        async with self._database.write() as session:
            return await begin(session, ids, actor=actor, why=why, wanted=wanted, now=self._now())

    async def find(self, job_id: int) -> Job | None:
        """A job, or None."""
        found = await self._jobs(only=job_id, limit=1)
        return found[0] if found else None

    async def page(self, *, limit: int = 50, following: int | None = None) -> Sequence[Job]:
        """A page of jobs, the newest first. Any job's id is a place to go on from."""
        return await self._jobs(before=following, limit=limit)

    async def items(self, job_id: int) -> Sequence[Item]:
        """The letters of a job in the order of their turn."""
        async with self._database.read() as session:
            rows = await session.fetch(_ITEMS, {"job": job_id})
        return [_item(row) for row in rows]

    async def judge(self, job_id: int, position: int, outcome: str, detail: str) -> None:
        """Write down the verdict on the letter at this place; a later one replaces it."""
        await self._write(_JUDGE, (job_id, position, outcome, printable(detail, MAX_ERROR)))

    async def retract(self, job_id: int, outcome: str) -> None:
        """Give the letters with this verdict their turn once more; its `detail` stands until the next verdict falls."""
        await self._write(_RETRACT, (job_id, outcome))

    async def turn(self, job_id: int, state: str) -> None:
        """Write down where a job is: `running`, `stopped` or `done`."""
        await self._write(_TURN, (job_id, state))

    async def _write(self, write: Write, row: tuple[object, ...]) -> None:
        batch = Batch()
        batch.add(write, [row])
        async with self._database.write() as session:
            await session.write(batch, self._now())

    async def _jobs(self, *, limit: int, only: int | None = None, before: int | None = None) -> Sequence[Job]:
        async with self._database.read() as session:
            rows = await session.fetch(_JOBS, {"only": only, "before": before, "limit": limit})
        return [_job(row) for row in rows]

    def _now(self) -> datetime:
        return self._database.runner.now()


async def begin(
    session: Session, ids: Sequence[int], *, actor: str, why: str, wanted: Mapping[str, object], now: datetime
) -> int:
    """The id of a new job over those letters, within a transaction; `now` is the host's, for SQLite."""
    said: dict[str, object] = {"actor": printable(actor, MAX_NAME), "why": printable(why, MAX_ERROR)}
    said["wanted"] = json.dumps(wanted)
    [row] = await session.fetch(_CREATE, said if session.postgresql else said | {"now": now})
    batch = Batch()
    batch.add(_ADD_ITEM, [(row.job_id, position, each) for position, each in enumerate(ids, start=1)])
    await session.write(batch, now)
    return int(row.job_id)


def _job(row: Row[Any]) -> Job:
    moments = ("created_at", "ended_at", "judged_at")
    times = {name: None if (at := row._mapping[name]) is None else as_time(at) for name in moments}
    return Job(**{**row._mapping, **times, "wanted": json.loads(row.wanted)})


def _item(row: Row[Any]) -> Item:
    saga_id = None if row.saga_id is None else as_uuid(row.saga_id)
    return Item(**{**row._mapping, "at": None if row.at is None else as_time(row.at), "saga_id": saga_id})
