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

_WIDE = 6  # columns: from there on it is worth a statement of its own to spell rows out
_FEW = 4  # rows; each number of them makes another statement


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


def rows_of(name: str, columns: Mapping[str, str], spelled: int = 0) -> str:
    """Rows as PostgreSQL reads them out of parameters, under the alias `r`.

    An array per column fits any number of rows. For very few it is dear, to the driver and to the server, which sets up
    a store for each column: these can be `spelled` out.
    """
    named = f"as r({', '.join(columns)})"
    if not spelled:
        arrays = ", ".join(f"cast(:{name}_{column} as {kind}[])" for column, kind in columns.items())
        return f"unnest({arrays}) {named}"
    values = (
        ", ".join(f"cast(:{name}_{column}_{row} as {kind})" for column, kind in columns.items())
        for row in range(spelled)
    )
    return f"(values {', '.join(f'({row})' for row in values)}) {named}"


def spelled(rows: Sequence[object], columns: Mapping[str, str]) -> int:
    """How many rows to spell out: all or none."""
    return len(rows) if len(rows) <= _FEW and len(columns) >= _WIDE else 0


def parameters_of(
    rows: Sequence[Sequence[object]], name: str, columns: Mapping[str, str], *, spelled: bool
) -> dict[str, object]:
    """The parameters of `rows_of`."""
    if spelled:
        return {
            f"{name}_{column}_{row}": cell
            for row, cells in enumerate(rows)
            for column, cell in zip(columns, cells, strict=True)
        }
    return {f"{name}_{column}": list(cells) for column, cells in zip(columns, zip(*rows, strict=True), strict=True)}


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

    def parameters(self, rows: Sequence[Sequence[object]], *, spelled: bool = False) -> dict[str, object]:
        """The rows for PostgreSQL: one array per column, or `spelled` out."""
        return parameters_of(rows, self.name, self.columns, spelled=spelled)

    def row_parameters(self, rows: Sequence[Sequence[object]], now: datetime) -> list[dict[str, object]]:
        """The rows as parameters of one execution each, for SQLite."""
        moment = time_text(now)
        return [
            {column: sqlite_value(value) for column, value in zip(self.columns, row, strict=True)} | {"now": moment}
            for row in rows
        ]

    def cte(self, spelled: int = 0) -> str:
        """This write as a common table expression of a larger statement; with as many rows `spelled` out, if any."""
        return f"{self.name} as ({self.postgresql.replace('{rows}', rows_of(self.name, self.columns, spelled))})"


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
def composed(
    writes: tuple[Write, ...], few: tuple[int, ...], head: Part | None = None, tail: Part | None = None
) -> TextClause:
    """All writes as one PostgreSQL statement, which also counts the rows of each checked write.

    `few` says for each write how many rows are spelled out, if any are. What the head selects is evaluated before
    anything is written that nobody selects from.
    """
    ctes = [write.cte(rows) for write, rows in zip(writes, few, strict=True)]
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
