"""What the broker gave up on comes into the table, raw and complete, once, whatever stands in its headers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import text

from handlers.dead_letters import DeadLetterImport, consumer_of, death, imported
from handlers.facts import DeadLetterImported, DeadLetterUnkept
from handlers.letter import identity
from messages import Limits, codec
from messages.envelope import Raw
from messages.errors import DatabaseAway, MalformedMessage
from outbox.interface import Changes
from running import AsyncioRunner
from storage import dead_letters
from storage.letters import DeadLetterFilter, LetterQueries
from storage.properties import packed, unpacked
from storage.statements import Batch
from tests.handlers.lossy import Lossy
from tests.services.waiting import until_async
from transport.rabbitmq import RabbitMQTransport
from transport.topology import Queue, Topology, dead_exchange, dead_queue, participant_queue, saga_queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aio_pika.abc import AbstractChannel

    from outbox.unit import SqlStorage, SqlUnit
    from storage.letters import DeadLetterSummary

NS = "shop"
LIMITS = Limits()

amqp_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300)
    | st.datetimes().map(lambda moment: moment.replace(microsecond=0, tzinfo=UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
headers = st.dictionaries(
    st.sampled_from(("x-death", "x-first-death-queue", "x-first-death-reason", "x-delivery-count", "schema-version"))
    | st.text(max_size=20),
    amqp_values,
    max_size=6,
)
texts = st.none() | st.text(max_size=300)
raws = st.builds(
    Raw,
    body=st.binary(max_size=200),
    routing_key=st.text(max_size=40),
    message_id=texts,
    type=texts,
    correlation_id=texts,
    reply_to=texts,
    app_id=texts,
    headers=headers,
)


def raw(**values: Any) -> Raw:  # noqa: ANN401
    plain = Raw(body=b"{}", routing_key="stock.StockReserved", message_id="m-1", app_id="stock")
    return replace(plain, **values)


def died(queue: object, reason: object) -> dict[str, object]:
    return {"x-death": [{"queue": queue, "reason": reason, "count": 1}]}


@given(raws)
@example(raw(headers={"x-death": "spoofed"}))
@example(raw(headers={"x-death": [b"\xff", {"queue": 3}]}))
@example(raw(headers={"x-death": [{"queue": "\ud800" * 80, "reason": ["rejected"]}]}))
def test_any_message_becomes_a_letter_that_is_kept_as_it_came(message: Raw) -> None:
    letter = imported(message, NS, LIMITS)
    assert letter.raw.body == message.body
    without_count = {name: value for name, value in message.headers.items() if name != "x-delivery-count"}
    assert unpacked(letter.raw.body, packed(letter.raw)) == replace(message, headers=without_count)
    assert letter.reason in {"delivery_limit", "rejected", "expired", "maxlen", "unknown_origin"}
    assert letter.queue is None or (letter.queue.isprintable() and 0 < len(letter.queue.encode()) <= 255)
    assert letter.message_id


@given(raws, raws)
def test_messages_without_an_id_are_one_letter_only_if_their_senders_wrote_the_same(one: Raw, other: Raw) -> None:
    one, other = (replace(each, message_id=None) for each in (one, other))

    def named(message: Raw) -> str:
        return identity(message, None, codec.body_hash(message.body))

    def written(message: Raw) -> tuple[str, bytes]:
        own = {name: value for name, value in message.headers.items() if not name.startswith("x-")}
        return packed(replace(message, headers=own)), message.body

    assert (named(one) == named(other)) == (written(one) == written(other))
    assert named(replace(one, headers={**one.headers, "x-death": [{"count": 2}]})) == named(one)


def test_the_broker_says_where_a_message_died_before_the_sender_does() -> None:
    spoofed = {"x-first-death-queue": "mine", "x-first-death-reason": "expired"}
    entries = [{"queue": "theirs", "reason": "rejected"}, {"queue": "mine", "reason": "expired"}]
    assert (death(raw(headers={"x-death": entries, **spoofed})).queue) == "theirs"
    assert (death(raw(headers=spoofed)).queue, death(raw(headers=spoofed)).reason) == ("mine", "expired")
    assert death(raw(headers=died("theirs", "because"))).reason is None


def test_a_letter_belongs_to_whoever_reads_the_queue_that_gave_it_up() -> None:
    assert consumer_of(NS, "shop.saga.PlaceOrder") == "PlaceOrder"
    assert consumer_of(NS, "shop.participant.stock") == "participant.stock"
    assert consumer_of(NS, "billing") == "billing"
    assert consumer_of(NS, "other.saga.PlaceOrder") == "other.saga.PlaceOrder"
    assert consumer_of(NS, "shop.saga.") == "shop.saga."
    assert consumer_of(NS, None) == "shop.dead"


# -- over a broker


@dataclass
class Faulty:
    """Everything of the storage it wraps, but for transactions that are to fail."""

    storage: SqlStorage
    away: int = 0
    refused: str = ""
    tried: int = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlUnit]:
        self.tried += 1
        if self.away:
            self.away -= 1
            raise DatabaseAway("the server closed the connection")
        async with self.storage.transaction() as unit:
            yield unit
            if self.refused and self.refused in await _names(unit):
                raise MalformedMessage("the database refuses it")


async def _names(unit: SqlUnit) -> list[str]:
    return [row.message_id for row in await unit.session.connection.execute(text("select message_id from dead_letter"))]


@dataclass
class Post:
    """A namespace on a broker whose queue of `Test` gives messages up, and the loop that imports them."""

    namespace: str
    transport: RabbitMQTransport
    channel: AbstractChannel
    storage: SqlStorage
    facts: list[object] = field(default_factory=list)

    @asynccontextmanager
    async def importing(self, storage: Any = None) -> AsyncIterator[DeadLetterImport]:  # noqa: ANN401
        loop = DeadLetterImport(
            storage or self.storage,
            self.transport,
            AsyncioRunner(),
            self.facts.append,
            namespace=self.namespace,
            limits=LIMITS,
        )
        task = asyncio.create_task(loop.run())
        try:
            await until_async(lambda: loop.attached, what="the import to be attached")
            yield loop
            await loop.stop()
            await task
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def give_up(self, *messages: aio_pika.Message) -> None:
        """Have the queue's reader reject these."""
        queue = await self.channel.get_queue(saga_queue(self.namespace, "Test"), ensure=False)
        for message in messages:
            await self.channel.default_exchange.publish(message, queue.name)
            arrived = await until_async(lambda: queue.get(fail=False), what="the message in its queue")
            assert arrived is not None
            await arrived.reject(requeue=False)

    async def left(self) -> int:
        """How many messages wait in the dead-letter queue; those handed out do not count."""
        queue = await self.channel.declare_queue(dead_queue(self.namespace), passive=True)
        return queue.declaration_result.message_count or 0

    async def letters(self) -> list[DeadLetterSummary]:
        page = await LetterQueries(self.storage.database).page(DeadLetterFilter(status=None))
        return sorted(page.dead_letters, key=lambda letter: letter.dead_letter_id)

    async def until_kept(self, copies: int) -> list[DeadLetterSummary]:
        async def kept() -> list[DeadLetterSummary]:
            found = await self.letters()
            return found if sum(letter.copies for letter in found) >= copies else []

        return await until_async(kept, what=f"{copies} copies of letters in the table")


@pytest.fixture
async def post(rabbitmq_url: str, namespace: str, storage: SqlStorage) -> AsyncIterator[Post]:
    transport = RabbitMQTransport(rabbitmq_url, runner=AsyncioRunner(), app_id="post")
    await transport.connect()
    await transport.declare(Topology(namespace=namespace, queues=(Queue.of_saga(namespace, "Test", events=()),)))
    async with await aio_pika.connect(rabbitmq_url) as connection:
        yield Post(namespace, transport, await connection.channel(), storage)
    await transport.close()


def message(message_id: str, body: bytes = b"\xff not json", **values: Any) -> aio_pika.Message:  # noqa: ANN401
    return aio_pika.Message(body, message_id=message_id, type="stock.StockReserved", app_id="stock", **values)


async def test_a_message_that_a_reader_rejected_is_kept_with_where_and_why_and_leaves_the_broker(post: Post) -> None:
    async with post.importing():
        await post.give_up(message("m-1", headers={"odd": {"deep": [1, bytearray(b"\x00")]}}, correlation_id="c"))
        [letter] = await post.until_kept(1)
    assert (letter.consumer, letter.message_id, letter.name) == ("Test", "m-1", "stock.StockReserved")
    assert (letter.reason, letter.error_class, letter.queue) == ("rejected", "Broker", f"{post.namespace}.saga.Test")
    assert "rejected it" in letter.error
    detail = await LetterQueries(post.storage.database).detail(letter.dead_letter_id)
    assert detail is not None
    assert (detail.raw.body, detail.raw.correlation_id) == (b"\xff not json", "c")
    assert detail.raw.headers["odd"] == {"deep": [1, b"\x00"]}
    assert [event.kind for event in detail.events] == ["imported"]
    assert await post.left() == 0
    assert [fact.message_id for fact in post.facts if isinstance(fact, DeadLetterImported)] == ["m-1"]


@pytest.mark.parametrize(
    ("arguments", "values", "reason"),
    [
        ({"x-queue-type": "quorum"}, {"expiration": timedelta(milliseconds=1)}, "expired"),
        ({"x-queue-type": "classic", "x-max-length": 1}, {}, "maxlen"),
        ({"x-queue-type": "quorum", "x-delivery-limit": 1}, {}, "delivery_limit"),
    ],
)
async def test_what_the_broker_gives_up_for_reasons_of_its_own_says_which(
    post: Post, arguments: dict[str, Any], values: dict[str, Any], reason: str
) -> None:
    """As the queue of a participant elsewhere may be declared."""
    arguments = arguments | {"x-dead-letter-exchange": dead_exchange(post.namespace)}
    queue = await post.channel.declare_queue(
        participant_queue(post.namespace, "billing"), durable=True, arguments=arguments
    )
    for message_id in ("m-1", "m-2") if reason == "maxlen" else ("m-1",):
        await post.channel.default_exchange.publish(message(message_id, **values), queue.name)
    for _ in range(2 if reason == "delivery_limit" else 0):
        arrived = await until_async(lambda: queue.get(fail=False), what="the message in its queue")
        assert arrived is not None
        await arrived.nack(requeue=True)
    async with post.importing():
        [letter] = await post.until_kept(1)
    assert (letter.message_id, letter.reason, letter.consumer) == ("m-1", reason, "participant.billing")
    await queue.delete(if_unused=False, if_empty=False)


async def test_copies_of_a_message_are_one_letter_and_counted(post: Post) -> None:
    await post.give_up(message("m-1"), message("m-2"), message("m-1"), message("m-1", body=b"{}"))
    async with post.importing():
        letters = await post.until_kept(4)
    assert [(letter.message_id, letter.copies) for letter in letters] == [("m-1", 2), ("m-2", 1), ("m-1", 1)]
    assert await post.left() == 0


async def test_no_header_that_a_sender_can_write_stops_the_import(post: Post) -> None:
    odd: list[object] = ["x", 7, [], [7], [{}], [{"queue": 5, "reason": {}}], {"queue": "q"}, [{"queue": "a" * 300}]]
    exchange = await post.channel.get_exchange(dead_exchange(post.namespace), ensure=False)
    for number, value in enumerate(odd):
        await exchange.publish(message(f"m-{number}", headers={"x-death": value}), "any")
    await post.give_up(message("m-true", headers=died("nowhere", "expired")))
    async with post.importing():
        letters = await post.until_kept(len(odd) + 1)
    true = letters.pop()
    assert (true.consumer, true.reason) == ("Test", "rejected")
    assert {(letter.consumer, letter.reason) for letter in letters} == {(f"{post.namespace}.dead", "unknown_origin")}


@pytest.mark.parametrize("when", ["after", "instead"])
async def test_an_answer_to_a_commit_that_gets_lost_neither_loses_nor_doubles_a_letter(
    post: Post,
    when: Any,  # noqa: ANN401
) -> None:
    lossy = Lossy(post.storage)
    lossy.lose(when)
    await post.give_up(message("m-1"))
    async with post.importing(lossy):
        await post.until_kept(1)
    [letter] = await post.letters()
    assert (letter.copies, lossy.lost) == (1, 1)
    assert await post.left() == 0


async def test_a_database_that_is_away_is_waited_for_with_the_messages_still_at_the_broker(post: Post) -> None:
    faulty = Faulty(post.storage, away=3)
    await post.give_up(message("m-1"), message("m-2"))
    async with post.importing(faulty):
        await post.until_kept(2)
    assert faulty.tried >= 4
    assert await post.left() == 0


async def test_one_message_that_the_database_refuses_stays_at_the_broker_and_holds_up_no_other(post: Post) -> None:
    await post.give_up(*(message(f"m-{number}") for number in range(5)))
    async with post.importing(Faulty(post.storage, refused="m-2")):
        await post.until_kept(4)
        await until_async(lambda: any(isinstance(fact, DeadLetterUnkept) for fact in post.facts), what="the report")
    assert {letter.message_id for letter in await post.letters()} == {"m-0", "m-1", "m-3", "m-4"}
    await until_async(post.left, what="the message back in the queue")
    async with post.importing():
        await post.until_kept(5)


async def test_what_is_handed_out_again_does_not_open_a_letter_that_was_dealt_with(post: Post) -> None:
    await post.give_up(message("m-1"))
    queue = await post.channel.get_queue(dead_queue(post.namespace), ensure=False)
    async with post.importing(Faulty(post.storage, refused="m-1")):
        await until_async(lambda: any(isinstance(fact, DeadLetterUnkept) for fact in post.facts), what="the report")
    arrived = await until_async(lambda: queue.get(fail=False), what="the message back in the queue")
    assert arrived is not None
    # Another process had committed it and could not acknowledge it any more; then it was discarded.
    handed_out = Raw(
        body=arrived.body,
        routing_key=arrived.routing_key or "",
        message_id=arrived.message_id,
        type=arrived.type,
        app_id=arrived.app_id,
        priority=arrived.priority,
        headers=arrived.headers,
    )
    before = imported(handed_out, post.namespace, LIMITS)
    async with post.storage.transaction() as unit:
        await unit.save(Changes(consumer="test", dead_letters=[before]))
    [letter] = await post.letters()
    batch = Batch()
    dead_letters.resolve(batch, letter.dead_letter_id, status="discarded", actor="ada", why="a test")
    async with post.storage.transaction() as unit:
        await unit.save(Changes(consumer="test"), batch)
    await arrived.reject(requeue=True)
    async with post.importing():
        await post.give_up(message("m-2"))
        await post.until_kept(2)
    first, _ = await post.letters()
    assert (first.message_id, first.status, first.copies) == ("m-1", "discarded", 1)
    assert await post.left() == 0
