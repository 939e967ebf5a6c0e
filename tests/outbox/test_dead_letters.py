"""The rows of dead letters: locked last, resolved once, and everything that was done with them written down."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from messages.errors import Trouble
from outbox.interface import Changes
from outbox.unit import SqlStorage
from storage import dead_letters
from storage.statements import Batch
from tests.outbox.building import CONSUMER, dead_letter

if TYPE_CHECKING:
    from storage import Database


async def keep(storage: SqlStorage, **values: Any) -> int:  # noqa: ANN401
    """The id of a letter that was kept."""
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER, dead_letters=[dead_letter(**values)]))
    [row] = await rows(storage.database, "select dead_letter_id from dead_letter order by dead_letter_id desc limit 1")
    return int(row["dead_letter_id"])


async def rows(database: Database, sql: str) -> list[dict[str, Any]]:
    async with database.read() as session:
        return [dict(row) for row in (await session.connection.execute(text(sql))).mappings()]


async def write(storage: SqlStorage, batch: Batch) -> None:
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER), batch)


async def found(storage: SqlStorage, dead_letter_id: int) -> dead_letters.Letter | None:
    async with storage.database.read() as session:
        return await dead_letters.find(session, dead_letter_id)


async def test_a_letter_is_found_as_it_was_kept(storage: SqlStorage) -> None:
    saga_id, kept = uuid4(), dead_letter()
    letter = await found(storage, await keep(storage, saga_id=saga_id, queue="shop.saga.PlaceOrder"))
    assert letter is not None
    assert (letter.raw, letter.body_hash) == (kept.raw, kept.body_hash)
    assert (letter.reason, letter.error_class, letter.error) == ("malformed", "MalformedMessage", "not JSON")
    assert (letter.saga_id, letter.queue) == (saga_id, "shop.saga.PlaceOrder")
    assert (letter.status, letter.replaces, letter.resolved_at, letter.replayed_seq) == ("open", None, None, None)
    assert await found(storage, 4711) is None


async def test_ids_follow_the_order_of_arrival_within_a_transaction_too(storage: SqlStorage) -> None:
    order = ["z", "a", "m", "b"]
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER, dead_letters=[dead_letter(each) for each in [*order, "a"]]))
    found = await rows(storage.database, "select message_id, copies from dead_letter order by dead_letter_id")
    assert [row["message_id"] for row in found] == order
    assert [row["copies"] for row in found] == [1, 2, 1, 1]


async def test_a_replayed_letter_names_who_why_and_the_history_it_caused(storage: SqlStorage) -> None:
    number, saga_id, batch = await keep(storage), uuid4(), Batch()
    dead_letters.resolve(batch, number, status="replayed", actor="ada\x07", why="deployed 1.2", saga_id=saga_id, seq=7)
    dead_letters.record(
        batch,
        number,
        kind="replayed",
        actor="ada\x07",
        why="deployed 1.2",
        request_id="r-1",
        outcome="processed",
        detail="step_completed",
        saga_id=saga_id,
        seq=7,
    )
    await write(storage, batch)
    letter = await found(storage, number)
    assert letter is not None
    assert (letter.status, letter.saga_id, letter.replayed_seq) == ("replayed", saga_id, 7)
    assert letter.resolved_at is not None
    assert (letter.resolved_by, letter.resolved_why) == ("ada\\x07", "deployed 1.2")
    [event] = await rows(storage.database, "select * from dead_letter_event")
    assert event["at"] is not None
    assert {name: event[name] for name in ("dead_letter_id", "kind", "request_id", "outcome", "seq")} == {
        "dead_letter_id": number,
        "kind": "replayed",
        "request_id": "r-1",
        "outcome": "processed",
        "seq": 7,
    }


async def test_a_letter_is_resolved_once(storage: SqlStorage) -> None:
    number = await keep(storage)
    for status in ("discarded", "replayed"):
        batch = Batch()
        dead_letters.resolve(batch, number, status=status, actor="ada", why="a test order")
        if status == "discarded":
            await write(storage, batch)
        else:
            with pytest.raises(Trouble, match="changed by another"):
                await write(storage, batch)
    batch = Batch()
    dead_letters.fail(batch, number, reason="no_key", error_class="MissingKey", error="none", saga_id=None)
    with pytest.raises(Trouble, match="changed by another"):
        await write(storage, batch)
    letter = await found(storage, number)
    assert letter is not None
    assert (letter.status, letter.reason) == ("discarded", "malformed")


async def test_a_letter_that_fails_again_says_why_and_stays_open(storage: SqlStorage) -> None:
    number, batch = await keep(storage), Batch()
    dead_letters.fail(batch, number, reason="method_raised", error_class="KeyError", error="'total'", saga_id=uuid4())
    await write(storage, batch)
    letter = await found(storage, number)
    assert letter is not None
    assert (letter.status, letter.reason, letter.error_class, letter.error) == (
        "open",
        "method_raised",
        "KeyError",
        "'total'",
    )


async def test_a_copy_of_a_letter_that_was_dealt_with_opens_it_again(storage: SqlStorage) -> None:
    number, batch = await keep(storage), Batch()
    dead_letters.resolve(batch, number, status="replayed", actor="ada", why="deployed", saga_id=uuid4(), seq=3)
    await write(storage, batch)
    assert await keep(storage) == number
    letter = await found(storage, number)
    assert letter is not None
    assert (letter.status, letter.resolved_at, letter.resolved_by, letter.replayed_seq) == ("open", None, None, None)


async def test_a_locked_letter_is_decided_by_one_transaction_at_a_time(postgresql: Database) -> None:
    storage = SqlStorage(postgresql)
    number, seen = await keep(storage), []

    async def discard() -> None:
        async with storage.transaction() as unit:
            letter = await dead_letters.find(unit.session, number, lock=True)
            assert letter is not None
            seen.append(letter.status)
            batch = Batch()
            if letter.status == dead_letters.OPEN:
                dead_letters.resolve(batch, number, status="discarded", actor="ada", why="a test")
            await unit.save(Changes(consumer=CONSUMER), batch)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(discard())
    assert sorted(seen) == ["discarded"] * 4 + ["open"]
