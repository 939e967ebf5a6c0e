"""Timers over each database: fired by its clock, once, and never for what has been answered."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from handlers.facts import SagaMoved
from handlers.suspects import MOST_NOTES, Suspects, accused_timer
from handlers.timers import Timers
from messages.catalog.ordering import StockReserved
from messages.envelope import Raw
from outbox.facts import LoopTroubled
from outbox.unit import SqlStorage
from sagas import Patience, Policies, Retry, definition_of, with_policies
from sagas.catalog.ordering import PlaceOrder
from tests.handlers.house import NAMESPACE, House, kinds, outbox, placed, rows
from tests.handlers.test_aside import FastRunner
from transport.topology import Queue

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from contextlib import AbstractAsyncContextManager

    from outbox.interface import ClaimedRow, DueTimer
    from outbox.unit import SqlUnit
    from sagas.definition import Definition
    from storage import Database

RESERVED = StockReserved(order_id="o-1", reservation_id="r-1")
BRIEF = timedelta(milliseconds=1)
STOCK = Queue.of_participant("antiphon", "stock", commands=("stock.ReserveStock",))


def hurried(attempts: int = 3, timeout: timedelta = BRIEF) -> Definition:
    """The ordering saga with hardly any patience."""
    retry = Retry(attempts=attempts, backoff=BRIEF, factor=1.0, cap=BRIEF, jitter=0.0)
    patience = Patience(timeout=timeout, retry=retry)
    return with_policies(
        definition_of(PlaceOrder), Policies(calls={"reserve": patience, "pay": patience, "release": patience})
    )


async def due(house: House) -> list[str]:
    """Wait until a timer is due by the database's clock."""
    while True:
        found, next_in = await house.storage.due_timers([house.definition.type], 100)
        if found:
            return [timer.name for timer in found]
        assert next_in is not None, "no timer is set"
        assert next_in < 5, "the next timer is far away"
        await asyncio.sleep(next_in)


async def fire(house: House, *timers: Timers) -> list[int]:
    """Let the timers that are due fire, by these loops at once."""
    await due(house)
    found, _ = await house.storage.due_timers([house.definition.type], 100)
    return await asyncio.gather(*(each.fire(found) for each in timers or [house.timers]))


async def sent(house: House, storage: SqlStorage) -> list[ClaimedRow]:
    """Pretend that the broker has everything: the rows go."""
    found = await rows(storage, "select outbox_id, token from outbox")
    await storage.settle_outbox(confirmed=[(row.outbox_id, _uuid(row.token)) for row in found if row.token])
    left = await storage.claim_outbox(token=house.runner.token(), lease=15, limit=100)
    await storage.settle_outbox(confirmed=[(row.outbox_id, row.token) for row in left])
    return list(left)


def _uuid(value: object):  # type: ignore[no-untyped-def]  # noqa: ANN202
    from storage.statements import as_uuid

    return as_uuid(value)  # type: ignore[arg-type]


@pytest.fixture
async def house(storage: SqlStorage) -> House:
    return await House(storage, hurried()).open()


async def test_a_silent_participant_gets_the_same_bytes_again(house: House, storage: SqlStorage) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    first = (await house.take(house.message(placed(), headers={"traceparent": trace}))).claimed[0].outgoing
    assert first.envelope.traceparent == trace
    await sent(house, storage)
    await fire(house)
    again = await rows(storage, "select message_id, body, headers from outbox")
    assert [(row.message_id, bytes(row.body)) for row in again] == [(first.envelope.message_id, first.envelope.body)]
    (row,) = await storage.claim_outbox(token=house.runner.token(), lease=15, limit=9) or await _claimed(storage)
    assert row.outgoing.envelope == first.envelope


async def _claimed(storage: SqlStorage) -> list[ClaimedRow]:
    found = await rows(storage, "select outbox_id, token from outbox")
    await storage.release_leases([(row.outbox_id, _uuid(row.token)) for row in found])
    return list(await storage.claim_outbox(token=_uuid("00000000-0000-0000-0000-000000000001"), lease=15, limit=9))


async def test_a_command_that_is_still_in_the_outbox_costs_no_attempt(storage: SqlStorage) -> None:
    house = House(storage, hurried())  # its broker takes nothing
    await house.take(house.message(placed()))
    await fire(house)
    assert await kinds(storage, house.id_of("o-1")) == ["started", "command_sent", "timer_set"]
    assert (await house.instance("o-1")).steps["reserve"].do.spent == 1
    assert len(await outbox(storage)) == 1


async def test_a_participant_of_this_process_has_no_more_time_than_one_behind_a_broker(storage: SqlStorage) -> None:
    """The row of a command stands until the participant here has settled it: that alone makes nobody wait longer."""
    house = await House(storage, hurried()).open(STOCK)
    await house.take(house.message(placed()))
    await fire(house)
    await fire(house)  # the first may have fallen due before the command was handed over
    assert (await kinds(storage, house.id_of("o-1")))[-1] == "command_resent"
    assert [name for name, _ in await outbox(storage)] == ["stock.ReserveStock"]


async def test_a_participant_that_got_its_command_after_the_timer_fell_due_has_the_whole_time(
    storage: SqlStorage,
) -> None:
    """As after an outage: what was left behind is handed over, and only then does a timer look."""
    house = House(storage, hurried())
    await house.take(house.message(placed()))
    await due(house)
    await house.open(STOCK)
    await house.relay.catch_up()
    await fire(house)
    assert await kinds(storage, house.id_of("o-1")) == ["started", "command_sent", "timer_set"]
    await fire(house)
    assert (await kinds(storage, house.id_of("o-1")))[-1] == "command_resent"


async def test_the_last_timeout_only_sends_a_marker_and_the_marker_gives_up(storage: SqlStorage) -> None:
    house = await House(storage, hurried(attempts=1)).open()
    await house.take(house.message(placed()))
    await sent(house, storage)
    await fire(house)
    assert (await house.instance("o-1")).status == "running"
    (marker,) = await rows(storage, "select * from outbox")
    assert (marker.name, marker.exchange, marker.routing_key) == ("antiphon.GiveUp", "", "antiphon.saga.PlaceOrder")
    await house.take(_back(house, marker))
    (row,) = await rows(storage, "select status, end_reason from v_saga")
    assert tuple(row) == ("compensating", "timed_out")
    assert [name for name, _ in await outbox(storage)] == ["antiphon.GiveUp", "stock.ReleaseStock"]


async def test_an_outage_of_the_broker_heaps_up_no_markers(storage: SqlStorage) -> None:
    house = await House(storage, hurried(attempts=1)).open()
    await house.take(house.message(placed()))
    await sent(house, storage)
    await house.transport.close()
    for _ in range(4):
        await fire(house)
    assert await outbox(storage) == [("antiphon.GiveUp", "new")]
    assert await kinds(storage, house.id_of("o-1")) == ["started", "command_sent", "timer_fired"] + ["timer_set"] * 3
    await sent(house, storage)
    await fire(house)
    assert (await kinds(storage, house.id_of("o-1")))[-1] == "timer_fired"  # it went, and was not heard of: another


async def test_a_reply_before_the_marker_wins(storage: SqlStorage) -> None:
    house = await House(storage, hurried(attempts=1)).open()
    await house.take(house.message(placed()))
    await sent(house, storage)
    await fire(house)
    (marker,) = await rows(storage, "select * from outbox")
    await house.take(house.answer("o-1", RESERVED, "reserve"), _back(house, marker))
    assert (await house.instance("o-1")).status == "running"
    dispositions = await rows(storage, "select disposition from v_inbox order by disposition")
    assert [row.disposition for row in dispositions] == ["applied", "applied", "ignored"]


def _back(house: House, marker: object) -> Raw:
    return Raw(
        body=bytes(marker.body),  # type: ignore[attr-defined]
        routing_key="antiphon.saga.PlaceOrder",
        message_id=marker.message_id,  # type: ignore[attr-defined]
        type="antiphon.GiveUp",
        content_type="application/json",
        correlation_id=str(house.id_of("o-1")),
        app_id="antiphon",
    )


async def test_a_timer_that_two_loops_saw_fires_once(house: House, storage: SqlStorage) -> None:
    other = await House(storage, hurried()).open()
    await house.take(house.message(placed()))
    await sent(house, storage)
    await fire(house, house.timers, other.timers)
    assert (await kinds(storage, house.id_of("o-1"))).count("command_resent") == 1


async def test_an_answered_step_has_no_timer_left(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(placed()))
    await due(house)
    found, _ = await house.storage.due_timers([house.definition.type], 100)
    await house.take(house.answer("o-1", RESERVED, "reserve"))
    await house.timers.fire(found)  # seen before the reply was committed
    assert "command_resent" not in await kinds(storage, house.id_of("o-1"))


async def test_timers_that_cannot_be_fired_here_delay_no_other(storage: SqlStorage) -> None:
    """Those of a version that only a newer process knows stay due for as long as that process is away."""
    newer = await House(storage, replace(hurried(), version=2)).open()
    await newer.take(*(newer.message(placed(f"new-{n}")) for n in range(3)))
    await due(newer)
    house = await House(storage, hurried()).open()
    await house.take(house.message(placed()))
    impatient = Timers(
        {house.definition.type: {1: house.definition}},
        namespace=NAMESPACE,
        storage=storage,
        relay=house.relay,
        runner=house.runner,
        report=house.facts.append,
        batch=2,
    )
    loop = asyncio.create_task(impatient.run())
    async with asyncio.timeout(30):
        while "command_resent" not in await kinds(storage, house.id_of("o-1")):  # noqa: ASYNC110 - rows have no event
            await asyncio.sleep(0.01)
    impatient.stop()
    await asyncio.wait_for(loop, 30)
    assert await kinds(storage, house.id_of("new-0")) == ["started", "command_sent"]


async def test_due_timers_can_be_passed_over(house: House) -> None:
    await house.take(house.message(placed()), house.message(placed("o-2")))
    await due(house)
    all_due, _ = await house.storage.due_timers([house.definition.type], 9)
    rest, _ = await house.storage.due_timers([house.definition.type], 9, skip=1)
    assert [timer.saga_id for timer in rest] == [timer.saga_id for timer in all_due][1:]


@pytest.mark.parametrize("state", ["22003", "57014"])
async def test_any_number_of_timers_that_cannot_be_fired_delay_no_other(postgresql: Database, state: str) -> None:
    storage = SqlStorage(postgresql)
    house = await House(storage, hurried()).open()
    for first in range(0, 400, 200):
        await house.take(*(house.message(placed(f"sick-{n}")) for n in range(first, first + 200)))
    await house.take(*(house.message(placed(f"well-{n}")) for n in range(5)))
    await execute(postgresql, "delete from outbox")
    body = f"""
        begin  -- as for an instance whose data the database refuses, or on which every statement runs out of time
            if exists (select 1 from saga where saga_id = new.saga_id and key like 'sick-%') then
                raise exception 'it cannot be done' using errcode = '{state}';
            end if;
            return new;
        end
    """  # noqa: S608 - nobody's words
    await execute(postgresql, f"create function spoil() returns trigger language plpgsql as $$ {body} $$")
    await execute(postgresql, "create trigger spoil before insert on saga_event for each row execute function spoil()")
    await due(house)
    timers = Timers(
        {house.definition.type: {1: house.definition}},
        namespace=NAMESPACE,
        storage=storage,
        relay=house.relay,
        runner=FastRunner(),
        report=house.facts.append,
    )
    loop = asyncio.create_task(timers.run())
    try:
        async with asyncio.timeout(60):
            while len(resent(house, "well-")) < 5:  # noqa: ASYNC110 - facts have no event
                await asyncio.sleep(0.01)
        pages = 400 / 200
        assert len(troubles(house)) <= pages + 1, "they were tried one by one before the others had their turn"
        await execute(postgresql, "drop function spoil cascade")
        async with asyncio.timeout(60):
            while len(resent(house, "sick-")) < 400:  # noqa: ASYNC110 - facts have no event
                await asyncio.sleep(0.05)
    finally:
        timers.stop()
        await asyncio.wait_for(loop, 60)
        await execute(postgresql, "drop function if exists spoil cascade")


async def test_after_an_outage_what_is_long_overdue_fires_together_and_nobody_is_suspected(database: Database) -> None:
    storage = SqlStorage(database)
    counted = Counted(storage)
    house = await House(counted, hurried()).open()
    await house.take(*(house.message(placed(f"o-{n}")) for n in range(50)))
    await execute(database, "delete from outbox")
    await overdue(database)
    counted.transactions = 0
    await until_resent(house, {f"o-{n}" for n in range(50)})
    assert counted.transactions <= 10
    assert await rows(storage, "select message_id from suspect") == []


async def test_where_somebody_died_they_fire_one_by_one_and_the_killer_no_more(database: Database) -> None:
    storage = SqlStorage(database)
    house = await House(storage, hurried()).open()
    await house.take(*(house.message(placed(f"o-{n}")) for n in range(5)))
    await execute(database, "delete from outbox")
    await overdue(database)
    found, _ = await storage.due_timers([house.definition.type], 100)
    [killer] = [timer for timer in found if timer.saga_id == house.id_of("o-2")]
    for _ in range(MOST_NOTES):
        died = Suspects(storage, house.runner)
        await died.note_crowd()
        assert await died.note(accused_timer(killer))
    await until_resent(house, {"o-0", "o-1", "o-3", "o-4"})
    assert resent(house, "o-2") == set()
    [told] = {fact.error for fact in troubles(house)}
    assert f"timer {killer.name} of instance {killer.saga_id} is fired no more" in told
    suspected = await rows(storage, "select source, count(*) as notes from suspect group by source")
    assert [(row.source, row.notes) for row in suspected] == [(str(killer.saga_id), MOST_NOTES + 1)]


async def overdue(database: Database) -> None:
    """Let a minute pass for every timer."""
    async with database.write() as session:
        late = "now() - interval '1 min'" if session.postgresql else "'2026-01-01T00:00:00.000000Z'"
        await session.connection.execute(text(f"update timer set due_at = {late} where name like '%do'"))  # noqa: S608


async def until_resent(house: House, keys: set[str]) -> None:
    """Let the timers run until the commands of these have been sent again."""
    loop = asyncio.create_task(house.timers.run())
    try:
        async with asyncio.timeout(30):
            while resent(house, "o-") != keys:  # noqa: ASYNC110 - facts have no event
                await asyncio.sleep(0.01)
    finally:
        house.timers.stop()
        await asyncio.wait_for(loop, 30)


def resent(house: House, prefix: str) -> set[str]:
    """The keys of the instances whose command was sent again."""
    return {
        fact.key
        for fact in house.facts
        if isinstance(fact, SagaMoved) and fact.entry.kind == "command_resent" and fact.key.startswith(prefix)
    }


def troubles(house: House) -> list[LoopTroubled]:
    return [fact for fact in house.facts if isinstance(fact, LoopTroubled)]


async def execute(database: Database, sql: str) -> None:
    async with database.write() as session:
        await session.connection.execute(text(sql))


async def test_of_any_number_of_timers_that_are_due_no_more_than_a_batch_is_held(database: Database) -> None:
    storage = Counted(SqlStorage(database))
    house = await House(storage, hurried()).open()
    async with database.write() as session:
        numbers = "with recursive numbers(i) as (select 1 union all select i + 1 from numbers where i < 10000)"
        saga = "gen_random_uuid()" if database.postgresql else "printf('%08d-0000-4000-8000-000000000000', i)"
        late = "now()" if database.postgresql else "'2026-01-01T00:00:00.000000Z'"
        await session.connection.execute(
            text(
                "insert into timer (saga_id, name, saga_type, generation, due_at) "  # noqa: S608 - nobody's words
                f"{numbers} select {saga}, 'reserve', 'PlaceOrder', 1, {late} from numbers"
            )
        )
    loop = asyncio.create_task(house.timers.run())
    async with asyncio.timeout(120):
        while storage.seen < 10_000:  # noqa: ASYNC110 - a counter does not tell
            await asyncio.sleep(0.01)
    house.timers.stop()
    await asyncio.wait_for(loop, 60)
    assert storage.most == 200


class Counted:
    """Everything of the storage it wraps; the due timers that it handed out at most and in all; its transactions."""

    def __init__(self, storage: SqlStorage) -> None:
        self._storage = storage
        self.most = self.seen = self.transactions = 0

    def transaction(self) -> AbstractAsyncContextManager[SqlUnit]:
        """See `outbox.interface.Storage`."""
        self.transactions += 1
        return self._storage.transaction()

    async def due_timers(
        self, saga_types: Collection[str], limit: int, *, skip: int = 0
    ) -> tuple[Sequence[DueTimer], float | None]:
        """See `outbox.interface.Storage`."""
        due, next_in = await self._storage.due_timers(saga_types, limit, skip=skip)
        self.most, self.seen = max(self.most, len(due)), self.seen + len(due)
        return due, next_in

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._storage, name)
