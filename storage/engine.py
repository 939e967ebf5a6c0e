"""How a database address, as people paste it, becomes an engine: driver, session settings, pool and file mode.

Knows nothing of tables. `normalised` checks an address; `create` makes the engine that `storage.database` borrows from.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from sqlalchemy import StaticPool, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from messages.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.engine import Connection
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

DEFAULT_NAMESPACE = "antiphon"
CONNECT_SECONDS = 10
STATEMENT_SECONDS = 15
POOL_SIZE = 10
READERS = 8
"""Connections that read an SQLite file at once, at most: each is a thread and pages in memory, and no read is long."""
TURN = "turn"
"""Execution option for SQLite: the `storage.turns.Turn` of a transaction, which begins it, by whatever statement."""

_NAMESPACE = re.compile(r"[a-z][a-z0-9_]{0,30}")
_SCHEMES = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "postgresql+psycopg": "postgresql+psycopg",
    "postgresql+psycopg_async": "postgresql+psycopg",
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
}
_EXAMPLES = "write postgresql://user:password@host:5432/database or sqlite:///file.db"

_ASYNCPG_ARGUMENTS = (
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcrl",
    "sslpassword",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "target_session_attrs",
    "passfile",
    "service",
    "krbsrvname",
)
_ASYNCPG_ELSEWHERE = ("host", "port", "user", "password", "ssl", "application_name", "connect_timeout", "options")
_ASYNCPG_UNNEEDED = ("channel_binding", "gssencmode", "keepalives")  # libpq's; SCRAM and TLS work without


def normalised(address: str) -> URL:
    """The address with its driver named.

    Raises:
        ConfigurationError: it is no address of PostgreSQL or of an SQLite file; the text never repeats a password.
    """
    try:
        url = make_url(address.strip())
    except (ArgumentError, ValueError):
        raise ConfigurationError(f"the database address cannot be read; {_EXAMPLES}") from None
    driver = _SCHEMES.get(url.drivername)
    if driver is None:
        raise ConfigurationError(f"the database address begins with {url.drivername}://, which is unknown; {_EXAMPLES}")
    url = url.set(drivername=driver)
    return _sqlite_url(url) if driver.startswith("sqlite") else url


def _sqlite_url(url: URL) -> URL:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigurationError(
            "the database address names no file, and what is kept in memory is lost with the process; "
            "write sqlite:///file.db"
        )
    if url.host or url.query:
        raise ConfigurationError(f"an SQLite address has a file and nothing else, and three slashes; {_EXAMPLES}")
    return url.set(database=str(Path(url.database).expanduser()))


def check_namespace(name: str) -> str:
    """The name, when it can be a PostgreSQL schema and part of exchange names.

    Raises:
        ConfigurationError: it is not of the form `[a-z][a-z0-9_]{0,30}`.
    """
    if not _NAMESPACE.fullmatch(name):
        raise ConfigurationError(
            f"the namespace {name!r} must be 1 to 31 characters of a-z, 0-9 and _, beginning with a letter"
        )
    return name


PLANNED_ONCE = {
    "plan_cache_mode": "force_generic_plan",
    **dict.fromkeys(("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "enable_bitmapscan"), "off"),
}
"""For whoever runs the same few statements all day, each for rows that it names by their keys.

Planning anew takes longer than carrying out, for a lone message several times as long; and a plan made once must not be
one that fits the empty tables of the first minute, or those that nobody has analyzed: by index and in nested loops it
fits any.
"""


def session_settings(schemas: Sequence[str]) -> dict[str, str]:
    """What every PostgreSQL session of ours is told when it connects; times in milliseconds unless they name a unit."""
    return {
        "application_name": "antiphon",
        "search_path": ", ".join(f'"{check_namespace(schema)}"' for schema in schemas),
        "statement_timeout": str(STATEMENT_SECONDS * 1000),
        "lock_timeout": "5000",
        "idle_in_transaction_session_timeout": "15000",
        "default_transaction_isolation": "read committed",
        "timezone": "UTC",
        "jit": "off",
        "tcp_keepalives_idle": "30",
        "tcp_keepalives_interval": "5",
        "tcp_user_timeout": "20000",
    }


def create(
    address: str,
    *,
    namespace: str = DEFAULT_NAMESPACE,
    schemas: Sequence[str] = (),
    pool_size: int = POOL_SIZE,
    planned_once: bool = False,
) -> AsyncEngine:
    """An engine for the address; it connects when it is first used.

    Args:
        address: As `normalised` takes it.
        namespace: The PostgreSQL schema in which unqualified names are found and made.
        schemas: Further schemas in which unqualified names are looked for, after the namespace.
        pool_size: How many connections are kept; no more are ever open.
        planned_once: Whether PostgreSQL plans each statement once per connection; see `PLANNED_ONCE`.

    Raises:
        ConfigurationError: the address or the namespace is wrong, a driver is not installed, SQLite is too old.
    """
    url = normalised(address)
    check_namespace(namespace)
    if url.drivername == "sqlite+aiosqlite":
        return _sqlite(url, pool_size)
    _check_files(url)
    settings = session_settings((namespace, *schemas)) | (PLANNED_ONCE if planned_once else {})
    arguments = _asyncpg(url, settings) if url.drivername == "postgresql+asyncpg" else _psycopg(url, settings)
    try:
        return create_async_engine(
            _reduced(url) if url.drivername == "postgresql+asyncpg" else url,
            connect_args=arguments,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=CONNECT_SECONDS,
            pool_use_lifo=True,
            hide_parameters=True,  # they are customers' data
        )
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the driver of {url.drivername}:// is not installed ({error.name}); install antiphon[psycopg], "
            "or write postgresql:// to use the one that is"
        ) from None


def _asyncpg(url: URL, settings: dict[str, str]) -> Mapping[str, object]:
    query = {name: value if isinstance(value, str) else value[-1] for name, value in url.query.items()}
    known = (*_ASYNCPG_ARGUMENTS, *_ASYNCPG_ELSEWHERE, *_ASYNCPG_UNNEEDED)
    unknown = sorted(set(query) - set(known))
    if unknown:
        raise ConfigurationError(
            f"the database address has a parameter that is unknown here: {', '.join(unknown)}; "
            f"known ones are {', '.join(sorted(known))}"
        )
    for name in ("application_name", "options"):
        if name in query:
            settings[name] = query[name]
    arguments: dict[str, object] = {
        "server_settings": settings,
        "timeout": _seconds(query.get("connect_timeout")),
        "max_cacheable_statement_size": 0,  # none is too long to be kept: there are few
        "max_cached_statement_lifetime": 0,
    }
    secured = {name: query[name] for name in _ASYNCPG_ARGUMENTS if name in query}
    if "ssl" in query:
        secured["sslmode"] = query["ssl"]
    if secured:  # asyncpg reads libpq's TLS words from a DSN only
        arguments["dsn"] = "postgresql://?" + urlencode(secured)
    return arguments


def _reduced(url: URL) -> URL:
    """The address as SQLAlchemy's dialect takes it; everything else is among the arguments of the driver."""
    if "user" in url.query:
        url = url.set(username=str(url.query["user"]))
    if "password" in url.query:
        url = url.set(password=str(url.query["password"]))
    return url.set(query={name: value for name, value in url.query.items() if name in ("host", "port")})


def _check_files(url: URL) -> None:
    """A certificate that is not there would look like a server that is not there."""
    for name in ("sslrootcert", "sslcert", "sslkey"):
        file = url.query.get(name)
        if isinstance(file, str) and file != "system" and not Path(file).exists():
            raise ConfigurationError(f"{name}={file} in the database address names a file that does not exist")


def _seconds(text: str | None) -> int:
    if text is None:
        return CONNECT_SECONDS
    if not text.isdecimal() or int(text) == 0:
        raise ConfigurationError(f"connect_timeout={text} in the database address is not a whole number of seconds")
    return int(text)


def _psycopg(url: URL, settings: dict[str, str]) -> Mapping[str, object]:
    if "application_name" in url.query:
        del settings["application_name"]
    options = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in settings.items())
    given = url.query.get("options")
    return {
        "connect_timeout": _seconds(None if "connect_timeout" not in url.query else str(url.query["connect_timeout"])),
        "options": f"{given} {options}" if given else options,
    }


def _sqlite(url: URL, pool_size: int) -> AsyncEngine:
    if sqlite3.sqlite_version_info < (3, 35):
        raise ConfigurationError(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 or newer is needed")
    from storage.sqlite import Connection, Driver  # of no use to whoever runs on PostgreSQL

    engine = create_async_engine(
        url,
        module=Driver(Connection),
        pool_size=min(pool_size, READERS),
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
        pool_use_lifo=True,  # the warmest one: what it has read is still in its memory
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "begin", _begin_reading)
    return _prepared(engine, url)


def create_writer(url: URL, lost: Callable[[], None]) -> AsyncEngine:
    """For an SQLite file: whoever connects gets the same one connection, whose transactions `storage.turns` frames.

    `lost` is called when SQLAlchemy has thrown it away.
    """
    from storage.sqlite import Driver, Writer

    engine = create_async_engine(
        url, module=Driver(Writer), poolclass=StaticPool, pool_reset_on_return=None, hide_parameters=True
    )
    event.listen(engine.sync_engine, "connect", _know_your_place)
    event.listen(engine.sync_engine, "begin", _begin_writing)
    event.listen(engine.sync_engine, "rollback", _roll_back_writing)
    event.listen(engine.sync_engine, "before_cursor_execute", _only_inside)
    event.listen(engine.sync_engine, "invalidate", lambda *_: lost())
    return _prepared(engine, url)


def _prepared(engine: AsyncEngine, url: URL) -> AsyncEngine:
    file = Path(url.database or "")
    event.listen(engine.sync_engine, "do_connect", lambda *_: _create_file(file))
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    return engine


def _create_file(file: Path) -> None:
    """Make the file before SQLite does, readable by its owner only; what it makes beside it takes over the mode.

    A file that is there is not touched. To close any handle on it would let go of every lock that this process has on
    it, those of the open connections too: another process would take itself for the last one and delete the log of
    what was written.
    """
    try:
        os.close(os.open(file.resolve(), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if not file.is_file():
            raise ConfigurationError(_unusable(file, "it is no file")) from None
        if not os.access(file, os.R_OK | os.W_OK):
            raise ConfigurationError(_unusable(file, os.strerror(errno.EACCES))) from None
    except OSError as error:
        raise ConfigurationError(_unusable(file, error.strerror)) from error


def _unusable(file: Path, reason: str | None) -> str:
    return f"the database file {file} cannot be opened: {reason}; name a file in a folder that can be written"


_PRAGMAS = (
    "busy_timeout = 10000",
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "temp_store = MEMORY",  # what a savepoint keeps to take back; as a file it is more than what is written for good
)


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    handle: Any = connection
    try:
        handle.isolation_level = None  # the driver must not begin transactions of its own
        cursor = handle.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
    except Exception:
        handle.close()  # the pool has not got it yet and will not do so
        raise


def _begin_reading(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _know_your_place(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    writer: Any = connection
    writer.entry = entry


def _begin_writing(connection: Connection) -> None:
    turn = connection.get_execution_options()[TURN]
    try:
        await_only(turn.begin(connection.connection.dbapi_connection))
    except BaseException:
        # SQLAlchemy would take it for begun, and its next statement would be run in somebody else's transaction.
        connection._Connection__in_begin = False  # type: ignore[attr-defined]
        raise


def _roll_back_writing(connection: Connection) -> None:
    await_only(connection.get_execution_options()[TURN].roll_back())


def _only_inside(connection: Connection, *_: object) -> None:
    if not connection.in_transaction():
        raise RuntimeError("a statement outside of its transaction")
