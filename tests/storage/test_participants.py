from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from storage.participants import APPLIED, TOMBSTONE, Effect, HandledMessage, ParticipantRows, StoredReply
from tests.outbox.building import NOW, digest

if TYPE_CHECKING:
    from storage import Database, Session

REPLY = StoredReply(name="stock.StockReserved", version=2, body=b'{"a":"\xc3\xb6"}\x00', message_id="r-1")


def stock(session: Session, name: str = "stock") -> ParticipantRows:
    return ParticipantRows(session, name, NOW)


async def begin(database: Database, message_id: str = "m-1", key: str | None = "k-1") -> HandledMessage | None:
    async with database.write() as session:
        return await stock(session).begin_message(
            message_id=message_id, source="antiphon", body_hash=digest(b"{}"), idempotency_key=key
        )


async def test_a_repeated_command_finds_its_reply(database: Database) -> None:
    assert await begin(database) is None
    assert await begin(database, "m-2", None) is None
    async with database.write() as session:
        await stock(session).store_reply("m-1", REPLY)
    assert await begin(database) == HandledMessage(
        source="antiphon", body_hash=digest(b"{}"), idempotency_key="k-1", reply=REPLY
    )
    silent = await begin(database, "m-2")
    assert silent is not None
    assert silent.reply is None


async def test_participants_in_one_database_do_not_share_what_they_handled(database: Database) -> None:
    await begin(database)
    async with database.write() as session:
        payment = stock(session, "payment")
        assert await payment.begin_message(message_id="m-1", source="", body_hash=b"", idempotency_key=None) is None
        assert await payment.begin_effect("k-1") is None
        assert await stock(session).effect("k-1") is None


async def test_an_idempotency_key_is_applied_once_with_its_success(database: Database) -> None:
    async with database.write() as session:
        assert await stock(session).begin_effect("k-1") is None
        await stock(session).keep_effect("k-1", REPLY)
    async with database.write() as session:
        assert await stock(session).begin_effect("k-1") == Effect(status=APPLIED, reply=replace(REPLY, message_id=None))


async def test_an_effect_that_was_given_up_may_be_tried_again(database: Database) -> None:
    async with database.write() as session:
        await stock(session).begin_effect("k-1")
        await stock(session).drop_effect("k-1")
    async with database.write() as session:
        assert await stock(session).begin_effect("k-1") is None


async def test_an_undo_that_comes_first_leaves_a_tombstone(database: Database) -> None:
    async with database.write() as session:
        assert await stock(session).begin_effect("k-1", TOMBSTONE) is None
    async with database.write() as session:
        assert await stock(session).begin_effect("k-1") == Effect(status=TOMBSTONE, reply=None)


async def test_copies_at_once_are_handled_by_one(database: Database) -> None:
    async def handle(number: int) -> bool:
        async with database.write() as session:
            rows = stock(session)
            fresh = await rows.begin_message(
                message_id=f"m-{number % 3}", source="", body_hash=b"", idempotency_key="k"
            )
            return fresh is None and await rows.begin_effect("k") is None

    assert sum(await asyncio.gather(*(handle(number) for number in range(30)))) == 1
