"""What waits for a queue that is gone: given up after long enough, or each name that somebody makes up would stay.

Only what no instance waits for: a reply, which is stored beside its command and goes out again when that is repeated,
and a dead letter that was given back, which is opened again.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from storage import dead_letters
from storage.statements import Batch, Statement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from storage.database import Session

AT_ONCE = 1_000
"""So many rows go in one transaction."""

_ROWS = f"""
    select {{what}} from outbox
    where exchange = '' and routing_key = {{queue}} and saga_id is null and created_at < {{long_ago}}
      and state in ('new', 'returned', 'unknown')
    order by outbox_id limit {AT_ONCE}
"""
_ON_POSTGRESQL = {
    "queue": "cast(:queue as text)",
    "long_ago": "now() - cast(:age as float8) * interval '1 second'",
}
_ON_SQLITE = {"queue": ":queue", "long_ago": ":long_ago"}
_LOCK_LETTERS = Statement.both(
    "select 1 from dead_letter where dead_letter_id in ("
    + _ROWS.format(what="dead_letter_id", **_ON_POSTGRESQL)
    + ") order by dead_letter_id for no key update"
)
_DELETE = Statement.of(
    postgresql="delete from outbox where outbox_id = any(array("
    + _ROWS.format(what="outbox_id", **_ON_POSTGRESQL)
    + " for update skip locked)) returning dead_letter_id",
    sqlite=f"delete from outbox where outbox_id in ({_ROWS.format(what='outbox_id', **_ON_SQLITE)}) "
    "returning dead_letter_id",
)

_REOPEN = """
    update dead_letter set
        status = 'open', resolved_at = null, resolved_by = null, resolved_why = null, replayed_seq = null,
        error = {error}, last_seen_at = {now}
    where dead_letter_id {these} and status = 'replayed' returning dead_letter_id
"""
_REOPENED = Statement.of(
    postgresql=_REOPEN.format(
        error="cast(:error as text)", now="clock_timestamp()", these="= any(cast(:ids as bigint[]))"
    ),
    sqlite=_REOPEN.format(error=":error", now=":now", these="in (select value from json_each(:ids))"),
)


async def abandon(session: Session, queue: str, age: float, now: datetime) -> Sequence[int | None]:
    """See `outbox.interface.Storage.abandon`. Joins the session's transaction; `now` is the host's, for SQLite."""
    wanted: dict[str, object] = {"queue": queue}
    wanted |= {"age": age} if session.postgresql else {"long_ago": now - timedelta(seconds=age)}
    if session.postgresql:  # in the order in which who gives one back locks them
        await session.fetch(_LOCK_LETTERS, wanted)
    gone = [row.dead_letter_id for row in await session.fetch(_DELETE, wanted)]
    letters = [letter for letter in gone if letter is not None]
    if letters:
        await _reopen(session, letters, queue, now)
    return gone


async def _reopen(session: Session, letters: Sequence[int], queue: str, now: datetime) -> None:
    error = (
        f"it was given back to queue {queue}, and there has been no such queue since; replay it once the queue is "
        "there, or discard it"
    )
    wanted: dict[str, object] = {"ids": sorted(letters), "error": error}
    batch = Batch()
    for row in await session.fetch(_REOPENED, wanted if session.postgresql else wanted | {"now": now}):
        dead_letters.record(
            batch, row.dead_letter_id, kind="reopened", actor=dead_letters.ANTIPHON, why="", detail=error
        )
    await session.write(batch, now)
