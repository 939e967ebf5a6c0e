"""One meaning, two texts: statements for PostgreSQL and for SQLite, and how many rows become one statement.

On PostgreSQL a batch of rows travels as one array per column and is unfolded by `unnest`; any number of writes is one
statement made of data-modifying CTEs. On SQLite each write is run once per row, in one call. Knows no table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import TextClause, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

POSTGRESQL = "postgresql"
SQLITE = "sqlite"


def time_text(moment: datetime) -> str:
    """A moment as SQLite stores it: ISO-8601 in UTC, always 27 characters, so that it compares as text."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def as_uuid(value: UUID | str) -> UUID:
    """A UUID column's value, from either database."""
    return value if isinstance(value, UUID) else UUID(value)


def as_time(value: datetime | str) -> datetime:
    """A time column's value, from either database: aware, UTC."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


def sqlite_value(value: object) -> object:
    """A parameter as SQLite takes it: UUIDs and times as text, lists as JSON."""
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, (list, tuple)):
        return json.dumps([_plain(item) for item in value])
    return value


def sqlite_values(parameters: Mapping[str, object]) -> dict[str, object]:
    """Parameters as SQLite takes them."""
    return {name: sqlite_value(value) for name, value in parameters.items()}


def _plain(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return sqlite_value(value)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement in both dialects. `:now` is bound on SQLite to the host's clock where the text uses it."""

    postgresql: TextClause
    sqlite: TextClause

    @property
    def on_sqlite(self) -> str:
        """The text as SQLite's driver takes it."""
        return self.sqlite.text

    @classmethod
    def of(cls, *, postgresql: str, sqlite: str) -> Statement:
        """From the two texts."""
        return cls(text(postgresql), text(sqlite))

    @classmethod
    def either(cls, sql: str) -> Statement:
        """From one text whose parameters are cast to PostgreSQL's types where that must be told."""
        sqlite = sql
        for kind in ("timestamptz", "uuid"):
            sqlite = sqlite.replace(f"as {kind})", "as text)")
        return cls.of(postgresql=sql, sqlite=sqlite.replace("as bigint)", "as integer)"))

    @classmethod
    def both(cls, sql: str) -> Statement:
        """From one text that both understand."""
        return cls.of(postgresql=sql, sqlite=sql)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Write:
    """A write of many rows.

    `postgresql` reads its rows from `{rows}`, whose columns are named as in `columns`; further parameters are written
    `{param}name`. `sqlite` names the columns of one row as parameters, and `:now` where it needs the time.
    `checked` promises that every row hits exactly one row of the table.
    """

    name: str
    columns: Mapping[str, str]
    postgresql: str
    sqlite: str
    checked: bool = False

    def parameters(self, rows: Sequence[Sequence[object]]) -> dict[str, object]:
        """The rows as one array per column, for PostgreSQL."""
        return {f"{self.name}_{column}": list(values) for column, values in zip(self.columns, zip(*rows, strict=True))}  # noqa: B905

    def row_parameters(self, rows: Sequence[Sequence[object]], now: datetime) -> list[dict[str, object]]:
        """The rows as parameters of one execution each, for SQLite."""
        moment = time_text(now)
        return [
            {column: sqlite_value(value) for column, value in zip(self.columns, row, strict=True)} | {"now": moment}
            for row in rows
        ]

    def cte(self) -> str:
        """This write as a common table expression of a larger statement."""
        arrays = ", ".join(f"cast(:{self.name}_{column} as {kind}[])" for column, kind in self.columns.items())
        rows = f"unnest({arrays}) as r({', '.join(self.columns)})"
        return f"{self.name} as ({self.postgresql.replace('{rows}', rows)})"


@dataclass(slots=True)
class Batch:
    """Writes gathered in order, to be carried out by one call of `storage.database.Session.write`."""

    writes: list[tuple[Write, Sequence[Sequence[object]]]] = field(default_factory=list)

    def add(self, write: Write, rows: Sequence[Sequence[object]]) -> None:
        """Have these rows written, together with those that the same write got before; nothing when there are none."""
        if not rows:
            return
        for place, (known, before) in enumerate(self.writes):
            if known is write:  # a composed statement has it once
                self.writes[place] = (write, [*before, *rows])
                return
        self.writes.append((write, rows))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """What comes before or after the writes of a composed PostgreSQL statement: CTEs of its own and what they select.

    The selected columns are (part, item, amount): a word, and two whole numbers.
    """

    ctes: str
    select: str


@cache
def composed(writes: tuple[Write, ...], head: Part | None = None, tail: Part | None = None) -> TextClause:
    """All writes as one PostgreSQL statement, which also counts the rows of each checked write.

    What the head selects is evaluated before anything is written that nobody selects from.
    """
    ctes = [write.cte() for write in writes]
    selects = [
        f"select '{write.name}' as part, null::bigint as item, count(*) as amount from {write.name}"
        for write in writes
        if write.checked
    ]
    if head is not None:
        ctes.insert(0, head.ctes)
        selects.insert(0, head.select)
    if tail is not None:
        ctes.append(tail.ctes)
        selects.append(tail.select)
    return text(f"with {', '.join(ctes)} {' union all '.join(selects) or 'select 1 where false'}")
