"""The same random work on SQLite and on PostgreSQL leads to the same answers and the same outbox."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from sqlalchemy import text

from outbox.interface import Changes, RowOutcome
from outbox.unit import SqlStorage
from tests.outbox.building import CONSUMER, LEASE, OVER, command
from tests.storage.databases import ASYNCPG, SQLITE, opened

if TYPE_CHECKING:
    from pathlib import Path

    from outbox.interface import ClaimedRow, Outgoing

SAGAS = [UUID(int=number) for number in range(1, 4)]
MESSAGES: list[Outgoing] = [
    command(saga_id, path, message_id=f"{saga_id.int if saga_id else 0}-{path}-{number}")
    for saga_id in (*SAGAS, None)
    for path in ("reserve", "pay", None)
    for number in range(3)
]


@dataclass
class Worker:
    """Someone who works on one outbox, with what is known of the rows held."""

    storage: SqlStorage
    chance: random.Random
    held: dict[str, ClaimedRow] = field(default_factory=dict)

    async def step(self) -> object:
        """Do one thing, and say what came of it in words that do not depend on the database."""
        work = self.chance.choice(
            [self.put, self.put, self.claim, self.settle, self.release, self.renew, self.withdraw]
        )
        return work.__name__, await work()

    def _some(self) -> list[ClaimedRow]:
        names = sorted(self.held)
        return [self.held[name] for name in self.chance.sample(names, self.chance.randint(0, len(names)))]

    def _hold(self, rows: list[ClaimedRow]) -> list[tuple[str, int]]:
        self.held |= {row.outgoing.envelope.message_id: row for row in rows}
        return [(row.outgoing.envelope.message_id, row.attempts) for row in rows]

    async def put(self) -> object:
        outgoing = self.chance.sample(MESSAGES, self.chance.randint(1, 6))
        lease = self.chance.choice([None, OVER, LEASE])
        token = UUID(int=self.chance.getrandbits(128))
        confirmed = [(row.outbox_id, row.token) for row in self._some()] if self.chance.random() < 0.3 else []
        async with self.storage.transaction() as unit:
            rows = await unit.save(
                Changes(
                    consumer=CONSUMER,
                    outgoing=outgoing,
                    confirmed=confirmed,
                    claim=None if lease is None else (token, lease),
                    claim_limit=self.chance.randint(0, 4),
                )
            )
        return self._hold(list(rows))

    async def claim(self) -> object:
        token, lease = UUID(int=self.chance.getrandbits(128)), self.chance.choice([OVER, LEASE])
        rows = await self.storage.claim_outbox(token=token, lease=lease, limit=self.chance.randint(1, 9))
        return self._hold(list(rows))

    async def settle(self) -> object:
        confirmed, failed = self._some(), self._some()
        done = {row.outbox_id for row in confirmed}
        await self.storage.settle_outbox(
            confirmed=[(row.outbox_id, row.token) for row in confirmed],
            failed=[
                RowOutcome(
                    outbox_id=row.outbox_id,
                    token=row.token,
                    state=self.chance.choice(["new", "unknown", "returned", "refused"]),
                    retry_in=self.chance.choice([-1.0, 60.0]),
                )
                for row in failed
                if row.outbox_id not in done
            ],
        )
        return len(failed)

    async def release(self) -> object:
        rows = self._some()
        await self.storage.release_leases([(row.outbox_id, row.token) for row in rows])
        return len(rows)

    async def renew(self) -> object:
        rows = self._some()
        kept = [
            row.outgoing.envelope.message_id
            for row in rows
            if await self.storage.renew_leases(row.token, [row.outbox_id], self.chance.choice([OVER, LEASE]))
        ]
        return sorted(kept)

    async def withdraw(self) -> object:
        wanted = [message.envelope.message_id for message in self.chance.sample(MESSAGES, 8)]
        async with self.storage.transaction() as unit:
            return sorted(await unit.withdraw(wanted))

    async def table(self) -> object:
        async with self.storage.database.read() as session:
            rows = await session.connection.execute(
                text("select message_id, state, attempts, maybe_sent, token from outbox order by outbox_id")
            )
            return [
                (row.message_id, row.state, row.attempts, bool(row.maybe_sent), row.token and str(row.token))
                for row in rows
            ]


@pytest.mark.parametrize("seed", range(6))
async def test_random_work_has_the_same_outcome(request: pytest.FixtureRequest, tmp_path: Path, seed: int) -> None:
    async with opened(SQLITE, request, tmp_path) as here, opened(ASYNCPG, request, tmp_path) as there:
        workers = [Worker(SqlStorage(database), random.Random(seed)) for database in (here, there)]
        for number in range(40):
            said = [await worker.step() for worker in workers]
            assert said[0] == said[1], number
            tables = [await worker.table() for worker in workers]
            assert tables[0] == tables[1], (number, said[0])
