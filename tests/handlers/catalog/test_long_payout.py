"""Thousands of payouts over PostgreSQL: the last fifty cost what the first fifty did, and the row stays small."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from messages.catalog.payout import (
    BatchOrdered,
    NoSuchAccount,
    Payout,
    TotalReserved,
    Transferred,
    UnpaidFreed,
)
from sagas import definition_of
from sagas.catalog.payout import PayOut
from tests.handlers.house import House, dead, rows
from tests.storage.databases import ASYNCPG

if TYPE_CHECKING:
    from messages import Raw
    from outbox.unit import SqlStorage
    from tests.storage.databases import Counter

MANY, WRONG = 3_000, 30
STATEMENTS = 3
"""Of each batch: the instance is read, then those items of its list that are needed, and all is saved."""

A_REFUSED = 70
"""Bytes that an account which does not exist takes in the state, at most."""

_BYTES = "select octet_length(state) + octet_length(progress) as bytes from saga"


async def _replies(house: House) -> list[Raw]:
    """To everything that is under way; one account in a hundred does not exist."""
    items = [path for path in (await house.instance("b-1")).steps if path.startswith("transfer[")]
    return [house.answer("b-1", _reply(int(path[9:-1])), path) for path in items]


def _reply(number: int) -> Transferred | NoSuchAccount:
    return Transferred(batch_id="b-1") if number % 100 else NoSuchAccount(batch_id="b-1")


@pytest.mark.parametrize("database", [ASYNCPG], indirect=True)
async def test_each_fifty_of_thousands_are_paid_by_as_many_statements_and_the_row_grows_by_the_refused_alone(
    storage: SqlStorage, counter: Counter
) -> None:
    house = await House(storage, definition_of(PayOut)).open()
    everybody = [Payout(account=f"DE{number:020d}", amount=Decimal("10.50")) for number in range(MANY)]
    await house.take(house.message(BatchOrdered(batch_id="b-1", payouts=everybody)))
    await house.take(house.answer("b-1", TotalReserved(batch_id="b-1"), "reserve"))
    statements, sizes = [], []
    while replies := await _replies(house):
        counter.reset()
        await house.take(*replies)
        statements.append(len(counter.statements))
        [row] = await rows(storage, _BYTES)
        sizes.append(row.bytes)
    assert statements == [STATEMENTS] * (MANY // 50)
    assert max(sizes) < 6_000 + A_REFUSED * WRONG
    await house.take(house.answer("b-1", UnpaidFreed(batch_id="b-1", freed=Decimal("10.50") * WRONG), "free_unpaid"))
    after = await house.instance("b-1")
    told = json.loads(after.state)
    assert (after.phase, told["paid"], len(told["refused"])) == ("completed", MANY - WRONG, WRONG)
    assert Decimal(told["amount"]) == Decimal("10.50") * (MANY - WRONG)
    assert await dead(storage) == []
