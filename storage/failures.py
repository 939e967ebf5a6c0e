"""What a driver's error means to the rest of the program: the one place that maps them onto `messages.errors`.

PostgreSQL speaks in SQLSTATEs (asyncpg and psycopg alike), SQLite in result codes, the network in `OSError`, and a
bound that ran out in `TimeoutError`.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from asyncpg import InterfaceError, InternalClientError, PostgresError
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from messages.errors import (
    AntiphonError,
    CommitUnknown,
    ConfigurationError,
    DatabaseAway,
    DatabaseBusy,
    DatabaseExhausted,
    MessageError,
)
from messages.printable import in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

_Adapted = AsyncAdapt_asyncpg_dbapi.Error  # what the pool itself raises, where no engine stands around it

RAISED_BY_DRIVERS = (
    SQLAlchemyError,
    _Adapted,
    PostgresError,
    InterfaceError,
    InternalClientError,
    sqlite3.Error,
    OSError,
    TimeoutError,
    UnicodeError,
    OverflowError,
)
"""What `translated` understands; anything else that leaves a database call is a bug and stays what it is."""

_MIGRATE = "the database schema is missing or behind; run `antiphon migrate`"

_GRANT = "grant this user the right, or name another user in the database address"

_AWAY_STATES = ("25006", "57P01", "57P02", "57P03", "57P05")  # read-only: a standby; shut down; starting
# 55006: an object in use; 25P03: idle too long; 0A000: a prepared plan that a migration has made stale
_BUSY_STATES = ("40001", "40P01", "55P03", "55006", "57014", "25P03", "25P04", "0A000")
# 53100: a full disk; 53300: no connection left. Not 53200, too little memory: one message may need it all
_EXHAUSTED_STATES = ("53100", "53300")
_EXHAUSTED_CLASSES = ("58",)
_SCHEMA_STATES = ("3F000", "42P01", "42703", "42883", "42P10")
_FORBIDDEN = "42501"
_REFUSED_STATES = ("28000", "28P01", "3D000", _FORBIDDEN)
_AWAY_CLASSES = ("08",)
_BUSY_CLASSES = ("40", "53", "XX")
_DATA_CLASSES = ("21", "22", "23", "54")

_REFUSED_TEXTS = (
    "password authentication failed",
    "no pg_hba.conf entry",
    "does not exist",
    "no password supplied",
    "does not support SSL",
    "rejected SSL upgrade",
    "certificate verify failed",
    "invalid sslmode",
    "root certificate file",
)
"""How a connection is refused for good, where no SQLSTATE comes with it: libpq passes on the server's words only."""

_SQLITE_BUSY = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_SCHEMA,
)
_SQLITE_EXHAUSTED = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
_SQLITE_DATA = (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE)
_SQLITE_REFUSED = (
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
)


def translated(error: BaseException, *, committing: bool = False) -> AntiphonError | None:
    """The error of our own that a driver's error means, or None when it means a mistake in the program.

    Args:
        error: What the driver, the pool, the network or a bound raised.
        committing: Whether it was raised while COMMIT was under way (or a statement that commits by itself): what
            would be a lost connection is then a commit that nobody knows about.
    """
    kind = _kind(error)
    if kind is None:
        return None
    if committing and (kind is DatabaseAway or isinstance(error, TimeoutError)):
        kind = CommitUnknown
    if committing and _sqlite_code(error) == sqlite3.SQLITE_IOERR:
        kind = CommitUnknown
    return kind(_text(kind, error))


def _kind(error: BaseException) -> type[AntiphonError] | None:
    if isinstance(error, PoolTimeout):
        return DatabaseExhausted
    for cause in _causes(error):
        state = getattr(cause, "sqlstate", None)
        if isinstance(state, str):
            return _by_state(state)
        code = _sqlite_code(cause)
        if code is not None:
            return _by_code(code, str(cause))
    return _by_class(error)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = getattr(seen, "orig", None) or seen.__cause__


def _by_state(state: str) -> type[AntiphonError] | None:
    if state in _REFUSED_STATES or state in _SCHEMA_STATES:
        return ConfigurationError
    if state in _AWAY_STATES or state.startswith(_AWAY_CLASSES):
        return DatabaseAway
    if state in _EXHAUSTED_STATES or state.startswith(_EXHAUSTED_CLASSES):
        return DatabaseExhausted
    if state in _BUSY_STATES or state.startswith(_BUSY_CLASSES):
        return DatabaseBusy
    return MessageError if state.startswith(_DATA_CLASSES) else None


def _sqlite_code(error: BaseException) -> int | None:
    for cause in _causes(error):
        code = getattr(cause, "sqlite_errorcode", None)
        if isinstance(code, int):
            return code & 0xFF  # the primary code of an extended one
    return None


def _by_code(code: int, text: str) -> type[AntiphonError] | None:
    if code in _SQLITE_EXHAUSTED:
        return DatabaseExhausted
    if code in _SQLITE_BUSY:
        return DatabaseBusy
    if code in _SQLITE_DATA:
        return MessageError
    missing = code == sqlite3.SQLITE_ERROR and ("no such table" in text or "no such column" in text)
    return ConfigurationError if missing or code in _SQLITE_REFUSED else None


def _by_class(error: BaseException) -> type[AntiphonError] | None:
    """For errors without a code: of the network, of a driver's own making, of Python."""
    if isinstance(error, (UnicodeError, OverflowError)):
        return MessageError
    text = str(getattr(error, "orig", None) or error)
    if isinstance(error, (OSError, DBAPIError)) and any(words in text for words in _REFUSED_TEXTS):
        return ConfigurationError
    if isinstance(error, OSError):
        return DatabaseAway
    if not isinstance(error, (DBAPIError, _Adapted, InterfaceError, InternalClientError)):
        return None
    if any(isinstance(cause, OSError) for cause in _causes(error)) or getattr(error, "connection_invalidated", False):
        return DatabaseAway
    return _by_driver_class({kind.__name__ for cause in _causes(error) for kind in type(cause).__mro__})


def _by_driver_class(names: set[str]) -> type[AntiphonError] | None:
    if "ClientConfigurationError" in names:
        return ConfigurationError
    if "DataError" in names or "UnicodeEncodeError" in names or "OverflowError" in names:
        return MessageError  # refused by the driver before it was sent
    if "OperationalError" in names or "ConnectionDoesNotExistError" in names:
        return DatabaseAway
    # asyncpg's InternalClientError: an answer came that nothing had asked for, and the connection is of no more use
    return DatabaseAway if names & {"InterfaceError", "InternalClientError"} else None


def _text(kind: type[AntiphonError], error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    said = "no answer in time" if isinstance(error, TimeoutError) else in_words(cause)
    if kind is CommitUnknown:
        return f"the connection was lost while the transaction was being committed ({said}); the batch runs again"
    if kind is DatabaseAway:
        return f"the database cannot be reached ({said})"
    if issubclass(kind, DatabaseBusy):
        return f"the database could not do it now ({said})"
    if kind is ConfigurationError:
        state = next((s for c in _causes(error) if isinstance(s := getattr(c, "sqlstate", None), str)), "")
        if state in _SCHEMA_STATES or "no such table" in said or "no such column" in said:
            return f"{_MIGRATE} ({said})"
        remedy = _GRANT if state == _FORBIDDEN else "check the database address"
        return f"the database refuses us: {said}; {remedy}"
    return f"the database refuses this data: {said}"
