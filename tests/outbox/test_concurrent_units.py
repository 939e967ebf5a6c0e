"""Many transactions at once on PostgreSQL: who waits, who is skipped, and that nobody deadlocks."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from messages.errors import DatabaseBusy
from outbox.interface import Changes
from outbox.unit import SqlStorage
from running import AsyncioRunner
from storage import Database
from tests.outbox.building import (
    CONSUMER,
    LEASE,
    changed,
    command,
    dead_letter,
    entry,
    history,
    insert,
    key_claim,
    new_instance,
    put,
    sweep,
    timer,
)

if TYPE_CHECKING:
    from sagas.instance import Instance


@pytest.fixture
def storage(postgresql: Database) -> SqlStorage:
    return SqlStorage(postgresql)


async def test_an_instance_that_another_transaction_holds_is_busy_and_the_others_are_locked(
    storage: SqlStorage,
) -> None:
    held, free = new_instance(), new_instance("order-2")
    await insert(storage, held, free)
    async with storage.transaction() as first, storage.transaction() as second:
        await first.lock([held.saga_id])
        locked = await second.lock([held.saga_id, free.saga_id, uuid4()])
    assert set(locked.instances) == {free.saga_id}
    assert locked.busy == {held.saga_id}


async def test_who_waits_for_an_instance_sees_what_the_other_made_of_it_and_the_time_after_the_wait(
    storage: SqlStorage,
) -> None:
    before = new_instance()
    await insert(storage, before)
    after = changed(before, seq=7)
    holding = asyncio.Event()

    async def wait() -> Instance:
        await holding.wait()
        async with storage.transaction() as unit:
            locked = await unit.lock([before.saga_id], wait=True)
            assert locked.now is not None
            assert locked.now > released_after[0]
            return locked.instances[before.saga_id]

    released_after = []
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(wait())
        async with storage.transaction() as unit:
            await unit.lock([before.saga_id])
            holding.set()
            await _someone_waits(storage)
            await unit.save(Changes(consumer=CONSUMER, updated=[(before, after)]))
            released_after.append((await unit.claim_inbox(CONSUMER, uuid4(), [])).now)
    assert waiting.result() == after


async def _someone_waits(storage: SqlStorage) -> None:
    """Return once a transaction of this database waits for a lock; the test's own timeout is the bound."""
    async with asyncio.timeout(30):
        while True:
            async with storage.database.read() as session:
                waiting = await session.connection.exec_driver_sql(
                    "select count(*) from pg_stat_activity where wait_event_type = 'Lock' "
                    "and datname = current_database()"
                )
                if waiting.scalar_one():
                    return


async def test_a_start_waits_for_the_transaction_that_is_inserting_its_key(storage: SqlStorage) -> None:
    async def start() -> bool:
        async with storage.transaction() as unit:
            [owner] = await unit.claim_keys([key_claim("order-1", start_id="second")])
            return owner.mine

    async with asyncio.TaskGroup() as tasks, storage.transaction() as unit:
        await unit.claim_keys([key_claim("order-1")])
        second = tasks.create_task(start())
        await _someone_waits(storage)
    assert second.result() is False


async def test_a_key_that_the_other_gave_up_goes_to_who_waited_for_it(storage: SqlStorage) -> None:
    claim = key_claim("order-1")

    async def start() -> bool:
        async with storage.transaction() as unit:
            [owner] = await unit.claim_keys([key_claim("order-1", start_id="second")])
            return owner.mine

    async with asyncio.TaskGroup() as tasks, storage.transaction() as unit:
        await unit.claim_keys([claim])
        second = tasks.create_task(start())
        await _someone_waits(storage)
        await unit.save(Changes(consumer=CONSUMER, released=[claim.saga_id]))
    assert second.result() is True


async def test_a_batch_that_runs_again_waits_while_its_first_run_is_still_committing(storage: SqlStorage) -> None:
    token = uuid4()

    async def again() -> bool:
        async with storage.transaction() as unit:
            claimed = await unit.claim_inbox(CONSUMER, token, [entry("a")])
            return [row.token for row in claimed.known.values()] == [token]

    async with asyncio.TaskGroup() as tasks, storage.transaction() as unit:
        await unit.claim_inbox(CONSUMER, token, [entry("a")])
        asked = tasks.create_task(again())
        await _someone_waits(storage)
    assert asked.result() is True


async def test_a_row_that_is_being_withdrawn_is_skipped_by_the_relay(storage: SqlStorage) -> None:
    saga_id = uuid4()
    withdrawn, other = command(saga_id), command(saga_id, "pay")
    await put(storage, withdrawn, other)
    async with storage.transaction() as unit:
        assert await unit.withdraw([withdrawn.envelope.message_id])
        assert [row.outgoing for row in await sweep(storage)] == [other]


async def test_a_claim_that_is_not_over_makes_a_withdrawal_wait_and_then_fail(storage: SqlStorage) -> None:
    message = command(uuid4())
    await put(storage, message)

    async def withdraw() -> frozenset[str]:
        async with storage.transaction() as unit:
            return await unit.withdraw([message.envelope.message_id])

    async with asyncio.TaskGroup() as tasks, storage.database.write() as session:
        await session.connection.exec_driver_sql("update outbox set state = 'claimed'")
        asked = tasks.create_task(withdraw())
        await _someone_waits(storage)
    assert asked.result() == frozenset()


async def test_two_processes_that_share_everything_in_other_orders_never_deadlock(
    storage: SqlStorage, request: pytest.FixtureRequest
) -> None:
    database = storage.database
    other = Database(
        database.engine.url.render_as_string(hide_password=False), AsyncioRunner(), namespace=database.namespace
    )
    try:
        chance = random.Random(7)
        instances = [new_instance(f"order-{number}", timers={"reserve": timer(60)}) for number in range(8)]
        await insert(storage, *instances)
        known = [instance.saga_id for instance in instances]
        processes = [storage, SqlStorage(other)]
        seeds = [chance.random() for _ in range(60)]
        outcomes = await asyncio.gather(
            *(_batch(processes[number % 2], known, random.Random(seed)) for number, seed in enumerate(seeds))
        )
        assert sum(outcomes) > 0
    finally:
        await other.close()


async def _batch(storage: SqlStorage, known: list[UUID], chance: random.Random) -> int:
    """One batch as the message path runs it, with everything in random order; returns how many instances it changed."""
    numbers = chance.sample(range(12), 6)
    wanted = chance.sample(known, 5)
    token = uuid4()
    async with storage.transaction() as unit:
        claims = [key_claim(f"new-{number}", start_id=str(number)) for number in numbers]
        owners = await unit.claim_keys(claims)
        locked = await unit.lock([*wanted, *(owner.saga_id for owner in owners)], wait=chance.random() < 0.3)
        claimed = await unit.claim_inbox(CONSUMER, token, [entry(f"m-{number}") for number in numbers])
        withdrawn = await unit.withdraw([f"c-{number}" for number in chance.sample(range(12), 6)])
        updated = [
            (instance, changed(instance, seq=instance.seq + 1, timers={"reserve": timer(chance.random() * 60)}))
            for instance in locked.instances.values()
        ]
        chance.shuffle(updated)
        fresh = [
            new_instance(claim.key, saga_id=claim.saga_id)
            for claim, owner in zip(claims, owners, strict=True)
            if owner.mine
        ]
        rows = await unit.save(
            Changes(
                consumer=CONSUMER,
                inserted=fresh,
                updated=updated,
                history=[history(after.saga_id, after.seq) for _, after in updated],
                dispositions={
                    ("ordering", f"m-{number}"): "dead_lettered"
                    for number in numbers
                    if ("ordering", f"m-{number}") not in claimed.known and chance.random() < 0.5
                },
                dead_letters=[dead_letter(f"m-{number}") for number in chance.sample(range(12), 3)],
                outgoing=[command(after.saga_id, message_id=f"c-{chance.randrange(12)}") for _, after in updated],
                claim=(token, LEASE),
                claim_limit=3,
            )
        )
    await storage.settle_outbox(confirmed=[(row.outbox_id, row.token) for row in chance.sample(rows, len(rows) // 2)])
    swept = await storage.claim_outbox(token=token, lease=LEASE, limit=4)
    await storage.release_leases([(row.outbox_id, row.token) for row in swept])
    return len(updated) + len(withdrawn)


async def test_a_lock_that_does_not_come_is_trouble_not_an_error(storage: SqlStorage) -> None:
    instance = new_instance()
    await insert(storage, instance)
    async with storage.transaction() as first:
        await first.lock([instance.saga_id])
        with pytest.raises(DatabaseBusy):
            async with storage.transaction() as second:
                await second.session.connection.exec_driver_sql("set local lock_timeout = '20ms'")
                await second.lock([instance.saga_id], wait=True)
    async with storage.transaction() as again:
        assert (await again.lock([instance.saga_id])).instances
