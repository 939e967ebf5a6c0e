from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from outbox.holding import Held
from outbox.interface import Changes
from sagas.instance import Phase
from storage.living import Living, Needed, Standing
from storage.statements import Statement
from tests.outbox.building import CONSUMER, NOW, dead_letter, digest, insert, new_instance

if TYPE_CHECKING:
    from uuid import UUID

    from outbox.unit import SqlStorage


@pytest.fixture
def living(storage: SqlStorage) -> Living:
    return Living(storage.database)


def held_for(saga_id: UUID, message_id: str) -> Held:
    return Held(
        saga_type="PlaceOrder",
        source="stock",
        message_id=message_id,
        body_hash=digest(b"{}"),
        name="stock.StockReserved",
        schema_version=1,
        raw=dead_letter(message_id, b"{}").raw,
        reason="paused",
        business_key="order-1",
        saga_id=saga_id,
    )


async def keep(storage: SqlStorage, *held: Held) -> None:
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER, held=held))


async def bury(storage: SqlStorage, saga_id: UUID | None, message_id: str, consumer: str = "PlaceOrder") -> None:
    async with storage.transaction() as unit:
        letter = dead_letter(message_id, b"{}", saga_id=saga_id, consumer=consumer)
        await unit.save(Changes(consumer=CONSUMER, dead_letters=[letter]))


async def test_the_live_instances_of_each_version_are_counted_by_what_people_see(
    storage: SqlStorage, living: Living
) -> None:
    assert await living.standing() == {}
    early = NOW - timedelta(days=2)
    await insert(
        storage,
        new_instance("1"),
        new_instance("2", attention={"method_raised": "x", "compensation_failed": "y"}, started_at=early),
        new_instance("3", attention={"in_doubt": "x"}),
        new_instance("4", phase=Phase.COMPENSATING),
        new_instance("5", phase=Phase.COMPLETED, ended_at=NOW),
        new_instance("6", version=2),
    )
    found = await living.standing()
    assert found == {
        ("PlaceOrder", 1): Standing(running=2, compensating=1, parked=1, oldest=early),
        ("PlaceOrder", 2): Standing(running=1, oldest=NOW),
    }
    assert found["PlaceOrder", 1].live == 4


async def test_what_needs_a_version_is_its_live_instances_and_the_messages_kept_for_any_of_its_instances(
    storage: SqlStorage, living: Living
) -> None:
    assert await living.needed("PlaceOrder", 1) == Needed(live=0, held=0, letters=0)
    old, new, ended = (
        new_instance("old", started_at=NOW - timedelta(days=1)),
        new_instance("new"),
        new_instance("ended", phase=Phase.COMPLETED, ended_at=NOW),
    )
    other = new_instance("other", version=2)
    await insert(storage, new, old, ended, other)
    await keep(storage, held_for(ended.saga_id, "h-1"), held_for(other.saga_id, "h-2"), held_for(uuid4(), "h-3"))
    for number, saga_id in enumerate((ended.saga_id, old.saga_id, other.saga_id, None)):
        await bury(storage, saga_id, f"d-{number}")
    await bury(storage, old.saga_id, "d-9", consumer="participant.stock")
    needed = await living.needed("PlaceOrder", 1)
    assert (needed.live, needed.held, needed.letters, needed.nothing) == (2, 1, 2, False)
    assert [each.business_key for each in needed.oldest] == ["old", "new"]
    assert [each.business_key for each in (await living.needed("PlaceOrder", 1, examples=1)).oldest] == ["old"]
    assert (await living.needed("PlaceOrder", 3)).nothing


async def test_live_instances_come_whole_and_once_in_batches_of_any_size(storage: SqlStorage, living: Living) -> None:
    alive = [new_instance(str(number)) for number in range(5)]
    await insert(storage, *alive, new_instance("ended", phase=Phase.COMPENSATED, ended_at=NOW))
    for size, batches in ((2, 3), (5, 1), (9, 1)):
        read = [batch async for batch in living.instances(size)]
        assert len(read) == batches
        assert [each for batch in read for each in batch] == sorted(alive, key=lambda each: each.saga_id)


async def test_kept_messages_come_raw_with_the_instance_they_are_for_in_batches(
    storage: SqlStorage, living: Living
) -> None:
    instance = new_instance("1")
    await insert(storage, instance)
    await keep(storage, *(held_for(saga_id, f"h-{n}") for n, saga_id in enumerate((instance.saga_id, uuid4()))))
    for number, saga_id in enumerate((None, instance.saga_id, uuid4())):
        await bury(storage, saga_id, f"d-{number}")
    held = [each async for batch in living.held(1) for each in batch]
    assert [(each.consumer, each.name, each.reason, each.business_key) for each in held] == [
        ("PlaceOrder", "stock.StockReserved", "paused", "order-1")
    ] * 2
    assert [each.instance for each in held] == [instance, None]
    assert held[0].raw == dead_letter("h-0", b"{}").raw
    letters = [each async for batch in living.letters(2) for each in batch]
    assert [each.raw.message_id for each in letters] == ["d-0", "d-1", "d-2"]
    assert [each.instance for each in letters] == [None, instance, None]
    assert [each.saga_id is None for each in letters] == [True, False, False]


async def test_a_letter_that_was_dealt_with_is_not_looked_at(storage: SqlStorage, living: Living) -> None:
    await bury(storage, None, "d-1")
    async with storage.database.write() as session:
        await session.fetch(Statement.both("update dead_letter set status = 'discarded'"), {})
    assert [batch async for batch in living.letters()] == []


async def test_the_database_itself_refuses_that_a_look_writes(storage: SqlStorage, living: Living) -> None:
    async with living.reading() as session:
        with pytest.raises(Exception, match=r"(?i)read-?only"):
            await session.fetch(Statement.both("delete from saga"), {})
