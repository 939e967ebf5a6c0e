"""Where the sagas are stored: sagaz's own PostgreSQL storage set up for speed, and one that saves many at a time."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import asyncpg
from sagaz.core.storage import PostgreSQLSagaStorage

if TYPE_CHECKING:
    from sagaz import SagaStatus

POOL = 8
BATCHES = 2
"""How many batches may be on their way at once."""

UPSERT = """
INSERT INTO sagas (saga_id, saga_name, status, context, metadata, updated_at)
SELECT saga_id, saga_name, status, context::jsonb, metadata::jsonb, now()
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
    AS saved (saga_id, saga_name, status, context, metadata)
ON CONFLICT (saga_id) DO UPDATE SET
    saga_name = excluded.saga_name, status = excluded.status, context = excluded.context,
    metadata = excluded.metadata, updated_at = now()
"""


class Unreset(asyncpg.Connection):
    """A connection that goes back into the pool without a round trip that resets it: sagaz leaves nothing to reset."""

    def get_reset_query(self) -> str:
        return ""


class Storage(PostgreSQLSagaStorage):
    """sagaz logs a failure to save and goes on: so that no such order counts as done, it is remembered here.

    asyncpg's pool serves whoever asks at the right moment, so that some wait for seconds: here they wait in a row.
    """

    def __init__(self, database_url: str) -> None:
        super().__init__(database_url, pool_min_size=POOL, pool_max_size=POOL, connection_class=Unreset)
        self.unsaved: set[str] = set()
        self._turn = asyncio.Semaphore(POOL)

    async def save_saga_state(  # noqa: PLR0917 - the library's signature
        self,
        saga_id: str,
        saga_name: str,
        status: SagaStatus,
        steps: list[dict[str, Any]],
        context: dict[str, Any],
        metadata: dict[str, Any] | None = None,
    ) -> None:
        try:
            async with self._turn:
                await super().save_saga_state(saga_id, saga_name, status, steps, context, metadata)
        except Exception:
            self.unsaved.add(saga_id)
            raise


class Batched(Storage):
    """Saves all sagas that wait for it in one statement, and so in one commit; each goes on when that is through.

    It is written against the interface that sagaz gives for a storage of one's own and uses sagaz's tables. The step
    rows stay as they are: sagaz's engine never gives any.
    """

    def __init__(self, database_url: str) -> None:
        super().__init__(database_url)
        self._waiting: dict[str, tuple[str, ...]] = {}
        self._saved: asyncio.Future[None] | None = None
        self._batches: set[asyncio.Task[None]] = set()

    async def save_saga_state(  # noqa: PLR0917 - the library's signature
        self,
        saga_id: str,
        saga_name: str,
        status: SagaStatus,
        steps: list[dict[str, Any]],
        context: dict[str, Any],
        metadata: dict[str, Any] | None = None,
    ) -> None:
        if steps:
            return await super().save_saga_state(saga_id, saga_name, status, steps, context, metadata)
        self._waiting[saga_id] = (saga_id, saga_name, status.value, json.dumps(context), json.dumps(metadata or {}))
        if self._saved is None:
            self._saved = asyncio.get_running_loop().create_future()
        if len(self._batches) < BATCHES:
            batch = asyncio.create_task(self._save())
            self._batches.add(batch)
            batch.add_done_callback(self._batches.discard)
        try:
            await asyncio.shield(self._saved)
        except Exception:
            self.unsaved.add(saga_id)
            raise

    async def _save(self) -> None:
        while self._saved:
            rows, saved = list(self._waiting.values()), self._saved
            self._waiting, self._saved = {}, None
            try:
                await (await self._get_pool()).execute(UPSERT, *zip(*sorted(rows), strict=True))
            except Exception as why:
                saved.set_exception(why)
            else:
                saved.set_result(None)
