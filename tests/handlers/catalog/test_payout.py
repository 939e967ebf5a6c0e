"""Cash pool, clearing and back office over each database: what they keep, what they refuse, and what they take back."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from handlers.catalog.payout import back_office, cash_pool, clearing
from messages.catalog.payout import (
    CallBack,
    FreeTotal,
    FreeUnpaid,
    Payout,
    ReserveTotal,
    SendReport,
    Transfer,
    UnpaidFreed,
)
from messages.codec import encode
from sagas import definition_of
from sagas.catalog.payout import PayOut
from tests.handlers.desk import Desk, asked, undo_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from handlers import Participant
    from messages import Command
    from outbox.unit import SqlStorage


@pytest.fixture
async def desk(storage: SqlStorage, request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    """One of the participants, at work on tables of its own."""
    participant: Participant = request.param
    async with storage.transaction() as unit:
        for table in ("cash_reserved", "payout_transfer", "payout_report"):
            await unit.session.connection.execute(text(f"drop table if exists {table}"))
    desk = await Desk(participant, storage).open()
    yield desk
    await desk.close()


at_the_pool = pytest.mark.parametrize("desk", [cash_pool], indirect=True, ids=["cash-pool"])
at_the_bank = pytest.mark.parametrize("desk", [clearing], indirect=True, ids=["clearing"])
in_the_office = pytest.mark.parametrize("desk", [back_office], indirect=True, ids=["back-office"])

TOTAL = ReserveTotal(batch_id="b-1", total=Decimal("900.00"))


def transfer(account: str) -> Transfer:
    return Transfer(batch_id="b-1", account=account, amount=Decimal("9.90"))


def call_back(account: str) -> CallBack:
    return CallBack(batch_id="b-1", account=account, amount=Decimal("9.90"))


async def names(desk: Desk, replies: int) -> list[str | None]:
    return [delivery.raw.type for delivery in await desk.replies(replies)]


def test_each_command_of_the_saga_is_taken_and_answered_with_what_the_saga_understands() -> None:
    taken = {
        name: handler for each in (back_office, cash_pool, clearing) for (name, _), handler in each.handlers.items()
    }
    definition = definition_of(PayOut)
    assert taken.keys() == definition.commands.keys()
    for step in definition.steps.values():
        for call in (step.do, step.undo) if step.undo else (step.do,):
            replies = {reply.message_name for reply in taken[call.command.message_name].replies if reply is not None}
            assert replies == call.replies.keys()


@at_the_pool
async def test_the_total_is_set_aside_once_and_freed_by_whoever_set_it_aside(desk: Desk) -> None:
    other = ReserveTotal(batch_id="b-2", total=Decimal(1))
    await desk.take(asked(TOTAL), asked(TOTAL), asked(other, key="t/1/do"))
    rows = await desk.rows("select batch_id, cents, booked from cash_reserved order by batch_id")
    assert [(row.batch_id, row.cents, row.booked) for row in rows] == [("b-1", 90_000, None), ("b-2", 100, None)]
    await desk.take(undo_of(FreeTotal(batch_id="b-1")), undo_of(FreeTotal(batch_id="b-1")))
    assert [row.batch_id for row in await desk.rows("select batch_id from cash_reserved")] == ["b-2"]


@at_the_pool
async def test_without_money_nothing_is_set_aside(desk: Desk) -> None:
    await desk.take(asked(ReserveTotal(batch_id="no-money", total=Decimal(1))))
    assert await names(desk, 1) == ["payout.NotEnoughMoney"]
    assert not await desk.rows("select * from cash_reserved")


@at_the_pool
async def test_what_was_paid_is_booked_once_and_the_rest_is_free(desk: Desk) -> None:
    await desk.take(asked(TOTAL))
    await desk.replies(1)
    book = asked(FreeUnpaid(batch_id="b-1", paid=Decimal("890.10")), key="s/2/do")
    await desk.take(book, book)
    assert (await desk.reply()).body == encode(UnpaidFreed(batch_id="b-1", freed=Decimal("9.90")))
    [row] = await desk.rows("select cents, booked from cash_reserved")
    assert (row.cents, row.booked) == (90_000, 89_010)


@at_the_pool
async def test_books_that_do_not_add_up_are_for_a_person_to_look_at(desk: Desk) -> None:
    await desk.take(asked(TOTAL))
    await desk.take(asked(FreeUnpaid(batch_id="b-1", paid=Decimal("900.01")), key="s/2/do", message_id="too-much"))
    assert [letter[0] for letter in await desk.dead()] == ["too-much"]
    [row] = await desk.rows("select booked from cash_reserved")
    assert row.booked is None


@at_the_bank
async def test_a_payout_is_transferred_once_and_the_row_stays_when_it_is_called_back(desk: Desk) -> None:
    await desk.take(asked(transfer("a-1")), asked(transfer("a-1")), asked(transfer("a-2"), key="s/2/do"))
    await desk.take(undo_of(call_back("a-1")), undo_of(call_back("a-1")))
    rows = await desk.rows("select account, cents, status from payout_transfer order by account")
    assert [tuple(row) for row in rows] == [("a-1", 990, "called back"), ("a-2", 990, "transferred")]


@at_the_bank
async def test_to_no_account_nothing_is_transferred(desk: Desk) -> None:
    await desk.take(asked(transfer("closed-1")))
    assert await names(desk, 1) == ["payout.NoSuchAccount"]
    assert not await desk.rows("select * from payout_transfer")


@at_the_bank
async def test_a_busy_bank_has_time_at_the_second_attempt_for_either(desk: Desk) -> None:
    there: list[Command] = [transfer("busy-1"), transfer("busy-1")]
    await desk.take(*(asked(command) for command in there))
    assert await names(desk, 2) == ["payout.BankBusy", "payout.Transferred"]
    await desk.take(undo_of(call_back("busy-1")), undo_of(call_back("busy-1")))
    assert await names(desk, 2) == ["payout.BankBusy", "payout.CalledBack"]


@in_the_office
async def test_the_report_names_who_was_refused_and_counts_who_was_given_up(desk: Desk) -> None:
    nobody = Payout(account="closed-1", amount=Decimal("9.90"))
    report = SendReport(batch_id="b-1", ordered=9, paid=6, amount=Decimal("59.40"), refused=[nobody, nobody])
    await desk.take(asked(report), asked(report))
    [row] = await desk.rows("select report from payout_report")
    assert row.report.splitlines() == [
        "6 of 9 paid, 59.40 in all",
        "no such account: closed-1, 9.90",
        "no such account: closed-1, 9.90",
        "given up: 1",
    ]
