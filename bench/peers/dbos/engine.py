"""The engines that can be given to DBOS: without a ping at every checkout, and with lighter transactions."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.errors import lookup
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, TransactionStatus

# The two reads before a step: one row each, no lock, no function.
_READ = re.compile(
    r'SELECT "?dbos"?\.(?:workflow_status\.status|operation_outputs\.output,[^()]*) ?\n'
    r'FROM "?dbos"?\.\w+ ?\nWHERE (?:(?! FOR ).)*',
    re.DOTALL,
)


@lru_cache(maxsize=1000)
def is_plain_read(statement: str) -> bool:
    """Whether it reads the same in a transaction of its own: READ COMMITTED sees anew at every statement anyway."""
    return _READ.fullmatch(statement) is not None


class Cursor(psycopg.Cursor[Any]):
    """Begins the transaction of its connection only at the first statement that needs one."""

    def execute(self, query: str, params: object = None, **options: object) -> Cursor:
        connection: Connection = self.connection  # type: ignore[assignment]
        if connection.transactional and not is_plain_read(query):
            connection.begin()
        return super().execute(query, params, **options)  # type: ignore[arg-type]


class Connection(psycopg.Connection[Any]):
    """A connection that is in autocommit below, and frames transactions itself, in one call of libpq each."""

    transactional = True

    @property
    def autocommit(self) -> bool:
        return not self.transactional

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self.transactional = not value

    def set_autocommit(self, value: bool) -> None:
        self.transactional = not value

    def begin(self) -> None:
        if self.pgconn.transaction_status == TransactionStatus.IDLE:
            level = self.isolation_level
            self._frame(b"BEGIN" if level is None else f"BEGIN ISOLATION LEVEL {level.name.replace('_', ' ')}".encode())

    def commit(self) -> None:
        if self.pgconn.transaction_status != TransactionStatus.IDLE:
            self._frame(b"COMMIT")

    def rollback(self) -> None:
        if self.pgconn.transaction_status != TransactionStatus.IDLE:
            super().rollback()

    def _frame(self, command: bytes) -> None:
        result = self.pgconn.exec_(command)
        if result.status == ExecStatus.COMMAND_OK:
            return
        if self.pgconn.status != ConnStatus.OK:
            raise psycopg.OperationalError(f"the connection is lost: {self.pgconn.get_error_message()}")
        state = (result.error_field(DiagnosticField.SQLSTATE) or b"XX000").decode()
        raise lookup(state)(result.get_error_message())


def configured(url: str, pool_size: int) -> sa.Engine:
    """SQLAlchemy's own psycopg connections; only the ping at every checkout is left away."""
    return sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_use_lifo=True,
        connect_args={"application_name": "dbos"},
    )


def lean(url: str, pool_size: int) -> sa.Engine:
    """The same pool, of connections with lighter transactions."""
    address = sa.make_url(url).set(drivername="postgresql")
    conninfo = address.render_as_string(hide_password=False)

    def connect() -> Connection:
        connection = Connection.connect(conninfo, autocommit=True, cursor_factory=Cursor, application_name="dbos")
        connection.transactional = True
        return connection

    return sa.create_engine(
        address.set(drivername="postgresql+psycopg"),
        creator=connect,
        pool_size=pool_size,
        max_overflow=0,
        pool_use_lifo=True,
    )


def sqlite(url: str, pool_size: int) -> sa.Engine:
    """A file with a write-ahead log, each commit flushed; otherwise as DBOS itself would open it."""
    engine = sa.create_engine(url, pool_size=pool_size, max_overflow=0, connect_args={"check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:  # noqa: ANN401
        connection.isolation_level = "IMMEDIATE"
        for pragma in ("busy_timeout = 30000", "foreign_keys = ON", "journal_mode = WAL", "synchronous = FULL"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


ENGINES = {"configured": configured, "lean": lean, "sqlite": sqlite}
