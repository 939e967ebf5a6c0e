"""The relay over each database: confirmed rows go, the others stay and say why, and nobody publishes for another."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from outbox.facts import EventUnrouted, PublicationFailed
from outbox.interface import Changes, Outgoing
from outbox.relay import Relay
from running import AsyncioRunner
from sagas import definition_of
from sagas.catalog.ordering import PlaceOrder
from storage.definitions import record
from storage.statements import Statement
from tests.outbox.building import command
from transport.in_process import InProcessTransport
from transport.topology import Queue, Topology

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from outbox.interface import ClaimedRow
    from outbox.unit import SqlStorage
    from transport.in_process import InProcessPublisher
    from transport.interface import Consumer, Delivery, Publication

TAKEN = Queue.of_participant("antiphon", "stock", commands=("stock.ReserveStock",))
BOUND = 10.0


class House:
    """A relay that runs, a broker in this process, and the rows of a real database."""

    def __init__(self, storage: SqlStorage, *, lease: float = 15.0, sweep: float = 0.02) -> None:
        self.storage = storage
        self.facts: list[object] = []
        self.transport = InProcessTransport(app_id="tests")
        self.relay = Relay(
            storage,
            self.transport.publisher,
            AsyncioRunner(),
            self.facts.append,
            lease=lease,
            sweep=sweep,
        )

    @asynccontextmanager
    async def running(self, *queues: Queue) -> AsyncIterator[House]:
        """Connected, declared and running for the length of the block."""
        await self.transport.connect()
        await self.transport.declare(Topology(namespace="antiphon", queues=queues))
        task = asyncio.create_task(self.relay.run())
        try:
            yield self
        finally:
            self.relay.stop()
            await asyncio.wait_for(task, BOUND)
            await self.transport.close()

    async def commit(self, *outgoing: Outgoing) -> list[ClaimedRow]:
        """Commit messages as the message path does, and have them published from memory."""
        lease = self.relay.lease()
        async with self.storage.transaction() as unit:
            rows = await unit.save(
                Changes(
                    consumer="tests",
                    outgoing=outgoing,
                    claim=(lease.token, lease.seconds),
                    claim_limit=lease.limit,
                    closed=lease.closed,
                )
            )
        await self.relay.publish(rows, lease.until)
        return list(rows)

    async def states(self) -> list[str]:
        """The states of the rows that are left."""
        async with self.storage.database.read() as session:
            rows = await session.fetch(Statement.both("select state from outbox order by outbox_id"), {})
        return [row.state for row in rows]

    async def lease_end(self) -> object:
        """When the lease of the only row ends."""
        async with self.storage.database.read() as session:
            (row,) = await session.fetch(Statement.both("select next_attempt_at from outbox"), {})
        return row.next_attempt_at

    async def until(self, holds: Callable[[], Any]) -> None:
        """Wait until something is so; it must become so within the bound."""
        async with asyncio.timeout(BOUND):
            while not await holds():  # noqa: ASYNC110 - the database has no event to wait for
                await asyncio.sleep(0.01)

    async def gone(self) -> None:
        """Wait until the table is empty."""

        async def empty() -> bool:
            return await self.states() == []

        await self.until(empty)


def event(name: str, path: str | None = None) -> Outgoing:
    order = command(uuid4(), path)
    return Outgoing(
        envelope=replace(order.envelope, name=name),
        exchange="antiphon.events",
        routing_key=name,
        saga_id=None,
        path=path,
    )


async def drained(consumer: Consumer, count: int) -> list[Delivery]:
    """That many deliveries, settled."""
    found: list[Delivery] = []
    async with asyncio.timeout(BOUND):
        while len(found) < count:
            burst = await consumer.receive(100)
            await consumer.settle(burst)
            found += burst
    return found


async def test_a_row_goes_once_it_is_confirmed(storage: SqlStorage) -> None:
    async with House(storage).running(TAKEN) as house:
        consumer = await house.transport.consume(TAKEN.name, prefetch=10)
        (row,) = await house.commit(command(uuid4()))
        assert await house.states() == ["claimed"]
        (delivery,) = await drained(consumer, 1)
        assert delivery.raw.message_id == row.outgoing.envelope.message_id
        await house.gone()


async def test_what_others_left_behind_is_swept(storage: SqlStorage) -> None:
    orphan = command(uuid4())
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer="tests", outgoing=[orphan], claim=(uuid4(), -1.0), claim_limit=1))
    async with House(storage).running(TAKEN) as house:
        consumer = await house.transport.consume(TAKEN.name, prefetch=10)
        (delivery,) = await drained(consumer, 1)
        assert delivery.raw.message_id == orphan.envelope.message_id
        await house.gone()


async def test_a_row_under_another_ones_lease_is_left_alone(storage: SqlStorage) -> None:
    mine, theirs = command(uuid4()), command(uuid4())
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer="tests", outgoing=[theirs], claim=(uuid4(), 60.0), claim_limit=1))
    async with House(storage).running(TAKEN) as house:
        consumer = await house.transport.consume(TAKEN.name, prefetch=10)
        await house.commit(mine)
        (delivery,) = await drained(consumer, 1)
        assert delivery.raw.message_id == mine.envelope.message_id
        assert await house.states() == ["claimed", "claimed"][: len(await house.states())]


async def test_the_rows_of_one_path_go_out_one_after_the_other(storage: SqlStorage) -> None:
    saga = uuid4()
    first, second, other = command(saga), command(saga), command(saga, "pay")
    async with House(storage).running(TAKEN) as house:
        consumer = await house.transport.consume(TAKEN.name, prefetch=10)
        assert len(await house.commit(first, second, other)) == 2
        async with asyncio.timeout(BOUND):
            early = list(await consumer.receive(10))
        assert [each.raw.message_id for each in early] == [first.envelope.message_id, other.envelope.message_id]
        await consumer.settle(early)
        (late,) = await drained(consumer, 1)
        assert late.raw.message_id == second.envelope.message_id
        await house.gone()


async def test_rows_behind_one_order_key_follow_each_other_without_waiting_for_the_sweep(storage: SqlStorage) -> None:
    told = [event("stock.StockReserved", "one key") for _ in range(5)]
    unheard = [event("shop.Closed", "another key") for _ in range(3)]
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer="tests", outgoing=[*told, *unheard]))
    audience = Queue.of_saga("antiphon", "PlaceOrder", events=("stock.StockReserved",))
    async with House(storage, sweep=3600.0).running(audience) as house:
        consumer = await house.transport.consume(audience.name, prefetch=10)
        found = await drained(consumer, len(told))
        assert [each.raw.message_id for each in found] == [each.envelope.message_id for each in told]
        await house.gone()


async def test_a_command_that_nobody_takes_stays_and_goes_when_somebody_does(storage: SqlStorage) -> None:
    async with House(storage).running() as house:
        await house.commit(command(uuid4()))

        async def returned() -> bool:
            return await house.states() == ["returned"]

        await house.until(returned)
        assert any(isinstance(fact, PublicationFailed) and fact.verdict == "returned" for fact in house.facts)
        await house.transport.declare(Topology(namespace="antiphon", queues=(TAKEN,)))
        consumer = await house.transport.consume(TAKEN.name, prefetch=10)
        await drained(consumer, 1)
        await house.gone()


async def test_many_commands_that_nobody_takes_are_one_line_in_the_log(storage: SqlStorage) -> None:
    async with House(storage).running() as house:
        await house.commit(*(command(uuid4()) for _ in range(50)))

        async def returned() -> bool:
            return set(await house.states()) == {"returned"}

        await house.until(returned)
    failures = [fact for fact in house.facts if isinstance(fact, PublicationFailed)]
    assert sum(fact.count for fact in failures if fact.attempts == 1) == 50
    assert len(failures) < 10


async def test_an_event_that_nobody_here_consumes_is_done_and_counted(storage: SqlStorage) -> None:
    async with House(storage).running() as house:
        await house.commit(event("stock.StockReserved"))
        await house.gone()
        assert any(isinstance(fact, EventUnrouted) for fact in house.facts)


async def test_an_event_that_a_recorded_saga_consumes_waits_for_its_queue(storage: SqlStorage) -> None:
    """Another process has just deployed the saga: its definition is recorded, its queue comes next."""
    await record(storage.database, [definition_of(PlaceOrder)])
    async with House(storage).running() as house:
        await house.commit(event("ordering.OrderPlaced"))

        async def returned() -> bool:
            return await house.states() == ["returned"]

        await house.until(returned)
        assert not any(isinstance(fact, EventUnrouted) for fact in house.facts)


async def test_a_claim_brings_no_more_bytes_than_there_is_room_for(storage: SqlStorage) -> None:
    async with storage.transaction() as unit:
        bodies = [command(uuid4(), body=b" " * 1000) for _ in range(5)]
        await unit.save(Changes(consumer="tests", outgoing=bodies))
    claimed = [
        len(await storage.claim_outbox(token=uuid4(), lease=15, limit=9, max_bytes=room)) for room in (1, 2000, 10_000)
    ]
    assert claimed == [1, 2, 2]


async def test_stopping_leaves_what_was_not_confirmed_due_at_once(storage: SqlStorage) -> None:
    async with House(storage).running(TAKEN) as house:
        await house.commit(command(uuid4()))
    assert await house.states() == ["unknown"]
    claimed = await storage.claim_outbox(token=uuid4(), lease=15, limit=10)
    assert len(claimed) == 1


async def test_nothing_is_born_claimed_while_the_broker_is_away(storage: SqlStorage) -> None:
    house = House(storage)
    assert await house.commit(command(uuid4())) == []
    assert await house.states() == ["new"]


async def test_nothing_is_published_on_a_lease_that_is_nearly_over(storage: SqlStorage) -> None:
    house = House(storage)
    async with house.running(TAKEN):
        lease = house.relay.lease()
        async with storage.transaction() as unit:
            rows = await unit.save(
                Changes(consumer="tests", outgoing=[command(uuid4())], claim=(lease.token, 60.0), claim_limit=1)
            )
        await house.relay.publish(rows, until=lease.until - lease.seconds + 1.0)
        consumer = await house.transport.consume(TAKEN.name, prefetch=10)
        await house.commit(command(uuid4()))
        (only,) = await drained(consumer, 1)
        assert only.raw.message_id != rows[0].outgoing.envelope.message_id


async def test_a_slow_consumer_keeps_its_row_leased(storage: SqlStorage) -> None:
    async with House(storage, lease=0.3).running(TAKEN) as house:
        consumer = await house.transport.consume(TAKEN.name, prefetch=10)
        await house.commit(command(uuid4()))
        deliveries = await consumer.receive(10)
        leases = {await house.lease_end()}

        async def renewed_twice() -> bool:
            leases.add(await house.lease_end())
            return len(leases) > 2

        await house.until(renewed_twice)
        assert await house.states() == ["claimed"]
        await consumer.settle(deliveries)
        await house.gone()


@pytest.mark.parametrize("count", [600])
async def test_a_backlog_larger_than_one_sweep_goes_out(storage: SqlStorage, count: int) -> None:
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer="tests", outgoing=[command(uuid4()) for _ in range(count)]))
    async with House(storage).running(TAKEN) as house:
        consumer = await house.transport.consume(TAKEN.name, prefetch=count)
        found = await drained(consumer, count)
        assert len({each.raw.message_id for each in found}) == count
        await house.gone()


async def test_whoever_is_alone_takes_over_at_once_what_a_dead_process_had_claimed(storage: SqlStorage) -> None:
    dead = House(storage)
    await dead.transport.connect()
    await dead.transport.declare(Topology(namespace="antiphon", queues=(TAKEN,)))
    (row,) = await dead.commit(command(uuid4()))
    assert await storage.claim_outbox(token=uuid4(), lease=15, limit=9) == []
    assert await storage.end_leases() == 1
    heir = House(storage)
    await heir.transport.connect()
    await heir.transport.declare(Topology(namespace="antiphon", queues=(TAKEN,)))
    await heir.relay.catch_up()
    consumer = await heir.transport.consume(TAKEN.name, prefetch=10)
    (delivery,) = await consumer.receive(10)
    assert delivery.raw.message_id == row.outgoing.envelope.message_id
    assert set(heir.relay.handed_over()) == {delivery.raw.message_id}
    await dead.transport.close()
    await heir.transport.close()


async def test_a_row_that_was_tried_for_weeks_stops_no_other(storage: SqlStorage) -> None:
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer="tests", outgoing=[command(uuid4(), "old")]))
    async with storage.database.write() as session:
        await session.fetch(Statement.both("update outbox set attempts = 20000"), {})
    async with House(storage).running() as house:

        async def returned() -> bool:
            return await house.states() == ["returned"]

        await house.until(returned)
        await house.transport.declare(Topology(namespace="antiphon", queues=(TAKEN,)))
        consumer = await house.transport.consume(TAKEN.name, prefetch=10)
        await house.commit(command(uuid4()))
        await drained(consumer, 1)
        await house.until(returned)
    failures = [fact for fact in house.facts if isinstance(fact, PublicationFailed)]
    assert [(fact.attempts, fact.retry_in) for fact in failures] == [(20_001, 60.0)]


async def test_a_relay_that_can_no_longer_hear_the_broker_ends_so_as_to_be_started_again(storage: SqlStorage) -> None:
    def nobody_reads(fact: object) -> None:
        raise RuntimeError(f"nobody reads {fact}")

    transport = InProcessTransport(app_id="tests")
    await transport.connect()
    relay = Relay(storage, transport.publisher, AsyncioRunner(), nobody_reads, sweep=0.02)
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer="tests", outgoing=[event("stock.StockReserved")]))
    with pytest.raises(RuntimeError, match="nobody reads"):
        await asyncio.wait_for(relay.run(), BOUND)
    await transport.close()


class Crowded:
    """Everything of the publisher it wraps, whose socket others keep busy until `free` is set."""

    holds = False

    def __init__(self, publisher: InProcessPublisher) -> None:
        self._publisher = publisher
        self.free = asyncio.Event()
        self.handed_over = 0

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Wait for the socket, then hand the burst over."""
        await self.free.wait()
        self.handed_over += len(publications)
        await self._publisher.publish(publications)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._publisher, name)


async def test_nothing_is_written_once_a_lease_is_nearly_over_however_long_others_keep_the_socket_busy(
    storage: SqlStorage,
) -> None:
    transport = InProcessTransport(app_id="tests")
    await transport.connect()
    publisher = Crowded(transport.publisher)
    relay = Relay(storage, publisher, AsyncioRunner(), lambda _: None, lease=0.3)
    lease = relay.lease()
    async with storage.transaction() as unit:
        rows = await unit.save(
            Changes(consumer="tests", outgoing=[command(uuid4())], claim=(lease.token, lease.seconds), claim_limit=1)
        )
    async with asyncio.timeout(BOUND):
        await relay.publish(rows, lease.until)
    publisher.free.set()
    await asyncio.sleep(0)
    assert len(rows) == 1
    assert publisher.handed_over == 0
    await transport.close()
