"""Instances are moved on either database under their locks, with what was held for them, and once each."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import pytest

from handlers.held import HeldMessages
from handlers.migrations import Migrations, Move
from handlers.saga_types import SagaType
from messages import Command, Event, upcast
from sagas import Alias, Saga, definition_of, migrate, start, step, wait
from sagas.aliases import aliases_of
from sagas.passage import passage
from sagas.patch import rebuild
from storage import definitions
from storage.living import Living
from tests.handlers.house import LIMITS, NAMESPACE, House, dead, kinds, outbox, rows

if TYPE_CHECKING:
    from uuid import UUID

    from outbox.unit import SqlStorage


class Ordered(Event, name="migrated.Ordered"):
    order_id: str


class Do(Command, name="migrated.Do"):
    order_id: str


class Did(Event, name="migrated.Did"):
    order_id: str


class Said(Event, name="migrated.Said"):
    order_id: str


class Ship(Command, name="migrated.Ship"):
    order_id: str
    carrier: str


class First(Saga, key="order_id", name="Migrated"):
    order_id: str

    @start
    def ordered(cls, event: Ordered) -> Self:
        return cls(order_id=event.order_id)

    @step(success=Did)
    def work(self) -> Do:
        return Do(order_id=self.order_id)

    @wait(timeout=timedelta(days=1))
    def nod(self, event: Said) -> None: ...

    flow = work >> nod


class Second(Saga, key="order_id", name="Migrated", version=2):
    order_id: str
    carrier: str

    @migrate(1, places={"nod": "approval"})
    @classmethod
    def from_first(cls, state: dict[str, Any]) -> Self:
        if state["order_id"] == "odd":
            raise ValueError("not this one")
        return cls(**state, carrier="mail")

    @start
    def ordered(cls, event: Ordered) -> Self:
        return cls(order_id=event.order_id, carrier="rail")

    @step(success=Did)
    def work(self) -> Do:
        return Do(order_id=self.order_id)

    @wait(timeout=timedelta(days=1))
    def approval(self, event: Said) -> None: ...

    @step(reply=False)
    def ship(self) -> Ship:
        return Ship(order_id=self.order_id, carrier=self.carrier)

    flow = work >> approval >> ship


@pytest.fixture
async def old(storage: SqlStorage) -> House:
    """A process of the first version, which is recorded."""
    house = await House(storage, definition_of(First)).open()
    await definitions.record(storage.database, [house.definition])
    return house


@pytest.fixture
async def new(storage: SqlStorage, old: House) -> House:
    """A process that knows the second version only."""
    return await House(storage, definition_of(Second)).open()


async def move(house: House, *keys: str) -> tuple[int, list[str]]:
    """How many were moved, and why the others were not."""
    recorded = await definitions.load(house.storage.database)  # type: ignore[attr-defined]
    way = passage(1, recorded["Migrated", 1].document, house.definition)
    migrations = Migrations(
        {"Migrated": {2: house.definition}},
        namespace=NAMESPACE,
        storage=house.storage,
        runner=house.runner,
        report=house.facts.append,
        limits=LIMITS,
    )
    wanted = Move(passage=way, actor="ann", reason="the carrier")
    came = await migrations.carry_out(wanted, [house.id_of(key) for key in keys])
    return came.moved, [flaw.text for _, flaw in came.left]


async def begin(house: House, *keys: str) -> None:
    for key in keys:
        await house.take(house.message(Ordered(order_id=key)))


async def rebuilt(storage: SqlStorage, saga: UUID) -> Any:  # noqa: ANN401 - an instance
    """The instance that its history amounts to."""
    found = await rows(storage, "select patch from saga_event where saga_id = :id order by seq", {"id": saga})
    return rebuild([bytes(row.patch) for row in found if row.patch is not None])


async def test_what_can_be_moved_is_moved_by_a_process_that_never_knew_the_old_class(
    old: House, new: House, storage: SqlStorage
) -> None:
    await begin(old, "a", "odd", "b")
    moved, left = await move(new, "a", "odd", "b", "no such")
    assert moved == 2
    assert [text.partition(" (")[0] for text in left] == ["Migrated.from_first: ValueError: not this one"]
    assert [(await new.instance(key)).version for key in ("a", "odd", "b")] == [2, 1, 2]
    [*_, row] = await rows(
        storage, "select * from v_saga_event where saga_id = :id order by seq", {"id": new.id_of("a")}
    )
    assert row.kind == "migrated"
    for word in ("ann", "the carrier"):
        assert word in str(row.detail)


async def test_its_row_can_be_rebuilt_from_its_history(old: House, new: House, storage: SqlStorage) -> None:
    await begin(old, "a")
    await old.take(old.answer("a", Did(order_id="a"), "work"))
    assert await move(new, "a") == (1, [])
    instance = await new.instance("a")
    assert replace(await rebuilt(storage, new.id_of("a")), state=instance.state) == instance
    assert b"mail" in instance.state
    timers = await rows(storage, "select name from v_timer where saga_id = :id order by name", {"id": new.id_of("a")})
    assert [row.name for row in timers] == ["approval/timeout", "deadline"]


async def test_it_goes_on_under_the_new_version_from_where_it_stood(
    old: House, new: House, storage: SqlStorage
) -> None:
    await begin(old, "a")
    assert await move(new, "a") == (1, [])
    await new.take(new.answer("a", Did(order_id="a"), "work"))
    await new.take(new.message(Said(order_id="a")))
    assert (await new.instance("a")).phase == "completed"
    assert "migrated.Ship" in [name for name, _ in await outbox(storage)]


async def test_what_was_kept_for_it_is_applied_when_it_has_come_to_it(
    old: House, new: House, storage: SqlStorage
) -> None:
    await begin(old, "a")
    await old.take(old.message(Said(order_id="a")))
    assert "message_held" in await kinds(storage, old.id_of("a"))
    assert await move(new, "a") == (1, [])
    await new.take(new.answer("a", Did(order_id="a"), "work"))
    assert (await new.instance("a")).phase == "completed"


async def test_what_nobody_could_apply_before_is_applied_by_the_sweep_afterwards(
    old: House, new: House, storage: SqlStorage
) -> None:
    await begin(old, "a")
    await new.take(new.answer("a", Did(order_id="a"), "work"))
    assert "version_missing" in (await new.instance("a")).attention
    sweep = HeldMessages(
        [SagaType({2: new.definition}, NAMESPACE)],
        storage=storage,
        relay=new.relay,
        runner=new.runner,
        report=new.facts.append,
        limits=LIMITS,
    )
    await sweep.sweep()
    assert (await new.instance("a")).choices == {}
    assert await move(new, "a") == (1, [])
    await sweep.sweep()
    instance = await new.instance("a")
    assert (instance.choices["approval"], instance.attention) == ("waiting", {})


async def test_a_second_time_there_is_nothing_left_to_move(old: House, new: House, storage: SqlStorage) -> None:
    await begin(old, "a")
    assert [await move(new, "a"), await move(new, "a")] == [(1, []), (0, [])]
    assert (await kinds(storage, new.id_of("a"))).count("migrated") == 1
    assert [each async for each in Living(storage.database).instances_of("Migrated", 1, 10)] == []


async def test_live_instances_of_a_version_are_read_in_batches(old: House, storage: SqlStorage) -> None:
    await begin(old, "a", "b", "c")
    batches = [each async for each in Living(storage.database).instances_of("Migrated", 1, 2)]
    assert [len(each) for each in batches] == [2, 1]
    assert {one.key for each in batches for one in each} == {"a", "b", "c"}


# -- an older message for a newer class


class Late(Event, name="migrated.Late", version=2):
    order_id: str
    note: str

    @upcast(1)
    @classmethod
    def noted(cls, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "note": body["remark"]}


class Taking(Saga, key="order_id", name="Taking"):
    order_id: str
    note: str

    @start
    def late(cls, event: Late) -> Self:
        return cls(order_id=event.order_id, note=event.note)

    @step(reply=False)
    def work(self) -> Do:
        return Do(order_id=self.order_id)


async def test_a_saga_takes_an_older_version_of_its_event_and_keeps_the_bytes_that_came(storage: SqlStorage) -> None:
    house = await House(storage, definition_of(Taking)).open()
    body = b'{"order_id": "a", "remark": "old"}'
    old = replace(house.message(Late(order_id="a", note="")), body=body)
    await house.take(old)
    assert b'"note":"old"' in (await house.instance("a")).state
    [row] = await rows(storage, "select body from saga_event where kind = 'started'")
    assert bytes(row.body) == body


async def test_a_body_that_an_upcast_cannot_take_is_a_dead_letter_with_the_bytes_that_came(storage: SqlStorage) -> None:
    house = await House(storage, definition_of(Taking)).open()
    await house.take(replace(house.message(Late(order_id="a", note=""), message_id="m-1"), body=b'{"order_id": "a"}'))
    assert await dead(storage) == [("m-1", "malformed")]
    [row] = await rows(storage, "select body, error from dead_letter")
    assert bytes(row.body) == b'{"order_id": "a"}'
    assert "Late.noted (" in row.error
    assert "raised KeyError: 'remark'" in row.error


class Known(Saga, abstract=True):
    order_id: str
    ref: str | None = None
    box: str | None = None

    @start
    def ordered(cls, event: Ordered) -> Self:
        return cls(order_id=event.order_id, ref=f"ref-{event.order_id}", box=f"box-{event.order_id}")

    @wait
    def nod(self, event: Said) -> None: ...

    @step(success=Did)
    def work(self) -> Do:
        return Do(order_id=self.order_id)

    flow = nod >> work


class KnownByRef(Known, key="order_id", name="Migrated", aliases=("ref",)): ...


class KnownByBox(
    Known, key="order_id", name="Migrated", version=2, aliases=("box",), keys={Said: Alias("box", at="order_id")}
):
    @migrate(1)
    @classmethod
    def from_first(cls, state: dict[str, Any]) -> Self:
        return cls(**state)


class KnownNoMore(Known, key="order_id", name="Migrated", version=2):
    @migrate(1)
    @classmethod
    def from_first(cls, state: dict[str, Any]) -> Self:
        return cls(**state)


@pytest.mark.parametrize("later", [KnownByBox, KnownNoMore])
async def test_the_aliases_of_who_is_moved_are_those_of_its_new_class(storage: SqlStorage, later: type[Saga]) -> None:
    first = await House(storage, definition_of(KnownByRef)).open()
    await definitions.record(storage.database, [first.definition])
    await begin(first, "a", "b")
    second = await House(storage, definition_of(later)).open()
    if later is KnownByBox:
        await second.take(second.message(Said(order_id="box-a")))
    assert (await move(second, "a", "b"))[0] == 2
    found = await rows(storage, "select alias, value from saga_alias order by value")
    boxes = [("box", "box-a"), ("box", "box-b")] if later is KnownByBox else []
    assert [(row.alias, row.value) for row in found] == boxes
    assert aliases_of(await second.instance("a")) == dict(boxes[:1])
    assert aliases_of(await rebuilt(storage, second.id_of("a"))) == dict(boxes[:1])
    assert ("event_received" in await kinds(storage, second.id_of("a"))) == (later is KnownByBox)
    assert not await rows(storage, "select * from held")
