"""Addresses of databases and brokers: accepted as people paste them, checked without echoing a password.

Knows URLs only; it opens no connection.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

DEFAULT_DATABASE = "sqlite:///antiphon.db"
IN_PROCESS = "in-process"

_POSTGRES = ("postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg")
_SQLITE = ("sqlite", "sqlite+aiosqlite")
_POSTGRES_EXAMPLE = "postgresql://user:password@host:5432/database"
_BROKER_EXAMPLE = "amqp://user:password@host:5672/vhost"
_OURS = r"user:password@host(:\d+)?/(database|vhost)(?![^\s,;])"
_CREDENTIALS = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*://)(?!{_OURS})(?P<user>[^\s:/@]*):\S*@", re.IGNORECASE)
_PARAMETER = re.compile(r"(?P<name>[?&](ssl)?password=)[^\s&]*", re.IGNORECASE)


def database_address(text: str) -> str:
    """The address of a PostgreSQL database or an SQLite file, as pasted; `storage` knows its finer points.

    Raises:
        ValueError: It is no such address; the text says what to write and never repeats the password.
    """
    stripped = text.strip()
    scheme, separator, rest = stripped.partition("://")
    if separator and scheme in _SQLITE:
        if not rest.startswith("/") or rest in ("/", "/:memory:"):
            raise ValueError("must name a file; write sqlite:///antiphon.db, or sqlite:////var/lib/antiphon.db")
        return stripped
    if not separator or scheme not in _POSTGRES:
        raise ValueError(f"is not a database address; write {_POSTGRES_EXAMPLE} or sqlite:///file.db")
    if not _split(stripped, _POSTGRES_EXAMPLE).path.strip("/"):
        raise ValueError("names no database; end it with /database")
    return stripped


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
        raise ValueError(f"is not a broker address; write {_BROKER_EXAMPLE}, or {IN_PROCESS}")
    parts = _split(stripped, _BROKER_EXAMPLE)
    if not parts.hostname:
        raise ValueError(f"names no host; write {_BROKER_EXAMPLE}")
    return stripped


def masked(text: str) -> str:
    """`text` with the password of every address in it replaced by `***`; our own examples stay as they are.

    What may belong to a password is taken for one: it may hold any character that nobody has percent-encoded.
    """
    return _CREDENTIALS.sub(r"\g<scheme>\g<user>:***@", _PARAMETER.sub(r"\g<name>***", text))


def concealed(address: str) -> str:
    """An address alone, without its password, which may hold spaces too: they end an address only in a text."""
    return masked(re.sub(r"\s", "%20", address))


def shown(address: str) -> str:
    """A checked address as people may see it: without its password, and an SQLite file with its folder."""
    if not is_sqlite(address):
        return concealed(address)
    scheme, _, file = address.partition(":///")
    return f"{scheme}:///{Path(file).expanduser().absolute()}"


def is_sqlite(address: str) -> bool:
    """Whether a checked address names an SQLite file."""
    return address.partition("://")[0] in _SQLITE


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
