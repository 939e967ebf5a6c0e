"""The database as the rest of the program borrows it: read, write, and a session that runs statements within a bound.

Every await is bounded, every error is one of `messages.errors`, and a connection that is in doubt never returns to the
pool. On SQLite one writer at a time waits its turn in order, so that nobody meets a locked database.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import QueuePool, event

from messages.errors import CommitUnknown, DatabaseAway, DatabaseBusy
from storage.engine import (
    CONNECT_SECONDS,
    DEFAULT_NAMESPACE,
    POOL_SIZE,
    STATEMENT_SECONDS,
    TURN,
    create,
    create_writer,
)
from storage.failures import RAISED_BY_DRIVERS, translated
from storage.sqlite import Direct, behind
from storage.statements import POSTGRESQL, Batch, Part, Statement, composed, spelled, sqlite_values
from storage.straight import DRIVER, Straight, taken
from storage.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from sqlalchemy import Connection, Executable, Pool, Row
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from running import Runner
    from storage.turns import Turn

T = TypeVar("T")

STATEMENT_BOUND = STATEMENT_SECONDS + 5.0
"""Seconds after which a statement is given up from outside: later than the server's own statement_timeout."""

ROLLBACK_BOUND = 5.0

_AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}


class ChangedMeanwhile(DatabaseBusy):
    """A checked write found that another transaction was first. What it did can be read when this raises."""


@dataclass(frozen=True, slots=True)
class Session:
    """A borrowed connection, in a transaction or committing by itself, that runs statements of either dialect."""

    lent: AsyncConnection | Straight
    runner: Runner
    postgresql: bool
    committing: bool = False
    framed: bool = True

    @property
    def connection(self) -> AsyncConnection:
        """The connection, for statements that are SQLAlchemy's.

        Raises:
            LookupError: the session is for statements that commit by themselves.
        """
        if isinstance(self.lent, Straight):
            raise LookupError("a session for single statements has nothing but `fetch` and `write`")
        return self.lent

    async def fetch(self, statement: Statement, parameters: Mapping[str, object]) -> Sequence[Row[Any]]:
        """Run one statement and return its rows (none when it returns none).

        Raises:
            DatabaseAway, DatabaseBusy, MessageError, ConfigurationError: see `messages.errors`.
        """
        if self.postgresql:
            return await self._rows(statement.postgresql, parameters)
        return await self.directly(lambda direct: direct.rows(statement.on_sqlite, sqlite_values(parameters)))

    async def directly(self, work: Callable[[Direct], T]) -> T:
        """SQLite only: run something in the thread of the connection, all of its statements on one way.

        Begins the transaction where that has not been done, and raises as `fetch` does.
        """
        try:
            if self.framed and not self.connection.in_transaction():
                await self.connection.begin()
            async with self.runner.timeout(STATEMENT_BOUND):
                return await behind(self.connection).run(lambda connection: work(Direct(connection)))
        except RAISED_BY_DRIVERS as error:
            raise _ours(error, committing=self.committing) from error

    async def write(
        self,
        batch: Batch,
        now: datetime,
        *,
        head: Part | None = None,
        tail: Part | None = None,
        parameters: Mapping[str, object] | None = None,
        lone: bool = False,
    ) -> Sequence[Row[Any]]:
        """Carry out a batch: on PostgreSQL as one statement, on SQLite write by write in the order added.

        Args:
            batch: What to write.
            now: The host's time, for SQLite.
            head: For PostgreSQL only: what the statement does before it writes.
            tail: For PostgreSQL only: what else it does. Its rows (part, item, amount) are returned.
            parameters: The parameters of `head` and `tail`.
            lone: It is about one instance, and there are few statements of that kind: rows may be spelled out.

        Raises:
            ChangedMeanwhile: a checked write found another number of rows than it was given.
        """
        if not self.postgresql:
            if batch.writes:
                await self.write_directly(batch, now, lambda _: None)
            return ()
        if not batch.writes and head is None and tail is None:
            return ()
        bound = dict(parameters or {})
        few = tuple(spelled(rows, write.columns) if lone else 0 for write, rows in batch.writes)
        for (write, rows), each in zip(batch.writes, few, strict=True):
            bound |= write.parameters(rows, spelled=bool(each))
        found = await self._rows(composed(tuple(write for write, _ in batch.writes), few, head, tail), bound)
        amounts = {row.part: row.amount for row in found if row.item is None}
        for write, rows in batch.writes:
            if write.checked:
                _expect(write.name, amounts[write.name], len(rows))
        return [row for row in found if row.item is not None]

    async def write_directly(self, batch: Batch, now: datetime, then: Callable[[Direct], T]) -> T:
        """SQLite only: `write`, and on the same way whatever comes then."""

        def work(direct: Direct) -> T:
            for write, rows in batch.writes:
                changed = direct.many(write.sqlite, write.row_parameters(rows, now))
                if write.checked:
                    _expect(write.name, changed, len(rows))
            return then(direct)

        return await self.directly(work)

    async def many(self, statement: Statement, rows: Sequence[Mapping[str, object]]) -> int:
        """Run a statement of SQLite once per row; returns how many rows of the table it changed."""
        return await self.directly(lambda direct: direct.many(statement.on_sqlite, [*map(sqlite_values, rows)]))

    async def _rows(self, clause: Executable, parameters: Mapping[str, object]) -> Sequence[Row[Any]]:
        try:
            if isinstance(self.lent, Straight):
                return await self.lent.rows(clause, parameters, within=STATEMENT_BOUND)
            async with self.runner.timeout(STATEMENT_BOUND):
                result = await self.lent.execute(clause, parameters)
        except RAISED_BY_DRIVERS as error:
            raise _ours(error, committing=self.committing) from error
        return result.all() if result.returns_rows else ()


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
        self._by_asyncpg = self.engine.dialect.driver == DRIVER
        self._late: set[asyncio.Task[None]] = set()  # connections that came after nobody wanted them any more
        self._turns = Turns(lambda: self.runner)
        self._version: int | None = None  # of the file, as our writer sees what others do to it
        self._writer = self.engine if self.postgresql else create_writer(self.engine.url, self._turns.lost)
        self._connecting: AbstractAsyncContextManager[object] = asyncio.Lock() if not self.postgresql else nullcontext()

    async def close(self) -> None:
        """Close every connection. Borrowed ones are closed when they are given back."""
        async with self.runner.timeout(STATEMENT_BOUND):
            if self._late:
                await asyncio.wait(self._late)
            await self._turns.ended()
            await self._writer.dispose()
            await self.engine.dispose()

    @asynccontextmanager
    async def write(self, *, joins: bool = False) -> AsyncIterator[Session]:
        """A transaction that writes: leaving the block commits, an exception rolls back.

        On SQLite one that `joins` may share its commit with those before it, and must not wait for them inside.

        Raises:
            DatabaseAway, DatabaseBusy: nothing was committed.
            CommitUnknown: the connection was lost, or the bound ran out, while committing.
        """
        async with self._writing(joins=joins) as connection, self._transaction(connection):
            yield Session(connection, self.runner, self.postgresql)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Session]:
        """A transaction that only reads; on SQLite one snapshot, which waits for no writer."""
        async with self._borrowed({"reading": True}) as connection, self._transaction(connection):
            yield Session(connection, self.runner, self.postgresql)

    def single(self) -> AbstractAsyncContextManager[Session]:
        """For one statement that commits by itself on PostgreSQL: no round trips for BEGIN and COMMIT.

        Raises:
            CommitUnknown: the connection was lost while the statement ran.
        """
        if not self.postgresql:
            return self.write(joins=True)
        return _Single(self, committing=True) if self._by_asyncpg else self._committing()

    def look(self) -> AbstractAsyncContextManager[Session]:
        """For one statement that only reads, by itself: no transaction frames it."""
        return _Single(self, committing=False) if self._by_asyncpg else self._looking()

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
        async with self._writing(joins=True, late=True) as connection:
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

    async def others_wrote(self) -> bool:
        """SQLite only: whether another process has committed anything since this was asked last.

        Raises:
            DatabaseAway, DatabaseBusy: it cannot be asked now.
        """
        before, self._version = self._version, await self._turns.version()
        return None not in (before, self._version) and before != self._version

    @asynccontextmanager
    async def _writing(self, *, joins: bool, late: bool = False) -> AsyncIterator[AsyncConnection]:
        if self.postgresql:
            async with self._borrowed({}) as connection:
                yield connection
            return
        turn = self._turns.turn(joins=joins)
        try:
            if not late:
                await turn.take()
            async with self._borrowed({TURN: turn}) as connection:
                yield connection
        finally:
            await turn.leave()

    @asynccontextmanager
    async def _committing(self) -> AsyncIterator[Session]:
        async with self._borrowed(_AUTOCOMMIT) as connection:
            try:
                yield Session(connection, self.runner, self.postgresql, committing=True)
            except BaseException:
                await self._undo(connection)
                raise

    @asynccontextmanager
    async def _looking(self) -> AsyncIterator[Session]:
        async with self._borrowed(_AUTOCOMMIT if self.postgresql else {}) as connection:
            yield Session(connection, self.runner, self.postgresql, framed=False)

    async def connect(self) -> None:
        """Have a connection lie in the pool."""
        async with self._borrowed({}):
            pass

    @asynccontextmanager
    async def _borrowed(self, options: Mapping[str, Any]) -> AsyncIterator[AsyncConnection]:
        engine = self._writer if TURN in options else self.engine
        connection = engine.connect()
        try:
            async with self.runner.timeout(CONNECT_SECONDS + 5):
                await self._open(connection, engine.pool)
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

    async def _open(self, connection: AsyncConnection, pool: Pool) -> None:
        """Take a connection from the pool; where a new one must be made, that is finished even if we are cancelled.

        A driver that is interrupted half way leaves a socket or a thread behind. Both bound how long they try.
        """
        if pool.checkedin() if isinstance(pool, QueuePool) else self._turns.connected:
            await connection.start()
            return
        opening = self.runner.start(self._started(connection), name="storage.connect")
        try:
            await asyncio.shield(opening)
        except BaseException:
            if not opening.done():
                late = self.runner.start(self._give_back_late(opening, connection), name="storage.connect.late")
                self._late.add(late)
                late.add_done_callback(self._late.discard)
            raise

    async def _started(self, connection: AsyncConnection) -> None:
        async with self._connecting:
            await connection.start()

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
        turn = _turn_of(connection)
        try:
            async with self.runner.timeout(STATEMENT_BOUND):
                await connection.commit()
                if turn is not None:
                    await turn.commit()
        except BaseException as error:
            if turn is None:
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
        turn = _turn_of(connection)
        return not connection.invalidated and (turn is None or turn.intact)

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


class _Single:
    """A session past SQLAlchemy. Every lone message enters one: no generator, no timer while nothing has to wait."""

    def __init__(self, database: Database, *, committing: bool) -> None:
        self._database = database
        self._committing = committing

    async def __aenter__(self) -> Session:
        database = self._database
        pool = cast("QueuePool", database.engine.pool)
        try:
            straight = await taken(pool)
            if straight is None:
                async with database.runner.timeout(CONNECT_SECONDS + 5):
                    while (straight := await taken(pool)) is None:
                        await database.connect()
        except RAISED_BY_DRIVERS as error:
            raise _ours(error) from error
        self._straight = straight
        return Session(straight, database.runner, postgresql=True, committing=self._committing)

    async def __aexit__(self, *_: object) -> None:
        if self._straight.intact:
            self._straight.give_back()
            return
        try:
            async with self._database.runner.timeout(ROLLBACK_BOUND):
                await self._straight.throw_away()
        except RAISED_BY_DRIVERS:
            pass  # it was closed by force, which is all that was wanted


def _turn_of(connection: AsyncConnection) -> Turn | None:
    """Whose the connection is, on SQLite and for a transaction that writes."""
    sync = connection.sync_connection
    turn: Turn | None = None if sync is None else sync.get_execution_options().get(TURN)
    return turn


class _Lent:
    """A connection in the hands of code that must not commit; `returned` once it is ours again."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.returned = False
        event.listen(connection.sync_connection, "commit", self._refuse)

    def _refuse(self, _connection: Connection) -> None:
        if not self.returned:
            raise RuntimeError("this transaction is committed together with the reply; remove the commit()")
