"""The hand-written services keep the promises they are compared on, or their figures would be worth nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from bench import by_hand_asyncpg, by_hand_orm, wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bench.by_hand import Books

REPLY = {
    name: wire.encode({"order_id": "order-1", field: f"{participant}-1"})
    for participant, (name, field) in wire.REPLY_OF.items()
}


@pytest.fixture(params=[by_hand_asyncpg, by_hand_orm], ids=["asyncpg", "orm"])
async def books(request: pytest.FixtureRequest, fresh_database: Callable[[], str]) -> AsyncIterator[Books]:
    async with request.param.open_books(fresh_database()) as opened:
        yield opened


async def place(books: Books) -> None:
    assert await books.place("placed-1", "order-1", wire.order_placed("order-1"))


async def test_an_order_goes_from_command_to_command_until_it_is_done(books: Books) -> None:
    commands = [await books.place("placed-1", "order-1", wire.order_placed("order-1"))]
    for number, reply in enumerate((wire.STOCK_RESERVED, wire.PAYMENT_COMPLETED, wire.LABEL_CREATED)):
        commands.append(await books.advance(f"reply-{number}", "order-1", reply, REPLY[reply]))
    assert [one and one.name for one in commands] == [wire.RESERVE_STOCK, wire.MAKE_PAYMENT, wire.CREATE_LABEL, None]
    assert b'"amount":"60.40"' in (commands[1].body if commands[1] else b"")


async def test_what_is_sent_stands_in_the_outbox_until_it_is_forgotten(books: Books) -> None:
    first = await books.place("placed-1", "order-1", wire.order_placed("order-1"))
    assert first is not None
    assert list(await books.unsent()) == [first]
    await books.forget([first.message_id])
    assert list(await books.unsent()) == []


async def test_a_message_that_comes_again_has_no_second_effect(books: Books) -> None:
    await place(books)
    assert await books.place("placed-1", "order-1", wire.order_placed("order-1")) is None
    reply = wire.STOCK_RESERVED
    assert await books.advance("reply-1", "order-1", reply, REPLY[reply]) is not None
    assert await books.advance("reply-1", "order-1", reply, REPLY[reply]) is None
    assert [one.name for one in await books.unsent()] == [wire.RESERVE_STOCK, wire.MAKE_PAYMENT]


async def test_ten_copies_of_a_message_at_once_have_one_effect(books: Books) -> None:
    await place(books)
    reply = wire.STOCK_RESERVED
    copies = await asyncio.gather(*(books.advance("reply-1", "order-1", reply, REPLY[reply]) for _ in range(10)))
    assert sum(one is not None for one in copies) == 1
    assert [one.name for one in await books.unsent()] == [wire.RESERVE_STOCK, wire.MAKE_PAYMENT]


async def test_a_reply_to_nobody_changes_nothing(books: Books) -> None:
    assert await books.advance("reply-1", "order-9", wire.STOCK_RESERVED, REPLY[wire.STOCK_RESERVED]) is None
    assert list(await books.unsent()) == []
