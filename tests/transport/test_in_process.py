from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from messages.errors import BrokerAway
from testkit.conformance.bench import Bench, Pair, numbers, received, worked_off
from testkit.conformance.transport import TransportConformance
from transport import Topology, Verdict
from transport.in_process import InProcessTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class TestInProcess(TransportConformance):
    @pytest.fixture
    async def pair(self) -> AsyncIterator[Pair]:
        transport = InProcessTransport(app_id="conformance")
        await transport.connect()
        yield Pair(near=transport, far=transport, namespace="shop", app_id="conformance")
        await transport.close()


async def bench_of(transport: InProcessTransport) -> Bench:
    await transport.connect()
    return await Bench(pair=Pair(near=transport, far=transport, namespace="shop", app_id="t")).declare()


async def test_nothing_works_before_it_is_connected() -> None:
    transport = InProcessTransport(app_id="t")

    assert not transport.connected
    assert not transport.publisher.ready
    with pytest.raises(BrokerAway):
        await transport.declare(Topology(namespace="shop"))
    with pytest.raises(BrokerAway):
        await transport.publisher.publish([])


async def test_a_full_queue_takes_nothing_and_neither_do_the_others_of_that_message() -> None:
    bench = await bench_of(InProcessTransport(app_id="t", capacity=2))
    fillers = [bench.straight(bench.a, number) for number in (1, 2)]
    event, other = bench.event(3), bench.straight(bench.b, 4)
    await bench.publish([*fillers, event, other])

    outcomes = await bench.outcomes(1)
    assert outcomes[event.ticket].verdict is Verdict.NACKED
    assert outcomes[event.ticket].reason == "queue full"
    assert numbers(await worked_off(await bench.consume(bench.b), 1)) == [4]


async def test_deliveries_that_come_back_take_their_old_place_even_when_consumers_compete() -> None:
    bench = await bench_of(InProcessTransport(app_id="t"))
    await bench.publish([bench.straight(bench.a, number) for number in range(8)])
    first, second = await bench.consume(bench.a, prefetch=3), await bench.consume(bench.a, prefetch=3)
    assert numbers(await received(first, 3)) == [0, 1, 2]
    assert numbers(await received(second, 3)) == [3, 4, 5]
    await first.close()
    await second.close()

    again = await worked_off(await bench.consume(bench.a), 8)

    assert numbers(again) == list(range(8))
    assert [delivery.delivery_count for delivery in again] == [1] * 6 + [0] * 2


async def test_it_can_be_opened_again_and_has_forgotten_what_waited() -> None:
    transport = InProcessTransport(app_id="t")
    bench = await bench_of(transport)
    await bench.publish([bench.straight(bench.a, 1)])
    await transport.close()
    assert [outcome.verdict for outcome in (await bench.outcomes(1)).values()] == [Verdict.UNKNOWN]

    await transport.connect()
    await bench.publish([bench.straight(bench.a, 2)])

    assert numbers(await worked_off(await bench.consume(bench.a), 1)) == [2]
    assert [outcome.verdict for outcome in (await bench.outcomes(1)).values()] == [Verdict.CONFIRMED]
