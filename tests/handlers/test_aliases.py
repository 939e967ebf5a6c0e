"""Events that find their instance by one of its aliases: before it has it, while it has it, and after."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Self
from uuid import uuid4

import pytest
from pydantic import Field

from handlers.aliases import still_there
from handlers.facts import MessageIgnored
from handlers.held import HeldMessages
from handlers.operations import Operation, Operations
from handlers.saga_types import SagaType
from messages import Command, Event
from messages.envelope import Raw
from messages.errors import DatabaseBusy
from outbox.interface import Locked
from sagas import Alias, Definition, Saga, definition_of, signal, sleep, start, step, wait
from sagas.aliases import aliases_of
from sagas.outcome import Action, Operated
from storage.retention import Expiry
from storage.statements import Statement
from tests.handlers.house import LIMITS, NAMESPACE, House, kinds, rows

if TYPE_CHECKING:
    from outbox.unit import SqlStorage
    from tests.storage.databases import Counter


class Ordered(Event, name="parcels.Ordered"):
    order: str
    payment: str | None = None


class Packed(Event, name="parcels.Packed"):
    order: str
    parcel: str | None


class Scanned(Event, name="parcels.Scanned"):
    parcel: str
    where: str = "hub"


class Delivered(Event, name="parcels.Delivered"):
    parcel_no: str


class Charged(Event, name="parcels.Charged"):
    reference: str


class Weighed(Event, name="parcels.Weighed"):
    parcel: str


class Lost(Event, name="parcels.Lost"):
    parcel: str


class Relabelled(Event, name="parcels.Relabelled"):
    parcel: str
    now: str


class Thank(Command, name="parcels.Thank"):
    order: str


class Thanked(Event, name="parcels.Thanked"):
    order: str


class Parcels(
    Saga,
    key="order",
    version=1,
    deadline=timedelta(days=30),
    keys={
        Scanned: Alias("parcel"),
        Relabelled: Alias("parcel"),
        Delivered: Alias("parcel", at="parcel_no"),
        Charged: Alias("payment", at=lambda event: event.reference.partition(":")[2]),
        Weighed: Alias("parcel"),
        Lost: Alias("parcel"),
    },
    aliases=("payment", "parcel"),
):
    """Is packed, scanned on its way, delivered."""

    order: str
    payment: str | None = None
    parcel: str | None = None
    seen: list[str] = Field(default_factory=list)
    charges: int = 0

    @start
    def ordered(cls, event: Ordered) -> Self:
        return cls(order=event.order, payment=event.payment)

    @signal
    def packed(self, event: Packed) -> None:
        self.parcel = event.parcel

    @signal
    def scanned(self, event: Scanned) -> None:
        self.seen.append(event.where)

    @signal
    def relabelled(self, event: Relabelled) -> None:
        self.parcel = event.now

    @signal
    def charged(self, event: Charged) -> None:
        self.charges += 1

    @signal(missing="ignore")
    def weighed(self, event: Weighed) -> None:
        self.seen.append("weighed")

    @signal(missing="dead_letter")
    def lost(self, event: Lost) -> None:
        self.seen.append("lost")

    @wait
    def delivery(self, event: Delivered) -> None:
        self.seen.append("home")

    @sleep
    def rest(self) -> timedelta:
        return timedelta(0)

    @step(success=Thanked)
    def thank(self) -> Thank:
        return Thank(order=self.order)

    flow = rest >> delivery >> thank


PARCELS = definition_of(Parcels)


async def _house(storage: SqlStorage) -> House:
    return await House(storage, PARCELS).open()


async def _seen(house: House, order: str) -> list[str]:
    state = Parcels._load((await house.instance(order)).state, now=house.runner.now(), saga_id=house.id_of(order))
    return state.seen


async def _aliases(storage: SqlStorage) -> dict[tuple[str, str], object]:
    found = await rows(storage, "select alias, value, saga_id from saga_alias order by alias, value")
    return {(row.alias, row.value): str(row.saga_id) for row in found}


def _sweep(house: House, storage: SqlStorage, definition: Definition = PARCELS) -> HeldMessages:
    saga = SagaType({definition.version: definition}, NAMESPACE)
    return HeldMessages(
        [saga], storage=storage, relay=house.relay, runner=house.runner, report=house.facts.append, limits=LIMITS
    )


async def test_an_event_finds_its_instance_by_an_alias_from_its_birth_on(storage: SqlStorage) -> None:
    house = await _house(storage)
    await house.take(house.message(Ordered(order="1", payment="P")), house.message(Ordered(order="2", payment="Q")))
    await house.take(house.message(Charged(reference="ref:P")))
    assert b'"charges":1' in (await house.instance("1")).state
    assert b'"charges":0' in (await house.instance("2")).state
    assert await _aliases(storage) == {("payment", "P"): str(house.id_of("1")), ("payment", "Q"): str(house.id_of("2"))}


async def test_an_alias_is_there_for_what_comes_behind_it_in_the_same_batch(storage: SqlStorage) -> None:
    house = await _house(storage)
    await house.take(
        house.message(Ordered(order="1")),
        house.message(Packed(order="1", parcel="A")),
        house.message(Scanned(parcel="A", where="first")),
        house.message(Relabelled(parcel="A", now="B")),
        house.message(Scanned(parcel="A", where="nowhere")),
        house.message(Scanned(parcel="B", where="second")),
    )
    assert await _seen(house, "1") == ["first", "second"]
    assert await _aliases(storage) == {("parcel", "B"): str(house.id_of("1"))}
    [held] = await rows(storage, "select reason, alias, business_key, saga_id from held")
    assert (held.reason, held.alias, held.business_key, held.saga_id) == ("early", "parcel", "A", None)


@pytest.mark.parametrize("apart", [True, False])
async def test_what_comes_by_an_alias_before_anybody_has_it_is_applied_when_one_gets_it(
    storage: SqlStorage, apart: bool
) -> None:
    house = await _house(storage)
    raws = [
        house.message(Scanned(parcel="A", where="1")),
        house.message(Scanned(parcel="A", where="2")),
        house.message(Delivered(parcel_no="A")),
        house.message(Ordered(order="1")),
        house.message(Packed(order="1", parcel="A")),
        house.message(Packed(order="1", parcel=None)),
        house.message(Scanned(parcel="A", where="3")),
    ]
    for batch in [[raw] for raw in raws] if apart else [raws]:
        await house.take(*batch)
    assert await _seen(house, "1") == ["1", "2", "home"]
    [late] = await rows(storage, "select business_key from held")
    assert late.business_key == "A"
    assert await _aliases(storage) == {}
    assert (await kinds(storage, house.id_of("1")))[-1] == "aliased"


async def test_the_second_who_is_given_a_value_is_told_and_nothing_reaches_it_by_it(storage: SqlStorage) -> None:
    house = await _house(storage)
    await house.take(house.message(Ordered(order="1")), house.message(Ordered(order="2")))
    await house.take(house.message(Packed(order="1", parcel="A")), house.message(Packed(order="2", parcel="A")))
    await house.take(house.message(Scanned(parcel="A")))
    first, second = await house.instance("1"), await house.instance("2")
    assert (aliases_of(first), aliases_of(second)) == ({"parcel": "A"}, {})
    assert first.attention == {}
    assert second.attention == {
        "alias_refused": f"parcel: 'A' is that of the instance of '1' ({house.id_of('1')}), which keeps it"
    }
    assert second.status == "running"
    assert (await _seen(house, "1"), await _seen(house, "2")) == (["hub"], [])
    await house.take(house.message(Packed(order="1", parcel="B")))
    await house.take(house.message(Charged(reference=":none")), house.message(Packed(order="2", parcel="A")))
    assert (await house.instance("2")).attention == {}
    await house.take(house.message(Scanned(parcel="A")), house.message(Scanned(parcel="B")))
    assert (await _seen(house, "1"), await _seen(house, "2")) == (["hub", "hub"], ["hub"])


async def test_a_value_that_can_be_no_key_is_told(storage: SqlStorage) -> None:
    house = await _house(storage)
    await house.take(house.message(Ordered(order="1")), house.message(Packed(order="1", parcel="")))
    assert (await house.instance("1")).attention == {
        "alias_refused": "parcel: a business key has 1 to 255 characters, this one has 0"
    }
    await house.take(house.message(Packed(order="1", parcel="A")))
    assert (await house.instance("1")).attention == {}


async def test_an_alias_finds_an_instance_that_has_ended(storage: SqlStorage) -> None:
    house = await _house(storage)
    await house.take(house.message(Ordered(order="1")), house.message(Packed(order="1", parcel="A")))
    await house.take(house.message(Delivered(parcel_no="A")), house.answer("1", Thanked(order="1"), "thank"))
    assert (await house.instance("1")).status == "completed"
    await house.take(house.message(Delivered(parcel_no="A")))
    assert (await kinds(storage, house.id_of("1")))[-1] == "message_ignored"
    await house.take(house.message(Ordered(order="2")), house.message(Packed(order="2", parcel="A")))
    assert "alias_refused" in (await house.instance("2")).attention
    await house.take(house.message(Ordered(order="3")), house.message(Packed(order="3", parcel="C")))


async def test_what_is_missing_is_ignored_or_a_dead_letter_as_the_class_says(storage: SqlStorage) -> None:
    house = await _house(storage)
    await house.take(house.message(Weighed(parcel="A")), house.message(Lost(parcel="A")))
    assert [fact.reason for fact in house.facts if isinstance(fact, MessageIgnored)] == ["unknown_instance"]
    [letter] = await rows(storage, "select reason, error from dead_letter")
    assert letter.reason == "not_awaited"
    assert "no Parcels has the parcel 'A', and its class says that lost is not to be kept" in letter.error
    assert not await rows(storage, "select * from held")
    await house.take(
        house.message(Ordered(order="1")),
        house.message(Packed(order="1", parcel="A")),
        house.message(Weighed(parcel="A")),
        house.message(Lost(parcel="A")),
    )
    assert await _seen(house, "1") == ["weighed", "lost"]


async def test_an_id_and_an_alias_of_different_instances_are_a_conflict(storage: SqlStorage) -> None:
    house = await _house(storage)
    await house.take(house.message(Ordered(order="1")), house.message(Packed(order="1", parcel="A")))
    await house.take(house.message(Ordered(order="2")), house.message(Packed(order="2", parcel="B")))
    named = str(house.id_of("1"))
    await house.take(
        house.message(Scanned(parcel="B"), correlation_id=named),
        house.message(Scanned(parcel="A", where="a"), correlation_id=named),
        house.message(Scanned(parcel="nobody's", where="b"), correlation_id=named),
        house.message(Scanned(parcel="B", where="c"), correlation_id=str(uuid4())),
    )
    [letter] = await rows(storage, "select reason, error from dead_letter")
    assert letter.reason == "correlation_conflict"
    assert letter.error == "correlation_id names the instance of '1', the body names that whose parcel is 'B'"
    assert (await _seen(house, "1"), await _seen(house, "2")) == (["a", "b"], ["c"])


async def test_what_was_held_while_its_instance_was_paused_stays_for_it(storage: SqlStorage) -> None:
    house = await _house(storage)
    await house.take(house.message(Ordered(order="1")), house.message(Packed(order="1", parcel="A")))
    operations = Operations(
        {PARCELS.type: {1: PARCELS}},
        namespace=NAMESPACE,
        storage=storage,
        runner=house.runner,
        report=house.facts.append,
        limits=LIMITS,
    )

    async def operate(action: Action) -> None:
        operated = Operated(action=action, actor="Ada", reason="why", request_id=str(uuid4()))
        await operations.carry_out(Operation(saga_id=house.id_of("1"), operated=operated))

    await operate(Action.PAUSE)
    await house.take(house.message(Scanned(parcel="A", where="1")), house.message(Relabelled(parcel="A", now="B")))
    await house.take(house.message(Scanned(parcel="A", where="2")))
    held = await rows(storage, "select reason, business_key, alias from held order by held_id")
    assert [(row.reason, row.business_key, row.alias) for row in held] == [("paused", "1", None)] * 3
    await operate(Action.RESUME)
    assert await _seen(house, "1") == ["1", "2"]
    assert await _aliases(storage) == {("parcel", "B"): str(house.id_of("1"))}


async def test_what_was_held_in_the_moment_in_which_an_alias_was_taken_is_found_by_the_sweep(
    storage: SqlStorage,
) -> None:
    house = await _house(storage)
    await house.take(house.message(Scanned(parcel="A")))
    late = await rows(storage, "select * from held")
    async with storage.database.write() as session:
        await session.fetch(Statement.both("update held set business_key = 'hidden'"), {})
    await house.take(house.message(Ordered(order="1")), house.message(Packed(order="1", parcel="A")))
    async with storage.database.write() as session:
        await session.fetch(Statement.both("update held set business_key = 'A'"), {})
    assert late
    await _sweep(house, storage).sweep()
    assert await _seen(house, "1") == ["hub"]
    assert not await rows(storage, "select * from held")


async def test_an_alias_that_has_gone_to_another_since_it_was_looked_up_has_the_batch_run_again(
    storage: SqlStorage,
) -> None:
    house = await _house(storage)
    await house.take(house.message(Ordered(order="1")), house.message(Packed(order="1", parcel="A")))
    instance = await house.instance("1")
    locked = Locked(instances={instance.saga_id: instance}, busy=frozenset(), now=None)
    found = {("parcel", "A"): instance.saga_id, ("parcel", "of one that is gone"): uuid4()}
    assert still_there(found, locked) == {("parcel", "A"): instance.saga_id}
    with pytest.raises(DatabaseBusy, match="was given to another instance just now"):
        still_there({("parcel", "B"): instance.saga_id}, locked)


async def test_an_event_that_comes_before_its_start_in_the_same_batch_is_applied_behind_it(
    storage: SqlStorage,
) -> None:
    house = await _house(storage)
    await house.take(house.message(Packed(order="1", parcel="A")), house.message(Ordered(order="1")))
    assert aliases_of(await house.instance("1")) == {"parcel": "A"}
    assert not await rows(storage, "select * from held")
    assert "message_held" not in await kinds(storage, house.id_of("1"))


class Booked(Event, name="rooms.Booked"):
    guest: str
    room: str | None = None


class Left(Event, name="rooms.Left"):
    guest: str


class Knocked(Event, name="rooms.Knocked"):
    room: str


class Clean(Command, name="rooms.Clean"):
    guest: str


class Cleaned(Event, name="rooms.Cleaned"):
    guest: str


class Stay(Saga, key="guest", version=1, key_reuse=True, keys={Knocked: Alias("room")}, aliases=("room",)):
    """Has a room, which others have later; one that nobody said has the room 13."""

    guest: str
    room: str | None = None
    knocks: int = 0

    @start
    def booked(cls, event: Booked) -> Self:
        return cls(guest=event.guest, room=event.room)

    @wait(timeout=timedelta(microseconds=1))
    def leave(self, event: Left) -> None: ...

    @leave.on_timeout
    def forgotten(self) -> None:
        self.room = self.room or "13"

    @signal
    def knocked(self, event: Knocked) -> None:
        self.knocks += 1

    @step(success=Cleaned)
    def clean(self) -> Clean:
        return Clean(guest=self.guest)

    flow = leave >> clean


async def test_where_keys_are_used_again_an_ended_instance_leaves_its_aliases_to_the_next(storage: SqlStorage) -> None:
    house = await House(storage, definition_of(Stay)).open()
    await house.take(house.message(Booked(guest="a", room="7")), house.message(Booked(guest="b", room="7")))
    assert "alias_refused" in (await house.instance("b")).attention
    await house.take(house.message(Left(guest="a")))
    await house.take(
        house.answer("a", Cleaned(guest="a"), "clean"),
        house.message(Booked(guest="c", room="7")),
        house.message(Knocked(room="7")),
    )
    assert await _aliases(storage) == {("room", "7"): str(house.id_of("c"))}
    assert b'"knocks":1' in (await house.instance("c")).state
    assert b'"knocks":0' in (await house.instance("a")).state
    await house.take(house.message(Left(guest="c")), house.answer("c", Cleaned(guest="c"), "clean"))
    await house.take(house.message(Booked(guest="d", room="7")))
    assert await _aliases(storage) == {("room", "7"): str(house.id_of("d"))}


class Nap(Saga, key="guest", version=1, keys={Knocked: Alias("room")}, aliases=("room",)):
    """Has a room for a moment."""

    guest: str
    room: str | None = None

    @start
    def booked(cls, event: Booked) -> Self:
        return cls(guest=event.guest, room=event.room)

    @signal
    def knocked(self, event: Knocked) -> None: ...

    @sleep
    def nap(self) -> timedelta:
        return timedelta(microseconds=1)

    @step(reply=False)
    def clean(self) -> Clean:
        return Clean(guest=self.guest)

    flow = clean >> nap


async def test_one_that_ends_by_a_timer_without_the_alias_it_wanted_wants_nobody_any_more(storage: SqlStorage) -> None:
    definition = definition_of(Nap)
    house = await House(storage, definition).open()
    await house.take(house.message(Booked(guest="a", room="7")), house.message(Booked(guest="b", room="7")))
    assert "alias_refused" in (await house.instance("b")).attention
    due, _ = await storage.due_timers([definition.type], 10)
    assert await house.timers.fire(due) == 2
    second = await house.instance("b")
    assert (second.status, second.attention) == ("completed", {})
    assert await _aliases(storage) == {("room", "7"): str(house.id_of("a"))}


async def test_what_a_wait_gives_up_with_may_give_an_alias(storage: SqlStorage) -> None:
    house = await House(storage, definition_of(Stay)).open()
    await house.take(house.message(Booked(guest="a")), house.message(Knocked(room="13")))
    due, _ = await storage.due_timers(["Stay"], 10)
    await house.timers.fire(due)
    [marker] = await rows(storage, "select * from outbox where name = 'antiphon.GiveUp'")
    await house.take(
        Raw(
            body=bytes(marker.body),
            routing_key=marker.routing_key,
            message_id=marker.message_id,
            type=marker.name,
            content_type="application/json",
            correlation_id=str(marker.saga_id),
            app_id=NAMESPACE,
        )
    )
    assert await _aliases(storage) == {("room", "13"): str(house.id_of("a"))}
    assert b'"knocks":1' in (await house.instance("a")).state


async def test_the_aliases_of_an_instance_go_with_it(storage: SqlStorage) -> None:
    house = await _house(storage)
    await house.take(house.message(Ordered(order="1")), house.message(Packed(order="1", parcel="A")))
    await house.take(house.message(Delivered(parcel_no="A")), house.answer("1", Thanked(order="1"), "thank"))
    async with storage.database.write() as session:
        await session.fetch(Statement.both("delete from outbox"), {})
    await Expiry(storage.database).sagas(0.0)
    assert await _aliases(storage) == {}
    await house.take(house.message(Scanned(parcel="A")))
    [held] = await rows(storage, "select reason from held")
    assert held.reason == "early"


async def test_one_look_finds_the_aliases_of_a_batch_and_one_statement_takes_them(
    storage: SqlStorage, counter: Counter
) -> None:
    house = await _house(storage)
    numbers = range(20)

    async def asked(*events: Event) -> int:
        counter.statements.clear()
        await house.take(*map(house.message, events))
        return sum("saga_alias" in each for each in counter.statements)

    assert await asked(*(Ordered(order=str(n), payment=f"p{n}") for n in numbers)) == 1
    assert await asked(*(Charged(reference=f":p{n}") for n in numbers)) == 1
    assert await asked(*(Packed(order=str(n), parcel=f"a{n}") for n in numbers)) == 1
    assert await asked(*(Ordered(order=f"without-{n}") for n in numbers)) == 0
