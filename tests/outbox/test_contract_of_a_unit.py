"""What one transaction of any storage promises, asked through `outbox.interface` only."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from messages.errors import DatabaseBusy
from outbox.interface import Changes, Storage
from sagas.instance import Phase
from tests.outbox.building import (
    CONSUMER,
    LEASE,
    NOW,
    changed,
    command,
    digest,
    entry,
    history,
    insert,
    key_claim,
    new_instance,
    put,
    timer,
)


async def test_the_first_start_of_a_key_owns_it_and_later_ones_see_the_owner(storage: Storage) -> None:
    first, second = key_claim("order-1"), key_claim("order-1", start_id="start-2")
    async with storage.transaction() as unit:
        [owner] = await unit.claim_keys([first])
        assert owner.mine
    async with storage.transaction() as unit:
        fresh, again = await unit.claim_keys([key_claim("order-2"), second])
    assert fresh.mine
    assert (again.mine, again.saga_id, again.start_id) == (False, first.saga_id, "start-1")
    assert (again.n, again.start_hash) == (1, digest(b"start-1"))


async def test_of_two_starts_of_a_key_in_one_batch_the_first_owns_it(storage: Storage) -> None:
    first, second = key_claim("order-1"), key_claim("order-1", start_id="start-2")
    async with storage.transaction() as unit:
        owners = await unit.claim_keys([first, key_claim("order-0"), second])
    assert [owner.mine for owner in owners] == [True, True, False]
    assert owners[2].saga_id == first.saga_id
    assert owners[2].start_id == "start-1"


async def test_a_further_instance_of_a_key_is_another_claim(storage: Storage) -> None:
    async with storage.transaction() as unit:
        owners = await unit.claim_keys([key_claim("order-1"), key_claim("order-1", n=2)])
    assert [(owner.mine, owner.n) for owner in owners] == [(True, 1), (True, 2)]


async def test_the_latest_owner_of_a_key_is_the_one_with_the_highest_number(storage: Storage) -> None:
    second = key_claim("order-1", n=2)
    async with storage.transaction() as unit:
        await unit.claim_keys([key_claim("order-1"), second, key_claim("order-2")])
    async with storage.transaction() as unit:
        latest = await unit.latest_keys("PlaceOrder", ["order-1", "order-2", "order-3"])
        assert await unit.latest_keys("Another", ["order-1"]) == {}
    assert {key: owner.n for key, owner in latest.items()} == {"order-1": 2, "order-2": 1}
    assert (latest["order-1"].saga_id, latest["order-1"].mine) == (second.saga_id, False)


async def test_a_released_key_is_free_again(storage: Storage) -> None:
    claim = key_claim("order-1")
    async with storage.transaction() as unit:
        await unit.claim_keys([claim])
        await unit.save(Changes(consumer=CONSUMER, released=[claim.saga_id]))
    async with storage.transaction() as unit:
        [owner] = await unit.claim_keys([key_claim("order-1")])
    assert owner.mine


async def test_a_key_that_was_claimed_for_another_start_belongs_to_the_one_that_used_it(storage: Storage) -> None:
    claim = key_claim("order-1")
    used = replace(claim, start_id="another", start_hash=b"another")
    async with storage.transaction() as unit:
        await unit.claim_keys([claim])
        await unit.save(Changes(consumer=CONSUMER, reassigned=[used]))
    async with storage.transaction() as unit:
        [owner] = await unit.claim_keys([claim])
    assert (owner.mine, owner.start_id, owner.start_hash) == (False, "another", b"another")


async def test_an_exception_rolls_everything_back(storage: Storage) -> None:
    instance = new_instance()
    with pytest.raises(ZeroDivisionError):
        async with storage.transaction() as unit:
            await unit.claim_keys([key_claim("order-1", instance.saga_id)])
            await unit.claim_inbox(CONSUMER, uuid4(), [entry("m-1")])
            await unit.save(Changes(consumer=CONSUMER, inserted=[instance], outgoing=[command(instance.saga_id)]))
            raise ZeroDivisionError
    async with storage.transaction() as unit:
        [owner] = await unit.claim_keys([key_claim("order-1")])
        claimed = await unit.claim_inbox(CONSUMER, uuid4(), [entry("m-1")])
        locked = await unit.lock([instance.saga_id])
        unsent = await unit.unsent([instance.saga_id])
    assert owner.mine
    assert not claimed.known
    assert not locked.instances
    assert not unsent[instance.saga_id]


async def test_a_hundred_starts_of_one_key_at_once_have_one_owner(storage: Storage) -> None:
    async def start(number: int) -> bool:
        async with storage.transaction() as unit:
            [owner] = await unit.claim_keys([key_claim("order-1", start_id=f"start-{number}")])
            return owner.mine

    assert sum(await asyncio.gather(*(start(number) for number in range(100)))) == 1


async def test_an_instance_comes_back_as_it_was_saved(storage: Storage) -> None:
    running = new_instance()
    ended = new_instance(
        "order-2",
        phase=Phase.COMPENSATED,
        ended_at=NOW + timedelta(hours=1),
        end_reason="failed",
        waiting_for=None,
        paused=True,
        attention={"orphaned_effect": "pay"},
        skipped=2,
        n=3,
        state=b"\x00\xff",
    )
    await insert(storage, running, ended)
    async with storage.transaction() as unit:
        locked = await unit.lock({running.saga_id, ended.saga_id})
    assert locked.instances == {running.saga_id: running, ended.saga_id: ended}
    assert locked.busy == frozenset()
    assert locked.now is not None
    assert locked.now.utcoffset() == timedelta(0)


async def test_an_instance_that_does_not_exist_is_neither_locked_nor_busy(storage: Storage) -> None:
    async with storage.transaction() as unit:
        locked = await unit.lock([uuid4()])
    assert (locked.instances, locked.busy, locked.now) == ({}, frozenset(), None)


async def test_an_update_is_seen_by_the_next_transaction(storage: Storage) -> None:
    before = new_instance()
    await insert(storage, before)
    after = changed(before, phase=Phase.COMPENSATING, state=b"{}", steps={}, seq=9, waiting_for=None)
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER, updated=[(before, after)]))
    async with storage.transaction() as unit:
        assert (await unit.lock([before.saga_id])).instances[before.saga_id] == after


async def test_an_update_of_an_instance_that_has_changed_meanwhile_commits_nothing(storage: Storage) -> None:
    stale, other = new_instance(), new_instance("order-2")
    await insert(storage, stale, other)
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER, updated=[(stale, changed(stale))]))
    with pytest.raises(DatabaseBusy):
        async with storage.transaction() as unit:
            await unit.save(
                Changes(consumer=CONSUMER, updated=[(stale, changed(stale, seq=5)), (other, changed(other, seq=5))])
            )
    async with storage.transaction() as unit:
        locked = await unit.lock([stale.saga_id, other.saga_id])
    assert [instance.seq for instance in locked.instances.values()] == [1, 1]


async def test_a_message_is_new_once_and_known_with_its_token_afterwards(storage: Storage) -> None:
    token = uuid4()
    async with storage.transaction() as unit:
        first = await unit.claim_inbox(CONSUMER, token, [entry("b"), entry("a")])
    async with storage.transaction() as unit:
        again = await unit.claim_inbox(CONSUMER, uuid4(), [entry("a"), entry("c")])
        elsewhere = await unit.claim_inbox("antiphon.saga.ReturnOrder", uuid4(), [entry("a")])
        other_source = await unit.claim_inbox(CONSUMER, uuid4(), [entry("a", source="billing")])
    assert not first.known
    [(key, row)] = again.known.items()
    assert key == ("ordering", "a")
    assert (row.token, row.body_hash, row.disposition) == (token, digest(b"{}"), "applied")
    assert not elsewhere.known
    assert not other_source.known


async def test_copies_of_a_message_in_one_batch_are_one_new_message(storage: Storage) -> None:
    async with storage.transaction() as unit:
        claimed = await unit.claim_inbox(CONSUMER, uuid4(), [entry("a"), entry("a"), entry("a", b"other")])
    assert not claimed.known


async def test_the_clock_is_read_even_when_nothing_is_claimed(storage: Storage) -> None:
    async with storage.transaction() as unit:
        assert (await unit.claim_inbox(CONSUMER, uuid4(), [])).now.utcoffset() == timedelta(0)


async def test_what_became_of_a_message_is_known_later(storage: Storage) -> None:
    async with storage.transaction() as unit:
        await unit.claim_inbox(CONSUMER, uuid4(), [entry("a"), entry("b")])
        await unit.save(
            Changes(consumer=CONSUMER, dispositions={("ordering", "a"): "ignored", ("ordering", "b"): "applied"})
        )
    async with storage.transaction() as unit:
        known = (await unit.claim_inbox(CONSUMER, uuid4(), [entry("a"), entry("b")])).known
    assert {key: row.disposition for key, row in known.items()} == {
        ("ordering", "a"): "ignored",
        ("ordering", "b"): "applied",
    }


async def test_a_dead_lettered_copy_does_not_make_the_next_one_a_duplicate(storage: Storage) -> None:
    async with storage.transaction() as unit:
        await unit.claim_inbox(CONSUMER, uuid4(), [entry("a")])
        await unit.save(Changes(consumer=CONSUMER, dispositions={("ordering", "a"): "dead_lettered"}))
    token = uuid4()
    async with storage.transaction() as unit:
        assert not (await unit.claim_inbox(CONSUMER, token, [entry("a", b"mended")])).known
    async with storage.transaction() as unit:
        [row] = (await unit.claim_inbox(CONSUMER, uuid4(), [entry("a")])).known.values()
    assert (row.token, row.body_hash, row.disposition) == (token, digest(b"mended"), "applied")


async def test_copies_of_a_message_over_many_transactions_are_new_to_one(storage: Storage) -> None:
    wanted = [entry(f"m-{number}") for number in range(5)]

    async def claim() -> int:
        async with storage.transaction() as unit:
            return 5 - len((await unit.claim_inbox(CONSUMER, uuid4(), wanted)).known)

    assert sum(await asyncio.gather(*(claim() for _ in range(40)))) == 5


async def test_its_own_token_in_the_inbox_proves_to_a_batch_that_it_committed(storage: Storage) -> None:
    token = uuid4()
    for _ in range(2):
        async with storage.transaction() as unit:
            claimed = await unit.claim_inbox(CONSUMER, token, [entry("a"), entry("b")])
    assert {row.token for row in claimed.known.values()} == {token}


async def test_what_was_sent_first_under_an_id_is_found_in_the_history(storage: Storage) -> None:
    instance = new_instance()
    rows = [
        history(instance.saga_id, 1, "started", body=None),
        history(instance.saga_id, 2, body=b"\x00first"),
        history(instance.saga_id, 3, body=b"other"),
    ]
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER, inserted=[instance], history=rows))
    async with storage.transaction() as unit:
        sent = await unit.sent(
            [(instance.saga_id, "message-2"), (instance.saga_id, "message-9"), (uuid4(), "message-2")]
        )
    assert sent == {(instance.saga_id, "message-2"): rows[1]}


async def test_timers_are_the_difference_of_what_is_armed(storage: Storage) -> None:
    before = new_instance(timers={"reserve": timer(-20, 1), "deadline": timer(-10, 1), "gone": timer(-5, 1)})
    await insert(storage, before)
    after = changed(
        before, timers={"reserve": timer(-30, 4), "deadline": before.timers["deadline"], "pay": timer(50, 5)}
    )
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER, updated=[(before, after)]))
    due, wait = await storage.due_timers({"PlaceOrder"}, 10)
    assert [(row.saga_id, row.saga_type, row.name, row.fence) for row in due] == [
        (before.saga_id, "PlaceOrder", "reserve", 4),
        (before.saga_id, "PlaceOrder", "deadline", 1),
    ]
    assert wait is not None
    assert 0 < wait <= 50


async def test_a_halted_instance_has_no_timers_and_gets_them_back(storage: Storage) -> None:
    running = new_instance(timers={"reserve": timer(-20)})
    await insert(storage, running)
    halted = changed(running, attention={"method_raised": "reserved"})
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER, updated=[(running, halted)]))
    assert await storage.due_timers(["PlaceOrder"], 10) == ([], None)
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER, updated=[(halted, changed(halted, attention={}))]))
    due, _ = await storage.due_timers(["PlaceOrder"], 10)
    assert [row.name for row in due] == ["reserve"]


async def test_due_timers_come_oldest_first_up_to_the_limit_and_only_of_the_types_asked_for(storage: Storage) -> None:
    await insert(
        storage,
        new_instance("1", timers={"a": timer(-10), "b": timer(-30)}),
        new_instance("2", timers={"c": timer(-20)}),
        new_instance("3", saga_type="Other", timers={"d": timer(-40), "e": timer(5)}),
    )
    due, wait = await storage.due_timers(["PlaceOrder"], 2)
    assert [row.name for row in due] == ["b", "c"]
    assert wait is None
    assert (await storage.due_timers([], 2)) == ([], None)


async def test_unsent_commands_are_those_still_in_the_outbox(storage: Storage) -> None:
    here, there = new_instance(), new_instance("order-2")
    first, second = command(here.saga_id), command(here.saga_id, "pay")
    _, rows = await put(storage, first, second, lease=LEASE)
    await storage.settle_outbox(confirmed=[(rows[0].outbox_id, rows[0].token)])
    async with storage.transaction() as unit:
        unsent = await unit.unsent([here.saga_id, there.saga_id])
    assert unsent == {
        here.saga_id: frozenset({second.envelope.message_id}),
        there.saga_id: frozenset(),
    }


async def test_everything_at_once_is_one_transaction(storage: Storage) -> None:
    claim = key_claim("order-1")
    instance = new_instance(saga_id=claim.saga_id)
    token = uuid4()
    async with storage.transaction() as unit:
        await unit.claim_keys([claim])
        await unit.claim_inbox(CONSUMER, token, [entry("start-1")])
        rows = await unit.save(
            Changes(
                consumer=CONSUMER,
                inserted=[instance],
                history=[history(instance.saga_id, 1)],
                outgoing=[command(instance.saga_id)],
                claim=(token, LEASE),
                claim_limit=1,
            )
        )
    assert [row.token for row in rows] == [token]
    async with storage.transaction() as unit:
        again = await unit.claim_inbox(CONSUMER, token, [entry("start-1")])
    assert [row.token for row in again.known.values()] == [token]
