from __future__ import annotations

import sqlite3
import ssl

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError
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
from storage.failures import translated


def coded(code: int) -> DBAPIError:
    error = sqlite3.OperationalError("said")
    error.sqlite_errorcode = code
    return DBAPIError("statement", {}, error)


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (ConnectionRefusedError("refused"), DatabaseAway),
        (TimeoutError(), DatabaseAway),
        (ConnectionError("server rejected SSL upgrade"), ConfigurationError),
        (ssl.SSLCertVerificationError("certificate verify failed"), ConfigurationError),
        (PoolTimeout("pool"), DatabaseExhausted),
        (asyncpg.InterfaceError("connection is closed"), DatabaseAway),
        (asyncpg.InternalClientError("another operation is in progress"), DatabaseAway),
        (DBAPIError("statement", {}, asyncpg.InternalClientError("another operation is in progress")), DatabaseAway),
        (asyncpg.DataError("invalid input for query argument $1"), MessageError),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"), MessageError),
        (OverflowError("int too large"), MessageError),
        (coded(sqlite3.SQLITE_BUSY), DatabaseBusy),
        (coded(sqlite3.SQLITE_BUSY_SNAPSHOT), DatabaseBusy),
        (coded(sqlite3.SQLITE_FULL), DatabaseExhausted),
        (coded(sqlite3.SQLITE_IOERR_WRITE), DatabaseExhausted),
        (coded(sqlite3.SQLITE_CONSTRAINT_UNIQUE), MessageError),
        (coded(sqlite3.SQLITE_TOOBIG), MessageError),
        (coded(sqlite3.SQLITE_CORRUPT), ConfigurationError),
        (coded(sqlite3.SQLITE_READONLY), ConfigurationError),
        (coded(sqlite3.SQLITE_CANTOPEN), ConfigurationError),
    ],
)
def test_what_drivers_raise_means_something(error: Exception, meaning: type[AntiphonError]) -> None:
    assert type(translated(error)) is meaning


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), TimeoutError(), coded(sqlite3.SQLITE_IOERR_FSYNC)])
def test_while_committing_a_loss_is_a_commit_nobody_knows(error: Exception) -> None:
    assert type(translated(error, committing=True)) is CommitUnknown


def test_a_full_disk_while_committing_is_known_to_have_failed() -> None:
    assert type(translated(coded(sqlite3.SQLITE_FULL), committing=True)) is DatabaseExhausted


def test_what_means_nothing_here_is_left_to_the_caller() -> None:
    assert translated(coded(sqlite3.SQLITE_ERROR)) is None
    assert translated(ValueError("a mistake")) is None


def test_the_text_is_one_printable_line() -> None:
    error = translated(OSError("a\nb\x00c"))
    assert error is not None
    assert "\\nb\\x00c" in str(error)
