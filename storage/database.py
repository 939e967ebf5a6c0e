"""The database as the rest of the program borrows it: read, write, and a session that runs statements within a bound.

Every await is bounded, every error is one of `messages.errors`, and a connection that is in doubt never returns to the
pool. On SQLite one writer at a time waits its turn in order, so that nobody meets a locked database.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import QueuePool, event

from messages.errors import CommitUnknown, DatabaseAway, DatabaseBusy
from storage.engine import CONNECT_SECONDS, DEFAULT_NAMESPACE, POOL_SIZE, STATEMENT_SECONDS, TURN, create
from storage.failures import RAISED_BY_DRIVERS, translated
from storage.statements import POSTGRESQL, Batch, Part, Statement, composed, sqlite_value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Executable, Row, TextClause
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from running import Runner

STATEMENT_BOUND = STATEMENT_SECONDS + 5.0
"""Seconds after which a statement is given up from outside: later than the server's own statement_timeout."""

ROLLBACK_BOUND = 5.0
TURN_BOUND = 30.0

_AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}


class ChangedMeanwhile(DatabaseBusy):
    """A checked write found that another transaction was first. What it did can be read when this raises."""


@dataclass(frozen=True, slots=True)
class Session:
    """A borrowed connection, in a transaction or committing by itself, that runs statements of either dialect."""

    connection: AsyncConnection
    runner: Runner
    postgresql: bool
    committing: bool = False

    async def fetch(self, statement: Statement, parameters: Mapping[str, object]) -> Sequence[Row[Any]]:
        """Run one statement and return its rows (none when it returns none).

        Raises:
            DatabaseAway, DatabaseBusy, MessageError, ConfigurationError: see `messages.errors`.
        """
        if self.postgresql:
            return await self._rows(statement.postgresql, parameters)
        return await self._rows(statement.sqlite, {name: sqlite_value(value) for name, value in parameters.items()})

    async def write(
        self,
        batch: Batch,
        now: datetime,
        *,
        head: Part | None = None,
        tail: Part | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> Sequence[Row[Any]]:
        """Carry out a batch: on PostgreSQL as one statement, on SQLite write by write in the order added.

        Args:
            batch: What to write.
            now: The host's time, for SQLite.
            head: For PostgreSQL only: what the statement does before it writes.
            tail: For PostgreSQL only: what else it does. Its rows (part, item, amount) are returned.
            parameters: The parameters of `head` and `tail`.

        Raises:
            ChangedMeanwhile: a checked write found another number of rows than it was given.
        """
        if not self.postgresql:
            await self._write_each(batch, now)
            return ()
        if not batch.writes and head is None and tail is None:
            return ()
        bound = dict(parameters or {})
        for write, rows in batch.writes:
            bound |= write.parameters(rows)
        found = await self._rows(composed(tuple(write for write, _ in batch.writes), head, tail), bound)
        amounts = {row.part: row.amount for row in found if row.item is None}
        for write, rows in batch.writes:
            if write.checked:
                _expect(write.name, amounts[write.name], len(rows))
        return [row for row in found if row.item is not None]

    async def _write_each(self, batch: Batch, now: datetime) -> None:
        for write, rows in batch.writes:
            changed = await self._many(write.clause(), write.row_parameters(rows, now))
            if write.checked:
                _expect(write.name, changed, len(rows))

    async def many(self, statement: Statement, rows: Sequence[Mapping[str, object]]) -> int:
        """Run a statement of SQLite once per row; returns how many rows of the table it changed."""
        bound = [{name: sqlite_value(value) for name, value in row.items()} for row in rows]
        return await self._many(statement.sqlite, bound)

    async def _many(self, clause: TextClause, rows: Sequence[Mapping[str, object]]) -> int:
        try:
            async with self.runner.timeout(STATEMENT_BOUND):
                result = await self.connection.execute(
                    clause, list(rows), execution_options={"preserve_rowcount": True}
                )
        except RAISED_BY_DRIVERS as error:
            raise _ours(error, committing=self.committing) from error
        return result.rowcount

    async def _rows(self, clause: Executable, parameters: Mapping[str, object]) -> Sequence[Row[Any]]:
        try:
            async with self.runner.timeout(STATEMENT_BOUND):
                result = await self.connection.execute(clause, parameters)
        except RAISED_BY_DRIVERS as error:
            raise _ours(error, committing=self.committing) from error
        return result.all() if result.returns_rows else ()


async def _started(connection: AsyncConnection) -> None:
    await connection.start()


def _expect(name: str, changed: int, wanted: int) -> None:
    if changed != wanted:
        raise ChangedMeanwhile(
            f"{name}: {wanted - changed} of {wanted} rows had been changed by another transaction; the batch runs again"
        )


def _ours(error: BaseException, *, committing: bool = False) -> BaseException:
    """Our error for a driver's, or the driver's own when it means a mistake in the program."""
    return translated(error, committing=committing) or error


class Database:
    """An engine, its dialect and its bounds. Close it when done."""

    def __init__(
        self,
        address: str,
        runner: Runner,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        schemas: Sequence[str] = (),
        pool_size: int = POOL_SIZE,
        planned_once: bool = False,
    ) -> None:
        """See `storage.engine.create` for the arguments and what they raise."""
        self.runner = runner
        self.namespace = namespace
        self.engine: AsyncEngine = create(
            address, namespace=namespace, schemas=schemas, pool_size=pool_size, planned_once=planned_once
        )
        self.postgresql = self.engine.dialect.name == POSTGRESQL
        self._late: set[asyncio.Task[None]] = set()  # connections that came after nobody wanted them any more
        self._turn = asyncio.Lock()  # SQLite: one writer, first come first served

    async def close(self) -> None:
        """Close every connection. Borrowed ones are closed when they are given back."""
        async with self.runner.timeout(STATEMENT_BOUND):
            if self._late:
                await asyncio.wait(self._late)
            await self.engine.dispose()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Session]:
        """A transaction that writes: leaving the block commits, an exception rolls back.

        Raises:
            DatabaseAway, DatabaseBusy: nothing was committed.
            CommitUnknown: the connection was lost, or the bound ran out, while committing.
        """
        async with self._writing(), self._borrowed({}) as connection, self._transaction(connection):
            yield Session(connection, self.runner, self.postgresql)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Session]:
        """A transaction that only reads; on SQLite one snapshot, which waits for no writer."""
        async with self._borrowed({"reading": True}) as connection, self._transaction(connection):
            yield Session(connection, self.runner, self.postgresql)

    @asynccontextmanager
    async def single(self) -> AsyncIterator[Session]:
        """For one statement that commits by itself on PostgreSQL: no round trips for BEGIN and COMMIT.

        Raises:
            CommitUnknown: the connection was lost while the statement ran.
        """
        if not self.postgresql:
            async with self.write() as session:
                yield session
            return
        async with self._borrowed(_AUTOCOMMIT) as connection:
            try:
                yield Session(connection, self.runner, self.postgresql, committing=True)
            except BaseException:
                await self._undo(connection)
                raise

    @asynccontextmanager
    async def write_late(self) -> AsyncIterator[Session]:
        """A transaction that writes and begins with its first statement: until then nothing is locked.

        For sessions whose connection is lent to code that is not ours. That code may roll back, and cannot commit:
        leaving the block does.

        Raises:
            DatabaseAway, DatabaseBusy: nothing was committed; also when the connection was lost inside the block,
                whatever was raised there because of it.
            CommitUnknown: see `write`.
        """
        turn = _Turn(self)
        async with self._borrowed({} if self.postgresql else {TURN: turn.take}) as connection:
            lent = _Lent(connection)
            try:
                yield Session(connection, self.runner, self.postgresql)
                lent.returned = True
            except BaseException as error:
                intact = await self._undo(connection)
                if not intact and isinstance(error, Exception):
                    raise DatabaseAway("the connection to the database was lost inside a transaction") from error
                raise
            else:
                await self._commit(connection)
            finally:
                turn.release()

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        if self.postgresql:
            yield
            return
        await self.take_turn()
        try:
            yield
        finally:
            self.release_turn()

    async def take_turn(self) -> None:
        """SQLite: wait until no other transaction of this process writes; `release_turn` lets the next one.

        Raises:
            DatabaseBusy: that took too long.
        """
        try:
            async with self.runner.timeout(TURN_BOUND):
                await self._turn.acquire()
        except TimeoutError:
            raise DatabaseBusy(f"no turn to write to the database came within {TURN_BOUND:.0f} seconds") from None

    def release_turn(self) -> None:
        """See `take_turn`."""
        self._turn.release()

    @asynccontextmanager
    async def _borrowed(self, options: Mapping[str, Any]) -> AsyncIterator[AsyncConnection]:
        connection = self.engine.connect()
        try:
            async with self.runner.timeout(CONNECT_SECONDS + 5):
                await self._open(connection)
                if options:
                    await connection.execution_options(**options)
        except RAISED_BY_DRIVERS as error:
            await self._give_back(connection)
            raise _ours(error) from error
        except BaseException:
            await self._give_back(connection)
            raise
        try:
            yield connection
        finally:
            await self._give_back(connection)

    async def _open(self, connection: AsyncConnection) -> None:
        """Take a connection from the pool; where a new one must be made, that is finished even if we are cancelled.

        A driver that is interrupted half way leaves a socket or a thread behind. Both bound how long they try.
        """
        pool = self.engine.pool
        if isinstance(pool, QueuePool) and pool.checkedin():
            await connection.start()
            return
        opening = self.runner.start(_started(connection), name="storage.connect")
        try:
            await asyncio.shield(opening)
        except BaseException:
            if not opening.done():
                late = self.runner.start(self._give_back_late(opening, connection), name="storage.connect.late")
                self._late.add(late)
                late.add_done_callback(self._late.discard)
            raise

    async def _give_back_late(self, opening: asyncio.Task[None], connection: AsyncConnection) -> None:
        await asyncio.wait([opening])
        if not opening.cancelled() and opening.exception() is None:
            await self._give_back(connection)

    @asynccontextmanager
    async def _transaction(self, connection: AsyncConnection) -> AsyncIterator[None]:
        try:
            try:
                async with self.runner.timeout(STATEMENT_BOUND):
                    await connection.begin()
            except RAISED_BY_DRIVERS as error:
                raise _ours(error) from error
            yield
        except BaseException as error:
            await self._undo(connection)
            if isinstance(error, RAISED_BY_DRIVERS) and (ours := translated(error)) is not None:
                raise ours from error
            raise
        await self._commit(connection)

    async def _commit(self, connection: AsyncConnection) -> None:
        try:
            async with self.runner.timeout(STATEMENT_BOUND):
                await connection.commit()
        except BaseException as error:
            await self._discard(connection)
            if isinstance(error, RAISED_BY_DRIVERS):
                raise _ours(error, committing=True) from error
            raise

    async def _undo(self, connection: AsyncConnection) -> bool:
        """Roll back, and say whether that worked: if not, the connection is thrown away, with its transaction."""
        try:
            async with self.runner.timeout(ROLLBACK_BOUND):
                await connection.rollback()
        except RAISED_BY_DRIVERS:
            await self._discard(connection)
            return False
        except BaseException:
            await self._discard(connection)
            raise
        return not connection.invalidated

    async def _discard(self, connection: AsyncConnection) -> None:
        try:
            async with self.runner.timeout(ROLLBACK_BOUND):
                await connection.invalidate()
        except RAISED_BY_DRIVERS:
            pass  # it was closed by force, which is all that was wanted

    async def _give_back(self, connection: AsyncConnection) -> None:
        if connection.sync_connection is None:
            return
        try:
            async with self.runner.timeout(ROLLBACK_BOUND):
                await connection.close()
        except RAISED_BY_DRIVERS as error:
            if isinstance(ours := _ours(error), (DatabaseAway, CommitUnknown)):
                return  # it never went back to the pool
            raise ours from error


class _Turn:
    """The turn to write to SQLite that a late transaction takes with its first statement, once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._taken = False

    async def take(self) -> None:
        if not self._taken:
            await self._database.take_turn()
            self._taken = True

    def release(self) -> None:
        if self._taken:
            self._taken = False
            self._database.release_turn()


class _Lent:
    """A connection in the hands of code that must not commit; `returned` once it is ours again."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.returned = False
        event.listen(connection.sync_connection, "commit", self._refuse)

    def _refuse(self, _connection: Connection) -> None:
        if not self.returned:
            raise RuntimeError("this transaction is committed together with the reply; remove the commit()")
