"""A participant at work over a real database: commands go in by hand, replies come out of a saga's queue."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from handlers.answering import Answering
from messages import codec
from messages.codec import Limits
from messages.envelope import Raw
from outbox.relay import Relay
from running import AsyncioRunner
from storage.statements import Statement
from transport.in_process import InProcessTransport
from transport.topology import Queue, Topology, saga_queue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers import Participant
    from messages import Command
    from outbox.unit import SqlStorage
    from transport.in_process import InProcessConsumer
    from transport.interface import Delivery

NAMESPACE = "antiphon"
REPLIES = saga_queue(NAMESPACE, "Asker")
LIMITS = Limits()
PATIENCE = 30.0


class Desk:
    """One process that runs one participant, without its loop: the test is the broker's delivery."""

    def __init__(self, participant: Participant, storage: SqlStorage, *, patience: float = PATIENCE) -> None:
        self.participant = participant
        self.storage = storage
        self.facts: list[object] = []
        self.runner = AsyncioRunner()
        self.transport = InProcessTransport(app_id=NAMESPACE)
        self.relay = Relay(storage, self.transport.publisher, self.runner, self.facts.append, sweep=0.02)
        self.answering = Answering(
            participant,
            storage,
            self.relay,
            self.runner,
            report=self.facts.append,
            namespace=NAMESPACE,
            limits=LIMITS,
            patience=patience,
        )
        self._replies: InProcessConsumer | None = None
        self._relaying: asyncio.Task[None] | None = None

    async def open(self) -> Desk:
        """Prepare the tables, connect, listen for replies and run the relay."""
        if self.participant.prepare is not None:
            await self.answering.store.set_up(self.participant.prepare)
        await self.transport.connect()
        events = {kind.message_name for one in self.participant.handlers.values() for kind in one.replies if kind}
        queues = (
            Queue.of_saga(NAMESPACE, "Asker", events=events),
            Queue.of_participant(NAMESPACE, self.participant.name, commands=self.participant.commands),
        )
        await self.transport.declare(Topology(namespace=NAMESPACE, queues=queues))
        self._replies = await self.transport.consume(REPLIES, prefetch=1000)
        self._relaying = self.runner.start(self.relay.run(), name="relay")
        return self

    async def close(self) -> None:
        """Let everything go."""
        self.relay.stop()
        if self._relaying is not None:
            await self._relaying
        await self.transport.close()

    async def take(self, *raws: Raw) -> None:
        """Deliveries, one after another."""
        for raw in raws:
            async with asyncio.timeout(PATIENCE):
                await self.answering.take(raw)

    async def replies(self, number: int) -> list[Delivery]:
        """Wait for so many replies, and settle them."""
        found: list[Delivery] = []
        assert self._replies is not None
        while len(found) < number:
            async with asyncio.timeout(PATIENCE):
                burst = await self._replies.receive(number - len(found))
            await self._replies.settle(burst)
            found += burst
        return found

    async def reply(self) -> Raw:
        """Wait for the next reply."""
        [delivery] = await self.replies(1)
        return delivery.raw

    async def sent(self) -> None:
        """Wait until the outbox is empty: nothing more is on its way."""
        async with asyncio.timeout(PATIENCE):
            while await self.rows("select * from v_outbox"):  # noqa: ASYNC110 - a table does not tell
                await asyncio.sleep(0)

    async def rows(self, sql: str) -> Sequence[Any]:
        """What a statement finds."""
        async with self.storage.database.read() as session:
            return await session.fetch(Statement.both(sql), {})

    async def dead(self) -> list[tuple[str, str]]:
        """The dead letters: (message id, reason)."""
        found = await self.rows("select message_id, reason from v_dead_letter order by dead_letter_id")
        return [(row.message_id, row.reason) for row in found]

    async def effects(self) -> dict[str, str]:
        """The idempotency-keys and what stands there."""
        return {row.idempotency_key: row.status for row in await self.rows("select * from participant_effect")}


def asked(command: Command, *, key: str | None = "s/1/do", message_id: str | None = None, **headers: str) -> Raw:
    """A command as a saga sends it."""
    return Raw(
        body=codec.encode(command),
        routing_key=command.message_name,
        message_id=message_id or str(uuid4()),
        type=command.message_name,
        content_type="application/json",
        app_id=NAMESPACE,
        correlation_id="5f0c6a1e-0c3b-5d55-9a55-3d7c0d1f8a11",
        reply_to=REPLIES,
        headers={"idempotency-key": key, **headers} if key else headers,
    )


def undo_of(command: Command, *, key: str = "s/1/do", message_id: str | None = None) -> Raw:
    """The command that undoes what was done under a key."""
    return asked(command, key=key.replace("/do", "/undo"), message_id=message_id, compensates=key)


def again(raw: Raw, **changes: object) -> Raw:
    """A copy of a command, with something changed."""
    return replace(raw, **changes)  # type: ignore[arg-type]
