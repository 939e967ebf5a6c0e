"""Who writes to an SQLite file: one transaction after the other, on one connection, and several in one commit.

A commit waits for the disk, and whatever comes meanwhile waits for its turn. So a transaction that has done its work
hands the turn on when somebody waits who may join, and is committed together with what they do; each in a savepoint of
its own, so that one that fails takes back nobody else's. Everybody is told after the one commit. A lone transaction
begins and commits as ever.

Who does not `join` begins when everything before it is committed: it may wait for that inside.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from messages.errors import DatabaseAway, DatabaseBusy
from storage.failures import RAISED_BY_DRIVERS, translated
from storage.sqlite import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from running import Runner
    from storage.sqlite import Writer

MOST = 64
"""Transactions in one commit: the first of them waits for the last."""

LONGEST = 1.0
"""Seconds after which nobody joins any more: the first of them waits, and its commit is bounded."""

_APART = 4  # times as many commits as were to be one, since others come between

TURN_BOUND = 30.0
COMMIT_BOUND = 20.0
ROLLBACK_BOUND = 5.0


@dataclass(slots=True, eq=False)
class _Waiting:
    """Somebody who wants the turn; `joins` says whether the transactions before may be uncommitted."""

    granted: asyncio.Future[None]
    joins: bool


class Turns:
    """The writers of one file, in the order in which they came."""

    def __init__(self, runner: Callable[[], Runner]) -> None:
        self._runner = runner
        self._taken = False
        self._waiting: deque[_Waiting] = deque()
        self._kept: list[asyncio.Future[None]] = []
        self._since = 0.0  # when the first was kept
        self._apart = 0  # so many commits are not shared, to find out whose is refused
        self._writer: Writer | None = None
        self._closing: asyncio.Task[None] | None = None

    def turn(self, *, joins: bool) -> Turn:
        """One transaction, not begun."""
        return Turn(self, joins=joins)

    @property
    def connected(self) -> bool:
        """Whether there is a connection to write on."""
        return self._writer is not None

    async def version(self) -> int | None:
        """A number that another one follows when another process has committed; None while nobody has written here.

        Raises:
            DatabaseAway, DatabaseBusy: it cannot be asked now.
        """
        if self._writer is None:
            return None
        try:
            async with self._runner().timeout(COMMIT_BOUND):
                [version] = await in_thread(self._writer.handle, _version)
        except RAISED_BY_DRIVERS as error:
            raise translated(error) or error from error
        return int(version)

    async def ended(self) -> None:
        """Wait until nothing is being committed."""
        if self._closing is not None:
            await asyncio.wait([self._closing])

    # -- for a turn

    async def take(self, *, joins: bool) -> None:
        """Wait for the turn.

        Raises:
            DatabaseBusy: that took too long.
        """
        if not self._taken:
            self._taken = True
            return
        waiting = _Waiting(asyncio.get_running_loop().create_future(), joins)
        self._waiting.append(waiting)
        try:
            async with self._runner().timeout(TURN_BOUND):
                await waiting.granted
        except BaseException as error:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif not waiting.granted.cancelled():
                self.hand_on()  # it was ours already
            if isinstance(error, TimeoutError):
                raise DatabaseBusy(f"no turn to write to the database came within {TURN_BOUND:.0f} seconds") from None
            raise

    def begin(self, writer: Writer) -> None:
        """Begin a transaction, or one within that of those who wait for their commit."""
        if writer.gone:
            raise DatabaseAway("the connection to the database file was lost before the transaction began")
        if not self._kept:
            self._writer = writer
        elif writer is not self._writer:
            raise DatabaseAway("the connection to the database file was lost before the transaction began")
        writer.opening = "SAVEPOINT turn" if self._kept else "BEGIN IMMEDIATE"

    async def roll_back(self) -> bool:
        """Take back what was done since `begin`; False when all that is not committed had to be given up for that."""
        if self._writer is None:
            return False
        if self._withdrawn():
            return True
        try:
            async with self._runner().timeout(ROLLBACK_BOUND):
                await in_thread(self._writer.handle, _back if self._kept else _roll_back)
        except BaseException as error:
            self.lose()
            if not isinstance(error, RAISED_BY_DRIVERS):
                raise
            return False
        return True

    def keep(self) -> asyncio.Future[None]:
        """What was done since `begin` is to be committed; done when it is."""
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._withdrawn():
            kept.set_result(None)  # nothing was done
        else:
            if not self._kept:
                self._since = self._runner().monotonic()
            self._kept.append(kept)
        return kept

    def _withdrawn(self) -> bool:
        """Whether the transaction has not really begun; it will not then."""
        opening = ""
        if self._writer is not None:
            opening, self._writer.opening = self._writer.opening, ""
        return bool(opening)

    def hand_on(self) -> None:
        """Whoever is next has the turn; if that is nobody who may join, what was kept is committed first."""
        while self._waiting and self._waiting[0].granted.done():
            self._waiting.popleft()  # cancelled, and does not know it yet
        following = self._waiting[0] if self._waiting else None
        full = len(self._kept) >= (1 if self._apart else MOST) or self._runner().monotonic() - self._since > LONGEST
        if self._kept and (full or following is None or not following.joins):
            self._closing = self._runner().start(self._close(), name="storage.commit")
        elif following is not None:
            self._waiting.popleft().granted.set_result(None)
        else:
            self._taken = False

    def lose(self) -> None:
        """Throw the connection away, and with it what others wait to have committed."""
        if self._writer is not None:
            self._writer.throw_away()
        self.lost()

    def lost(self) -> None:
        """The connection is no more."""
        self._writer = None
        self._tell(ConnectionError("the connection to the database file was lost before the commit"))

    async def _close(self) -> None:
        error: BaseException | None = None
        try:
            if self._writer is None:
                raise ConnectionError("the connection to the database file was lost before the commit")
            async with self._runner().timeout(COMMIT_BOUND):
                await in_thread(self._writer.handle, _commit)
        except sqlite3.IntegrityError as refused:  # a constraint that somebody has deferred
            error = refused
            if len(self._kept) > 1:
                self._apart = _APART * len(self._kept)
                error = DatabaseBusy("of the transactions committed together one is refused; each is tried by itself")
        except BaseException as raised:
            error = raised
            if not isinstance(raised, sqlite3.Error):
                self.lose()  # nobody knows what it is at
            if not isinstance(raised, Exception):
                raise
        finally:
            self._apart = max(0, self._apart - (len(self._kept) == 1))
            self._tell(error)
            self.hand_on()

    def _tell(self, error: BaseException | None) -> None:
        kept, self._kept = self._kept, []
        for each in kept:
            if each.done():
                continue  # nobody waits any more
            if error is None:
                each.set_result(None)
            else:
                each.set_exception(error if isinstance(error, Exception) else TimeoutError())


class Turn:
    """One transaction among those of a file. `intact` until the connection is lost on which it was begun."""

    def __init__(self, turns: Turns, *, joins: bool) -> None:
        self.intact = True
        self._turns = turns
        self._joins = joins
        self._has = self._begun = self._over = False

    async def take(self) -> None:
        """Wait for the turn, unless it is ours already.

        Raises:
            DatabaseBusy: that took too long.
        """
        if not self._has:
            await self._turns.take(joins=self._joins)
            if self._over:
                self._turns.hand_on()
                raise DatabaseAway("the transaction is over")
            self._has = True

    async def begin(self, writer: Writer) -> None:
        """Wait for the turn; the transaction begins with what is done next. Once more after `roll_back`.

        Raises:
            DatabaseBusy: the turn did not come.
            DatabaseAway: the connection was lost meanwhile.
        """
        await self.take()
        writer.turn = self
        self._turns.begin(writer)
        self._begun = True

    async def roll_back(self) -> None:
        """Take everything back, if there is anything."""
        if self._begun:
            self._begun = False
            self.intact = await self._turns.roll_back()

    async def commit(self) -> None:
        """Keep everything; returns when it is on the disk, with that of whoever joined."""
        if not self._begun:
            return
        kept = self._turns.keep()
        self._has = self._begun = False
        self._turns.hand_on()
        await kept

    async def leave(self) -> None:
        """It is over, however it ended."""
        self._over = True
        try:
            await self.roll_back()
        finally:
            if self._has:
                self._has = False
                self._turns.hand_on()


async def _run(writer: Writer, *statements: str) -> None:
    def run(connection: sqlite3.Connection) -> None:
        for statement in statements:
            connection.execute(statement)

    await in_thread(writer.handle, run)


def _version(connection: sqlite3.Connection) -> tuple[int]:
    found: tuple[int] = connection.execute("PRAGMA data_version").fetchone()
    return found


def _commit(connection: sqlite3.Connection) -> None:
    if not connection.in_transaction:
        raise ConnectionError("the database has rolled everything back")
    try:
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _back(connection: sqlite3.Connection) -> None:
    connection.execute("ROLLBACK TO turn")
    connection.execute("RELEASE turn")


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")
