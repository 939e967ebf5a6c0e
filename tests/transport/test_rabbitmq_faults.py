"""What RabbitMQ and the network between can do to us, and what must come of it."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import aio_pika
import pytest
from yarl import URL

from messages.errors import BrokerAway, ConfigurationError, TopologyMismatch
from running import AsyncioRunner
from testkit.conformance.bench import Bench, Pair, numbers, received, within, worked_off
from tests.services.waiting import until_async
from tests.transport.cable import Cable
from transport import Queue, Topology, Verdict, events_exchange
from transport.facts import (
    BrokerBlocked,
    BrokerConnected,
    BrokerDisconnected,
    BrokerUnblocked,
    BrokerUnreachable,
    ConsumerAttached,
    ConsumerDetached,
    PublicationsSuspected,
    TopologyUnverified,
)
from transport.rabbitmq import RabbitMQTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.services.private import PrivateRabbitMQ
    from transport import Outcome
    from transport.facts import TransportFact

CONFIRMED, RETURNED, REFUSED, NACKED, UNKNOWN = (
    Verdict.CONFIRMED,
    Verdict.RETURNED,
    Verdict.REFUSED,
    Verdict.NACKED,
    Verdict.UNKNOWN,
)


class Facts(list["TransportFact"]):
    def of(self, kind: type[TransportFact]) -> list[TransportFact]:
        return [fact for fact in self if isinstance(fact, kind)]


@asynccontextmanager
async def connected(url: str, facts: Facts | None = None, **settings: float) -> AsyncIterator[RabbitMQTransport]:
    transport = RabbitMQTransport(
        url,
        runner=AsyncioRunner(),
        app_id="faults",
        report=(facts if facts is not None else Facts()).append,
        max_body=int(settings.pop("max_body", 1 << 20)),
        **settings,
    )
    await within(transport.connect())
    try:
        yield transport
    finally:
        await within(transport.close())


async def bench_of(transport: RabbitMQTransport, namespace: str) -> Bench:
    return await Bench(pair=Pair(near=transport, far=transport, namespace=namespace, app_id="faults")).declare()


@asynccontextmanager
async def administrator(url: str) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    connection = await aio_pika.connect(url)
    try:
        yield await connection.channel(publisher_confirms=False)
    finally:
        await connection.close()


@pytest.fixture(autouse=True)
async def quiet(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """None of these troubles may show as a log line of the client library or as an orphaned exception."""
    orphans: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _loop, context: orphans.append(context))
    with caplog.at_level(logging.DEBUG):
        yield
    loop.set_exception_handler(before)
    assert orphans == []
    names = ("aio_pika", "aiormq", "asyncio")
    assert [record.getMessage() for record in caplog.records if record.name.startswith(names)] == []


# The connection


async def test_a_cut_cable_is_repaired_and_nothing_is_lost(rabbitmq_url: str, namespace: str) -> None:
    facts = Facts()
    async with Cable(rabbitmq_url) as cable, connected(cable.url, facts) as transport:
        bench = await bench_of(transport, namespace)
        consumer = await bench.consume(bench.a, prefetch=5)
        first = [bench.straight(bench.a, number) for number in range(7)]
        await bench.publish(first)
        assert await bench.verdicts(first) == [CONFIRMED] * 7
        void = await received(consumer, 5)
        await consumer.settle(void[:2])
        void += await received(consumer, 2)  # there was room for them, so the broker knows of the two

        cable.cut()
        await until_async(lambda: facts.of(BrokerDisconnected), what="the loss to be noticed")
        await consumer.settle(void)  # void: neither an error nor an acknowledgement
        again = await worked_off(consumer, 5)
        await until_async(lambda: transport.publisher.ready and transport.connected, what="the repair")
        last = bench.straight(bench.a, 7)
        await bench.publish([last])

        assert numbers(again) == [2, 3, 4, 5, 6]
        assert all(delivery.redelivered for delivery in again)
        assert numbers(await worked_off(consumer, 1)) == [7]
        assert await bench.verdicts([last]) == [CONFIRMED]
    lost = [fact.direction for fact in facts if isinstance(fact, BrokerDisconnected)]
    assert sorted(lost) == ["consume", "publish"]
    assert len(facts.of(BrokerConnected)) == 4
    assert len(facts.of(ConsumerAttached)) == 2


async def test_while_the_broker_is_away_publishing_says_so_and_receiving_waits(
    rabbitmq_url: str, namespace: str
) -> None:
    facts = Facts()
    async with Cable(rabbitmq_url) as cable, connected(cable.url, facts) as transport:
        bench = await bench_of(transport, namespace)
        consumer = await bench.consume(bench.a)
        await cable.pull_out()
        await until_async(lambda: len(facts.of(BrokerUnreachable)) >= 2, what="attempts to reconnect")
        waiting = asyncio.ensure_future(consumer.receive(10))

        assert not transport.connected
        assert not transport.publisher.ready
        assert not consumer.attached
        with pytest.raises(BrokerAway):
            await bench.publish([bench.straight(bench.a, 1)])
        with pytest.raises(BrokerAway):
            await transport.declare(Topology(namespace=namespace))

        await cable.plug_in()
        await until_async(lambda: transport.publisher.ready, what="the publisher")
        await bench.publish([bench.straight(bench.a, 2)])
        async with asyncio.timeout(30):
            assert numbers(await waiting) == [2]


async def test_publications_in_flight_when_the_connection_is_lost_end_unknown(
    rabbitmq_url: str, namespace: str
) -> None:
    async with Cable(rabbitmq_url) as cable, connected(cable.url) as transport:
        bench = await bench_of(transport, namespace)
        cable.hold_answers()
        sent = [bench.straight(bench.a, number) for number in range(20)]
        await bench.publish(sent)
        cable.cut()
        cable.release_answers()

        outcomes = await bench.outcomes(20)

        assert {outcome.verdict for outcome in outcomes.values()} == {UNKNOWN}
        assert all("connection was lost" in outcome.reason for outcome in outcomes.values())


async def test_a_confirm_that_does_not_come_ends_unknown_and_one_that_comes_late_is_ignored(
    rabbitmq_url: str, namespace: str
) -> None:
    async with Cable(rabbitmq_url) as cable, connected(cable.url, confirm_timeout=0.3) as transport:
        bench = await bench_of(transport, namespace)
        cable.hold_answers()
        late = [bench.straight(bench.a, number) for number in range(3)]
        await bench.publish(late)
        assert await bench.verdicts(late) == [UNKNOWN] * 3

        cable.release_answers()
        copies = [bench.straight(bench.a, number) for number in range(3)]
        await bench.publish(copies)

        assert await bench.verdicts(copies) == [CONFIRMED] * 3


@pytest.mark.parametrize("cancelled", [False, True], ids=["awaited", "cancelled"])
async def test_a_burst_that_cannot_be_written_ends_unknown_and_the_next_ones_are_told_apart(
    rabbitmq_url: str, namespace: str, cancelled: bool
) -> None:
    async with Cable(rabbitmq_url) as cable, connected(cable.url, confirm_timeout=1.0) as transport:
        bench = await bench_of(transport, namespace)
        cable.hold_questions()
        stuck = [bench.straight(bench.a, number, body=b"x" * (1 << 20)) for number in range(12)]
        publishing = asyncio.ensure_future(transport.publisher.publish(stuck))
        if cancelled:
            await asyncio.wait([publishing], timeout=0.2)
            publishing.cancel()
        await asyncio.wait([publishing])
        assert await bench.verdicts(stuck) == [UNKNOWN] * 12

        cable.release_questions()
        sent = [bench.straight(bench.a, number) for number in (20, 21)]
        returned = bench.event(22, name="probe.NobodyListens")
        await until_async(lambda: transport.publisher.ready, what="the publisher")
        await bench.publish([sent[0], returned, sent[1]])

        assert await bench.verdicts([*sent, returned]) == [CONFIRMED, CONFIRMED, RETURNED]


async def test_through_many_cuts_every_publication_ends_once_and_what_was_confirmed_arrives(
    rabbitmq_url: str, namespace: str
) -> None:
    chance = random.Random(7)
    async with Cable(rabbitmq_url) as cable, connected(cable.url) as transport:
        bench = await bench_of(transport, namespace)
        consumer = await bench.consume(bench.a, prefetch=50)
        arrived: set[int] = set()
        confirmed: set[int] = set()

        async def consume() -> None:
            while burst := await consumer.receive(20):
                arrived.update(numbers(burst))
                await consumer.settle(chance.sample(burst, len(burst)))

        consuming = asyncio.ensure_future(consume())
        for start in range(0, 1000, 40):
            missing = set(range(start, start + 40))
            if start % 200 == 0:
                asyncio.get_running_loop().call_later(chance.random() / 50, cable.cut)
            while missing:
                await until_async(lambda: transport.publisher.ready, what="the publisher")
                burst = {number: bench.straight(bench.a, number) for number in sorted(missing)}
                with suppress(BrokerAway):
                    await bench.publish(list(burst.values()))
                    verdicts = await bench.verdicts(list(burst.values()))
                    assert set(verdicts) <= {CONFIRMED, UNKNOWN}
                    done = {number for number, verdict in zip(burst, verdicts, strict=True) if verdict is CONFIRMED}
                    confirmed |= done
                    missing -= done
        await until_async(lambda: arrived >= confirmed, what="what was confirmed")
        await within(consumer.close())
        async with asyncio.timeout(30):
            await consuming

    assert confirmed == set(range(1000))
    assert cable.connections > 2


@pytest.mark.parametrize("what", ["questions", "answers"])
async def test_closing_does_not_wait_for_a_peer_that_has_fallen_silent(
    rabbitmq_url: str, namespace: str, what: str
) -> None:
    async with Cable(rabbitmq_url) as cable, connected(cable.url, answer_timeout=3.0, confirm_timeout=3.0) as transport:
        bench = await bench_of(transport, namespace)
        consumer = await bench.consume(bench.a)
        await bench.publish([bench.event(0)])
        void = await received(consumer, 1)
        cable.hold_questions() if what == "questions" else cable.hold_answers()
        stuck = [bench.straight(bench.a, number, body=b"x" * (1 << 20)) for number in range(30)]
        publishing = [asyncio.ensure_future(transport.publisher.publish([one])) for one in stuck]
        await asyncio.wait(publishing, timeout=0.1)
        await within(consumer.settle(void))

        await within(transport.close())

        async with asyncio.timeout(30):
            ends = await asyncio.gather(*publishing, return_exceptions=True)
        assert all(end is None or isinstance(end, BrokerAway) for end in ends)
        accepted = sum(end is None for end in ends)
        assert len(await bench.outcomes(accepted + 1)) == accepted + 1
        assert not consumer.attached


async def test_closing_while_the_broker_is_away_ends_what_waits(rabbitmq_url: str, namespace: str) -> None:
    async with Cable(rabbitmq_url) as cable, connected(cable.url) as transport:
        bench = await bench_of(transport, namespace)
        consumer = await bench.consume(bench.a)
        waiting = asyncio.ensure_future(consumer.receive(1))
        await cable.pull_out()
        await until_async(lambda: not transport.connected, what="the loss to be noticed")

        await within(transport.close())

        async with asyncio.timeout(30):
            assert list(await waiting) == []
        assert list(await within(transport.publisher.outcomes())) == []


async def test_a_transport_that_could_not_connect_may_try_again(rabbitmq_url: str) -> None:
    async with Cable(rabbitmq_url) as cable:
        url = cable.url
        await cable.pull_out()
        transport = RabbitMQTransport(url, runner=AsyncioRunner(), app_id="faults")
        with pytest.raises(BrokerAway, match="Connect call failed"):
            await within(transport.connect())
        before = transport.connected

        await cable.plug_in()
        await within(transport.connect())
        assert (before, transport.connected) == (False, True)
        await within(transport.close())


# The address


async def attempt(url: str) -> None:
    await within(RabbitMQTransport(url, runner=AsyncioRunner(), app_id="faults", connect_timeout=5.0).connect())


async def test_a_wrong_password_is_a_matter_of_configuration_and_is_not_repeated(rabbitmq_url: str) -> None:
    with pytest.raises(ConfigurationError, match="refuses this user or password") as raised:
        await attempt(str(URL(rabbitmq_url).with_password("s3cret-guess")))
    assert "s3cret-guess" not in str(raised.value)


async def test_a_virtual_host_that_does_not_exist_is_a_matter_of_configuration(rabbitmq_url: str) -> None:
    with pytest.raises(ConfigurationError, match="vhost no_such_host not found"):
        await attempt(str(URL(rabbitmq_url).with_path("/no_such_host")))


@pytest.mark.parametrize("url", ["", "postgresql://host/db", "amqp:///vhost", "localhost:5672", "amqp://host:port/"])
def test_what_is_no_broker_url_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigurationError, match="amqp://user:password@host:5672/vhost"):
        RabbitMQTransport(url, runner=AsyncioRunner(), app_id="faults")


async def test_a_port_where_nobody_listens_means_that_the_broker_is_away() -> None:
    async with Cable("amqp://guest:guest@127.0.0.1:1/") as cable:
        url = cable.url
    with pytest.raises(BrokerAway):
        await attempt(url)


async def test_somebody_else_at_the_port_is_a_matter_of_configuration() -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConfigurationError, match="does not speak AMQP"):
            await attempt(f"amqp://guest:guest@127.0.0.1:{port}/")


async def test_tls_where_the_broker_speaks_plainly_is_a_matter_of_configuration(rabbitmq_url: str) -> None:
    with pytest.raises(ConfigurationError, match="TLS"):
        await attempt(str(URL(rabbitmq_url).with_scheme("amqps").with_port(URL(rabbitmq_url).port or 5672)))


# The channel


async def test_an_exchange_that_is_gone_returns_its_messages_and_spares_the_others(
    rabbitmq_url: str, namespace: str
) -> None:
    facts = Facts()
    async with connected(rabbitmq_url, facts) as transport:
        bench = await bench_of(transport, namespace)
        async with administrator(rabbitmq_url) as channel:
            await channel.exchange_delete(events_exchange(namespace))
        sent = [bench.event(number) if number in {3, 7} else bench.straight(bench.a, number) for number in range(10)]
        await bench.publish(sent)

        outcomes = await bench.outcomes(10)

        for number, publication in enumerate(sent):
            assert outcomes[publication.ticket].verdict is (RETURNED if number in {3, 7} else CONFIRMED)
        assert "does not exist" in outcomes[sent[3].ticket].reason
        assert facts.of(PublicationsSuspected)
        await until_async(lambda: transport.publisher.ready, what="the publisher")
        consumer, arrived = await bench.consume(bench.a), set[int]()
        while len(arrived) < 8:  # some of them twice
            arrived |= set(numbers(await received(consumer, 1)))
        assert arrived == set(range(10)) - {3, 7}


async def test_properties_that_do_not_fit_are_refused_without_a_word_to_the_broker(
    rabbitmq_url: str, namespace: str
) -> None:
    facts = Facts()
    async with connected(rabbitmq_url, facts) as transport:
        bench = await bench_of(transport, namespace)
        good = [bench.straight(bench.a, number) for number in range(2)]
        bad = [
            bench.publication("", "k" * 256, 10),
            bench.publication("e" * 256, "key", 11),
            bench.straight(bench.a, 12),
            bench.straight(bench.a, 13),
            bench.straight(bench.a, 14),
        ]
        object.__setattr__(bad[2].envelope, "message_id", "ü" * 200)
        object.__setattr__(bad[3].envelope, "tracestate", "t" * 200_000)
        object.__setattr__(bad[4].envelope, "name", "half a \ud83d pair")
        await bench.publish([good[0], *bad, good[1]])

        outcomes = await bench.outcomes(7)

        assert {outcomes[one.ticket].verdict for one in bad} == {REFUSED}
        assert {outcomes[one.ticket].verdict for one in good} == {CONFIRMED}
        assert not facts.of(PublicationsSuspected)


async def test_a_full_queue_nacks_what_a_missing_one_returns(rabbitmq_url: str, namespace: str) -> None:
    async with connected(rabbitmq_url) as transport, administrator(rabbitmq_url) as channel:
        bench = await bench_of(transport, namespace)
        small = await channel.declare_queue(
            f"{namespace}.small", durable=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
        )
        sent = [bench.straight(small.name, number) for number in range(3)]
        missing = bench.straight(f"{namespace}.missing", 4)
        await bench.publish([*sent, missing])

        assert await bench.verdicts([*sent, missing]) == [CONFIRMED, NACKED, NACKED, RETURNED]
        await channel.queue_delete(small.name)


async def test_a_consumer_survives_its_queue_being_deleted(rabbitmq_url: str, namespace: str) -> None:
    facts = Facts()
    async with connected(rabbitmq_url, facts) as transport:
        bench = await bench_of(transport, namespace)
        await transport.declare(Topology(namespace=namespace, queues=(Queue(name=bench.b),)))  # forgets no other
        consumer = await bench.consume(bench.a)
        await bench.publish([bench.event(1)])
        void = await received(consumer, 1)
        async with administrator(rabbitmq_url) as channel:
            await channel.queue_delete(bench.a)
        await until_async(lambda: len(facts.of(ConsumerAttached)) == 2, what="the consumer to come back")
        await consumer.settle(void)
        await bench.publish([bench.event(2)])

        assert numbers(await worked_off(consumer, 1)) == [2]
        assert consumer.attached
        assert facts.of(ConsumerDetached)


async def test_a_message_that_cannot_be_decoded_arrives_without_its_properties_and_harms_no_other(
    rabbitmq_url: str, namespace: str
) -> None:
    """As a client in another language sends it: Latin-1 where UTF-8 belongs."""
    facts = Facts()
    async with connected(rabbitmq_url, facts) as transport:
        bench = await bench_of(transport, namespace)
        before, after = bench.straight(bench.a, 1), bench.straight(bench.a, 2)
        await bench.publish([before])
        await publish_in_latin_1(rabbitmq_url, bench.a, b"{}")
        await bench.publish([after])
        consumer = await bench.consume(bench.a)

        arrived = await worked_off(consumer, 3)

        assert [delivery.raw.message_id for delivery in arrived] == ["m-1", None, "m-2"]
        assert arrived[1].raw.body == b"{}"
        assert b"M\xfcller" in bytes(arrived[1].raw.headers["undecodable-properties"])  # type: ignore[call-overload]
        assert len(facts.of(ConsumerAttached)) == 1


async def publish_in_latin_1(url: str, queue: str, body: bytes) -> None:
    """aio-pika cannot; so take what it would send for a name of the same length and put another letter in."""
    async with Spoiler(url) as spoiler, administrator(spoiler.url) as channel:
        message = aio_pika.Message(body, app_id="M~ller", delivery_mode=2)
        await channel.default_exchange.publish(message, routing_key=queue)
        await channel.declare_queue(queue, passive=True)  # answered after the broker has seen the message


class Spoiler(Cable):
    """Puts a byte that is not UTF-8 into what passes."""

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        await gate.wait()
        while data := await reader.read(65536):
            writer.write(data.replace(b"M~ller", b"M\xfcller"))
        writer.transport.abort()


# Declaring


async def test_a_queue_that_exists_otherwise_is_named_with_the_difference(rabbitmq_url: str, namespace: str) -> None:
    queues = [Queue.of_saga(namespace, name, events=["x.Happened"]) for name in ("A", "B")]
    async with administrator(rabbitmq_url) as channel, connected(rabbitmq_url) as transport:
        arguments: dict[str, aio_pika.abc.FieldValue] = {
            "x-queue-type": "quorum",
            "x-delivery-limit": 20,
            "x-dead-letter-exchange": f"{namespace}.dead",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        await channel.declare_queue(queues[0].name, durable=True, arguments=arguments)
        await channel.declare_queue(queues[1].name, durable=True)

        with pytest.raises(TopologyMismatch) as raised:
            await within(transport.declare(Topology(namespace=namespace, queues=tuple(queues))))

    text = str(raised.value)
    assert f"queue {queues[0].name} exists with x-delivery-limit = 20, needed is 1000" in text
    assert f"queue {queues[1].name} exists with x-dead-letter-exchange = none, needed is {namespace}.dead" in text
    assert "delete it" in text


async def test_an_exchange_of_another_type_is_named_with_the_difference(rabbitmq_url: str, namespace: str) -> None:
    async with administrator(rabbitmq_url) as channel, connected(rabbitmq_url) as transport:
        await channel.declare_exchange(events_exchange(namespace), aio_pika.ExchangeType.DIRECT, durable=True)

        with pytest.raises(TopologyMismatch, match="exists with type = direct, needed is topic"):
            await within(transport.declare(Topology(namespace=namespace)))


async def test_what_is_missing_can_be_told_without_declaring_it(rabbitmq_url: str, namespace: str) -> None:
    wanted = Topology(namespace=namespace, queues=(Queue.of_saga(namespace, "A", events=[]),))
    async with connected(rabbitmq_url) as transport:
        everything = await within(transport.missing(wanted))
        again = await within(transport.missing(wanted))
        await within(transport.declare(wanted))
        nothing = await within(transport.missing(wanted))

    exchanges = tuple(f"exchange {namespace}.{name}" for name in ("events", "commands", "dead"))
    assert everything == again == (*exchanges, f"queue {namespace}.dead", f"queue {namespace}.saga.A")
    assert nothing == ()


async def test_queues_are_declared_exactly_as_the_wire_contract_says(rabbitmq_url: str, namespace: str) -> None:
    """Whoever else declares them by the contract finds them as they should be."""
    async with connected(rabbitmq_url) as transport, administrator(rabbitmq_url) as channel:
        bench = await bench_of(transport, namespace)
        await channel.declare_queue(
            bench.a,
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-delivery-limit": 1000,
                "x-dead-letter-exchange": f"{namespace}.dead",
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        )
        await channel.declare_exchange(f"{namespace}.events", aio_pika.ExchangeType.TOPIC, durable=True)
        await channel.declare_exchange(f"{namespace}.commands", aio_pika.ExchangeType.TOPIC, durable=True)
        dead = await channel.declare_exchange(f"{namespace}.dead", aio_pika.ExchangeType.FANOUT, durable=True)
        await dead.publish(aio_pika.Message(b"dead"), routing_key="any")
        queue = await channel.get_queue(f"{namespace}.dead")
        async with asyncio.timeout(30), queue.iterator(no_ack=True) as messages:
            async for message in messages:
                assert message.body == b"dead"
                break


# A broker of our own


async def test_a_blocked_broker_takes_nothing_but_still_delivers_and_takes_acknowledgements(
    private_rabbitmq: PrivateRabbitMQ, namespace: str
) -> None:
    facts = Facts()
    async with connected(private_rabbitmq.url, facts, confirm_timeout=60.0) as transport:
        bench = await bench_of(transport, namespace)
        consumer = await bench.consume(bench.a)
        first = bench.straight(bench.a, 1)
        await bench.publish([first])
        assert await bench.verdicts([first]) == [CONFIRMED]

        await asyncio.to_thread(private_rabbitmq.rabbitmqctl, "set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            second = bench.straight(bench.a, 2)
            await bench.publish([second])  # the broker tells only who publishes
            await until_async(lambda: facts.of(BrokerBlocked), what="the broker to block us")
            assert (transport.publisher.ready, transport.connected) == (False, True)
            with pytest.raises(BrokerAway, match="alarm"):
                await bench.publish([bench.straight(bench.a, 3)])
            assert numbers(await worked_off(consumer, 1)) == [1]
        finally:
            await asyncio.to_thread(private_rabbitmq.rabbitmqctl, "set_vm_memory_high_watermark", "absolute", "1GB")

        await until_async(lambda: facts.of(BrokerUnblocked), what="the broker to unblock us")
        assert transport.publisher.ready
        assert await bench.verdicts([second]) == [CONFIRMED]
        assert numbers(await worked_off(consumer, 1)) == [2]  # so the first was acknowledged while blocked


async def test_the_one_message_that_the_broker_refuses_is_found_among_its_neighbours(
    private_rabbitmq: PrivateRabbitMQ, namespace: str
) -> None:
    facts = Facts()
    limit = "persistent_term:put({0}, {1}), application:set_env(rabbit, {0}, {1})."
    await asyncio.to_thread(private_rabbitmq.rabbitmqctl, "eval", limit.format("max_message_size", 4096))
    try:
        async with connected(private_rabbitmq.url, facts, max_body=1 << 20) as transport:
            bench = await bench_of(transport, namespace)
            sent = [
                bench.straight(bench.a, number, body=b"x" * 5000 if number in {4, 9} else None) for number in range(20)
            ]
            await bench.publish(sent)

            outcomes = await bench.outcomes(20)

            refused = [n for n, one in enumerate(sent) if outcomes[one.ticket].verdict is REFUSED]
            confirmed = [n for n, one in enumerate(sent) if outcomes[one.ticket].verdict is CONFIRMED]
            assert refused == [4, 9]
            assert confirmed == [n for n in range(20) if n not in {4, 9}]
            assert "4096" in outcomes[sent[4].ticket].reason
            assert facts.of(PublicationsSuspected)
            await until_async(lambda: transport.publisher.ready, what="the publisher")
            after = bench.straight(bench.a, 20)
            await bench.publish([after])
            assert await bench.verdicts([after]) == [CONFIRMED]
    finally:
        await asyncio.to_thread(private_rabbitmq.rabbitmqctl, "eval", limit.format("max_message_size", 134217728))


async def test_a_user_who_may_not_declare_verifies_passively(private_rabbitmq: PrivateRabbitMQ, namespace: str) -> None:
    async with connected(private_rabbitmq.url) as transport:
        bench = await bench_of(transport, namespace)
    await asyncio.to_thread(private_rabbitmq.rabbitmqctl, "add_user", namespace, "secret")
    rights = ("set_permissions", namespace, "^$", ".*", ".*")
    await asyncio.to_thread(private_rabbitmq.rabbitmqctl, *rights)
    url = str(URL(private_rabbitmq.url).with_user(namespace).with_password("secret"))
    facts = Facts()
    async with connected(url, facts) as transport:
        await bench_of(transport, namespace)
        (fact,) = facts.of(TopologyUnverified)
        assert isinstance(fact, TopologyUnverified)
        assert f"queue {bench.a}" in fact.names

        missing = Topology(namespace=namespace, queues=(Queue.of_saga(namespace, "Missing", events=[]),))
        with pytest.raises(TopologyMismatch, match=r"saga\.Missing is missing and this user may not declare it"):
            await within(transport.declare(missing))
        assert transport.connected


async def test_a_broker_that_is_killed_and_started_again_has_everything_that_was_confirmed(
    private_rabbitmq: PrivateRabbitMQ, namespace: str
) -> None:
    facts = Facts()
    async with connected(private_rabbitmq.url, facts) as transport:
        bench = await bench_of(transport, namespace)
        consumer = await bench.consume(bench.a)
        await asyncio.to_thread(private_rabbitmq.settle)
        sent = [bench.straight(bench.a, number) for number in range(50)]
        await bench.publish(sent)
        outcomes: dict[int, Outcome] = await bench.outcomes(50)
        assert {outcome.verdict for outcome in outcomes.values()} == {CONFIRMED}

        await asyncio.to_thread(private_rabbitmq.restart, graceful=False)
        await until_async(lambda: transport.publisher.ready and consumer.attached, timeout=60, what="the repair")

        assert set(numbers(await worked_off(consumer, 50))) == set(range(50))
