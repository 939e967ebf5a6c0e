"""The read side of dead letters: lists, groups, and one with everything that was done with it.

Nothing here locks or writes. A list is paged: a page names where the next one begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from storage.answers import (
    DeadLetterDetail,
    DeadLetterEvent,
    DeadLetterFilter,
    DeadLetterGroup,
    DeadLetterPage,
    DeadLetterSummary,
)
from storage.properties import unpacked
from storage.statements import Statement, as_time, as_uuid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row

    from storage.database import Database

__all__ = [
    "LETTER_COLUMNS",
    "DeadLetterDetail",
    "DeadLetterEvent",
    "DeadLetterFilter",
    "DeadLetterGroup",
    "DeadLetterPage",
    "DeadLetterSummary",
    "LetterQueries",
    "letter_summary",
]

_ALL = 2**62  # SQLite knows no other limit that is none

LETTER_COLUMNS = ", ".join(DeadLetterSummary.__dataclass_fields__)

_ANY = " and ".join(
    f"(cast(:{name} as {kind}) is null or {column} {compared} cast(:{name} as {kind}))"
    for name, column, compared, kind in (
        ("status", "status", "=", "text"),
        ("reason", "reason", "=", "text"),
        ("error_class", "error_class", "=", "text"),
        ("name", "name", "=", "text"),
        ("consumer", "consumer", "=", "text"),
        ("saga_id", "saga_id", "=", "uuid"),
        ("since", "last_seen_at", ">=", "timestamptz"),
        ("until", "first_seen_at", "<", "timestamptz"),
    )
)


def _wanted(sql: str) -> Statement:
    """A statement over those that a filter wants; `{wanted}` stands for the condition."""
    both = Statement.either
    chosen = "dead_letter_id in (select cast(value as bigint) from json_array_elements_text(cast(:ids as json)))"
    on_sqlite = "dead_letter_id in (select value from json_each(:ids))"
    texts = [
        both(sql.replace("{wanted}", f"(cast(:ids as text) is null or {only}) and {_ANY}"))
        for only in (chosen, on_sqlite)
    ]
    return Statement(postgresql=texts[0].postgresql, sqlite=texts[1].sqlite)


_PAGE = _wanted(f"""
    select {LETTER_COLUMNS} from v_dead_letter
    where {{wanted}} and (cast(:before as bigint) is null or dead_letter_id < cast(:before as bigint))
    order by dead_letter_id desc limit cast(:limit as bigint)
""")
_IDS = _wanted("""
    select dead_letter_id from v_dead_letter where {wanted}
    order by dead_letter_id limit cast(:limit as bigint)
""")
_GROUPS = _wanted("""
    select reason, error_class, name, consumer, count(*) as letters, cast(sum(copies) as bigint) as copies,
           min(first_seen_at) as oldest, max(last_seen_at) as newest
    from v_dead_letter where {wanted}
    group by reason, error_class, name, consumer
    order by count(*) desc, reason, error_class, name, consumer limit cast(:limit as bigint)
""")
_DETAIL = Statement.either(f"""
    select {LETTER_COLUMNS}, source, body, properties from dead_letter where dead_letter_id = cast(:id as bigint)
""")
_EVENT_COLUMNS = ", ".join(DeadLetterEvent.__dataclass_fields__)
_EVENTS = Statement.either(f"""
    select {_EVENT_COLUMNS} from dead_letter_event where dead_letter_id = cast(:id as bigint) order by event_id
""")


class LetterQueries:
    """Questions about dead letters; each opens a read-only transaction of its own."""

    def __init__(self, database: Database) -> None:
        """`database` stays the caller's, who closes it."""
        self._database = database

    async def page(
        self, wanted: DeadLetterFilter | None = None, *, limit: int = 50, following: int | None = None
    ) -> DeadLetterPage:
        """A page of dead letters, the newest first. Any dead letter's id is a place to go on from."""
        rows = await self._rows(_PAGE, wanted, limit=limit + 1, before=following)
        page = [letter_summary(row) for row in rows[:limit]]
        return DeadLetterPage(dead_letters=page, following=page[-1].dead_letter_id if len(rows) > limit else None)

    async def ids(self, wanted: DeadLetterFilter, *, limit: int | None) -> Sequence[int]:
        """The ids of those wanted in the order of their arrival, which is that of their instances too."""
        return [row.dead_letter_id for row in await self._rows(_IDS, wanted, limit=limit or _ALL)]

    async def groups(self, wanted: DeadLetterFilter | None = None, *, limit: int = 50) -> Sequence[DeadLetterGroup]:
        """Those wanted, put together by reason, class of error, message name and consumer; the largest group first."""
        return [
            DeadLetterGroup(**{**row._mapping, "oldest": as_time(row.oldest), "newest": as_time(row.newest)})
            for row in await self._rows(_GROUPS, wanted, limit=limit)
        ]

    async def detail(self, dead_letter_id: int) -> DeadLetterDetail | None:
        """One dead letter with its message and what was done with it, or None."""
        async with self._database.read() as session:
            rows = await session.fetch(_DETAIL, {"id": dead_letter_id})
            events = await session.fetch(_EVENTS, {"id": dead_letter_id})
        if not rows:
            return None
        [row] = rows
        return DeadLetterDetail(
            summary=letter_summary(row),
            source=row.source,
            raw=unpacked(bytes(row.body), row.properties),
            events=[_event(each) for each in events],
        )

    async def _rows(
        self, statement: Statement, wanted: DeadLetterFilter | None, **more: int | None
    ) -> Sequence[Row[Any]]:
        wanted = wanted or DeadLetterFilter()
        parameters = {name: getattr(wanted, name) for name in DeadLetterFilter.__dataclass_fields__}
        parameters["ids"] = None if wanted.ids is None else str([*wanted.ids])
        async with self._database.read() as session:
            return await session.fetch(statement, parameters | more)


def letter_summary(row: Row[Any]) -> DeadLetterSummary:
    """A row of `v_dead_letter`."""
    values = {name: row._mapping[name] for name in DeadLetterSummary.__dataclass_fields__}
    values["saga_id"] = None if row.saga_id is None else as_uuid(row.saga_id)
    for name in ("first_seen_at", "last_seen_at", "resolved_at"):
        values[name] = None if values[name] is None else as_time(values[name])
    return DeadLetterSummary(**values)


def _event(row: Row[Any]) -> DeadLetterEvent:
    saga_id = None if row.saga_id is None else as_uuid(row.saga_id)
    return DeadLetterEvent(**{**row._mapping, "at": as_time(row.at), "saga_id": saga_id})
