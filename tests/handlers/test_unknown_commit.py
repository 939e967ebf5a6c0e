"""A commit whose answer is lost: nothing is acknowledged or published on the strength of it, and the next try knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import pytest

from handlers.handle import Attempt
from messages.catalog.ordering import StockReserved
from messages.errors import CommitUnknown
from tests.handlers.house import House, kinds, outbox, placed
from tests.handlers.lossy import Lossy

if TYPE_CHECKING:
    from outbox.unit import SqlStorage

When = Literal["after", "instead"]
RESERVED = StockReserved(order_id="o-1", reservation_id="r-1")


@pytest.mark.parametrize("when", ["after", "instead"])
async def test_a_batch_runs_again_under_its_token_and_has_one_effect(storage: SqlStorage, when: When) -> None:
    lossy = Lossy(storage)
    house = await House(lossy).open()
    batch = house.decoded([house.message(placed()), house.answer("o-1", RESERVED, "reserve")])
    attempt = Attempt(token=uuid4())
    lossy.lose(when)
    with pytest.raises(CommitUnknown):
        await house.handler.handle(batch, attempt)
    first = attempt.prepared
    again = await house.handler.handle(batch, attempt)
    assert first is not None
    assert (again.facts is first.facts) == (when == "after")
    assert [row.outgoing.envelope.name for row in again.claimed] == ["stock.ReserveStock", "payment.MakePayment"]
    assert (await kinds(storage, house.id_of("o-1"))).count("started") == 1
    assert len(await outbox(storage)) == 2


async def test_another_batch_does_not_mistake_it_for_its_own(storage: SqlStorage) -> None:
    lossy = Lossy(storage)
    house = await House(lossy).open()
    batch = house.decoded([house.message(placed())])
    lossy.lose("after")
    with pytest.raises(CommitUnknown):
        await house.handler.handle(batch, Attempt(token=uuid4()))
    prepared = await house.handler.handle(batch, Attempt(token=uuid4()))
    assert not prepared.claimed
    assert [type(fact).__name__ for fact in prepared.facts] == ["MessageDuplicated"]


async def test_confirms_that_were_to_be_deleted_with_it_are_deleted_later(storage: SqlStorage) -> None:
    lossy = Lossy(storage)
    house = await House(lossy).open()
    prepared = await house.take(house.message(placed()))
    house.relay.give_back([(row.outbox_id, row.token) for row in prepared.claimed])
    lossy.lose("instead")
    batch = house.decoded([house.answer("o-1", RESERVED, "reserve")])
    attempt = Attempt(token=uuid4())
    with pytest.raises(CommitUnknown):
        await house.handler.handle(batch, attempt)
    await house.handler.handle(batch, attempt)
    assert [name for name, _ in await outbox(storage)] == ["payment.MakePayment"]
