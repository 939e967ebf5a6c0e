"""The watchdog over each database: people are told before rule 16's statement would show an instance, and told when it
is over. Time passes by making everything older."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from handlers.facts import AttentionCleared, AttentionRaised
from handlers.watchdog import INTERVAL, Watchdog
from messages.catalog.ordering import StockReserved
from messages.envelope import Raw
from outbox.facts import LoopTroubled
from outbox.unit import SqlStorage
from running import AsyncioRunner
from sagas.patch import rebuild
from sagas.watching import WATCHED, Here
from storage import Database
from storage.stalls import STALLS
from storage.statements import as_time
from tests.handlers.house import House, kinds, placed, rows
from tests.handlers.test_timers import fire, hurried
from tests.services.waiting import until_async
from tests.storage.world import Row, Someone, World, anyone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

HERE = Here(versions={"PlaceOrder": {1}}, takers={"stock.ReserveStock": "stock"})
BOUND = 30.0


class Guard(Watchdog):
    """A watchdog that keeps what it reported."""

    def __init__(self, storage: SqlStorage, here: Here = HERE, *, page: int = 100) -> None:
        self.facts: list[object] = []
        super().__init__(here, storage=storage, runner=Impatient(), report=self.facts.append, page=page)


class Impatient(AsyncioRunner):
    """Waits for nothing longer than a moment."""

    def timeout(self, seconds: float | None) -> Any:  # noqa: ANN401
        return asyncio.timeout(None if seconds is None else min(seconds, 0.01))


async def attention(storage: SqlStorage, key: str = "o-1") -> set[str]:
    """The reasons that stand, all of them."""
    found = await rows(
        storage,
        "select a.reason from attention a join saga s on s.saga_id = a.saga_id where s.key = :key",
        {"key": key},
    )
    return {row.reason for row in found}


async def stalled(storage: SqlStorage) -> int:
    async with storage.database.read() as session:
        return len(await session.fetch(STALLS, {}))


@pytest.fixture
def world(storage: SqlStorage) -> World:
    return World(storage.database)


@pytest.fixture
async def house(storage: SqlStorage) -> House:
    return await House(storage).open()


async def sent(storage: SqlStorage) -> None:
    """The broker has everything."""
    await World(storage.database).run("delete from outbox")


async def test_a_timer_that_nobody_fires_is_told_until_its_instance_moves(
    house: House, storage: SqlStorage, world: World
) -> None:
    guard = Guard(storage)
    await house.take(house.message(placed()))
    await sent(storage)
    await world.run("delete from timer where name = 'deadline'")
    await guard.look()
    assert await attention(storage) == set()
    [timer] = await rows(storage, "select due_at from timer")
    late = as_time(timer.due_at) - await world.now()
    await world.pass_time(late.total_seconds() + 45)
    assert await stalled(storage) == 0
    await guard.look()
    assert [tuple(row) for row in await rows(storage, "select status, attention from v_saga")] == [
        ("running", "timer_overdue")
    ]
    await house.take(house.answer("o-1", StockReserved(order_id="o-1", reservation_id="r-1"), "reserve"))
    await guard.look()
    assert await attention(storage) == set()
    told = [kind for kind in await kinds(storage, house.id_of("o-1")) if kind.startswith("attention")]
    assert told == ["attention_raised", "attention_cleared"]
    order = await house.instance("o-1")
    assert order.revision == 2  # the start and the reply
    patches = await rows(storage, "select patch from saga_event where patch is not null order by seq")
    rebuilt = rebuild([bytes(row.patch) for row in patches])
    assert (rebuilt.attention, rebuilt.seq) == (order.attention, order.seq)


async def test_what_is_reported_is_what_was_committed(storage: SqlStorage, world: World) -> None:
    guard = Guard(storage)
    await world.settle(WRONG["unroutable"])
    await guard.look()
    await world.run("delete from outbox")
    await guard.look()
    raised, cleared = guard.facts
    error = "no queue takes stock.ReserveStock; start antiphon participant stock"
    saga_id = WRONG["unroutable"].saga_id
    assert raised == AttentionRaised(
        saga_id=saga_id, saga_type="PlaceOrder", key="o-1", reason="unroutable", error=error
    )
    assert cleared == AttentionCleared(saga_id=saga_id, saga_type="PlaceOrder", key="o-1", reason="unroutable")
    [(said,)] = await rows(storage, "select detail from v_saga_event where kind = 'attention_raised'")
    assert error in str(said)


WRONG = {
    "timer_overdue": Someone(key="o-1", timers=[-45, 3600]),
    "version_missing": Someone(key="o-1", version=2, timers=[-45, 3600]),
    "unroutable": Someone(key="o-1", timers=[3600], outbox=[Row(state="returned", created=-90, next_attempt=30)]),
    "refused": Someone(key="o-1", timers=[3600], outbox=[Row(state="refused", created=-2, next_attempt=600)]),
    "outbox_overdue": Someone(key="o-1", timers=[3600], outbox=[Row(created=-45, next_attempt=-45)]),
    "marker_overdue": Someone(key="o-1", timers=[3600], asked=-320),
    "stalled": Someone(key="o-1", updated=-45),
}
HEALED = {
    "stalled": "insert into timer (saga_id, name, saga_type, generation, due_at) "
    "select saga_id, 'deadline', 'PlaceOrder', 1, deadline_at from saga",
    "unroutable": "delete from outbox",
    "refused": "delete from outbox",
    "outbox_overdue": "delete from outbox",
    "timer_overdue": "delete from timer where name = 'step0/do'",
    "version_missing": "delete from timer where name = 'step0/do'",
    "marker_overdue": "update timer set asked_at = null",
}


@pytest.mark.parametrize("reason", WRONG)
async def test_each_reason_comes_and_goes_with_its_cause(storage: SqlStorage, world: World, reason: str) -> None:
    guard = Guard(storage)
    await world.settle(WRONG[reason])
    assert await stalled(storage) == 0
    for _ in range(2):
        await guard.look()
        assert await attention(storage) == {reason}
        await world.pass_time(15)
    await world.run(HEALED[reason])
    for _ in range(2):
        await guard.look()
        assert await attention(storage) == set()
    assert await kinds(storage, WRONG[reason].saga_id) == ["attention_raised", "attention_cleared"]


@pytest.mark.parametrize(
    "probe",
    [
        Row(state="returned", created=-100, next_attempt=10, attempts=6),
        Row(state="claimed", created=-100, next_attempt=10, attempts=6, came_back=True),
    ],
    ids=["returned", "on its way once more"],
)
async def test_what_waits_until_a_probe_is_taken_finds_no_queue_either(
    storage: SqlStorage, world: World, probe: Row
) -> None:
    """While a destination takes nothing the relay tries one message and leaves the others alone."""
    waiting, elsewhere = Row(created=-45, next_attempt=-45), Row(created=-45, next_attempt=-45, name="payment.Pay")
    await world.settle(
        Someone(key="probe", timers=[3600], outbox=[probe]),
        Someone(key="o-1", timers=[3600], outbox=[waiting]),
        Someone(key="o-2", timers=[3600], outbox=[elsewhere]),
    )
    await Guard(storage).look()
    assert await attention(storage, "o-1") == {"unroutable"}
    assert await attention(storage, "o-2") == {"outbox_overdue"}


async def test_what_waits_for_a_full_queue_says_so_and_what_waits_beside_a_refused_message_does_not(
    storage: SqlStorage, world: World
) -> None:
    full = Row(state="unknown", created=-100, next_attempt=10, attempts=6, came_back=True, name="payment.Pay")
    refused = Row(state="refused", created=-100, next_attempt=500, attempts=1)
    await world.settle(
        Someone(key="nacked", timers=[3600], outbox=[full]),
        Someone(key="refused", timers=[3600], outbox=[refused]),
        Someone(key="o-1", timers=[3600], outbox=[Row(created=-45, next_attempt=-45, name="payment.Pay")]),
        Someone(key="o-2", timers=[3600], outbox=[Row(created=-45, next_attempt=-45)]),
    )
    await world.run("update outbox set error = 'a queue is full' where came_back")
    await world.run("update outbox set error = 'too large' where state = 'refused'")
    await Guard(storage).look()
    assert await attention(storage, "refused") == {"refused"}
    told = {
        row.key: row.text
        for row in await rows(
            storage,
            "select s.key, a.detail as text from attention a join saga s on s.saga_id = a.saga_id "
            "where a.reason = 'outbox_overdue'",
        )
    }
    assert told.keys() == {"o-1", "o-2"}
    assert "(a queue is full)" in told["o-1"]
    assert "too large" not in told["o-2"]


async def test_a_saga_queue_that_nobody_reads_is_told_of_until_its_marker_comes_back(
    storage: SqlStorage, world: World
) -> None:
    house, guard = await House(storage, hurried(attempts=1)).open(), Guard(storage)
    await house.take(house.message(placed()))
    await sent(storage)
    await fire(house)
    [marker] = await rows(storage, "select * from outbox")
    await sent(storage)
    await guard.look()
    assert await attention(storage) == set()
    await world.run("update timer set asked_at = :ago", {"ago": await world.now() - timedelta(minutes=6)})
    await guard.look()
    assert await attention(storage) == {"marker_overdue"}
    assert await stalled(storage) == 0
    back = Raw(
        body=bytes(marker.body),
        routing_key="antiphon.saga.PlaceOrder",
        message_id=marker.message_id,
        type="antiphon.GiveUp",
        correlation_id=str(house.id_of("o-1")),
        app_id="antiphon",
    )
    await house.take(back)
    await guard.look()
    assert await attention(storage) == set()
    assert (await house.instance("o-1")).phase == "compensating"


class Counting(SqlStorage):
    """Counts how often it was asked for suspects."""

    asked = 0

    async def suspects(self, after: UUID, limit: int) -> Sequence[UUID]:
        """See `outbox.interface.Storage`."""
        self.asked += 1
        return await super().suspects(after, limit)


async def test_many_suspects_are_looked_for_seldom_and_judged_in_small_transactions(
    storage: SqlStorage, world: World
) -> None:
    counting = Counting(storage.database)
    await world.settle(*(Someone(key=f"o-{each}", outbox=[Row(created=-400)]) for each in range(25)))
    guard = Guard(counting, page=2)
    await guard.look()
    assert len(guard.facts) == 25
    assert counting.asked == 2


async def test_while_a_watchdog_runs_the_statement_finds_nobody(storage: SqlStorage, world: World) -> None:
    """Among people to whom anything happens, looked at every 15 seconds, until each reason has come and gone."""
    chance = random.Random(16)
    guard = Guard(storage, page=30)
    told: set[tuple[str, str]] = set()
    for number in range(120):
        people = 60 if number == 0 else 3
        waiting = ("new", "unknown", "returned", "refused")
        await world.settle(*(anyone(chance, f"order-{number}-{each}", waiting) for each in range(people)))
        await guard.look()
        await _happen(chance, world)
        assert await stalled(storage) == 0
        await world.pass_time(INTERVAL)
        assert await stalled(storage) == 0
        told = {(type(fact).__name__, fact.reason) for fact in guard.facts}  # type: ignore[attr-defined]
        if number >= 20 and len(told) == 2 * len(WATCHED):
            return
    pytest.fail(f"invalid: only this came and went: {sorted(told)}")


HAPPENINGS = (
    "delete from timer where saga_id = :id",
    "delete from outbox where saga_id = :id",
    "delete from held where saga_id = :id",
    "update saga set phase = 'completed' where saga_id = :id",
    "update outbox set state = 'returned', came_back = true, attempts = attempts + 1 where saga_id = :id",
    "update outbox set state = 'refused', came_back = false, attempts = attempts + 1 where saga_id = :id",
    "update outbox set state = 'claimed', attempts = attempts + 1 where saga_id = :id",
    "update outbox set state = 'unknown', next_attempt_at = :soon where saga_id = :id",
)


async def _happen(chance: random.Random, world: World) -> None:
    """Something to some of them: fired, sent, answered, ended, come back, refused, tried again."""
    await world.run("update outbox set state = 'returned' where state = 'claimed'")
    some = [row.saga_id for row in chance.sample(await world.find("select saga_id from saga order by key"), 24)]
    now = await world.now()
    await world.run(
        "update saga set updated_at = :now where saga_id = :id", *({"id": each, "now": now} for each in some)
    )
    for number, change in enumerate(HAPPENINGS):
        soon = {"soon": now + timedelta(seconds=10)} if ":soon" in change else {}
        await world.run(change, *({"id": each} | soon for each in some[number :: len(HAPPENINGS)]))


async def test_two_watchdogs_say_it_once(storage: SqlStorage, world: World) -> None:
    guards = [Guard(storage), Guard(storage)]
    people = [Someone(key=f"o-{number}", timers=[-45]) for number in range(20)]
    await world.settle(*people)
    await asyncio.gather(*(guard.look() for guard in guards))
    await guards[0].look()
    assert await stalled(storage) == 0
    assert sum(len(guard.facts) for guard in guards) == 20
    assert {tuple(await kinds(storage, one.saga_id)) for one in people} == {("attention_raised",)}


async def test_one_that_cannot_be_read_delays_no_other_and_is_named(storage: SqlStorage, world: World) -> None:
    guard = Guard(storage)
    people = [Someone(key=f"o-{number}", timers=[-45]) for number in range(5)]
    await world.settle(*people)
    broken = people[2].saga_id
    await world.run("update saga set progress = :bytes where saga_id = :id", {"bytes": b"no JSON", "id": broken})
    await guard.look()
    assert {row.key for row in await rows(storage, "select key from saga where seq > 1")} == {
        "o-0",
        "o-1",
        "o-3",
        "o-4",
    }
    [told] = [fact for fact in guard.facts if isinstance(fact, LoopTroubled)]
    assert f"instance {broken} cannot be watched" in told.error


async def test_one_that_another_process_holds_waits_for_the_next_round(postgresql: Database) -> None:
    world, storage = World(postgresql), SqlStorage(postgresql)
    guard = Guard(storage)
    held, free = Someone(key="held", timers=[-45]), Someone(key="free", timers=[-45])
    await world.settle(held, free)
    async with storage.transaction() as unit:
        await unit.lock([held.saga_id])
        await guard.look()
        assert await attention(storage, "free") == {"timer_overdue"}
    assert await attention(storage, "held") == set()
    await guard.look()
    assert await attention(storage, "held") == {"timer_overdue"}


async def test_it_looks_until_it_is_stopped(storage: SqlStorage, world: World) -> None:
    guard = Guard(storage)
    await world.settle(WRONG["timer_overdue"])
    loop = asyncio.create_task(guard.run())
    await until_async(lambda: guard.facts, what="the first round")
    guard.stop()
    await asyncio.wait_for(loop, BOUND)
    assert await attention(storage) == {"timer_overdue"}


async def test_trouble_with_the_database_is_reported_and_outlived() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/nowhere", AsyncioRunner())
    guard = Guard(SqlStorage(database))
    loop = asyncio.create_task(guard.run())
    await until_async(lambda: len(guard.facts) > 1, what="a second round after trouble")
    guard.stop()
    await asyncio.wait_for(loop, BOUND)
    await database.close()
    assert {(type(fact), fact.loop) for fact in guard.facts} == {(LoopTroubled, "watchdog")}  # type: ignore[attr-defined]
