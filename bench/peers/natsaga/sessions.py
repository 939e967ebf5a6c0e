"""The sessions that the library's orchestrator works in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AsyncExitStack

    from sqlalchemy import Executable, Result

POOL = 8
JSON: dict[str, Any] = {
    "json_serializer": lambda value: orjson.dumps(value).decode(),
    "json_deserializer": orjson.loads,
}


def pooled(database_url: str, stack: AsyncExitStack) -> async_sessionmaker[AsyncSession]:
    """SQLAlchemy's asynchronous sessions, as in the library's manual; nothing is rolled back on return."""
    address = database_url.replace("postgresql://", "postgresql+asyncpg://", 1)
    engine = create_async_engine(address, pool_size=POOL, pool_reset_on_return=None, **JSON)
    stack.push_async_callback(engine.dispose)
    return async_sessionmaker(engine, expire_on_commit=False)


class Straight:
    """A session with the methods of AsyncSession that natsaga calls, which waits for the database where it stands.

    The asynchronous session switches greenlets for every statement. With one transaction at a time per process there
    is nothing to switch to: other processes use the time that one waits.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.add = session.add

    async def execute(self, statement: Executable) -> Result[Any]:
        return self._session.execute(statement)

    async def commit(self) -> None:
        self._session.commit()

    async def rollback(self) -> None:
        self._session.rollback()

    async def __aenter__(self) -> Straight:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._session.close()


def straight(database_url: str, stack: AsyncExitStack) -> Callable[[], Straight]:
    """Sessions on one connection, for one transaction after the other."""
    address = database_url.replace("postgresql://", "postgresql+psycopg://", 1)
    engine = create_engine(address, pool_size=1, pool_reset_on_return=None, **JSON)
    stack.callback(engine.dispose)
    sessions = sessionmaker(engine, expire_on_commit=False)
    return lambda: Straight(sessions())
