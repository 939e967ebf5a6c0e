"""What any storage promises of aliases: who has one, who gets one, and what is held for whoever will."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from messages.envelope import Raw
from messages.errors import DatabaseBusy
from outbox.holding import Held, KnownType
from outbox.interface import Changes
from outbox.naming import AliasClaim
from outbox.optimistic import Optimistic
from outbox.unit import SqlStorage
from outbox.unlocked import NeedsTransaction, Wanted
from sagas.instance import Phase
from tests.outbox.building import CONSUMER, NOW, digest, insert, new_instance

if TYPE_CHECKING:
    from outbox.interface import Unit
    from outbox.naming import AliasOwner
    from storage import Database


def _claim(value: str, saga_id: UUID, *, alias: str = "parcel", saga_type: str = "PlaceOrder") -> AliasClaim:
    return AliasClaim(saga_type=saga_type, alias=alias, value=value, saga_id=saga_id)


def _held(value: str, number: str = "m-1", **values: object) -> Held:
    held = Held(
        saga_type="PlaceOrder",
        source="shop",
        message_id=number,
        body_hash=digest(b"{}"),
        name="parcels.Scanned",
        schema_version=1,
        raw=Raw(body=b"{}", routing_key="parcels.Scanned"),
        reason="early",
        business_key=value,
        alias="parcel",
        expires_in=60.0,
    )
    return replace(held, **values)  # type: ignore[arg-type]


async def _take(unit: Unit, *claims: AliasClaim, reusing: bool = False, over: UUID | None = None) -> list[AliasOwner]:
    return list(await unit.take_aliases(claims, reusing=["PlaceOrder"] if reusing else [], over=[over] if over else []))


async def test_who_took_an_alias_is_found_by_it_and_by_nothing_else(storage: SqlStorage) -> None:
    one, other = uuid4(), uuid4()
    async with storage.transaction() as unit:
        owners = await _take(unit, _claim("A", one), _claim("B", other), _claim("A", one, alias="payment"))
    assert [owner.saga_id for owner in owners] == [one, other, one]
    async with storage.transaction() as unit:
        wanted = [("parcel", "A"), ("parcel", "B"), ("payment", "A"), ("payment", "B"), ("parcel", "a"), ("box", "A")]
        assert await unit.aliased("PlaceOrder", wanted) == {
            ("parcel", "A"): one,
            ("parcel", "B"): other,
            ("payment", "A"): one,
        }
        assert await unit.aliased("Another", wanted) == {}


async def test_whoever_has_an_alias_keeps_it_and_the_other_learns_who_that_is(storage: SqlStorage) -> None:
    first, second = new_instance("o-1"), new_instance("o-2")
    await insert(storage, first, second)
    async with storage.transaction() as unit:
        [mine, lost] = await _take(unit, _claim("A", first.saga_id), _claim("A", second.saga_id))
        assert (mine.saga_id, lost.saga_id) == (first.saga_id, first.saga_id)
    async with storage.transaction() as unit:
        [lost, free, mine] = await _take(
            unit, _claim("A", second.saga_id), _claim("B", second.saga_id), _claim("A", first.saga_id)
        )
    assert (lost.saga_id, lost.key) == (first.saga_id, "o-1")
    assert free.saga_id == second.saga_id
    assert mine.saga_id == first.saga_id


async def test_what_is_given_up_is_free_and_only_by_who_has_it(storage: SqlStorage) -> None:
    one, other = uuid4(), uuid4()
    async with storage.transaction() as unit:
        await _take(unit, _claim("A", one), _claim("B", one))
        await unit.give_up_aliases([_claim("A", other), _claim("B", one)])
        assert await unit.aliased("PlaceOrder", [("parcel", "A"), ("parcel", "B")]) == {("parcel", "A"): one}
        [owner] = await _take(unit, _claim("B", other))
    assert owner.saga_id == other


@pytest.mark.parametrize("reusing", [True, False])
async def test_an_instance_that_has_ended_leaves_it_to_others_only_where_keys_are_used_again(
    storage: SqlStorage, reusing: bool
) -> None:
    ended = new_instance("o-1", phase=Phase.COMPLETED, ended_at=NOW, timers={})
    running, ending = new_instance("o-2"), new_instance("o-3")
    await insert(storage, ended, running, ending)
    async with storage.transaction() as unit:
        await _take(unit, _claim("A", ended.saga_id), _claim("B", running.saga_id), _claim("C", ending.saga_id))
    new = uuid4()
    async with storage.transaction() as unit:
        owners = await _take(
            unit, _claim("A", new), _claim("B", new), _claim("C", new), reusing=reusing, over=ending.saga_id
        )
    taken = [owner.saga_id == new for owner in owners]
    assert taken == [reusing, False, reusing]


async def test_what_is_held_for_an_alias_is_found_by_it_in_order_of_arrival(storage: SqlStorage) -> None:
    instance = new_instance("o-1")
    await insert(storage, instance)
    async with storage.transaction() as unit:
        held = [_held("A", "m-1"), _held("B", "m-2"), _held("A", "m-3"), _held("A", "m-4", alias=None)]
        await unit.save(Changes(consumer=CONSUMER, held=held))
    known = [KnownType(saga_type="PlaceOrder", versions=frozenset({1}), events={"parcels.Scanned": 1})]
    assert not await storage.ripe_held(known, 10)
    async with storage.transaction() as unit:
        found = await unit.held_by_alias("PlaceOrder", [("parcel", "A"), ("payment", "B")])
        assert [(each.message_id, each.alias, each.business_key) for each in found] == [
            ("m-1", "parcel", "A"),
            ("m-3", "parcel", "A"),
        ]
        owners = await _take(unit, _claim("A", instance.saga_id), _claim("C", instance.saga_id))
        assert [owner.awaited for owner in owners] == [True, False]
    ripe = await storage.ripe_held(known, 10)
    assert [(each.held.message_id, each.held.saga_id) for each in ripe] == [
        ("m-1", instance.saga_id),
        ("m-3", instance.saga_id),
    ]
    assert not await storage.ripe_held(known, 10, [instance.saga_id])


async def test_what_was_held_for_an_alias_is_held_on_for_an_instance(storage: SqlStorage) -> None:
    saga_id = uuid4()
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER, held=[_held("A")]))
        [held] = await unit.held_by_alias("PlaceOrder", [("parcel", "A")])
        again = replace(held, reason="paused", alias=None, business_key="o-1", saga_id=saga_id, expires_in=None)
        await unit.save(Changes(consumer=CONSUMER, reheld=[again]))
        assert not await unit.held_by_alias("PlaceOrder", [("parcel", "A")])
        [found] = await unit.held_for("PlaceOrder", [saga_id])
    assert (found.reason, found.business_key, found.alias) == ("paused", "o-1", None)


async def test_what_nobody_came_for_expires(storage: SqlStorage) -> None:
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER, held=[_held("A", expires_in=-1.0)]))
    known = [KnownType(saga_type="PlaceOrder", versions=frozenset({1}), events={"parcels.Scanned": 1})]
    [ripe] = await storage.ripe_held(known, 10)
    assert (ripe.expired, ripe.held.saga_id) == (True, None)


async def test_of_two_transactions_the_second_waits_for_what_becomes_of_the_first(postgresql: Database) -> None:
    storage, one, other = SqlStorage(postgresql), uuid4(), uuid4()
    has_taken = asyncio.Event()

    async def second() -> UUID:
        await has_taken.wait()
        async with storage.transaction() as unit:
            [owner] = await _take(unit, _claim("A", other))
            return owner.saga_id

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(second())
        async with storage.transaction() as unit:
            await _take(unit, _claim("A", one))
            has_taken.set()
            await asyncio.sleep(0)
    assert waiting.result() == one


async def test_two_that_take_the_same_crosswise_never_both_have_one(postgresql: Database) -> None:
    storage, one, other = SqlStorage(postgresql), uuid4(), uuid4()

    async def take(saga_id: UUID, first: str, second: str) -> list[UUID]:
        async with storage.transaction() as unit:
            owners = await _take(unit, _claim(first, saga_id))
            await asyncio.sleep(0)
            return [each.saga_id for each in (*owners, *await _take(unit, _claim(second, saga_id)))]

    done = await asyncio.gather(take(one, "A", "B"), take(other, "B", "A"), return_exceptions=True)
    assert all(isinstance(each, (list, DatabaseBusy)) for each in done)
    async with storage.transaction() as unit:
        owners = await unit.aliased("PlaceOrder", [("parcel", "A"), ("parcel", "B")])
    for saga_id, owned in zip((one, other), done, strict=True):
        if isinstance(owned, list):
            assert saga_id not in owned or set(owners.values()) >= {saga_id}


async def test_the_way_without_locks_is_not_for_aliases(postgresql: Database) -> None:
    wanted = Wanted(saga_type="PlaceOrder", claims=[], saga_ids=[], entries=[])
    async with Optimistic(postgresql).unit(wanted) as unit:
        for asked in (
            unit.aliased("PlaceOrder", [("parcel", "A")]),
            unit.take_aliases([], reusing=[], over=[]),
            unit.give_up_aliases([]),
            unit.held_by_alias("PlaceOrder", []),
        ):
            with pytest.raises(NeedsTransaction):
                await asked
