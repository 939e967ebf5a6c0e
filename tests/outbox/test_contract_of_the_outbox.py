"""What any storage promises about messages on their way out, asked through `outbox.interface` only."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from outbox.interface import Changes, ClaimedRow, RowOutcome, Storage
from tests.outbox.building import CONSUMER, LEASE, OVER, command, ids, put, sweep


def outcome(row: ClaimedRow, state: str, retry_in: float = 0.0) -> RowOutcome:
    return RowOutcome(outbox_id=row.outbox_id, token=row.token, state=state, retry_in=retry_in, error="why\x00")


async def withdraw(storage: Storage, *message_ids: str) -> frozenset[str]:
    async with storage.transaction() as unit:
        return await unit.withdraw(message_ids)


async def test_rows_are_born_claimed_in_the_order_given_and_nobody_else_gets_them(storage: Storage) -> None:
    saga_id = uuid4()
    messages = [command(saga_id, f"step-{number}") for number in range(5)]
    token, rows = await put(storage, *messages, lease=LEASE)
    assert [row.outgoing for row in rows] == messages
    assert {row.token for row in rows} == {token}
    assert {row.attempts for row in rows} == {0}
    assert [row.outbox_id for row in rows] == sorted({row.outbox_id for row in rows})
    assert await sweep(storage) == []


async def test_a_message_comes_out_as_it_went_in(storage: Storage) -> None:
    message = command(uuid4(), body=b'{"a":"\\u0000"}\x00\xff')
    bare = command(None, None)
    await put(storage, message, bare)
    assert [row.outgoing for row in await sweep(storage)] == [message, bare]


async def test_rows_beyond_the_claim_limit_are_left_for_whoever_sweeps(storage: Storage) -> None:
    messages = [command(uuid4()) for _ in range(4)]
    _, rows = await put(storage, *messages, lease=LEASE, limit=3)
    assert [row.outgoing for row in rows] == messages[:3]
    assert [row.outgoing for row in await sweep(storage)] == messages[3:]


@pytest.mark.parametrize("limit", [0, -5])
async def test_without_room_nothing_is_born_claimed(storage: Storage, limit: int) -> None:
    _, rows = await put(storage, command(uuid4()), lease=LEASE, limit=limit)
    assert rows == []
    assert len(await sweep(storage)) == 1


async def test_the_next_row_of_a_path_waits_for_the_earlier_one(storage: Storage) -> None:
    saga_id = uuid4()
    first, second, third = (command(saga_id) for _ in range(3))
    other_path, other_saga = command(saga_id, "pay"), command(uuid4())
    _, rows = await put(storage, first, second, other_path, lease=LEASE)
    assert [row.outgoing for row in rows] == [first, other_path]
    _, later = await put(storage, third, other_saga, lease=LEASE)
    assert [row.outgoing for row in later] == [other_saga]
    assert await sweep(storage) == []
    await storage.settle_outbox(confirmed=[(rows[0].outbox_id, rows[0].token)])
    [head] = await sweep(storage)
    assert head.outgoing == second
    await storage.settle_outbox(confirmed=[(head.outbox_id, head.token)])
    assert [row.outgoing for row in await sweep(storage)] == [third]


async def test_a_row_confirmed_by_the_same_transaction_is_waited_for_no_longer(storage: Storage) -> None:
    saga_id, token = uuid4(), uuid4()
    do, undo = command(saga_id), command(saga_id)
    _, [row] = await put(storage, do, lease=LEASE)
    async with storage.transaction() as unit:
        born = await unit.save(
            Changes(
                consumer=CONSUMER,
                outgoing=[undo],
                confirmed=[(row.outbox_id, row.token)],
                claim=(token, LEASE),
                claim_limit=9,
            )
        )
    assert [row.outgoing for row in born] == [undo]


async def test_rows_of_a_path_without_a_saga_keep_their_order_too(storage: Storage) -> None:
    first, second = command(None, "customer-7"), command(None, "customer-7")
    free = [command(None, None), command(None, None)]
    await put(storage, first, second, *free)
    assert [row.outgoing for row in await sweep(storage)] == [first, *free]


async def test_a_claim_takes_no_more_than_its_limit_and_the_oldest_first(storage: Storage) -> None:
    messages = [command(uuid4()) for _ in range(7)]
    await put(storage, *messages)
    assert [row.outgoing for row in await sweep(storage, limit=3)] == messages[:3]
    assert [row.outgoing for row in await sweep(storage, limit=3)] == messages[3:6]


async def test_relays_that_claim_at_once_get_different_rows(storage: Storage) -> None:
    messages = [command(uuid4()) for _ in range(60)]
    await put(storage, *messages)
    claims = await asyncio.gather(*(sweep(storage, limit=10) for _ in range(8)))
    found = [message_id for rows in claims for message_id in ids(rows)]
    assert len(found) == len(set(found))
    assert all(len(rows) <= 10 for rows in claims)
    rest = await sweep(storage)
    assert sorted([*found, *ids(rest)]) == sorted(message.envelope.message_id for message in messages)


async def test_a_lease_that_ended_passes_the_row_on_and_counts_a_publication(storage: Storage) -> None:
    message = command(uuid4())
    _, [born] = await put(storage, message, lease=OVER)
    [swept] = await sweep(storage, lease=OVER)
    [again] = await sweep(storage)
    assert [row.attempts for row in (born, swept, again)] == [0, 1, 2]
    assert {row.outbox_id for row in (swept, again)} == {born.outbox_id}
    await storage.settle_outbox(confirmed=[(born.outbox_id, born.token)], failed=[outcome(swept, "returned")])
    assert await storage.renew_leases(swept.token, [born.outbox_id], LEASE) == frozenset()
    assert await storage.renew_leases(again.token, [born.outbox_id], LEASE) == {born.outbox_id}


async def test_a_row_that_was_never_claimed_has_no_earlier_publication(storage: Storage) -> None:
    await put(storage, command(uuid4()))
    assert [row.attempts for row in await sweep(storage)] == [0]


async def test_a_failed_publication_is_due_again_when_it_was_told_to_be(storage: Storage) -> None:
    _, [soon, late] = await put(storage, command(uuid4()), command(uuid4()), lease=LEASE)
    await storage.settle_outbox(failed=[outcome(soon, "returned"), outcome(late, "unknown", 60)])
    [row] = await sweep(storage)
    assert (row.outbox_id, row.attempts) == (soon.outbox_id, 1)


async def test_what_was_settled_by_another_token_stays(storage: Storage) -> None:
    _, [row] = await put(storage, command(uuid4()), lease=LEASE)
    stranger = ClaimedRow(outbox_id=row.outbox_id, token=uuid4(), attempts=0, outgoing=row.outgoing)
    await storage.settle_outbox(confirmed=[(row.outbox_id, uuid4())], failed=[outcome(stranger, "refused")])
    await storage.release_leases([(row.outbox_id, uuid4())])
    assert await sweep(storage) == []
    assert await storage.renew_leases(row.token, [row.outbox_id], LEASE) == {row.outbox_id}


async def test_a_renewed_lease_keeps_the_row(storage: Storage) -> None:
    token, [row] = await put(storage, command(uuid4()), lease=OVER)
    assert await storage.renew_leases(token, [row.outbox_id, 999_999], LEASE) == {row.outbox_id}
    assert await storage.renew_leases(token, [], LEASE) == frozenset()
    assert await sweep(storage) == []


async def test_released_rows_are_due_at_once(storage: Storage) -> None:
    _, rows = await put(storage, command(uuid4()), command(uuid4()), lease=LEASE)
    await storage.release_leases([(row.outbox_id, row.token) for row in rows])
    assert [row.attempts for row in await sweep(storage)] == [0, 0]


async def test_only_what_no_broker_can_have_is_withdrawn(storage: Storage) -> None:
    saga_id = uuid4()
    messages = {
        name: command(saga_id, name)
        for name in ("claimed", "returned", "unknown", "refused", "released", "new", "expired", "kept")
    }
    leased = [messages[name] for name in ("claimed", "returned", "unknown", "refused", "released")]
    _, rows = await put(storage, *leased, lease=LEASE)
    by_path = {row.outgoing.path: row for row in rows}
    await storage.settle_outbox(
        failed=[outcome(by_path[state], state, 60) for state in ("returned", "unknown", "refused")]
    )
    await storage.release_leases([(by_path["released"].outbox_id, by_path["released"].token)])
    await put(storage, messages["expired"], lease=OVER)
    await put(storage, messages["new"], messages["kept"])
    wanted = [message.envelope.message_id for name, message in messages.items() if name != "kept"]
    gone = await withdraw(storage, *wanted, "never there")
    assert gone == {messages[name].envelope.message_id for name in ("returned", "released", "new")}
    assert await withdraw(storage, *wanted) == frozenset()
    async with storage.transaction() as unit:
        left = (await unit.unsent([saga_id]))[saga_id]
    assert left == {messages[name].envelope.message_id for name in ("claimed", "unknown", "refused", "expired", "kept")}


async def test_what_may_have_been_sent_once_is_never_withdrawn_whatever_happens_to_it_later(storage: Storage) -> None:
    lost, expired = command(uuid4()), command(uuid4())
    _, [row] = await put(storage, lost, lease=LEASE)
    await storage.settle_outbox(failed=[outcome(row, "unknown")])
    await put(storage, expired, lease=OVER)
    rows = await sweep(storage)
    await storage.settle_outbox(failed=[outcome(row, "returned") for row in rows])
    assert await withdraw(storage, *ids(rows)) == frozenset()
    rows = await sweep(storage)
    await storage.release_leases([(row.outbox_id, row.token) for row in rows])
    assert await withdraw(storage, *ids(rows)) == frozenset()
    rows = await sweep(storage)
    await storage.settle_outbox(failed=[outcome(row, "new") for row in rows])
    assert await withdraw(storage, *ids(rows)) == frozenset()


async def test_messages_of_nobody_here_are_never_withdrawn(storage: Storage) -> None:
    message = command(None, None)
    await put(storage, message)
    assert await withdraw(storage, message.envelope.message_id) == frozenset()


async def test_a_message_whose_row_still_stands_is_made_due_again_instead_of_added(storage: Storage) -> None:
    message = command(uuid4())
    _, [row] = await put(storage, message, lease=LEASE)
    await storage.settle_outbox(failed=[outcome(row, "unknown", 600)])
    _, born = await put(storage, message, lease=LEASE)
    assert born == []
    [again] = await sweep(storage)
    assert (again.outbox_id, again.attempts) == (row.outbox_id, 1)
    assert await withdraw(storage, message.envelope.message_id) == frozenset()


async def test_a_message_that_is_being_published_is_left_alone_when_it_is_sent_again(storage: Storage) -> None:
    message = command(uuid4())
    token, [row] = await put(storage, message, lease=LEASE)
    assert (await put(storage, message, lease=LEASE))[1] == []
    assert await sweep(storage) == []
    assert await storage.renew_leases(token, [row.outbox_id], LEASE) == {row.outbox_id}


async def test_a_message_sent_again_after_its_row_has_gone_is_a_new_row(storage: Storage) -> None:
    message = command(uuid4())
    _, [row] = await put(storage, message, lease=LEASE)
    await storage.settle_outbox(confirmed=[(row.outbox_id, row.token)])
    _, [again] = await put(storage, message, lease=LEASE)
    assert again.outbox_id > row.outbox_id
    assert again.outgoing == message


async def test_one_message_to_two_places_is_two_rows(storage: Storage) -> None:
    reply = command(None, None, message_id="reply-1")
    elsewhere = type(reply)(envelope=reply.envelope, exchange="antiphon.events", routing_key="stock.StockReserved")
    _, rows = await put(storage, reply, elsewhere, reply, lease=LEASE)
    assert [row.outgoing for row in rows] == [reply, elsewhere]


async def test_a_withdrawal_and_a_claim_of_one_row_never_both_succeed(storage: Storage) -> None:
    for _ in range(10):
        message = command(uuid4())
        await put(storage, message)
        gone, rows = await asyncio.gather(withdraw(storage, message.envelope.message_id), sweep(storage))
        assert bool(gone) != bool(rows)
