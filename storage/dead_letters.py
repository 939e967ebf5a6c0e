"""The rows of dead letters: raw and complete, one per message, with a count of its copies, and what was done with them.

A letter's row is the last that a transaction locks. Whoever decides what becomes of one locks it with `find`, and
writes what came of it together with everything else: `resolve` and `record` add to the batch of that transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from messages.printable import printable
from messages.value import value
from storage.properties import packed, unpacked
from storage.statements import Batch, Statement, Write, as_time, as_uuid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from messages.envelope import Raw
    from storage.database import Session

MAX_ERROR = 4_000
MAX_NAME = 255

ANTIPHON = "antiphon"
"""Who is recorded to have done what no person did."""

OPEN = "open"
REPLAYED = "replayed"
DISCARDED = "discarded"

_NEW = """
        consumer, source, message_id, name, body_hash, body, properties, reason, error_class, error, saga_id, queue,
        copies, first_seen_at, last_seen_at, status
"""
_AGAIN = """
    on conflict (consumer, source, message_id, body_hash) do update set
        copies = dead_letter.copies + excluded.copies, last_seen_at = excluded.last_seen_at, status = 'open',
        resolved_at = null, resolved_by = null, resolved_why = null, replayed_seq = null,
        reason = excluded.reason, error_class = excluded.error_class, error = excluded.error,
        saga_id = coalesce(excluded.saga_id, dead_letter.saga_id), queue = coalesce(excluded.queue, dead_letter.queue)
"""

KEEP = Write(
    name="dead_letter_keep",
    columns={
        "position": "bigint",
        "consumer": "text",
        "source": "text",
        "message_id": "text",
        "name": "text",
        "body_hash": "bytea",
        "body": "bytea",
        "properties": "text",
        "reason": "text",
        "error_class": "text",
        "error": "text",
        "saga_id": "uuid",
        "queue": "text",
        "copies": "bigint",
    },
    postgresql=f"""
        insert into dead_letter (dead_letter_id, {_NEW})
        select dead_letter_id, consumer, source, message_id, name, body_hash, body, properties, reason, error_class,
               error, saga_id, queue, copies, clock_timestamp(), clock_timestamp(), 'open'
        from (select nextval('dead_letter_dead_letter_id_seq') as dead_letter_id, o.*
              from (select * from {{rows}} order by position) as o) as numbered
        order by consumer, source, message_id, body_hash
        {_AGAIN}
    """,
    sqlite=f"""
        insert into dead_letter ({_NEW})
        values (:consumer, :source, :message_id, :name, :body_hash, :body, :properties, :reason, :error_class,
                :error, :saga_id, :queue, :copies, :now, :now, 'open') {_AGAIN}
    """,
)
"""Ids follow the order of arrival, rows are written in the order of their key: so no two writers deadlock."""

RESOLVE = Write(
    name="dead_letter_resolve",
    columns={
        "dead_letter_id": "bigint",
        "status": "text",
        "actor": "text",
        "why": "text",
        "saga_id": "uuid",
        "seq": "bigint",
    },
    postgresql="""
        update dead_letter d set
            status = r.status, resolved_at = clock_timestamp(), resolved_by = r.actor, resolved_why = r.why,
            saga_id = coalesce(r.saga_id, d.saga_id), replayed_seq = r.seq
        from {rows} where d.dead_letter_id = r.dead_letter_id and d.status = 'open' returning 1
    """,
    sqlite="""
        update dead_letter set
            status = :status, resolved_at = :now, resolved_by = :actor, resolved_why = :why,
            saga_id = coalesce(:saga_id, saga_id), replayed_seq = :seq
        where dead_letter_id = :dead_letter_id and status = 'open'
    """,
    checked=True,
)

FAIL = Write(
    name="dead_letter_fail",
    columns={"dead_letter_id": "bigint", "reason": "text", "error_class": "text", "error": "text", "saga_id": "uuid"},
    postgresql="""
        update dead_letter d set
            reason = r.reason, error_class = r.error_class, error = r.error, saga_id = coalesce(r.saga_id, d.saga_id),
            last_seen_at = clock_timestamp()
        from {rows} where d.dead_letter_id = r.dead_letter_id and d.status = 'open' returning 1
    """,
    sqlite="""
        update dead_letter set
            reason = :reason, error_class = :error_class, error = :error, saga_id = coalesce(:saga_id, saga_id),
            last_seen_at = :now
        where dead_letter_id = :dead_letter_id and status = 'open'
    """,
    checked=True,
)

_EVENT = "dead_letter_id, at, kind, actor, why, request_id, outcome, detail, saga_id, seq"
RECORD = Write(
    name="dead_letter_record",
    columns={
        "dead_letter_id": "bigint",
        "kind": "text",
        "actor": "text",
        "why": "text",
        "request_id": "text",
        "outcome": "text",
        "detail": "text",
        "saga_id": "uuid",
        "seq": "bigint",
    },
    postgresql=f"""
        insert into dead_letter_event ({_EVENT})
        select dead_letter_id, clock_timestamp(), kind, actor, why, request_id, outcome, detail, saga_id, seq
        from {{rows}}
    """,
    sqlite=f"""
        insert into dead_letter_event ({_EVENT})
        values (:dead_letter_id, :now, :kind, :actor, :why, :request_id, :outcome, :detail, :saga_id, :seq)
    """,
)

_SAME = (
    "d.consumer = {0}consumer and d.source = {0}source and d.message_id = {0}message_id and d.body_hash = {0}body_hash"
)
RECORD_IMPORTED = Write(
    name="dead_letter_record_imported",
    columns={
        "consumer": "text",
        "source": "text",
        "message_id": "text",
        "body_hash": "bytea",
        "actor": "text",
        "detail": "text",
    },
    postgresql=f"""
        insert into dead_letter_event (dead_letter_id, at, kind, actor, why, detail)
        select d.dead_letter_id, clock_timestamp(), 'imported', r.actor, '', r.detail
        from {{rows}} join dead_letter d on {_SAME.format("r.")}
    """,
    sqlite=f"""
        insert into dead_letter_event (dead_letter_id, at, kind, actor, why, detail)
        select d.dead_letter_id, :now, 'imported', :actor, '', :detail from dead_letter d where {_SAME.format(":")}
    """,
)
RECORD_REOPENED = Write(
    name="dead_letter_record_reopened",
    columns={
        "consumer": "text",
        "source": "text",
        "message_id": "text",
        "body_hash": "bytea",
        "detail": "text",
    },
    postgresql=f"""
        insert into dead_letter_event (dead_letter_id, at, kind, actor, why, detail)
        select d.dead_letter_id, clock_timestamp(), 'reopened', 'antiphon', '', r.detail
        from {{rows}} join dead_letter d on {_SAME.format("r.")} where d.status <> 'open'
    """,
    sqlite=f"""
        insert into dead_letter_event (dead_letter_id, at, kind, actor, why, detail)
        select d.dead_letter_id, :now, 'reopened', 'antiphon', '', :detail
        from dead_letter d where {_SAME.format(":")} and d.status <> 'open'
    """,
)
"""To be written before `KEEP`, which opens them; on PostgreSQL both see the letters as they were."""
_KEPT = Statement.of(
    postgresql="""
        select 1 from dead_letter
        where consumer = cast(:consumer as text) and source = cast(:source as text)
          and message_id = cast(:message_id as text) and body_hash = cast(:body_hash as bytea)
          and properties = cast(:properties as text)
    """,
    sqlite=f"select 1 from dead_letter d where {_SAME.format(':')} and d.properties = :properties",
)

_FOUND = """
    dead_letter_id, consumer, source, message_id, name, body_hash, body, properties, reason, error_class, error,
    saga_id, queue, replaces, status, resolved_at, resolved_by, resolved_why, replayed_seq
"""
_FIND = f"select {_FOUND} from dead_letter where dead_letter_id = {{id}}"
_READ = Statement.of(postgresql=_FIND.format(id="cast(:id as bigint)"), sqlite=_FIND.format(id=":id"))
_LOCK = Statement.of(
    postgresql=_FIND.format(id="cast(:id as bigint)") + " for no key update", sqlite=_FIND.format(id=":id")
)

_REPLACING = """
        insert into dead_letter (reason, error_class, error, consumer, saga_id, queue, replaces, copies, status,
                                 name, source, message_id, body_hash, body, properties, first_seen_at, last_seen_at)
        select 'edited', '', 'made of dead letter ' || dead_letter_id, consumer, saga_id, queue, dead_letter_id, 1,
               'open',
"""
_REPLACE = Statement.of(
    postgresql=f"""
        {_REPLACING}
               cast(:name as text), cast(:source as text), cast(:message_id as text), cast(:body_hash as bytea),
               cast(:body as bytea), cast(:properties as text), clock_timestamp(), clock_timestamp()
        from dead_letter where dead_letter_id = cast(:id as bigint) and status = 'open' returning dead_letter_id
    """,
    sqlite=f"""
        {_REPLACING}
               :name, :source, :message_id, :body_hash, :body, :properties, :now, :now
        from dead_letter where dead_letter_id = :id and status = 'open' returning dead_letter_id
    """,
)
_RECORDED = Statement.of(
    postgresql="""
        select kind, outcome, detail, saga_id, seq from dead_letter_event
        where dead_letter_id = cast(:id as bigint) and request_id = cast(:request as text)
        order by event_id desc limit 1
    """,
    sqlite="""
        select kind, outcome, detail, saga_id, seq from dead_letter_event
        where dead_letter_id = :id and request_id = :request order by event_id desc limit 1
    """,
)


@value
class Letter:
    """A dead letter as it stands. `resolved_…` is None while it is open; `replayed_seq` is what its replay caused."""

    dead_letter_id: int
    consumer: str
    source: str
    message_id: str
    name: str
    body_hash: bytes
    raw: Raw
    reason: str
    error_class: str
    error: str
    saga_id: UUID | None
    queue: str | None
    replaces: int | None
    status: str
    resolved_at: datetime | None
    resolved_by: str | None
    resolved_why: str | None
    replayed_seq: int | None


async def find(session: Session, dead_letter_id: int, *, lock: bool = False) -> Letter | None:
    """A dead letter, or None. With `lock` it stays as it is until the transaction ends: lock nothing else after it."""
    rows = await session.fetch(_LOCK if lock else _READ, {"id": dead_letter_id})
    if not rows:
        return None
    [row] = rows
    values = dict(row._mapping)
    body, properties = bytes(values.pop("body")), values.pop("properties")
    return Letter(
        **{
            **values,
            "body_hash": bytes(row.body_hash),
            "saga_id": None if row.saga_id is None else as_uuid(row.saga_id),
            "resolved_at": None if row.resolved_at is None else as_time(row.resolved_at),
        },
        raw=unpacked(body, properties),
    )


@value
class Recorded:
    """What came of a request that concerned a letter, as it was written down."""

    outcome: str
    detail: str
    saga_id: UUID | None
    seq: int | None


async def recorded(session: Session, dead_letter_id: int, request_id: str) -> Recorded | None:
    """What came of that request, if it was carried out."""
    rows = await session.fetch(_RECORDED, {"id": dead_letter_id, "request": request_id})
    if not rows:
        return None
    row = rows[0]
    saga_id = None if row.saga_id is None else as_uuid(row.saga_id)
    return Recorded(outcome=row.outcome or row.kind, detail=row.detail, saga_id=saga_id, seq=row.seq)


def resolve(
    batch: Batch,
    dead_letter_id: int,
    *,
    status: str,
    actor: str,
    why: str,
    saga_id: UUID | None = None,
    seq: int | None = None,
) -> None:
    """Have an open letter marked `replayed` or `discarded`, with the history that its replay caused.

    Writing it raises `storage.database.ChangedMeanwhile` when it is not open any more.
    """
    row = (dead_letter_id, status, printable(actor, MAX_NAME), printable(why, MAX_ERROR), saga_id, seq)
    batch.add(RESOLVE, [row])


def fail(batch: Batch, dead_letter_id: int, *, reason: str, error_class: str, error: str, saga_id: UUID | None) -> None:
    """Have an open letter say why it failed again; it stays open.

    Writing it raises `storage.database.ChangedMeanwhile` when it is not open any more.
    """
    row = (dead_letter_id, reason, printable(error_class, MAX_NAME), printable(error, MAX_ERROR), saga_id)
    batch.add(FAIL, [row])


async def replace_by(
    session: Session,
    dead_letter_id: int,
    raw: Raw,
    *,
    name: str,
    source: str,
    body_hash: bytes,
    actor: str,
    why: str,
    now: datetime,
) -> int | None:
    """Write an edited letter in the place of an open one, which is discarded then; returns its id.

    Its reason is `edited`, until it fails for one of its own. None: the letter is not open any more. `now` is the
    host's, for SQLite. Joins the session's transaction.
    """
    edited: dict[str, object] = {
        "id": dead_letter_id,
        "name": printable(name, MAX_NAME),
        "source": printable(source, MAX_NAME),
        "message_id": raw.message_id,
        "body_hash": body_hash,
        "body": raw.body,
        "properties": packed(raw),
    }
    rows = await session.fetch(_REPLACE, edited if session.postgresql else edited | {"now": now})
    if not rows:
        return None
    new = int(rows[0].dead_letter_id)
    batch = Batch()
    resolve(
        batch, dead_letter_id, status=DISCARDED, actor=actor, why=f"replaced by dead letter {new}, an edited one: {why}"
    )
    record(batch, dead_letter_id, kind="edited", actor=actor, why=why, detail=f"replaced by dead letter {new}")
    record(batch, new, kind="edited", actor=actor, why=why, detail=f"made of dead letter {dead_letter_id}")
    await session.write(batch, now)
    return new


def record(
    batch: Batch,
    dead_letter_id: int,
    *,
    kind: str,
    actor: str,
    why: str,
    request_id: str | None = None,
    outcome: str | None = None,
    detail: str = "",
    saga_id: UUID | None = None,
    seq: int | None = None,
) -> None:
    """Have it written down what was done with a letter, by the database's clock.

    `kind` is `imported`, `replayed`, `failed_again`, `given_back`, `reopened`, `edited` or `discarded`; `outcome` is
    the verdict on a replay; `request_id` tells a request that was made twice. (`Letters.save` writes `reopened`, too.)
    """
    said = (printable(actor, MAX_NAME), printable(why, MAX_ERROR))
    row = (dead_letter_id, kind, *said, request_id, outcome, printable(detail, MAX_ERROR), saga_id, seq)
    batch.add(RECORD, [row])


Key = tuple[str, str, str, bytes]
"""(consumer, source, message id, body hash): what makes two messages copies of one letter."""


def key_of(consumer: str, source: str, message_id: str, body_hash: bytes) -> Key:
    """The key as the row has it."""
    return consumer, printable(source, MAX_NAME), printable(message_id, MAX_NAME), body_hash


async def is_kept(session: Session, key: Key, raw: Raw) -> bool:
    """Whether this very message is there, with the same properties: not another copy of it."""
    consumer, source, message_id, body_hash = key
    same = {"consumer": consumer, "source": source, "message_id": message_id, "body_hash": body_hash}
    return bool(await session.fetch(_KEPT, same | {"properties": packed(raw)}))


def record_imported(batch: Batch, letters: Sequence[tuple[Key, str]], *, actor: str) -> None:
    """Have it written down that letters came from the broker, with what is known of it; they must be there already."""
    batch.add(RECORD_IMPORTED, [(*key, actor, printable(detail, MAX_ERROR)) for key, detail in letters])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Letter:
    name: str
    raw: Raw
    reason: str
    error_class: str
    error: str
    saga_id: UUID | None
    queue: str | None
    copies: int


class Letters:
    """Dead letters gathered for one batch: copies of one message become one row."""

    def __init__(self) -> None:
        self._rows: dict[Key, _Letter] = {}

    def add(
        self,
        *,
        consumer: str,
        source: str,
        message_id: str,
        name: str,
        raw: Raw,
        body_hash: bytes,
        reason: str,
        error_class: str,
        error: str,
        saga_id: UUID | None,
        queue: str | None,
    ) -> None:
        """Have this message kept. What came from outside is made fit for a column; `raw` is kept as it was."""
        key = key_of(consumer, source, message_id, body_hash)
        earlier = self._rows.get(key)
        copies = 1
        if earlier is not None:
            saga_id, queue = saga_id or earlier.saga_id, queue or earlier.queue
            copies += earlier.copies
        self._rows[key] = _Letter(
            name=printable(name, MAX_NAME),
            raw=raw,
            reason=reason,
            error_class=printable(error_class, MAX_NAME),
            error=printable(error, MAX_ERROR),
            saga_id=saga_id,
            queue=queue,
            copies=copies,
        )

    def save(self, batch: Batch) -> None:
        """Add the rows in the order of their arrival."""
        batch.add(
            RECORD_REOPENED,
            [(*key, f"a copy of it failed, {letter.reason}: {letter.error}") for key, letter in self._rows.items()],
        )
        batch.add(KEEP, [_row(position, *row) for position, row in enumerate(self._rows.items())])


def _row(position: int, key: Key, letter: _Letter) -> tuple[object, ...]:
    consumer, source, message_id, body_hash = key
    return (
        position,
        consumer,
        source,
        message_id,
        letter.name,
        body_hash,
        letter.raw.body,
        packed(letter.raw),
        letter.reason,
        letter.error_class,
        letter.error,
        letter.saga_id,
        letter.queue,
        letter.copies,
    )
