"""SQLite's driver with one way into the connection's thread per statement, or for several statements at once.

The driver runs every call in a thread of its own, and as SQLAlchemy uses it one statement is four of them: each costs
more than the statement. Knows no table and no transaction.
"""

from __future__ import annotations

import sqlite3
from collections import deque, namedtuple
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

import aiosqlite
from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_connection,
    AsyncAdapt_aiosqlite_cursor,
    AsyncAdapt_aiosqlite_dbapi,
)
from sqlalchemy.util import await_only

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.pool import ConnectionPoolEntry

    from storage.turns import Turn

T = TypeVar("T")

_CLOSED = ("no active connection", "Connection closed")  # the driver's words for what is no more


class Direct:
    """A connection as whoever runs in its thread has it. Errors are the driver's own."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, parameters: Mapping[str, object]) -> Sequence[Row[Any]]:
        """Run one statement and return its rows, their columns as attributes; none when it returns none."""
        cursor = self._connection.execute(sql, parameters)
        if cursor.description is None:
            return ()
        shape = _shape(tuple(column[0] for column in cursor.description))
        return cast("Sequence[Row[Any]]", [shape(*row) for row in cursor])

    def many(self, sql: str, rows: Sequence[Mapping[str, object]]) -> int:
        """Run one statement once per row; returns how many rows of the table it changed."""
        return self._connection.executemany(sql, rows).rowcount


def behind(connection: AsyncConnection) -> Connection:
    """What stands behind an open connection of SQLAlchemy's."""
    sync = connection.sync_connection
    assert sync is not None  # noqa: S101 - it is open
    return cast("Connection", sync.connection.dbapi_connection)


async def in_thread(handle: aiosqlite.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """Run something in the connection's thread, behind whatever it is at.

    Raises:
        ConnectionError: it is closed.
    """
    try:
        # The driver has no public way to do several things in one go.
        return cast("T", await handle._execute(lambda: work(handle._conn)))  # type: ignore[no-untyped-call]
    except ValueError as error:
        if str(error) in _CLOSED:
            raise ConnectionError("the connection to the database file was closed") from error
        raise


@cache
def _shape(names: tuple[str, ...]) -> type[tuple[Any, ...]]:
    shape = namedtuple("Row", names, rename=True)  # type: ignore[misc]
    shape._mapping = property(lambda row: row._asdict())  # type: ignore[attr-defined]  # as SQLAlchemy's rows have it
    return shape


class _Cursor(AsyncAdapt_aiosqlite_cursor):
    """Everything about a statement in one go: it is run, read to the end and closed."""

    __slots__ = ("_description", "_lastrowid", "_rowcount")

    def __init__(self, adapt_connection: Connection) -> None:
        self._adapt_connection = adapt_connection
        self._connection = adapt_connection._connection
        self._rows = deque()
        self._description: Any = None
        self._rowcount = self._lastrowid = -1

    def execute(self, operation: Any, parameters: Any = None) -> Any:  # noqa: ANN401 - as the driver has it
        self._run(lambda connection: connection.execute(operation, parameters or ()))

    def executemany(self, operation: Any, seq_of_parameters: Any) -> Any:  # noqa: ANN401
        self._run(lambda connection: connection.executemany(operation, seq_of_parameters))

    def _run(self, work: Callable[[sqlite3.Connection], sqlite3.Cursor]) -> None:
        def whole(connection: sqlite3.Connection) -> tuple[Any, ...]:
            cursor = work(connection)
            rows = cursor.fetchall() if cursor.description else ()
            done = cursor.description, rows, cursor.rowcount, cursor.lastrowid
            cursor.close()
            return done

        try:
            done = await_only(cast("Connection", self._adapt_connection).run(whole))
        except ConnectionError as error:
            raise sqlite3.OperationalError(_CLOSED[1]) from error  # which SQLAlchemy knows for a lost connection
        self._description, rows, self._rowcount, self._lastrowid = done
        self._rows = deque(rows)

    @property
    def description(self) -> Any:  # noqa: ANN401
        return self._description

    @property
    def rowcount(self) -> int:
        return self._rowcount

    @property
    def lastrowid(self) -> int:
        return self._lastrowid

    @property
    def arraysize(self) -> int:
        return 1

    @arraysize.setter
    def arraysize(self, value: int) -> None:
        """All rows are here, whatever is asked for."""

    def close(self) -> None:
        self._rows.clear()

    async def _async_soft_close(self) -> None:
        """Nothing is open."""


class Connection(AsyncAdapt_aiosqlite_connection):
    """A connection that reads, with transactions of its own."""

    __slots__ = ()
    _cursor_cls = _Cursor  # type: ignore[assignment]  # it makes do with less
    _ss_cursor_cls = _Cursor  # type: ignore[assignment]  # what is streamed is read whole, and in turn

    @property
    def handle(self) -> aiosqlite.Connection:
        """The driver's connection."""
        return cast("aiosqlite.Connection", self._connection)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """See `in_thread`."""
        return await in_thread(self.handle, work)


class Writer(Connection):
    """The connection that all transactions take turns on.

    `turn` is who has it, and ends it by itself. `opening` begins the transaction, with the first thing that is done.
    """

    __slots__ = ("entry", "gone", "opening", "turn")

    entry: ConnectionPoolEntry | None  # where it stands in its pool
    gone: bool
    opening: str
    turn: Turn | None

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """See `in_thread`; begins the transaction on the way."""
        opening, self.opening = self.opening, ""
        inside = self.turn is not None and opening != "BEGIN IMMEDIATE"

        def opened(connection: sqlite3.Connection) -> T:
            if inside and not connection.in_transaction:
                raise ConnectionError("the database has rolled back what was not committed")
            if opening:
                try:
                    connection.execute(opening)
                except sqlite3.Error:
                    self.opening = opening  # nothing is begun
                    raise
            return work(connection)

        return await in_thread(self.handle, opened)

    def throw_away(self) -> None:
        """Have it closed as soon as its thread comes to that, and a new one made for whoever comes next."""
        if self.entry is not None:
            self.entry.invalidate(soft=True)
        self.terminate()

    def terminate(self) -> None:
        """Have it closed as soon as its thread comes to that; nobody waits."""
        if not self.gone:
            self.gone = True
            self.handle.stop()

    def close(self) -> None:
        """Close it, and wait for that."""
        if not self.gone:
            self.gone = True
            super().close()

    def commit(self) -> None:
        """The turn commits, together with others."""

    def rollback(self) -> None:
        """The engine's `rollback` event has done it, for the turn of that connection."""


class Driver(AsyncAdapt_aiosqlite_dbapi):
    """What SQLAlchemy takes for the driver's module."""

    def __init__(self, kind: type[Connection]) -> None:
        super().__init__(aiosqlite, sqlite3)
        self._kind = kind

    def connect(self, *arguments: Any, **named: Any) -> Connection:  # noqa: ANN401 - as the driver has it
        """Open one, of the kind that is wanted."""
        connection = self._kind(self, super().connect(*arguments, **named)._connection)
        if isinstance(connection, Writer):
            connection.turn = connection.entry = None
            connection.gone, connection.opening = False, ""
        return connection
