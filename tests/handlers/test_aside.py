"""One message that cannot be done delays no other: the culprit of a batch, an instance held for long, a killer."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import event, text

from handlers.consumer import SagaConsumer
from handlers.facts import MessageDeadLettered, MessagesSetAside, SagaMoved
from handlers.suspects import MOST_NOTES, SUSPICIOUS, Suspects
from messages import codec
from messages.catalog.ordering import PaymentCompleted, StockReserved
from messages.codec import open_envelope
from messages.errors import DatabaseAway, Trouble
from outbox.facts import LoopTroubled
from outbox.interface import Accused
from outbox.unit import SqlStorage
from running import AsyncioRunner
from tests.handlers.house import LIMITS, NAMESPACE, dead, kinds, placed, rows
from tests.handlers.test_consumer import BOUND, Hall, Moody, all_in_order
from tests.storage.databases import storage_on
from transport.interface import Publication
from transport.topology import saga_queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from uuid import UUID

    from sqlalchemy import Connection

    from messages.envelope import Raw
    from storage import Database

HASTE = 40.0
"""A minute's patience is over in less than two seconds: time enough for everything that must not wait so long."""

RUSH = 400.0
"""A minute is over in no time: where nothing is to be done before."""

POISON = "poison"
BUSY = ["57014", "53200", "55P03", "40001", "40P01"]
NOBODYS = ["08006", "53100", "57P01"]


class FastRunner(AsyncioRunner):
    """The real one, so many times as fast."""

    def __init__(self) -> None:
        super().__init__()
        self._haste = HASTE
        self._ahead = 0.0

    def rush(self) -> None:
        """Be faster yet from now on."""
        now = self.monotonic()
        self._haste = RUSH
        self._ahead += now - self.monotonic()

    def monotonic(self) -> float:
        """See `running.Runner`."""
        return super().monotonic() * self._haste + self._ahead

    async def sleep(self, seconds: float) -> None:
        """See `running.Runner`."""
        await super().sleep(seconds / self._haste)

    def timeout(self, seconds: float | None):  # type: ignore[no-untyped-def]  # noqa: ANN201
        """See `running.Runner`."""
        return super().timeout(None if seconds is None else seconds / self._haste)


class Ward(Hall):
    """A house whose queue is consumed in great haste."""

    def __init__(self, storage: Any) -> None:  # noqa: ANN401 - a storage, or what behaves like one
        super().__init__(storage)
        self.clock = FastRunner()

    @asynccontextmanager
    async def consuming(self, batch: int) -> AsyncIterator[None]:
        """The loop runs for the length of the block, and never ends in between."""
        queue = saga_queue(NAMESPACE, self.definition.type)
        consumer = SagaConsumer(
            self.handler, self.transport, self.clock, self.facts.append, queue=queue, limits=LIMITS, batch=batch
        )
        loop = asyncio.create_task(consumer.run())
        try:
            yield
            assert not loop.done()
        finally:
            await consumer.stop()
            await asyncio.wait_for(loop, BOUND)

    async def send_again(self, *raws: Raw, times: int = SUSPICIOUS) -> None:
        """Put messages into the queue that were handed out so often before, to a process that is no more."""
        queue = saga_queue(NAMESPACE, self.definition.type)
        await self.transport.publisher.publish(
            [
                Publication(
                    ticket=1000 + n, exchange="", routing_key=queue, envelope=open_envelope(raw), attempts=times
                )
                for n, raw in enumerate(raws)
            ]
        )

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until the facts say so."""
        async with asyncio.timeout(BOUND):
            while not holds():  # noqa: ASYNC110 - facts have no event
                await asyncio.sleep(0.01)

    @property
    def started(self) -> list[str]:
        """The keys of the instances that were started, in order."""
        return [fact.key for fact in self.facts if isinstance(fact, SagaMoved) and fact.entry.kind == "started"]

    def place(self, key: str) -> Raw:
        """The start of an order, under an id that tells it."""
        return self.message(placed(key), message_id=f"start-{key}")


@asynccontextmanager
async def poisoned(database: Database, state: str) -> AsyncIterator[None]:
    """Whatever would apply the message called poison fails with this SQLSTATE."""
    body = f"begin raise exception 'it cannot be done' using errcode = '{state}'; end"
    await execute(database, f"create function spoil() returns trigger language plpgsql as $$ {body} $$")
    await execute(
        database,
        f"create trigger spoil before insert on saga_event for each row when (new.message_id = '{POISON}') "
        "execute function spoil()",
    )
    try:
        yield
    finally:
        await cured(database)


async def cured(database: Database) -> None:
    await execute(database, "drop function if exists spoil cascade")


async def execute(database: Database, sql: str) -> None:
    async with database.write() as session:
        await session.connection.execute(text(sql))


async def suspects(storage: SqlStorage) -> list[tuple[str, int]]:
    found = await rows(
        storage, "select message_id, count(*) as notes from suspect group by message_id order by message_id"
    )
    return [(row.message_id, row.notes) for row in found]


@pytest.mark.parametrize("state", BUSY)
async def test_a_message_that_always_fails_is_found_by_halving_and_given_up_when_all_others_have_long_gone_on(
    postgresql: Database, state: str
) -> None:
    storage = storage_on(postgresql)
    house = await Ward(storage).open()
    await house.take(house.message(placed("o-sick")))
    sick = house.answer("o-sick", StockReserved(order_id="o-sick", reservation_id="r"), "reserve")
    before, behind = [f"o-{n}" for n in range(20)], [f"o-{n}" for n in range(20, 40)]
    await house.send(
        *(house.place(key) for key in before),
        house.message(
            StockReserved(order_id="o-sick", reservation_id="r"),
            message_id=POISON,
            correlation_id=sick.correlation_id,
            headers=sick.headers,
        ),
        *(house.place(key) for key in behind),
    )
    async with poisoned(postgresql, state), house.consuming(batch=100):
        await house.until(lambda: set(before + behind) <= set(house.started))
        assert not [fact for fact in house.facts if isinstance(fact, MessageDeadLettered)]
        await house.send(*(house.place(f"later-{n}") for n in range(50)))
        await house.until(lambda: len(house.started) == 1 + 40 + 50)
        house.clock.rush()
        await house.told("MessageDeadLettered")
    assert await dead(storage) == [(POISON, "unprocessable")]
    (letter,) = await rows(storage, "select error from dead_letter")
    assert "while the database worked" in letter.error
    assert "it cannot be done" in letter.error
    assert await kinds(storage, house.id_of("o-sick")) == ["started", "command_sent"]


@pytest.mark.parametrize("state", NOBODYS)
async def test_what_would_fail_for_every_message_counts_against_none(postgresql: Database, state: str) -> None:
    storage = storage_on(postgresql)
    house = await Ward(storage).open()
    house.clock.rush()
    async with poisoned(postgresql, state), house.consuming(batch=100):
        await house.send(house.message(placed("o-1"), message_id=POISON), house.place("o-2"))
        await house.until(lambda: sum(isinstance(fact, LoopTroubled) for fact in house.facts) > 12)
        assert not [fact for fact in house.facts if isinstance(fact, MessagesSetAside)]
        await cured(postgresql)
        await house.until(lambda: len(house.started) == 2)
    assert house.started == ["o-1", "o-2"]
    assert await dead(storage) == []


async def test_messages_of_the_instance_of_one_that_fails_keep_their_place_behind_it(postgresql: Database) -> None:
    storage = storage_on(postgresql)
    house = await Ward(storage).open()
    async with poisoned(postgresql, "57014"), house.consuming(batch=100):
        await house.send(house.message(placed("o-1"), message_id=POISON), house.place("o-2"))
        await house.until(lambda: house.started == ["o-2"])
        await house.send(
            house.answer("o-1", StockReserved(order_id="o-1", reservation_id="r"), "reserve"),
            house.answer("o-1", PaymentCompleted(order_id="o-1", payment_id="p"), "pay"),
            house.place("o-3"),
        )
        await house.until(lambda: house.started == ["o-2", "o-3"])
        await cured(postgresql)
        await house.until(lambda: any("label" in repr(fact) for fact in house.facts))
    history = await kinds(storage, house.id_of("o-1"))
    assert history.count("step_completed") == 2
    assert "message_ignored" not in history
    assert await dead(storage) == []


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_is_set_aside_what_came_first_counts_first(
    postgresql: Database, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.blame.ALONE_TIMES", 1_000)  # by chance one may well fail alone for a minute
    house = await Ward(Moody(storage_on(postgresql), seed, busy=15)).open()
    house.clock.rush()
    await all_in_order(house, batch=1 + seed % 4)
    assert any(isinstance(fact, MessagesSetAside) for fact in house.facts)


async def test_an_instance_that_somebody_holds_for_long_delays_nobody_else(postgresql: Database) -> None:
    storage = storage_on(postgresql)
    house = await Ward(storage).open()
    await house.take(house.message(placed("o-held")))
    async with house.consuming(batch=10):
        async with storage.transaction() as psql:
            await psql.lock([house.id_of("o-held")])
            await house.send(
                house.answer("o-held", StockReserved(order_id="o-held", reservation_id="r"), "reserve"),
                *(house.place(f"o-{n}") for n in range(60)),
            )
            await house.told("another transaction holds its instance")
            await house.send(
                house.answer("o-held", PaymentCompleted(order_id="o-held", payment_id="p"), "pay"),
                *(house.place(f"o-{n}") for n in range(60, 120)),
            )
            await house.until(lambda: len(house.started) == 121)
            assert "step_completed" not in await kinds(storage, house.id_of("o-held"))
        await house.until(lambda: any("label" in repr(fact) for fact in house.facts))
    assert (await kinds(storage, house.id_of("o-held"))).count("step_completed") == 2


async def test_suspects_that_are_innocent_pass_and_leave_no_trace(database: Database) -> None:
    storage = SqlStorage(database)
    house = await Ward(storage).open()
    keys = [f"o-{n}" for n in range(12)]
    async with house.consuming(batch=100):
        await house.send_again(*(house.place(key) for key in keys))
        await house.until(lambda: len(house.started) == len(keys))
        await house.send(house.place("fresh"))
        await house.until(lambda: "fresh" in house.started)

        async with asyncio.timeout(BOUND):
            while await suspects(storage):  # noqa: ASYNC110 - a table does not tell
                await asyncio.sleep(0.01)
    assert house.started[: len(keys)] == keys
    assert await dead(storage) == []


async def test_whoever_was_noted_thrice_without_an_end_is_met_no_more(database: Database) -> None:
    storage = SqlStorage(database)
    house = await Ward(storage).open()
    killer = house.place("o-killer")
    for _ in range(MOST_NOTES):
        await storage.note_accused(noted(house, killer), uuid4())
    async with house.consuming(batch=100):
        await house.send_again(killer, house.place("o-1"), times=9)
        await house.told("MessageDeadLettered")
        await house.until(lambda: house.started == ["o-1"])

        async with asyncio.timeout(BOUND):
            while await suspects(storage):  # noqa: ASYNC110 - a table does not tell
                await asyncio.sleep(0.01)
    assert await dead(storage) == [("start-o-killer", "killed_process")]


async def test_the_least_suspected_go_first(database: Database) -> None:
    storage = SqlStorage(database)
    house = await Ward(storage).open()
    twice, once = house.place("o-twice"), house.place("o-once")
    for raw, lives in ((twice, 2), (once, 1)):
        for _ in range(lives):
            await storage.note_accused(noted(house, raw), uuid4())
    async with house.consuming(batch=100):
        await house.send_again(twice, once, house.place("o-1"), house.place("o-2"))
        await house.until(lambda: len(house.started) == 4)
    assert house.started == ["o-1", "o-2", "o-once", "o-twice"]


async def test_one_process_notes_a_message_once_however_often_it_tries(database: Database) -> None:
    storage = SqlStorage(database)
    house = Ward(storage)
    suspect, life = noted(house, house.place("o-1")), uuid4()
    assert [await storage.note_accused(suspect, life) for _ in range(5)] == [1] * 5
    assert await storage.note_accused(suspect, uuid4()) == 2
    assert list(await storage.noted([suspect, noted(house, house.place("o-2"))])) == [2, 0]
    await storage.acquit(suspect)
    assert await suspects(storage) == []


async def test_trouble_that_processes_live_through_makes_no_killer_of_what_they_had_in_hand(database: Database) -> None:
    sound = SqlStorage(database)
    storage, house = Hindered(sound), Ward(sound)
    suspect = noted(house, house.place("o-1"))
    lives = [Suspects(storage, house.runner) for _ in range(2)]
    for number in range(4 * MOST_NOTES):
        storage.hindered = number % 3 == 0
        life = lives[number % 2]
        with pytest.raises(DatabaseAway):
            async with life.alone():
                assert await life.note(suspect)
                raise DatabaseAway("the server closed the connection")
        storage.hindered = False
    for life in lives:
        await life.leave()
    assert await suspects(sound) == []


class Hindered:
    """A storage that cannot take notes back while it is hindered."""

    def __init__(self, storage: SqlStorage) -> None:
        self._storage = storage
        self.hindered = False

    async def withdraw_notes(self, life: UUID) -> None:
        """See `outbox.interface.Storage`."""
        if self.hindered:
            raise DatabaseAway("it is still away")
        await self._storage.withdraw_notes(life)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._storage, name)


async def test_the_probe_of_a_database_that_works_leaves_nothing_behind(database: Database) -> None:
    storage = SqlStorage(database)
    await storage.probe()
    assert await suspects(storage) == []


@pytest.mark.parametrize("table", ["saga", "inbox", "dead_letter"])
async def test_the_probe_fails_when_somebody_keeps_everybody_from_writing(postgresql: Database, table: str) -> None:
    storage = storage_on(postgresql)
    async with postgresql.write() as session:
        await session.connection.execute(text(f"lock table {table} in share mode"))
        with soon_tired_of_locks(postgresql), pytest.raises(Trouble):
            await storage.probe()


@contextmanager
def soon_tired_of_locks(database: Database) -> Iterator[None]:
    """Whoever begins a transaction meanwhile waits for a lock for a moment, and not for five seconds."""

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("set local lock_timeout = '50ms'")

    engine = database.engine.sync_engine
    event.listen(engine, "begin", begun)
    try:
        yield
    finally:
        event.remove(engine, "begin", begun)


def noted(house: Ward, raw: Raw) -> Accused:
    return Accused(
        consumer=house.definition.type,
        source=NAMESPACE,  # what its transport says of itself
        message_id=raw.message_id or "",
        body_hash=codec.body_hash(raw.body),
    )
