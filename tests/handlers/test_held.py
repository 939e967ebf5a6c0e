"""Messages that cannot be applied now: kept, applied in order by whatever unblocks them, never lost and never twice."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from handlers.facts import MessageDuplicated, MessageHeld
from handlers.handle import Handler
from handlers.held import HeldMessages
from handlers.operations import Operation, Operations
from handlers.saga_types import SagaType
from messages import Event, codec
from messages.catalog.ordering import OrderPlaced, PaymentCompleted, ShippingLabelCreated, StockReserved
from outbox.holding import Held, KnownType
from outbox.interface import Changes
from outbox.unit import SqlStorage
from running import AsyncioRunner
from sagas import definition_of
from sagas.catalog.ordering import PlaceOrder
from sagas.instance import CallStatus
from sagas.outcome import Action, Operated
from storage.statements import Statement
from tests.handlers.house import LIMITS, NAMESPACE, House, dead, kinds, placed, rows
from tests.services.waiting import until_async
from transport.topology import saga_queue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.operations import Outcome
    from messages.envelope import Raw
    from outbox.holding import RipeHeld
    from sagas import Definition
    from sagas.instance import Instance
    from storage import Database

RESERVED = StockReserved(order_id="o-1", reservation_id="r-1")
PAID = PaymentCompleted(order_id="o-1", payment_id="p-1")
LABELLED = ShippingLabelCreated(order_id="o-1", tracking_code="t-1")
QUEUE = saga_queue(NAMESPACE, "PlaceOrder")


class Keyless(Event, name="keyless.Event"):
    pass


@pytest.fixture
async def house(storage: SqlStorage) -> House:
    return await House(storage).open()


def sweep_of(house: House, *definitions: Definition) -> HeldMessages:
    versions = {each.version: each for each in definitions or (house.definition,)}
    return HeldMessages(
        [SagaType(versions, NAMESPACE)],
        storage=house.storage,
        relay=house.relay,
        runner=house.runner,
        report=house.facts.append,
        limits=LIMITS,
    )


async def operate(house: House, action: Action, key: str = "o-1") -> Outcome:
    operations = Operations(
        {house.definition.type: {house.definition.version: house.definition}},
        namespace=NAMESPACE,
        storage=house.storage,
        runner=house.runner,
        report=house.facts.append,
        limits=LIMITS,
    )
    operated = Operated(action=action, actor="ann", reason="test", request_id=str(uuid4()))
    return await operations.carry_out(Operation(saga_id=house.id_of(key), operated=operated))


def direct(raw: Raw) -> Raw:
    """A reply as it comes straight to the saga's queue."""
    return replace(raw, routing_key=QUEUE)


async def held(storage: SqlStorage) -> list[tuple[str, str]]:
    return [(row.name, row.reason) for row in await rows(storage, "select * from v_held order by received_at")]


async def dispositions(storage: SqlStorage) -> dict[str, str]:
    return {row.message_id: row.disposition for row in await rows(storage, "select * from v_inbox")}


def newer(version: int) -> Definition:
    return replace(definition_of(PlaceOrder), version=version)


async def test_what_arrives_for_a_paused_instance_is_held_and_applied_on_resume_in_order(
    house: House, storage: SqlStorage
) -> None:
    await house.take(house.message(placed()))
    await operate(house, Action.PAUSE)
    replies = [house.answer("o-1", RESERVED, "reserve"), house.answer("o-1", PAID, "pay")]
    await house.take(*replies)
    await house.take(replies[0])
    assert await held(storage) == [("stock.StockReserved", "paused"), ("payment.PaymentCompleted", "paused")]
    assert [type(fact) for fact in house.facts].count(MessageHeld) == 2
    assert [type(fact) for fact in house.facts].count(MessageDuplicated) == 1
    paused = await house.instance("o-1")
    assert paused.attention == {"messages_held": "messages wait until it is resumed"}
    assert paused.status == "running"
    assert not await rows(storage, "select * from v_timer")
    outcome = await operate(house, Action.RESUME)
    assert outcome.instance.attention == {}
    assert list(outcome.instance.steps) == ["reserve", "pay", "label"]
    assert await held(storage) == []
    assert {await dispositions_of(storage, raw) for raw in replies} == {"applied"}
    told = [kind for kind in await kinds(storage, house.id_of("o-1")) if kind in ("message_held", "reply_received")]
    assert told == ["message_held", "message_held", "reply_received", "reply_received"]


async def test_what_was_held_for_an_instance_and_starts_one_since_a_new_version_is_left_to_the_sweep(
    house: House, storage: SqlStorage
) -> None:
    await house.take(house.message(placed()))
    await operate(house, Action.PAUSE)
    start = house.message(placed("o-2"), message_id="start-2")
    row = Held(
        saga_type="PlaceOrder",
        source="shop",
        message_id="start-2",
        body_hash=codec.body_hash(start.body),
        name="ordering.OrderPlaced",
        schema_version=1,
        raw=start,
        reason="paused",
        saga_id=house.id_of("o-1"),
    )
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer="PlaceOrder", held=[row]))
    await operate(house, Action.RESUME)
    assert await held(storage) == [("ordering.OrderPlaced", "paused")]
    await sweep_of(house).sweep()
    assert await held(storage) == []
    assert (await house.instance("o-2")).status == "running"


async def dispositions_of(storage: SqlStorage, raw: Raw) -> str:
    return (await dispositions(storage))[raw.message_id or ""]


async def test_a_paused_instance_is_left_alone_by_the_sweep(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(placed()))
    await operate(house, Action.PAUSE)
    await house.take(house.answer("o-1", RESERVED, "reserve"))
    assert not await sweep_of(house).sweep()
    assert len(await held(storage)) == 1


async def test_however_much_waits_for_an_instance_that_somebody_holds_others_do_not_wait_behind_it(
    postgresql: Database,
) -> None:
    storage = SqlStorage(postgresql)
    house = await House(storage).open()
    await house.take(house.message(placed()), house.message(placed("o-2")))
    for key in ("o-1", "o-2"):
        await operate(house, Action.PAUSE, key)
    copies = [replace(house.answer("o-1", RESERVED, "reserve"), message_id=f"copy-{n}") for n in range(150)]
    await house.take(*copies)
    await house.take(house.answer("o-2", StockReserved(order_id="o-2", reservation_id="r-2"), "reserve"))
    await _change(storage, "update saga set paused = false")
    async with storage.transaction() as unit:
        await unit.lock([house.id_of("o-1")])
        await sweep_of(house).sweep()
    assert len(await held(storage)) == 150
    assert (await house.instance("o-2")).steps["reserve"].do.status is CallStatus.SUCCEEDED


async def test_a_reply_that_came_straight_to_a_saga_that_is_not_there_yet_is_applied_at_its_birth(
    house: House, storage: SqlStorage
) -> None:
    """As after the database was restored to a moment before the start: its ids will be the same again."""
    early = direct(house.answer("o-1", RESERVED, "reserve"))
    await house.take(early)
    assert await held(storage) == [("stock.StockReserved", "early")]
    assert await dispositions_of(storage, early) == "held"
    await house.take(house.message(placed()))
    assert list((await house.instance("o-1")).steps) == ["reserve", "pay"]
    assert await held(storage) == []
    assert await dispositions_of(storage, early) == "applied"


async def test_a_reply_without_a_correlation_waits_for_the_instance_of_its_key(
    house: House, storage: SqlStorage
) -> None:
    early = replace(direct(house.answer("o-1", RESERVED, "reserve")), correlation_id=None)
    await house.take(early)
    assert await held(storage) == [("stock.StockReserved", "early")]
    await house.take(house.message(placed()))
    assert list((await house.instance("o-1")).steps) == ["reserve", "pay"]
    assert await dispositions_of(storage, early) == "applied"


async def test_a_reply_that_names_no_command_changes_nothing_and_is_seen_in_the_history(
    house: House, storage: SqlStorage
) -> None:
    """A business key alone never answers a step."""
    early = direct(house.message(RESERVED, correlation_id="not-ours"))
    await house.take(early)
    assert await held(storage) == [("stock.StockReserved", "early")]
    await house.take(house.message(placed()))
    await house.take(direct(house.message(RESERVED)))
    assert await kinds(storage, house.id_of("o-1")) == ["started", "command_sent", *["message_ignored"] * 2]
    assert await held(storage) == []


async def test_a_reply_that_names_no_instance_in_any_way_is_a_dead_letter(house: House, storage: SqlStorage) -> None:
    raw = direct(replace(house.message(RESERVED), type="keyless.Event", body=b"{}"))
    definition = house.definition
    house.definition = replace(definition, events={**definition.events, "keyless.Event": Keyless})
    await house.take(raw)
    assert await dead(storage) == [(raw.message_id, "no_key")]


async def test_an_event_for_whoever_listens_that_is_for_no_instance_here_is_forgotten(
    house: House, storage: SqlStorage
) -> None:
    await house.take(house.message(RESERVED), house.message(RESERVED, correlation_id=str(uuid4())))
    assert (await held(storage), await dead(storage), await dispositions(storage)) == ([], [], {})


async def test_what_is_held_in_the_moment_of_a_birth_is_found_by_the_sweep(house: House, storage: SqlStorage) -> None:
    await house.take(direct(house.answer("o-1", RESERVED, "reserve")))
    await _change(storage, "update held set saga_id = null")  # as the start saw it, before it was committed
    await house.take(house.message(placed()))
    await _change(storage, "update held set saga_id = :id", id=house.id_of("o-1"))
    await sweep_of(house).sweep()
    assert list((await house.instance("o-1")).steps) == ["reserve", "pay"]
    assert await held(storage) == []


async def test_what_can_be_applied_is_applied_however_long_nobody_was_there_to_do_it(
    house: House, storage: SqlStorage
) -> None:
    await house.take(direct(house.answer("o-1", RESERVED, "reserve")))
    await _change(storage, "update held set saga_id = null")
    await house.take(house.message(placed()))
    past = house.runner.now() - timedelta(seconds=1)
    await _change(storage, "update held set saga_id = :id, expires_at = :past", id=house.id_of("o-1"), past=past)
    await sweep_of(house).sweep()
    assert list((await house.instance("o-1")).steps) == ["reserve", "pay"]
    assert await dead(storage) == []


@pytest.mark.parametrize("correlated", [True, False])
async def test_a_reply_for_an_instance_that_was_removed_is_not_held(
    house: House, storage: SqlStorage, correlated: bool
) -> None:
    await house.take(house.message(placed()))
    await _change(storage, "delete from saga")
    late = direct(house.answer("o-1", RESERVED, "reserve"))
    late = late if correlated else replace(late, correlation_id=None)
    await house.take(late)
    assert await held(storage) == []
    assert await dispositions_of(storage, late) == "ignored"


async def test_what_came_too_early_for_too_long_becomes_a_dead_letter(house: House, storage: SqlStorage) -> None:
    early = direct(house.answer("o-1", RESERVED, "reserve"))
    await house.take(early)
    await sweep_of(house).sweep()
    assert len(await held(storage)) == 1
    past = house.runner.now() - timedelta(seconds=1)
    await _change(storage, "update held set expires_at = :past", past=past)
    await sweep_of(house).sweep()
    assert await held(storage) == []
    assert await dead(storage) == [(early.message_id, "held_too_long")]
    assert await dispositions_of(storage, early) == "dead_lettered"


async def test_a_reply_waits_for_a_process_that_knows_the_version_of_its_instance(
    house: House, storage: SqlStorage
) -> None:
    second = newer(2)
    deployed = await House(storage, second).open()
    await deployed.take(deployed.message(placed()))
    await house.take(house.answer("o-1", RESERVED, "reserve"))
    assert await held(storage) == [("stock.StockReserved", "version")]
    waiting: Instance = await house.instance("o-1")
    assert list(waiting.attention) == ["version_missing"]
    assert waiting.status == "running"
    assert not await sweep_of(house).sweep()
    assert len(await held(storage)) == 1
    await sweep_of(deployed).sweep()
    assert await held(storage) == []
    after = await house.instance("o-1")
    assert list(after.steps) == ["reserve", "pay"]
    assert after.attention == {}


class Slow(AsyncioRunner):
    """Every look takes two seconds, and every pause is noted and ends at once."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        """See `running.Runner`."""
        self.ahead += 2.0
        return self.ahead

    def timeout(self, seconds: float | None) -> Any:  # noqa: ANN401
        """See `running.Runner`."""
        self.pauses.append(seconds or 0.0)
        return asyncio.timeout(0)


async def test_a_dear_look_is_followed_by_a_long_rest(house: House) -> None:
    house.runner = slow = Slow()
    sweeping = sweep_of(house)
    running = asyncio.create_task(sweeping.run())
    await until_async(lambda: len(slow.pauses) >= 2, what="two pauses")
    sweeping.stop()
    await running
    assert set(slow.pauses) == {18.0}


async def test_what_is_about_to_expire_and_then_waits_for_people_stays(house: House, storage: SqlStorage) -> None:
    early = direct(house.answer("o-1", RESERVED, "reserve"))
    await house.take(early)
    past = house.runner.now() - timedelta(seconds=1)
    await _change(storage, "update held set expires_at = :past", past=past)
    ripe = await storage.ripe_held([KnownType(saga_type="PlaceOrder", versions=frozenset({1}), events={})], 10)
    await _change(storage, "update held set expires_at = null, reason = 'paused'")  # as another process sees it now
    house.storage = Seen(storage, ripe)
    await sweep_of(house).sweep()
    assert await held(storage) == [("stock.StockReserved", "paused")]


class Seen:
    """Everything of the storage it wraps, as it was a moment ago."""

    def __init__(self, storage: SqlStorage, ripe: Sequence[RipeHeld]) -> None:
        self._storage = storage
        self._ripe = ripe

    async def ripe_held(self, *_: object) -> Sequence[RipeHeld]:
        """See `outbox.interface.Storage`."""
        return self._ripe

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._storage, name)


async def test_a_reply_that_only_an_older_version_knows_is_applied_to_its_instance(
    house: House, storage: SqlStorage
) -> None:
    first = house.definition
    events = {name: event for name, event in first.events.items() if name != "stock.StockReserved"}
    second = replace(first, version=2, events=events)
    await house.take(house.message(placed()))
    deployed = await House(storage, second).open()
    deployed.handler = Handler(
        {1: first, 2: second},
        namespace=NAMESPACE,
        storage=storage,
        relay=deployed.relay,
        report=deployed.facts.append,
    )
    deployed.definition = deployed.handler.latest
    await deployed.take(house.answer("o-1", RESERVED, "reserve"))
    assert await held(storage) == []
    assert list((await house.instance("o-1")).steps) == ["reserve", "pay"]


async def test_a_newer_schema_version_waits_for_a_process_that_reads_it(house: House, storage: SqlStorage) -> None:
    start = house.message(placed(), headers={"schema-version": 2})
    await house.take(start)
    assert await held(storage) == [("ordering.OrderPlaced", "version")]
    assert not await sweep_of(house).sweep()
    assert len(await held(storage)) == 1
    assert not await dead(storage)


async def test_what_nobody_here_waits_for_is_not_held_on_once_it_can_be_read(
    house: House, storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = house.message(RESERVED, headers={"schema-version": 2, "causation-id": "of another saga type"})
    await house.take(others)
    assert await held(storage) == [("stock.StockReserved", "version")]
    monkeypatch.setattr(StockReserved, "schema_version", 2)
    await sweep_of(house).sweep()
    assert await held(storage) == []
    assert await dispositions_of(storage, others) == "ignored"


async def test_what_can_be_read_and_comes_too_early_waits_no_longer_than_others(
    house: House, storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = direct(house.answer("o-1", RESERVED, "reserve"))
    await house.take(replace(early, headers={**early.headers, "schema-version": 2}))
    monkeypatch.setattr(StockReserved, "schema_version", 2)
    await sweep_of(house).sweep()
    assert await held(storage) == [("stock.StockReserved", "early")]
    [row] = await rows(storage, "select expires_at from v_held")
    assert row.expires_at is not None


async def test_a_start_of_a_newer_schema_version_starts_once_that_is_deployed(
    house: House, storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = [house.message(placed(key), headers={"schema-version": 2}) for key in ("o-1", "o-2", "o-1")]
    await house.take(*starts)
    monkeypatch.setattr(OrderPlaced, "schema_version", 2)
    await sweep_of(house).sweep()
    assert await held(storage) == []
    assert [(await house.instance(key)).status for key in ("o-1", "o-2")] == ["running", "running"]
    assert sorted((await dispositions(storage)).values()) == ["applied", "applied", "ignored"]


async def test_an_event_that_only_a_recorded_version_consumes_waits_for_it(house: House, storage: SqlStorage) -> None:
    stranger = house.message(placed()).__class__(
        body=b'{"order_id": "o-1"}', routing_key="ordering.OrderChanged", message_id="m-1", app_id="tests"
    )
    await house.take(stranger)
    assert await dead(storage) == [("m-1", "unknown_message")]
    into = "insert into definition_message (name, role, type, version)"
    await _change(storage, f"{into} values ('ordering.OrderChanged', 'event', 'PlaceOrder', 2)")
    await house.take(replace(stranger, message_id="m-2"))
    assert await held(storage) == [("ordering.OrderChanged", "version")]


async def test_a_held_message_that_raises_when_it_is_applied_is_dead_lettered(
    house: House, storage: SqlStorage
) -> None:
    await house.take(house.message(placed()))
    await operate(house, Action.PAUSE)
    reply = house.answer("o-1", RESERVED, "reserve")
    await house.take(reply)
    house.definition = _broken()
    await operate(house, Action.RESUME)
    assert await dead(storage) == [(reply.message_id, "method_raised")]
    assert await held(storage) == []
    assert (await house.instance("o-1")).status == "parked"


def _broken() -> Definition:
    whole = definition_of(PlaceOrder)
    reserve = whole.steps["reserve"]

    def reserved(_: object, __: object) -> None:
        raise ValueError("broken")

    replies = {
        name: replace(reply, hook=reserved) if name == "stock.StockReserved" else reply
        for name, reply in reserve.do.replies.items()
    }
    return replace(whole, steps={**whole.steps, "reserve": replace(reserve, do=replace(reserve.do, replies=replies))})


async def _change(storage: SqlStorage, sql: str, **parameters: object) -> None:
    async with storage.database.write() as session:
        await session.fetch(Statement.both(sql), parameters)
