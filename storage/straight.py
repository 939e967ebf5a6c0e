"""PostgreSQL's driver with nothing in between, for one statement that commits by itself.

The connection is SQLAlchemy's, and so are the texts. What it does around a statement takes several times what the
driver does for it, and a lone message is little else than two statements. Knows no table.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

from asyncpg import DataError, PostgresError
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.engine import result_tuple
from sqlalchemy.util import greenlet_spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asyncpg import Connection
    from sqlalchemy import Executable, QueuePool, Row
    from sqlalchemy.pool import PoolProxiedConnection
    from sqlalchemy.sql.compiler import SQLCompiler

DRIVER = "asyncpg"
_DIALECT = dialect()  # type: ignore[no-untyped-call]
_HARMLESS = "ERROR"  # the severity after which a session goes on


class Straight:
    """A connection of the pool's, as its driver has it.

    `intact`: nothing is under way on it, and nothing has broken it.
    """

    def __init__(self, lent: PoolProxiedConnection) -> None:
        self._lent = lent
        self._driver = cast("Connection", lent.driver_connection)
        self.intact = not self._driver.is_closed()

    async def rows(self, clause: Executable, parameters: Mapping[str, object], *, within: float) -> Sequence[Row[Any]]:
        """Run one statement and return its rows, their columns as attributes. Errors are the driver's own.

        Raises:
            TimeoutError: there was no answer within so many seconds; the statement is cancelled at the server.
        """
        sql, names = _positional(clause)
        self.intact = False
        try:
            records = await self._driver.fetch(sql, *[parameters[name] for name in names], timeout=within)
        except DataError:  # of the driver's own: nothing was sent
            self.intact = True
            raise
        except PostgresError as error:
            self.intact = getattr(error, "severity_en", None) == _HARMLESS
            raise
        self.intact = True
        if not records:
            return ()
        row = _shape(tuple(records[0].keys()))
        return [row(cast("Sequence[object]", record)) for record in records]

    def give_back(self) -> None:
        """Let others use it. It has no transaction to undo."""
        self._lent.close()

    async def throw_away(self) -> None:
        """Close it; what may still be under way is cancelled at the server, which takes a while."""
        await greenlet_spawn(self._lent.invalidate)

    def forget(self) -> None:
        """The server has closed it."""
        self._lent.invalidate()


async def taken(pool: QueuePool) -> Straight | None:
    """A connection that lies in the pool, and is open; None where it would have to wait for one."""
    while pool.checkedin():
        straight = Straight(await greenlet_spawn(pool.connect))
        if straight.intact:
            return straight
        straight.forget()
    return None


@cache
def _positional(clause: Executable) -> tuple[str, Sequence[str]]:
    """The text as the driver takes it, and which parameters it takes, in order."""
    compiled = cast("SQLCompiler", clause.compile(dialect=_DIALECT))  # type: ignore[attr-defined]
    return str(compiled), compiled.positiontup or ()


@cache
def _shape(columns: tuple[str, ...]) -> Callable[[Sequence[object]], Row[Any]]:
    return result_tuple(columns)
