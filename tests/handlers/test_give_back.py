"""A dead letter goes back to the queue of its reader as its sender wrote it, and is open again if there is no queue."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from handlers.dead_letters import imported
from handlers.give_back import GiveBack
from handlers.verdict import Request, Verdict
from messages import Limits
from messages.envelope import UNDECODABLE_HEADER, Raw
from outbox.facts import MessagesAbandoned
from outbox.interface import Changes
from outbox.relay import Relay
from running import AsyncioRunner
from storage.retention import Expiry
from tests.handlers.house import dead, outbox, rows
from tests.outbox.building import command, put
from tests.services.waiting import until_async
from transport.in_process import InProcessTransport
from transport.topology import Queue, Topology

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from outbox.unit import SqlStorage

QUEUE = "theirs.orders"
LIMITS = Limits(max_body=1000)
NEVER = 86_400.0
MOMENT = datetime(2026, 11, 21, 20, 15, 3, tzinfo=UTC)
DIED = {
    "x-death": [{"queue": QUEUE, "reason": "rejected", "count": 1}],
    "x-first-death-queue": QUEUE,
    "x-last-death-reason": "rejected",
    "x-acquired-count": 3,
}
WRITTEN = {
    "tenant": "acme",
    "authorization": "Bearer z",
    "x-request": "theirs",
    "number": 1.1,
    "exact": Decimal("12.34"),
    "bytes": b"\x00\xff",
    "when": MOMENT,
    "none": None,
    "table": {"$odd": [1, "x", {"k": 2**40}]},
}


def theirs(message_id: str | None = "m-1", body: bytes = b"\x1f\x8b no JSON") -> Raw:
    return Raw(
        body=body,
        routing_key="theirs.Do",
        message_id=message_id,
        content_type="text/plain; charset=latin-1",
        content_encoding="gzip",
        correlation_id="c",
        reply_to="theirs.replies",
        app_id="theirs",
        user_id="somebody",
        priority=7,
        timestamp=MOMENT,
        headers={**WRITTEN, **DIED, "CC": ["their.other.queue"]},
    )


class Post:
    """Letters of a queue that others read, and a relay to give them back."""

    def __init__(self, storage: SqlStorage, *, patience: float = NEVER) -> None:
        self.storage = storage
        self.facts: list[object] = []
        self.transport = InProcessTransport(app_id="antiphon")
        runner = AsyncioRunner()
        self.relay = Relay(storage, self.transport.publisher, runner, self.facts.append, sweep=0.02, patience=patience)
        self.give_back = GiveBack(storage, runner, limits=LIMITS)

    @property
    def abandoned(self) -> list[MessagesAbandoned]:
        return [fact for fact in self.facts if isinstance(fact, MessagesAbandoned)]

    async def keep(self, *raws: Raw) -> list[int]:
        letters = [imported(raw, "antiphon", LIMITS) for raw in raws]
        async with self.storage.transaction() as unit:
            await unit.save(Changes(consumer="tests", dead_letters=letters))
        found = await rows(self.storage, "select dead_letter_id from v_dead_letter order by 1")
        return [row.dead_letter_id for row in found]

    async def replay(self, letter: int) -> Verdict:
        request = Request(dead_letter_id=letter, actor="ada", reason="mended", request_id=str(uuid4()))
        return await self.give_back.replay(request)

    async def status(self) -> list[str]:
        return [row.status for row in await rows(self.storage, "select status from v_dead_letter order by 1")]

    async def declare(self) -> None:
        queue = replace(Queue.of_participant("theirs", "orders", commands=("theirs.Do",)), name=QUEUE)
        await self.transport.declare(Topology(namespace="theirs", queues=(queue,)))

    async def arrived(self, number: int) -> Sequence[Raw]:
        """What the reader finds, so many messages."""
        consumer = await self.transport.consume(QUEUE, prefetch=10)
        found: list[Raw] = []
        async with asyncio.timeout(30):
            while len(found) < number:
                burst = await consumer.receive(10)
                await consumer.settle(burst)
                found += [each.raw for each in burst]
        return found

    @asynccontextmanager
    async def relaying(self) -> AsyncIterator[None]:
        await self.transport.connect()
        task = asyncio.create_task(self.relay.run())
        try:
            yield
        finally:
            self.relay.stop()
            await task
            await self.transport.close()


async def test_what_its_sender_wrote_comes_back_and_what_the_broker_wrote_does_not(storage: SqlStorage) -> None:
    post = Post(storage)
    [letter] = await post.keep(theirs())
    assert (await post.replay(letter)).outcome == "given_back"
    async with post.relaying():
        await post.declare()
        [raw] = await post.arrived(1)
    assert raw == replace(theirs(), headers=WRITTEN, user_id=None, type="theirs.Do", routing_key=QUEUE)


async def test_messages_that_differ_are_two_also_under_one_id_or_none(storage: SqlStorage) -> None:
    post = Post(storage)
    bodies = [b"a", b"b", b"c", b"d"]
    letters = await post.keep(*(theirs("m-1" if n < 2 else None, body) for n, body in enumerate(bodies)))
    assert {(await post.replay(letter)).outcome for letter in letters} == {"given_back"}
    async with post.relaying():
        await post.declare()
        raws = await post.arrived(4)
    assert [(raw.message_id, raw.body) for raw in raws] == [("m-1", b"a"), ("m-1", b"b"), (None, b"c"), (None, b"d")]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (theirs(body=b"x" * 1001), "1000 are allowed"),
        (
            replace(theirs(None), headers={UNDECODABLE_HEADER: b"?", **DIED}),
            "its properties could not be read",
        ),
    ],
)
async def test_what_cannot_be_published_stays_and_says_so(storage: SqlStorage, raw: Raw, why: str) -> None:
    post = Post(storage)
    [letter] = await post.keep(raw)
    verdict = await post.replay(letter)
    assert verdict.outcome == "failed_again"
    assert why in verdict.detail
    assert (await post.status(), await outbox(storage)) == (["open"], [])


async def test_a_letter_whose_queue_stays_gone_is_open_again_and_can_be_given_back_once_more(
    storage: SqlStorage,
) -> None:
    post = Post(storage, patience=0.0)
    first, second = await post.keep(theirs("m-1"), theirs("m-2"))
    for letter in (first, second):
        await post.replay(letter)
    assert await post.status() == ["replayed", "replayed"]

    async def opened() -> bool:
        return sum(fact.letters for fact in post.abandoned) == 2

    async with post.relaying():
        await until_async(opened, what="the letters to be open again")
        assert await outbox(storage) == []
        assert await post.status() == ["open", "open"]
        assert {fact.queue for fact in post.abandoned} == {QUEUE}
        [told] = await rows(storage, "select error from v_dead_letter where message_id = 'm-1'")
        assert "there has been no such queue since" in told.error
        kinds = await rows(
            storage,
            "select kind, actor from dead_letter_event where dead_letter_id = :id order by event_id",
            {"id": first},
        )
        assert [tuple(row) for row in kinds] == [("given_back", "ada"), ("reopened", "antiphon")]
        await post.declare()
        assert (await post.replay(first)).outcome == "given_back"
        assert [raw.message_id for raw in await post.arrived(1)] == ["m-1"]
    assert await dead(storage) == [("m-1", "rejected"), ("m-2", "rejected")]


async def test_a_letter_on_its_way_back_is_not_removed_as_dealt_with(storage: SqlStorage) -> None:
    post = Post(storage)
    first, _ = await post.keep(theirs("m-1"), theirs("m-2"))
    await post.replay(first)
    expiry = Expiry(storage.database)
    assert (await expiry.dead_letters(-60.0)).removed == 0
    async with post.relaying():
        await post.declare()
        await post.arrived(1)
    assert await outbox(storage) == []
    assert (await expiry.dead_letters(-60.0)).removed == 1
    assert await post.status() == ["open"]


async def test_a_reply_to_a_queue_that_stays_gone_ends_and_what_an_instance_waits_for_does_not(
    storage: SqlStorage,
) -> None:
    post = Post(storage, patience=0.0)
    asked = command(uuid4())
    elsewhere = [
        replace(command(uuid4()), saga_id=None, path=None, exchange="", routing_key=f"amq.gen-{n % 3}")
        for n in range(60)
    ]
    await put(storage, replace(asked, exchange="", routing_key="amq.gen-0"), *elsewhere)

    async def ended() -> bool:
        return len(await outbox(storage)) == 1

    async with post.relaying():
        await until_async(ended, what="the replies to be gone")
    assert await outbox(storage) == [("stock.ReserveStock", "returned")]
    assert [sum(fact.replies for fact in post.abandoned), sum(fact.letters for fact in post.abandoned)] == [60, 0]
