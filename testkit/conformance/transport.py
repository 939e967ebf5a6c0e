"""What every transport must do, as tests: subclass `TransportConformance` and give it an async fixture `pair`.

```python
class TestMyTransport(TransportConformance):
    @pytest.fixture
    async def pair(self) -> AsyncIterator[Pair]:
        near, far = MyTransport(...), MyTransport(...)
        await near.connect()
        await far.connect()
        yield Pair(near=near, far=far, namespace="fresh", app_id="conformance")
        await near.close()
        await far.close()
```

The tests are coroutines: run them with pytest-asyncio in `auto` mode, fixture and tests on one loop. Every wait is
bounded; a transport that does not answer fails with `TimeoutError`.
"""

# ruff: noqa: S101, D102 - these are tests, and their names say what they hold

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from messages.codec import open_envelope
from messages.envelope import Envelope, Raw
from messages.errors import BrokerAway, ConfigurationError, TopologyMismatch
from testkit.conformance.bench import DO, HAPPENED, PATIENCE, Bench, Pair, numbers, received, within, worked_off
from transport import Publication, Queue, Topology, Verdict, events_exchange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transport import Consumer, Delivery


def _without_the_brokers_own(raw: Raw) -> Raw:
    return replace(raw, headers={name: each for name, each in raw.headers.items() if not name.startswith("x-")})


class TransportConformance:
    """The suite. See the module's docstring for the fixture it needs."""

    # Routing

    async def test_an_event_reaches_every_queue_bound_to_it(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        await bench.publish([bench.event(1)])

        for queue in (bench.a, bench.b):
            assert numbers(await worked_off(await bench.consume(queue), 1)) == [1]
        assert [outcome.verdict for outcome in (await bench.outcomes(1)).values()] == [Verdict.CONFIRMED]

    async def test_a_command_reaches_its_one_queue_and_a_reply_the_queue_it_names(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        sent = [bench.command(1), bench.straight(bench.a, 2)]
        await bench.publish(sent)

        assert numbers(await worked_off(await bench.consume(bench.p), 1)) == [1]
        assert numbers(await worked_off(await bench.consume(bench.a), 1)) == [2]
        assert await bench.verdicts(sent) == [Verdict.CONFIRMED] * 2

    async def test_what_no_queue_takes_is_returned_and_says_so(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        sent = [
            bench.event(1, name="probe.NobodyListens"),
            bench.command(2, name="probe.NobodyDoes"),
            bench.straight(f"{pair.namespace}.saga.Nowhere", 3),
        ]
        await bench.publish(sent)

        outcomes = await bench.outcomes(3)
        assert {outcome.verdict for outcome in outcomes.values()} == {Verdict.RETURNED}
        for publication in sent:
            assert publication.routing_key in outcomes[publication.ticket].reason

    async def test_declaring_again_is_harmless_and_adds_bindings(self, pair: Pair) -> None:
        bench = await (await Bench(pair=pair).declare()).declare()
        more = Queue.of_saga(pair.namespace, "A", events=["probe.Late"])
        await within(pair.far.declare(Topology(namespace=pair.namespace, queues=(more,))))
        sent = [bench.event(1, name="probe.Late"), bench.event(2)]
        await bench.publish(sent)

        assert numbers(await worked_off(await bench.consume(bench.a), 2)) == [1, 2]

    async def test_a_second_taker_of_a_command_is_refused_and_changes_nothing(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        rival = Queue.of_participant(pair.namespace, "rival", commands=[DO])
        with pytest.raises(TopologyMismatch, match=rf"{DO}: taken by"):
            await within(pair.far.declare(Topology(namespace=pair.namespace, queues=(rival,))))
        await bench.publish([bench.command(1)])

        assert numbers(await worked_off(await bench.consume(bench.p), 1)) == [1]
        assert [outcome.verdict for outcome in (await bench.outcomes(1)).values()] == [Verdict.CONFIRMED]

    async def test_a_queue_that_does_not_exist_cannot_be_consumed(self, pair: Pair) -> None:
        with pytest.raises(ConfigurationError, match="Nowhere"):
            await within(pair.far.consume(f"{pair.namespace}.saga.Nowhere", prefetch=1))

    # What travels

    async def test_every_field_of_an_envelope_arrives(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        envelope = Envelope(
            message_id="!~ " + "x" * 252,
            name=HAPPENED,
            body='{"straße": "Ω≈ç√ 漢字 🎵", "amount": "12.30"}'.encode(),
            schema_version=7,
            source=pair.app_id,
            correlation_id="8d1f5a4c-9b1f-5d56-9f34-0d6f0f3a1a11",
            causation_id="cause-1",
            reply_to=bench.a,
            idempotency_key="8d1f5a4c/pay[3]/1/do",
            compensates="8d1f5a4c/reserve/1/do",
            timestamp=datetime(2026, 11, 21, 20, 15, 3, tzinfo=UTC),
            traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            tracestate="rojo=00f067aa0ba902b7",
        )
        exchange = events_exchange(pair.namespace)
        await bench.publish([Publication(ticket=1, exchange=exchange, routing_key=HAPPENED, envelope=envelope)])

        (delivery,) = await worked_off(await bench.consume(bench.b), 1)

        assert open_envelope(delivery.raw) == envelope
        assert delivery.raw.content_type == "application/json"
        assert delivery.raw.type == delivery.raw.routing_key == HAPPENED
        assert delivery.raw.user_id is None
        assert not delivery.redelivered
        assert delivery.delivery_count == 0

    async def test_what_an_envelope_does_not_have_does_not_arrive(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        await bench.publish([bench.straight(bench.a, 1)])

        (delivery,) = await worked_off(await bench.consume(bench.a), 1)

        assert open_envelope(delivery.raw) == Envelope(
            message_id="m-1", name=HAPPENED, body=b'{"number": 1}', source=pair.app_id
        )
        assert set(delivery.raw.headers) <= {"schema-version"}

    async def test_a_message_published_as_it_is_arrives_as_it_was(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        moment = datetime(2026, 11, 21, 20, 15, 3, tzinfo=UTC)
        theirs = Raw(
            body=b"\x1f\x8b no JSON",
            routing_key="theirs.Do",
            message_id="m-1",
            type="theirs.Do",
            content_type="text/plain",
            content_encoding="gzip",
            correlation_id="c",
            reply_to="theirs.replies",
            app_id="theirs",
            priority=7,
            timestamp=moment,
            headers={
                "tenant": "acme",
                "whole": 2**40,
                "number": 1.1,
                "exact": Decimal("12.34"),
                "bytes": bytearray(b"\x00\xff"),
                "when": moment,
                "table": {"list": [1, "x", None, True, {"k": -5}]},
            },
        )
        bare = Raw(body=b"{}", routing_key="theirs.Do")
        sent = [replace(bench.straight(bench.a, number), raw=raw) for number, raw in enumerate((theirs, bare))]
        nowhere = replace(bench.straight(f"{pair.namespace}.saga.Nowhere", 3), raw=bare)
        await bench.publish([*sent, nowhere])

        arrived = await worked_off(await bench.consume(bench.a), 2)

        expected = [replace(raw, routing_key=bench.a) for raw in (theirs, bare)]
        assert [_without_the_brokers_own(delivery.raw) for delivery in arrived] == expected
        assert await bench.verdicts([*sent, nowhere]) == [Verdict.CONFIRMED] * 2 + [Verdict.RETURNED]

    async def test_bodies_up_to_the_limit_arrive_whole_and_longer_ones_are_refused(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        frame = len(b'{"text":""}')
        bodies = [b'{"text":"%s"}' % (b"%x" % n * (size - frame)) for n, size in enumerate((1 << 20, 1 << 17, 131_064))]
        sent = [bench.straight(bench.a, n, body=body) for n, body in enumerate(bodies)]
        too_long = bench.straight(bench.a, 9, body=b'{"text":"%s"}' % (b"x" * (1 << 20)))
        await bench.publish([sent[0], too_long, *sent[1:]])

        arrived = await worked_off(await bench.consume(bench.a), 3)

        assert [delivery.raw.body for delivery in arrived] == bodies
        outcomes = await bench.outcomes(4)
        assert outcomes[too_long.ticket].verdict is Verdict.REFUSED
        assert str(1 << 20) in outcomes[too_long.ticket].reason
        assert {outcomes[one.ticket].verdict for one in sent} == {Verdict.CONFIRMED}

    # Deliveries

    async def test_a_queue_keeps_the_order_of_publishing(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        consumer = await bench.consume(bench.a, prefetch=50)
        for start in range(0, 300, 60):
            await bench.publish([bench.straight(bench.a, number) for number in range(start, start + 60)])

        arrived: list[Delivery] = []
        while len(arrived) < 300:
            arrived += await worked_off(consumer, min(50, 300 - len(arrived)))

        assert numbers(arrived) == list(range(300))

    async def test_a_burst_holds_what_has_queued_up_but_no_more_than_the_limit(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        await bench.publish([bench.straight(bench.a, number) for number in range(10)])
        consumer = await bench.consume(bench.a)

        bursts: list[Sequence[Delivery]] = []
        while sum(map(len, bursts)) < 10:
            bursts.append(await within(consumer.receive(4)))

        assert all(0 < len(burst) <= 4 for burst in bursts)
        assert numbers(delivery for burst in bursts for delivery in burst) == list(range(10))

    async def test_a_lone_message_does_not_wait_for_company(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        consumer = await bench.consume(bench.a)
        waiting = asyncio.ensure_future(consumer.receive(100))
        await bench.publish([bench.straight(bench.a, 1)])

        async with asyncio.timeout(PATIENCE):
            assert numbers(await waiting) == [1]

    async def test_no_more_than_the_prefetch_is_unsettled_at_a_time(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        await bench.publish([bench.straight(bench.a, number) for number in range(10)])
        narrow = await bench.consume(bench.a, prefetch=3)
        first = await received(narrow, 3)
        wide = await bench.consume(bench.a, prefetch=100)

        rest = await worked_off(wide, 7)  # so the narrow one had room for three only
        await within(narrow.settle(first))
        await bench.publish([bench.straight(bench.a, 10)])
        await within(wide.close())

        assert sorted(numbers([*first, *rest])) == list(range(10))
        assert numbers(await worked_off(narrow, 1)) == [10]  # and settling made room again

    async def test_consumers_of_one_queue_share_its_messages(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        consumers = [await bench.consume(bench.a, prefetch=5) for _ in range(3)]
        seen: list[int] = []
        done = asyncio.Event()

        async def work(consumer: Consumer) -> int:
            share = 0
            while burst := await consumer.receive(5):
                share += len(burst)
                seen.extend(numbers(burst))
                await consumer.settle(burst)
                if len(seen) >= 200:
                    done.set()
            return share

        workers = [asyncio.ensure_future(work(consumer)) for consumer in consumers]
        await bench.publish([bench.straight(bench.a, number) for number in range(200)])
        await within(done.wait())
        for consumer in consumers:
            await within(consumer.stop())
        async with asyncio.timeout(PATIENCE):
            shares = await asyncio.gather(*workers)

        assert sorted(seen) == list(range(200))
        assert sum(shares) == 200
        assert sum(share > 0 for share in shares) > 1

    # Settling

    async def test_what_is_not_settled_comes_again_in_order_after_a_close(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        await bench.publish([bench.straight(bench.a, number) for number in range(6)])
        consumer = await bench.consume(bench.a)
        before = await received(consumer, 6)
        await within(consumer.close())

        again = await worked_off(await bench.consume(bench.a), 6)

        assert numbers(again) == numbers(before) == list(range(6))
        assert all(delivery.redelivered and delivery.delivery_count >= 1 for delivery in again)
        assert {delivery.channel for delivery in again}.isdisjoint(delivery.channel for delivery in before)

    async def test_what_is_settled_does_not_come_again(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        await bench.publish([bench.straight(bench.a, number) for number in range(6)])
        consumer = await bench.consume(bench.a)
        before = await received(consumer, 6)
        await within(consumer.settle(before[:4]))
        await within(consumer.close())

        assert numbers(await worked_off(await bench.consume(bench.a), 2)) == [4, 5]

    async def test_settling_in_any_order_acknowledges_exactly_what_was_settled(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        await bench.publish([bench.straight(bench.a, number) for number in range(12)])
        consumer = await bench.consume(bench.a)
        before = await received(consumer, 12)
        for index in (11, 4, 0, 7, 1, 9, 3):
            await within(consumer.settle([before[index]]))
        await within(consumer.settle([before[4], before[0]]))  # twice is once
        await within(consumer.close())

        assert numbers(await worked_off(await bench.consume(bench.a), 5)) == [2, 5, 6, 8, 10]

    async def test_settling_after_a_close_is_harmless(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        await bench.publish([bench.straight(bench.a, 1)])
        consumer = await bench.consume(bench.a)
        void = await received(consumer, 1)
        await within(consumer.close())
        await within(consumer.settle(void))
        successor = await bench.consume(bench.a)
        again = await received(successor, 1)
        await within(successor.settle(void))
        await within(successor.close())

        assert numbers(await worked_off(await bench.consume(bench.a), 1)) == numbers(again) == [1]

    # Stopping

    async def test_after_a_stop_what_had_arrived_can_be_worked_off_and_nothing_is_lost(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        await bench.publish([bench.straight(bench.a, number) for number in range(40)])
        consumer = await bench.consume(bench.a, prefetch=25)
        mine = await received(consumer, 5)
        await within(consumer.stop())
        while burst := await within(consumer.receive(10)):
            mine += burst
        await within(consumer.settle(mine))
        await within(consumer.close())

        rest = await worked_off(await bench.consume(bench.a), 40 - len(mine)) if len(mine) < 40 else []

        assert numbers(mine) + numbers(rest) == list(range(40))
        assert len(mine) <= 25

    async def test_stop_and_close_release_who_waits_for_a_delivery(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        stopped, closed = await bench.consume(bench.a), await bench.consume(bench.b)
        waiting = [asyncio.ensure_future(consumer.receive(10)) for consumer in (stopped, closed)]
        await within(stopped.stop())
        await within(closed.close())

        async with asyncio.timeout(PATIENCE):
            assert [list(burst) for burst in await asyncio.gather(*waiting)] == [[], []]
        assert not await within(stopped.receive(10))

    async def test_flags_tell_what_is_possible(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        consumer = await bench.consume(bench.a)

        def flags() -> tuple[bool, bool, bool, bool]:
            near = pair.near
            return near.connected, pair.far.connected, near.publisher.ready, consumer.attached

        assert flags() == (True, True, True, True)
        await within(consumer.stop())
        assert flags() == (True, True, True, False)
        await within(pair.near.close())
        assert flags() == (False, pair.far is not pair.near, False, False)
        with pytest.raises(BrokerAway):
            await bench.publish([bench.event(1)])

    # Publishing

    async def test_a_confirm_means_that_the_message_is_safe(self, pair: Pair) -> None:
        """A broker keeps it; a publisher that `holds` waits until every queue's consumer has settled it."""
        bench = await Bench(pair=pair).declare()
        event, marker = bench.event(1), bench.event(2, name="probe.NobodyListens")
        await bench.publish([event])
        a, b = await bench.consume(bench.a), await bench.consume(bench.b)
        if pair.near.publisher.holds:
            await worked_off(a, 1)
            await bench.publish([marker])
            assert await bench.verdicts([marker]) == [Verdict.RETURNED]  # and nothing about the event
            await worked_off(b, 1)
            assert await bench.verdicts([event]) == [Verdict.CONFIRMED]
        else:
            assert await bench.verdicts([event]) == [Verdict.CONFIRMED]
            for consumer in (a, b):
                assert numbers(await worked_off(consumer, 1)) == [1]

    async def test_a_thousand_at_once_each_end_as_they_should(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        consumer = await bench.consume(bench.a)
        sent = [
            bench.straight(bench.a, number) if number % 3 else bench.event(number, name="probe.NobodyListens")
            for number in range(1000)
        ]
        await bench.publish(sent)

        arrived = await worked_off(consumer, 666)
        verdicts = await bench.verdicts(sent)

        assert numbers(arrived) == [number for number in range(1000) if number % 3]
        for number, verdict in enumerate(verdicts):
            assert verdict is (Verdict.CONFIRMED if number % 3 else Verdict.RETURNED)

    async def test_bursts_published_at_the_same_time_keep_their_own_order(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        consumer = await bench.consume(bench.a)
        bursts = [[bench.straight(bench.a, 100 * k + n) for n in range(50)] for k in range(8)]
        await asyncio.gather(*(bench.publish(burst) for burst in bursts))

        arrived = numbers(await worked_off(consumer, 400))

        for k in range(8):
            assert [number for number in arrived if number // 100 == k] == [100 * k + n for n in range(50)]
        assert set(await bench.verdicts([one for burst in bursts for one in burst])) == {Verdict.CONFIRMED}

    async def test_copies_of_one_message_in_flight_each_have_their_own_outcome(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        nowhere = "probe.NobodyListens"
        sent = [
            bench.straight(bench.a, 1),
            bench.event(1, name=nowhere),
            bench.straight(bench.a, 1),
            bench.event(1, name=nowhere),
            bench.event(1, name=nowhere),
            bench.straight(bench.a, 1),
        ]
        await bench.publish(sent)

        assert numbers(await worked_off(await bench.consume(bench.a), 3)) == [1, 1, 1]
        confirmed, returned = Verdict.CONFIRMED, Verdict.RETURNED
        assert await bench.verdicts(sent) == [confirmed, returned, confirmed, returned, returned, confirmed]

    async def test_a_close_in_mid_burst_ends_every_publication_exactly_once(self, pair: Pair) -> None:
        bench = await Bench(pair=pair).declare()
        sent = [bench.straight(bench.a, number) for number in range(500)]
        await bench.publish(sent)
        await within(pair.near.close())

        verdicts = await bench.verdicts(sent)

        assert set(verdicts) <= {Verdict.CONFIRMED, Verdict.UNKNOWN}
        assert list(await within(pair.near.publisher.outcomes())) == []
