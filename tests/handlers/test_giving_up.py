"""Nobody is given up on while a message for the instance lies among those that are held."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from handlers.watchdog import Watchdog
from messages.catalog.ordering import StockReserved
from messages.envelope import Raw
from outbox.holding import KnownType
from outbox.unit import SqlStorage
from sagas import definition_of
from sagas.catalog.ordering import PlaceOrder
from sagas.instance import CallStatus
from sagas.outcome import Action
from sagas.watching import Here
from storage.statements import Statement
from tests.handlers.house import House, kinds, placed, rows
from tests.handlers.test_held import RESERVED, dispositions, held, operate, sweep_of
from tests.handlers.test_timers import due, fire, hurried
from transport.topology import saga_queue

if TYPE_CHECKING:
    import pytest

    from sagas import Definition
    from storage import Database


def impatient(version: int = 1) -> Definition:
    return replace(hurried(attempts=1), version=version)


def newer(raw: Raw) -> Raw:
    """The message in a version that is not deployed yet."""
    return replace(raw, headers={**raw.headers, "schema-version": 2})


async def silence(house: House, storage: SqlStorage, *keys: str) -> list[Raw]:
    """Let the commands go out and the last timeouts strike; the markers, as they come back."""
    await _change(storage, "delete from outbox")
    await due(house)
    await fire(house)
    ids = {str(house.id_of(key)) for key in keys}
    markers = await rows(storage, "select * from outbox where name = 'antiphon.GiveUp' order by outbox_id")
    await _change(storage, "delete from outbox")
    return [
        Raw(
            body=bytes(marker.body),
            routing_key=saga_queue("antiphon", "PlaceOrder"),
            message_id=marker.message_id,
            type=marker.name,
            content_type="application/json",
            correlation_id=str(marker.saga_id),
            app_id="antiphon",
        )
        for marker in markers
        if str(marker.saga_id) in ids
    ]


async def test_a_last_timeout_waits_for_a_reply_that_was_held_for_the_version_of_its_instance(
    storage: SqlStorage,
) -> None:
    old = await House(storage).open()
    house = await House(storage, impatient(version=2)).open()
    await house.take(house.message(placed()), house.message(placed("o-2")))
    await old.take(old.answer("o-1", RESERVED, "reserve"))
    markers = await silence(house, storage, "o-1", "o-2")
    await house.take(*markers)
    assert [(await house.instance(key)).status for key in ("o-1", "o-2")] == ["running", "compensating"]
    await sweep_of(house).sweep()
    order = await house.instance("o-1")
    assert (order.status, order.steps["reserve"].do.status) == ("running", CallStatus.SUCCEEDED)
    assert "late_success" not in await kinds(storage, house.id_of("o-1"))


async def test_a_reply_that_nobody_can_read_yet_keeps_its_step_from_being_given_up_and_people_are_told(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await House(storage, impatient()).open()
    await house.take(house.message(placed()))
    await house.take(newer(house.answer("o-1", RESERVED, "reserve")))
    for _ in range(2):
        [marker] = await silence(house, storage, "o-1")
        await house.take(marker)
        assert (await dispositions(storage))[marker.message_id or ""] == "ignored"
        await look(house)
        order = await house.instance("o-1")
        assert order.status == "running"
        assert "stock.StockReserved came in a version" in order.attention["version_missing"]
    assert (await kinds(storage, house.id_of("o-1"))).count("message_held") == 1
    monkeypatch.setattr(StockReserved, "schema_version", 2)
    await sweep_of(house).sweep()
    await look(house)
    order = await house.instance("o-1")
    assert (list(order.steps), order.attention) == (["reserve", "pay"], {})


async def look(house: House) -> None:
    here = Here(versions={house.definition.type: {house.definition.version: house.definition}})
    await Watchdog(here, storage=house.storage, runner=house.runner, report=house.facts.append).look()


async def test_a_marker_waits_for_a_reply_that_is_held_in_its_own_batch(storage: SqlStorage) -> None:
    house = await House(storage, impatient()).open()
    await house.take(house.message(placed()))
    [marker] = await silence(house, storage, "o-1")
    await house.take(newer(house.answer("o-1", RESERVED, "reserve")), marker)
    assert (await house.instance("o-1")).status == "running"


async def test_what_is_held_for_others_delays_no_giving_up(storage: SqlStorage) -> None:
    """Another saga type holds a message under the same correlation id; another instance waits for its own."""
    house = await House(storage, impatient()).open()
    audit = await House(storage, replace(definition_of(PlaceOrder), type="Audit")).open()
    await house.take(house.message(placed()), house.message(placed("o-2")))
    await audit.take(newer(house.answer("o-1", RESERVED, "reserve")))
    await house.take(newer(house.answer("o-2", RESERVED, "reserve")))
    await house.take(*await silence(house, storage, "o-1", "o-2"))
    assert [(await house.instance(key)).status for key in ("o-1", "o-2")] == ["compensating", "running"]


async def test_a_newer_reply_waits_for_its_instance_like_any_other_while_somebody_holds_that(
    postgresql: Database,
) -> None:
    storage = SqlStorage(postgresql)
    house = await House(storage).open()
    await house.take(house.message(placed()))
    reply = newer(house.answer("o-1", RESERVED, "reserve"))
    async with storage.transaction() as unit:
        await unit.lock([house.id_of("o-1")])
        assert (await house.take(reply)).deferred == {0}
    assert await held(storage) == []


async def test_what_is_held_on_for_its_version_is_not_written_again_at_every_look(storage: SqlStorage) -> None:
    house = await House(storage).open()
    await house.take(house.message(placed()))
    await house.take(newer(house.answer("o-1", RESERVED, "reserve")))
    able = KnownType(saga_type="PlaceOrder", versions=frozenset({1}), events={"stock.StockReserved": 2})
    assert len(await storage.ripe_held([able], 10)) == 1
    for unable in (replace(able, events={"stock.StockReserved": 1}), replace(able, versions=frozenset({7}))):
        assert await storage.ripe_held([unable], 10) == []


async def test_a_resume_leaves_alone_what_another_saga_type_holds_under_the_same_id(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await House(storage).open()
    audit = await House(storage, replace(definition_of(PlaceOrder), type="Audit")).open()
    await house.take(house.message(placed()))
    await operate(house, Action.PAUSE)
    await audit.take(newer(house.answer("o-1", RESERVED, "reserve")))
    monkeypatch.setattr(StockReserved, "schema_version", 2)
    await operate(house, Action.RESUME)
    assert await held(storage) == [("stock.StockReserved", "version")]


async def _change(storage: SqlStorage, sql: str) -> None:
    async with storage.database.write() as session:
        await session.fetch(Statement.both(sql), {})
