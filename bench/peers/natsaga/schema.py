"""The tables of natsaga and nats-outbox, made by the libraries themselves, without the indexes that nothing reads."""

from __future__ import annotations

import asyncpg
from nats_outbox.core.models import create_tables as create_outbox
from nats_server import Unavailable
from natsaga.core.models import create_tables as create_sagas
from sqlalchemy.ext.asyncio import create_async_engine

UNREAD = "DROP INDEX idx_saga_active, idx_outbox_aggregate"


async def create(database_url: str) -> None:
    """Make the tables.

    Raises:
        Unavailable: PostgreSQL cannot be reached.
    """
    try:
        await (await asyncpg.connect(database_url, timeout=10)).close()
    except (OSError, TimeoutError, asyncpg.PostgresError) as why:
        raise Unavailable(f"PostgreSQL cannot be reached: {why}") from why
    engine = create_async_engine(database_url.replace("postgresql://", "postgresql+asyncpg://", 1))
    await create_outbox(engine)
    await create_sagas(engine)
    async with engine.begin() as connection:
        await connection.exec_driver_sql(UNREAD)
    await engine.dispose()
