"""A batch is one transaction and a handful of statements, however many messages it has."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from outbox.interface import Changes
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
    timer,
)

if TYPE_CHECKING:
    from outbox.unit import SqlStorage
    from tests.storage.databases import Counter


@pytest.mark.parametrize("size", [1, 200])
async def test_a_batch_of_starts_is_four_statements_and_one_commit_on_postgresql(
    storage: SqlStorage, counter: Counter, size: int
) -> None:
    claims = [key_claim(f"order-{number}") for number in range(size)]
    instances = [new_instance(claim.key, saga_id=claim.saga_id) for claim in claims]
    token = uuid4()
    counter.reset()
    async with storage.transaction() as unit:
        await unit.claim_keys(claims)
        await unit.lock([instance.saga_id for instance in instances])
        await unit.claim_inbox(CONSUMER, token, [entry(f"m-{number}") for number in range(size)])
        rows = await unit.save(
            Changes(
                consumer=CONSUMER,
                inserted=instances,
                history=[history(instance.saga_id, 1) for instance in instances],
                outgoing=[command(instance.saga_id) for instance in instances],
                claim=(token, LEASE),
                claim_limit=size,
            )
        )
    assert len(rows) == size
    assert counter.commits == 1
    assert len(counter.statements) == (4 if storage.database.postgresql else 14)


@pytest.mark.parametrize("size", [1, 200])
async def test_a_batch_of_replies_is_three_statements_and_one_commit_on_postgresql(
    storage: SqlStorage, counter: Counter, size: int
) -> None:
    instances = [new_instance(f"order-{number}") for number in range(size)]
    await insert(storage, *instances)
    token, confirmed = await put(
        storage, *(command(instance.saga_id) for instance in instances), lease=LEASE, limit=999
    )
    counter.reset()
    async with storage.transaction() as unit:
        locked = await unit.lock([instance.saga_id for instance in instances])
        await unit.claim_inbox(CONSUMER, token, [entry(f"m-{number}") for number in range(size)])
        updated = [
            (before, changed(before, timers={"pay": timer(30, 2)}, attention={"orphaned_effect": "reserve"}, seq=2))
            for before in locked.instances.values()
        ]
        rows = await unit.save(
            Changes(
                consumer=CONSUMER,
                updated=updated,
                history=[history(after.saga_id, 2) for _, after in updated],
                dispositions={("ordering", "m-0"): "ignored"},
                dead_letters=[dead_letter()],
                outgoing=[command(after.saga_id, "pay") for _, after in updated],
                confirmed=[(row.outbox_id, row.token) for row in confirmed],
                claim=(token, LEASE),
                claim_limit=size,
            )
        )
    assert len(rows) == size
    assert counter.commits == 1
    assert len(counter.statements) == (3 if storage.database.postgresql else 17)


async def test_what_the_relay_does_is_one_statement_each(storage: SqlStorage, counter: Counter) -> None:
    token, rows = await put(storage, *(command(uuid4()) for _ in range(9)), lease=LEASE)
    pairs = [(row.outbox_id, row.token) for row in rows]
    begin = 0 if storage.database.postgresql else 1
    counter.reset()
    await storage.renew_leases(token, [row.outbox_id for row in rows], LEASE)
    assert len(counter.statements) == 1 + begin
    counter.reset()
    await storage.release_leases(pairs[:5])
    assert len(counter.statements) == 1 + begin
    counter.reset()
    await storage.settle_outbox(confirmed=pairs[5:])
    assert len(counter.statements) == 1 + begin
    counter.reset()
    assert len(await storage.claim_outbox(token=token, lease=LEASE, limit=9)) == 5
    assert len(counter.statements) == (1 if storage.database.postgresql else 3)


async def test_a_save_with_nothing_to_write_asks_the_database_nothing(storage: SqlStorage, counter: Counter) -> None:
    async with storage.transaction() as unit:
        counter.reset()
        assert await unit.save(Changes(consumer=CONSUMER)) == ()
        assert counter.statements == []
