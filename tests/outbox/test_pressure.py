"""Whether consumers may take more: the table at the head of the module, and what it sees of an outbox."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.errors import DatabaseAway, Trouble
from outbox.facts import ConsumingPaused, ConsumingResumed
from outbox.in_flight import MAX_ROWS
from outbox.interface import RowOutcome
from outbox.pressure import LATE, LONG, MANY, Backlog, Pressure
from outbox.relay import Relay
from outbox.unit import SqlStorage
from running import AsyncioRunner
from storage.statements import Statement
from tests.outbox.building import command, put
from tests.outbox.test_circuits import HEALTHY, to
from tests.outbox.test_relay import BOUND, TAKEN
from transport.in_process import InProcessTransport
from transport.topology import Topology

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from running import Runner
    from storage.database import Database
    from transport.in_process import InProcessPublisher
    from transport.interface import Outcome, Publication

NOTHING = Backlog()
SWEPT = 0.02


class Gauge(Pressure):
    """A gauge that sees what the test says."""

    def __init__(self, runner: Runner | None = None) -> None:
        self.facts: list[object] = []
        self.backlog_is: Backlog | Trouble = NOTHING
        self.ready = True
        super().__init__(self, self, runner or AsyncioRunner(), self.facts.append)  # type: ignore[arg-type]

    async def backlog(self) -> Backlog:
        """See `outbox.interface.Storage`."""
        if isinstance(self.backlog_is, Trouble):
            raise self.backlog_is
        return self.backlog_is

    async def sees(self, backlog: Backlog | Trouble = NOTHING, *, ready: bool = True) -> bool:
        """Look at this; whether consuming is paused then."""
        self.backlog_is, self.ready = backlog, ready
        await self.look()
        return self.reason is not None

    @property
    def kinds(self) -> list[type]:
        """The classes of what it told."""
        return [type(fact) for fact in self.facts]


@pytest.mark.parametrize(
    ("backlog", "paused"),
    [
        (NOTHING, False),
        (Backlog(waiting=MANY - 1), False),
        (Backlog(waiting=MANY), True),
        (Backlog(waiting=LATE, late=LATE - 1), False),
        (Backlog(waiting=LATE, late=LATE), True),
    ],
)
async def test_it_pauses_when_too_much_waits_or_waits_too_long(backlog: Backlog, paused: bool) -> None:
    gauge = Gauge()
    assert await gauge.sees(backlog) == paused
    assert gauge.kinds == [ConsumingPaused] * paused


async def test_it_goes_on_only_when_half_of_it_has_gone() -> None:
    gauge = Gauge()
    assert await gauge.sees(Backlog(waiting=MANY, late=LATE))
    assert await gauge.sees(Backlog(waiting=MANY // 2 + 1))
    assert await gauge.sees(Backlog(waiting=MANY // 2, late=LATE // 2 + 1))
    assert not await gauge.sees(Backlog(waiting=MANY // 2, late=LATE // 2))
    assert gauge.kinds == [ConsumingPaused, ConsumingResumed]


@pytest.mark.parametrize(
    ("seen", "ready", "says"),
    [
        (NOTHING, False, "the broker takes no messages now"),
        (DatabaseAway("gone"), True, "the database does not answer: gone"),
    ],
)
async def test_one_moment_without_broker_or_database_is_no_reason_and_two_are(
    seen: Backlog | Trouble, ready: bool, says: str
) -> None:
    gauge = Gauge()
    for _ in range(3):
        assert not await gauge.sees(seen, ready=ready)
        assert not await gauge.sees()
    assert not await gauge.sees(seen, ready=ready)
    assert await gauge.sees(seen, ready=ready)
    assert gauge.reason == says
    assert not await gauge.sees()


LOOKS = st.tuples(st.booleans(), st.integers(0, MANY + 5), st.integers(0, LATE + 5))


@given(st.lists(LOOKS, max_size=60))
async def test_it_tells_of_every_change_and_never_twice_of_the_same(looks: list[tuple[bool, int, int]]) -> None:
    gauge = Gauge()
    changes, before = list[type](), False
    for ready, waiting, late in looks:
        paused = await gauge.sees(Backlog(waiting=waiting, late=late), ready=ready)
        if paused != before:
            changes.append(ConsumingPaused if paused else ConsumingResumed)
        before = paused
        if ready and (waiting >= MANY or late >= LATE):
            assert paused
        if ready and waiting <= MANY / 2 and late <= LATE / 2:
            assert not paused
    assert gauge.kinds == changes


async def test_what_could_go_out_now_is_counted_and_nothing_else(storage: SqlStorage) -> None:
    saga = uuid4()
    await put(storage, *(to("gone.DoThis") for _ in range(5)))
    await put(storage, *(to(HEALTHY) for _ in range(3)))
    await put(storage, command(saga), command(saga))  # the second waits for the first
    await put(storage, *(to(HEALTHY) for _ in range(7)), lease=60.0)
    [row] = await storage.claim_outbox(token=uuid4(), lease=60.0, limit=1)
    outcome = RowOutcome(outbox_id=row.outbox_id, token=row.token, state="returned", retry_in=60.0, came_back=True)
    await storage.settle_outbox(failed=[outcome])
    assert await storage.backlog() == Backlog(waiting=4)
    async with storage.database.write() as session:
        long_ago = "now() - interval '31 s'" if session.postgresql else "'2026-01-01T00:00:00.000000Z'"
        change = f"state = 'unknown', came_back = false, next_attempt_at = {long_ago}"
        late = f"update outbox set {change} where name = 'gone.DoThis'"  # noqa: S608 - nobody's words
        await session.fetch(Statement.both(late), {})
    assert LONG < 31
    assert await storage.backlog() == Backlog(waiting=9, late=5)


async def test_a_message_that_cannot_be_published_says_nothing_about_the_others_that_go_there(
    storage: SqlStorage,
) -> None:
    await put(storage, *(to(HEALTHY) for _ in range(4)))
    [row] = await storage.claim_outbox(token=uuid4(), lease=60.0, limit=1)
    refused = RowOutcome(outbox_id=row.outbox_id, token=row.token, state="refused", retry_in=600.0, error="too large")
    await storage.settle_outbox(failed=[refused])
    assert await storage.backlog() == Backlog(waiting=3)


async def many(database: Database, count: int) -> None:
    """Put so many commands for the healthy one into the outbox, as a service that shares the database might."""
    zero = "'\\x7b7d'::bytea, '{}'" if database.postgresql else "x'7b7d', '{}'"
    now = "now()" if database.postgresql else "'2026-01-01T00:00:00.000000Z'"
    columns = "message_id, name, exchange, routing_key, body, headers, state, maybe_sent, came_back, attempts"
    async with database.write() as session:
        await session.fetch(
            Statement.both(
                f"insert into outbox ({columns}, next_attempt_at, created_at) "  # noqa: S608 - nobody's words
                f"with recursive n(i) as (select 1 union all select i + 1 from n where i < {count}) "
                f"select 'm-' || i, '{HEALTHY}', 'antiphon.commands', '{HEALTHY}', {zero}, 'new', false, false, 0, "
                f"{now}, {now} from n"
            ),
            {},
        )


class Reluctant:
    """Everything of the publisher it wraps, as a broker: not ready, or without a confirm, as the test says."""

    holds = False

    def __init__(self, publisher: InProcessPublisher) -> None:
        self._publisher = publisher
        self.ready = True
        self.confirming = asyncio.Event()
        self.confirming.set()
        self.on_its_way = self.most_on_its_way = 0

    async def publish(self, publications: Sequence[Publication]) -> None:
        """See `transport.interface.Publisher`."""
        self.on_its_way += len(publications)
        self.most_on_its_way = max(self.most_on_its_way, self.on_its_way)
        await self._publisher.publish(publications)

    async def outcomes(self) -> Sequence[Outcome]:
        """See `transport.interface.Publisher`."""
        outcomes = await self._publisher.outcomes()
        await self.confirming.wait()
        self.on_its_way -= len(outcomes)
        return outcomes

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._publisher, name)


class Office:
    """A relay on a reluctant broker whose participant settles at once."""

    def __init__(self, storage: SqlStorage) -> None:
        self.facts: list[object] = []
        self.transport = InProcessTransport(app_id="tests", capacity=100_000)
        self.publisher = Reluctant(self.transport.publisher)
        self.relay = Relay(
            storage,
            self.publisher,
            AsyncioRunner(),
            self.facts.append,
            sweep=SWEPT,
            confirm_timeout=600.0,
            lease=600.0,
        )
        self.pressure = Pressure(storage, self.publisher, AsyncioRunner(), self.facts.append, sweep=SWEPT)
        self.taken = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Office]:
        """Connected and running for the length of the block."""
        await self.transport.connect()
        await self.transport.declare(Topology(namespace="antiphon", queues=(TAKEN,)))
        tasks = [asyncio.create_task(each) for each in (self.relay.run(), self.pressure.run(), self._take())]
        try:
            yield self
        finally:
            self.publisher.confirming.set()
            self.relay.stop()
            self.pressure.stop()
            await asyncio.wait_for(asyncio.gather(*tasks[:2]), BOUND)
            await self.transport.close()
            await asyncio.wait_for(tasks[2], BOUND)

    async def _take(self) -> None:
        consumer = await self.transport.consume(TAKEN.name, prefetch=100_000)
        while burst := await consumer.receive(1_000):
            self.taken += len(burst)
            await consumer.settle(burst)

    async def until_paused(self, paused: bool) -> None:
        """Wait until consuming is paused, or is so no longer."""
        async with asyncio.timeout(60):
            while (self.pressure.reason is not None) != paused:  # noqa: ASYNC110 - it does not tell the test
                await asyncio.sleep(0.01)


async def test_consuming_pauses_while_the_broker_takes_nothing_and_goes_on_when_it_does(storage: SqlStorage) -> None:
    async with Office(storage).running() as office:
        office.publisher.ready = False
        await office.until_paused(True)
        assert office.pressure.reason == "the broker takes no messages now"
        office.publisher.ready = True
        await office.until_paused(False)
    assert [type(fact) for fact in office.facts] == [ConsumingPaused, ConsumingResumed]


async def test_consuming_pauses_while_a_backlog_does_not_move_and_little_of_it_is_held(database: Database) -> None:
    storage = SqlStorage(database)
    await many(database, 20_000)
    async with Office(storage).running() as office:
        office.publisher.confirming.clear()
        await office.until_paused(True)
        assert office.pressure.reason == f"{MANY} messages or more wait to be sent"
        assert office.publisher.most_on_its_way <= MAX_ROWS
        async with database.write() as session:  # the rest goes another way, in a moment
            await session.fetch(Statement.both("delete from outbox where state = 'new' and outbox_id > 8000"), {})
        office.publisher.confirming.set()
        await office.until_paused(False)
        async with asyncio.timeout(60):
            while await storage.backlog() != NOTHING or office.publisher.on_its_way:  # noqa: ASYNC110 - a table
                await asyncio.sleep(0.01)
        assert office.taken == 8_000
        assert office.publisher.most_on_its_way <= MAX_ROWS


async def test_in_process_little_is_held_whatever_waits(database: Database) -> None:
    """There nothing pauses: what waits are replies too, and only who takes them makes room."""
    storage = SqlStorage(database)
    await many(database, 20_000)
    transport = InProcessTransport(app_id="tests")
    relay = Relay(storage, transport.publisher, AsyncioRunner(), lambda fact: None, sweep=SWEPT)
    await transport.connect()
    await transport.declare(Topology(namespace="antiphon", queues=(TAKEN,)))
    consumer = await transport.consume(TAKEN.name, prefetch=400)
    relaying = asyncio.create_task(relay.run())
    left, most = 3_000, 0
    while left > 0:
        async with asyncio.timeout(BOUND):
            burst = await consumer.receive(1_000)
        most = max(most, len(burst))
        left -= len(burst)
        await consumer.settle(burst)
    handed_over = relay.handed_over()
    relay.stop()
    await asyncio.wait_for(relaying, BOUND)
    await transport.close()
    assert most <= 400
    assert len(handed_over) <= MAX_ROWS
