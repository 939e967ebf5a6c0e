"""Addresses of databases and brokers: accepted as people paste them, checked without echoing a password.

Knows URLs only; it opens no connection.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_DATABASE = "sqlite+aiosqlite:///antiphon.db"
IN_PROCESS = "in-process"

_DRIVERS: Mapping[str, str] = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "postgresql+psycopg": "postgresql+psycopg",
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
}
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_LIBPQ_ONLY = (
    "application_name",
    "channel_binding",
    "connect_timeout",
    "gssencmode",
    "keepalives",
    "options",
    "target_session_attrs",
)
_CREDENTIALS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^\s:/@]*):(?P<password>[^\s/]*)@", re.IGNORECASE)


def database_address(text: str) -> str:
    """The address in SQLAlchemy's form, with the driver named.

    `postgres://` and `postgresql://` get asyncpg, `sqlite:///file` gets aiosqlite; `sslmode` becomes the driver's own
    parameter and parameters that only libpq knows are dropped for asyncpg.

    Raises:
        ValueError: It is no such address; the text says what to write and never repeats the password.
    """
    scheme, separator, _ = text.strip().partition("://")
    driver = _DRIVERS.get(scheme.lower())
    if not separator or driver is None:
        raise ValueError(
            "is not a database address; write postgresql://user:password@host:5432/database or sqlite:///file.db"
        )
    if driver.startswith("sqlite"):
        return _sqlite(text.strip())
    parts = _split(text.strip(), "postgresql://user:password@host:5432/database")
    if not parts.path.strip("/"):
        raise ValueError("names no database; end it with /database")
    return _assemble(driver, parts, _postgres_query(driver, parts.query))


def broker_address(text: str) -> str:
    """The address of a RabbitMQ virtual host; `in-process` stays as it is.

    Raises:
        ValueError: It is no such address; the text says what to write and never repeats the password.
    """
    stripped = text.strip()
    if stripped == IN_PROCESS:
        return IN_PROCESS
    scheme = stripped.partition("://")[0].lower()
    if scheme not in ("amqp", "amqps"):
        raise ValueError(f"is not a broker address; write amqp://user:password@host:5672/vhost, or {IN_PROCESS}")
    parts = _split(stripped, "amqp://user:password@host:5672/vhost")
    if not parts.hostname:
        raise ValueError("names no host; write amqp://user:password@host:5672/vhost")
    return stripped


def masked(text: str) -> str:
    """`text` with the password of every address in it replaced by `***`."""
    return _CREDENTIALS.sub(r"\g<scheme>\g<user>:***@", text)


def sqlite_file(address: str) -> str | None:
    """The file an SQLite address names, or None when the address is not SQLite's."""
    prefix = "sqlite+aiosqlite:///"
    return unquote(address.removeprefix(prefix).partition("?")[0]) if address.startswith(prefix) else None


def _sqlite(text: str) -> str:
    rest = text.partition("://")[2]
    path = rest[1:].partition("?")[0]
    if not rest.startswith("/") or not path or ":memory:" in path:
        raise ValueError(
            "must name a file that outlives the process; write sqlite:///antiphon.db, or sqlite:////var/lib/antiphon.db"
        )
    return f"sqlite+aiosqlite://{rest}"


def _split(text: str, example: str) -> SplitResult:
    """Split, and touch the port, whose error text would show a piece of a badly quoted password."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        parts = None
    if parts is None or parts.fragment:
        raise ValueError(
            f"cannot be read; write {example}, and special characters of the password percent-encoded "
            "(# as %23, / as %2F, @ as %40)"
        )
    return parts


def _postgres_query(driver: str, query: str) -> dict[str, str]:
    """The parameters the driver understands: asyncpg says `ssl` where libpq says `sslmode`."""
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    mode = parameters.get("sslmode", parameters.get("ssl"))
    if mode is not None and mode not in _SSL_MODES:
        raise ValueError(f"has an unknown sslmode; it is one of {', '.join(_SSL_MODES)}")
    if driver == "postgresql+psycopg":
        return parameters
    kept = {name: value for name, value in parameters.items() if name not in (*_LIBPQ_ONLY, "sslmode", "ssl")}
    return kept if mode is None else {**kept, "ssl": mode}


def _assemble(driver: str, parts: SplitResult, query: Mapping[str, str]) -> str:
    """Put the address together with its credentials quoted, so that a bare `%` or `@` in a password does no harm."""
    credentials = ""
    if parts.username is not None:
        credentials = quote(unquote(parts.username), safe="")
        credentials += f":{quote(unquote(parts.password), safe='')}" if parts.password is not None else ""
        credentials += "@"
    host = parts.netloc.rpartition("@")[2]
    return f"{driver}://{credentials}{host}{parts.path}" + (f"?{urlencode(query)}" if query else "")
