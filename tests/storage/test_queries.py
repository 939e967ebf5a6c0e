from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from messages.errors import OperationRefused
from outbox.interface import Changes, RowOutcome
from outbox.naming import AliasClaim
from sagas.instance import Phase
from storage import queries as asked
from storage.queries import Queries, SagaFilter, TimerFilter
from tests.outbox.building import (
    CONSUMER,
    LEASE,
    NOW,
    command,
    dead_letter,
    history,
    insert,
    new_instance,
    put,
    timer,
)
from tests.storage.plans import explained

if TYPE_CHECKING:
    from outbox.unit import SqlStorage
    from storage import Database
    from storage.queries import TimerPlace


@pytest.fixture
def queries(storage: SqlStorage) -> Queries:
    return Queries(storage.database)


async def test_instances_are_listed_by_type_status_key_and_need_page_by_page(
    storage: SqlStorage, queries: Queries
) -> None:
    orders = [
        new_instance(f"order-{number}", started_at=NOW + timedelta(seconds=number // 2), state=b"{}")
        for number in range(7)
    ]
    parked = new_instance("parked", saga_type="Other", attention={"method_raised": "x"}, started_at=NOW)
    done = new_instance("done", phase=Phase.COMPLETED, ended_at=NOW, started_at=NOW - timedelta(days=1))
    await insert(storage, *orders, parked, done)
    seen: list[str] = []
    following: UUID | None = None
    while True:
        page = await queries.sagas(SagaFilter(saga_type="PlaceOrder", status="running"), limit=3, following=following)
        seen.extend(saga.business_key for saga in page.sagas)
        following = page.following
        if following is None:
            break
    assert sorted(seen) == [f"order-{number}" for number in range(7)]
    assert seen[0] == "order-6"
    [found] = (await queries.sagas(SagaFilter(status="parked"))).sagas
    assert (found.saga_id, found.attention, found.paused) == (parked.saga_id, "method_raised", False)
    assert [saga.business_key for saga in (await queries.sagas(SagaFilter(key="done"))).sagas] == ["done"]
    assert [saga.business_key for saga in (await queries.sagas(SagaFilter(attention=True))).sagas] == ["parked"]
    assert (await queries.sagas(limit=50)).following is None
    with pytest.raises(OperationRefused, match="begin with the first page"):
        await queries.sagas(following=uuid4())
    everyone = (await queries.sagas(limit=50)).sagas
    for number, saga in enumerate(everyone, start=1):
        assert (await queries.sagas(following=saga.saga_id)).sagas == everyone[number:]


async def test_one_instance_is_shown_with_everything_that_hangs_on_it(storage: SqlStorage, queries: Queries) -> None:
    instance = new_instance(attention={"orphaned_effect": "pay"})
    async with storage.transaction() as unit:
        await unit.save(
            Changes(
                consumer=CONSUMER,
                inserted=[instance],
                history=[history(instance.saga_id, 2), history(instance.saga_id, 1, "started")],
                outgoing=[command(instance.saga_id), command(uuid4())],
                dead_letters=[dead_letter(saga_id=instance.saga_id), dead_letter("other")],
            )
        )
    for reference in (instance.saga_id, str(instance.saga_id), "order-1"):
        shown = await queries.saga(reference)
        assert shown is not None
        assert shown.saga.saga_id == instance.saga_id
    assert shown is not None
    assert shown.state == {"order_id": "order-1"}
    assert [(event.seq, event.kind) for event in shown.events] == [(1, "started"), (2, "command_sent")]
    assert shown.events[0].detail["causation_id"] == "start-1"
    assert [each.name for each in shown.timers] == ["reserve", "deadline"]
    assert [(message.name, message.state) for message in shown.outbox] == [("stock.ReserveStock", "new")]
    assert [(reason.reason, reason.detail) for reason in shown.attention] == [("orphaned_effect", "pay")]
    assert [letter.message_id for letter in shown.dead_letters] == ["bad-1"]
    assert await queries.saga(uuid4()) is None
    assert await queries.saga("no such order") is None


async def test_a_key_that_several_types_have_needs_the_type(storage: SqlStorage, queries: Queries) -> None:
    here, there = new_instance("o"), new_instance("o", saga_type="Other")
    await insert(storage, here, there)
    with pytest.raises(OperationRefused, match="Other and PlaceOrder"):
        await queries.saga("o")
    shown = await queries.saga("o", saga_type="Other")
    assert shown is not None
    assert shown.saga.saga_id == there.saga_id


async def test_counts_say_how_much_there_is_and_how_old_it_is(storage: SqlStorage, queries: Queries) -> None:
    empty = await queries.counts()
    assert (empty.outbox, empty.outbox_oldest, empty.timers, empty.timer_overdue) == (0, 0.0, 0, 0.0)
    await insert(
        storage,
        new_instance("1", timers={"late": timer(-100), "later": timer(100)}),
        new_instance("2", timers={}, attention={"compensation_failed": ""}),
    )
    _, [row] = await put(storage, command(uuid4()), lease=LEASE)
    await put(storage, command(uuid4()))
    await storage.settle_outbox(
        failed=[RowOutcome(outbox_id=row.outbox_id, token=row.token, state="returned", retry_in=1)]
    )
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER, dead_letters=[dead_letter()]))
    counts = await queries.counts()
    assert counts.sagas == {("PlaceOrder", "running"): 1, ("PlaceOrder", "parked"): 1}
    assert counts.attention == {"compensation_failed": 1}
    assert (counts.stalled, counts.outbox, counts.outbox_stuck) == (1, 2, 1)
    assert (counts.timers, counts.timers_due, counts.held, counts.dead_letters) == (2, 1, 0, 1)
    assert counts.timer_overdue > 99
    assert counts.outbox_oldest >= 0


async def test_timers_are_listed_soonest_first_page_by_page_by_type_and_by_instance(
    storage: SqlStorage, queries: Queries
) -> None:
    same = timer(50)
    orders = [new_instance(f"order-{n}", timers={"deadline": timer(100 + n), "a/do": same}) for n in range(3)]
    other = new_instance("other", saga_type="Other", timers={"deadline": timer(1)})
    paused = new_instance("paused", timers={"deadline": timer(2)}, paused=True)
    await insert(storage, *orders, other, paused)
    seen: list[tuple[str, str]] = []
    following: TimerPlace | None = None
    while True:
        page = await queries.timers(TimerFilter(saga_type="PlaceOrder"), limit=2, following=following)
        seen += [(each.name, each.business_key) for each in page.timers]
        following = page.following
        if following is None:
            break
    assert {key for name, key in seen[:3] if name == "a/do"} == {"order-0", "order-1", "order-2"}
    assert seen[3:] == [("deadline", "order-0"), ("deadline", "order-1"), ("deadline", "order-2")]
    first, *_ = (await queries.timers()).timers
    assert (first.business_key, first.saga_type, first.generation) == ("other", "Other", 1)
    own = await queries.timers(TimerFilter(saga_id=orders[1].saga_id))
    assert [(each.name, each.due_at) for each in own.timers] == [
        ("a/do", same.due_at),
        ("deadline", orders[1].timers["deadline"].due_at),
    ]
    assert (await queries.timers(TimerFilter(saga_id=paused.saga_id))).timers == []


async def test_an_instance_is_found_by_an_alias_unless_another_has_that_as_its_key(
    storage: SqlStorage, queries: Queries
) -> None:
    first, second, third = (new_instance(key) for key in ("order-1", "order-2", "A"))
    await insert(storage, first, second)
    claims = [
        AliasClaim(saga_type="PlaceOrder", alias=alias, value=value, saga_id=instance.saga_id)
        for instance, alias, value in [(first, "parcel", "A"), (first, "payment", "B"), (second, "parcel", "B")]
    ]
    async with storage.transaction() as unit:
        await unit.take_aliases(claims, reusing=[], over=[])
    found = await queries.saga("A")
    assert found is not None
    assert (found.saga.business_key, found.aliases) == ("order-1", {"parcel": "A", "payment": "B"})
    assert await queries.saga("A", saga_type="Another") is None
    with pytest.raises(OperationRefused, match="several instances have the alias 'B'"):
        await queries.saga("B")
    listed = await queries.sagas(SagaFilter(key="B", aliased=True))
    assert {each.business_key for each in listed.sagas} == {"order-1", "order-2"}
    await insert(storage, third)
    found = await queries.saga("A")
    assert found is not None
    assert found.saga.saga_id == third.saga_id


async def test_a_list_of_timers_goes_on_behind_one_that_is_gone(storage: SqlStorage, queries: Queries) -> None:
    instance = new_instance(timers={f"{name}/do": timer(n) for n, name in enumerate("abc")})
    await insert(storage, instance)
    page = await queries.timers(limit=1)
    async with storage.database.write() as session:
        await session.connection.execute(text("delete from timer where name = 'a/do'"))
    assert [each.name for each in (await queries.timers(following=page.following)).timers] == ["b/do", "c/do"]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (SagaFilter(key="order-1"), "saga_by_key"),
        (SagaFilter(key="order-1", saga_type="PlaceOrder"), "saga_by_key"),
        (SagaFilter(key="order-1", aliased=True), "saga_alias_by_value"),
        (SagaFilter(attention=True), "attention_pkey"),
        (SagaFilter(status="parked"), "attention_pkey"),
    ],
    ids=["key", "key_and_type", "alias", "attention", "parked"],
)
async def test_a_list_finds_its_instances_by_an_index(postgresql: Database, wanted: SagaFilter, index: str) -> None:
    values = {"type": "PlaceOrder", "status": "parked", "key": "order-1", "limit": 51}
    async with postgresql.read() as session:
        await session.connection.execute(text("set local enable_seqscan = off"))
        assert index in await explained(session, asked._sagas(wanted), values)
