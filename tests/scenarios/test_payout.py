"""Paying out a batch, told as whoever has to pay many would: who is paid, who is not, and what comes back."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from messages.catalog.payout import (
    MOST,
    BankBusy,
    BatchOrdered,
    BatchWithdrawn,
    CallBack,
    CalledBack,
    FreeTotal,
    FreeUnpaid,
    NoSuchAccount,
    NotEnoughMoney,
    Payout,
    ReserveTotal,
    SendReport,
    TotalFreed,
    TotalReserved,
    Transfer,
    Transferred,
    UnpaidFreed,
)
from messages.errors import OperationRefused
from sagas.catalog.payout import PayOut
from sagas.instance import CallStatus, Phase
from testkit import Harness

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from messages import Command, Event
    from testkit.harness import Sent

WITHDRAWN = BatchWithdrawn(batch_id="b-1", because="the wrong month")
BUSY = BankBusy(batch_id="b-1")
NOBODY = NoSuchAccount(batch_id="b-1")
PAID = Transferred(batch_id="b-1")
BACK = CalledBack(batch_id="b-1")
FREED = TotalFreed(batch_id="b-1")


def payout(number: int) -> Payout:
    return Payout(account=f"a-{number}", amount=Decimal(number + 1))


def total(numbers: Collection[int]) -> Decimal:
    return sum((payout(number).amount for number in numbers), Decimal(0))


def ordered(payouts: int) -> Harness:
    everybody = [payout(number) for number in range(payouts)]
    return Harness(PayOut).given(BatchOrdered(batch_id="b-1", payouts=everybody))


def reserved(payouts: int) -> Harness:
    return ordered(payouts).receives(TotalReserved(batch_id="b-1"))


def under_way(saga: Harness, kind: type[Command] = Transfer) -> list[Sent]:
    """The commands to items that nobody has answered yet, in any way."""
    latest = {one.path: one for one in saga.log if isinstance(one.command, kind)}
    calls = {path: (step.do if kind is Transfer else step.undo) for path, step in saga.instance.steps.items()}
    return [
        one
        for path, one in latest.items()
        if (call := calls.get(path)) is not None and call.status is CallStatus.PENDING
    ]


def answer(
    saga: Harness, reply: Callable[[int], Event], *, kind: type[Command] = Transfer, at_most: int = MOST
) -> Harness:
    """Answer what is under way until there is no more, or so many are answered."""
    while at_most and (asked := under_way(saga, kind)):
        for one in asked[:at_most]:
            saga.receives(reply(int(one.path[9:-1])), to=one)
            at_most -= 1
    return saga


def paying(*wrong: int) -> Callable[[int], Event]:
    return lambda number: NOBODY if number in wrong else PAID


def called_back(saga: Harness) -> list[str]:
    return [one.command.account for one in saga.log if isinstance(one.command, CallBack)]


@pytest.mark.parametrize("payouts", [0, MOST + 1])
def test_a_batch_has_one_payout_or_ten_thousand(payouts: int) -> None:
    with pytest.raises(ValidationError):
        BatchOrdered(batch_id="b-1", payouts=[payout(number) for number in range(payouts)])


@pytest.mark.parametrize("amount", ["0", "-1", "0.001", "1e11"])
def test_a_payout_is_a_sum_of_money(amount: str) -> None:
    with pytest.raises(ValidationError):
        Payout(account="a-1", amount=Decimal(amount))


def test_the_largest_payouts_of_the_longest_batch_can_be_reserved_and_booked() -> None:
    most = Payout(account="a-1", amount=Decimal("99999999999.99"))
    saga = Harness(PayOut).given(BatchOrdered(batch_id="b-1", payouts=[most] * MOST))
    assert saga.sent == [ReserveTotal(batch_id="b-1", total=Decimal("999999999999900.00"))]
    assert FreeUnpaid(batch_id="b-1", paid=Decimal("999999999999900.00"))


def test_the_total_is_reserved_before_anybody_is_paid() -> None:
    saga = ordered(3)
    assert saga.sent == [ReserveTotal(batch_id="b-1", total=Decimal(6))]
    assert saga.receives(TotalReserved(batch_id="b-1")).sent == [
        Transfer(batch_id="b-1", account=f"a-{number}", amount=Decimal(number + 1)) for number in range(3)
    ]


def test_without_the_money_nobody_is_paid_and_nothing_is_to_be_freed() -> None:
    saga = ordered(3).receives(NotEnoughMoney(batch_id="b-1"))
    assert (saga.sent, saga.status) == ([], "compensated")
    assert (saga.asks("progress")["stage"], saga.asks("progress")["because"]) == (
        "turned back",
        "there is not enough money",
    )


def test_fifty_are_under_way_at_a_time() -> None:
    saga = reserved(120)
    assert len(under_way(saga)) == 50
    answer(saga, paying(), at_most=30)
    assert len(under_way(saga)) == 50
    answer(saga, paying(), at_most=60)
    assert len(under_way(saga)) == 30


def test_everybody_is_paid_and_the_report_says_so() -> None:
    saga = answer(reserved(120), paying())
    assert saga.sent == [FreeUnpaid(batch_id="b-1", paid=total(range(120)))]
    saga.receives(UnpaidFreed(batch_id="b-1", freed=Decimal(0)))
    report = SendReport(batch_id="b-1", ordered=120, paid=120, amount=total(range(120)), refused=[])
    assert (saga.sent, saga.status) == ([report], "completed")


def test_who_has_no_account_is_not_paid_and_the_report_says_who() -> None:
    saga = answer(reserved(120), paying(7, 99))
    everybody_else = total(set(range(120)) - {7, 99})
    assert saga.sent == [FreeUnpaid(batch_id="b-1", paid=everybody_else)]
    saga.receives(UnpaidFreed(batch_id="b-1", freed=total({7, 99})))
    report = SendReport(batch_id="b-1", ordered=120, paid=118, amount=everybody_else, refused=[payout(7), payout(99)])
    assert (saga.sent, saga.status) == ([report], "completed")


@pytest.mark.parametrize(("payouts", "wrong"), [(1, 1), (49, 1), (100, 3)])
def test_when_more_than_two_in_a_hundred_are_wrong_the_whole_batch_is(payouts: int, wrong: int) -> None:
    saga = answer(reserved(payouts), paying(*range(wrong)))
    answer(saga, lambda _: BACK, kind=CallBack)
    assert saga.sent == [FreeTotal(batch_id="b-1")]
    saga.receives(FREED)
    assert (saga.status, saga.instance.end_reason) == ("compensated", "failed")
    assert len(called_back(saga)) == saga.asks("progress")["paid"] == saga.asks("progress")["called_back"]


def test_a_busy_bank_is_asked_again_and_the_others_do_not_wait_for_it() -> None:
    saga = reserved(60)
    [first, *_] = under_way(saga)
    answer(saga, lambda number: PAID if number else BUSY)
    assert saga.asks("progress")["paid"] == 59
    assert saga.advance(timedelta(seconds=10)).sent[-1] == first.command
    assert answer(saga, paying()).sent == [FreeUnpaid(batch_id="b-1", paid=total(range(60)))]


def test_a_bank_that_is_busy_for_an_hour_is_given_up_on_and_the_report_counts_it() -> None:
    saga = answer(reserved(60), lambda number: PAID if number else BUSY)
    for _ in range(60 * 6):
        answer(saga.advance(timedelta(seconds=10)), lambda _: BUSY)
    assert sum(one.path == "transfer[0]" for one in saga.log) == 12
    freeing = next(one for one in saga.log if isinstance(one.command, FreeUnpaid))
    assert freeing.command == FreeUnpaid(batch_id="b-1", paid=total(range(1, 60)))
    saga.receives(UnpaidFreed(batch_id="b-1", freed=Decimal(1)), to=freeing)
    [report] = saga.sent
    assert isinstance(report, SendReport)
    assert (report.ordered, report.paid, report.refused) == (60, 59, [])


def test_a_bank_that_says_nothing_is_asked_until_it_does_because_nobody_knows_whether_it_has_paid() -> None:
    saga = answer(reserved(60), paying(), at_most=59)
    [silent] = under_way(saga)
    saga.advance(timedelta(hours=12))
    assert (saga.status, called_back(saga)) == ("running", [])
    assert set(saga.sent) == {silent.command}
    assert "in_doubt" in saga.attention
    assert saga.receives(PAID, to=silent).sent == [FreeUnpaid(batch_id="b-1", paid=total(range(60)))]


def test_a_withdrawn_batch_calls_back_what_was_transferred_and_what_is_under_way_and_begins_no_more() -> None:
    saga = answer(reserved(200), paying(3), at_most=80).hears(WITHDRAWN)
    begun = [one.path for one in saga.log if isinstance(one.command, Transfer)]
    answer(saga, paying())
    answer(saga, lambda _: BACK, kind=CallBack)
    assert [one.path for one in saga.log if isinstance(one.command, Transfer)] == begun
    assert sorted(called_back(saga)) == sorted(f"a-{number}" for number in range(130) if number != 3)
    assert saga.sent == [FreeTotal(batch_id="b-1")]
    assert (saga.receives(FREED).status, saga.instance.end_reason) == ("compensated", "cancelled")
    assert saga.asks("progress") == {
        "stage": "turned back",
        "ordered": 200,
        "total": str(total(range(200))),
        "paid": 129,
        "amount": str(total(set(range(130)) - {3})),
        "refused": 1,
        "called_back": 129,
        "because": "the wrong month",
    }


def test_what_is_called_back_while_the_bank_is_busy_is_called_back_later() -> None:
    saga = answer(reserved(2), paying(), at_most=1).hears(WITHDRAWN)
    answer(saga, paying())
    [last, *_] = under_way(saga, CallBack)
    assert saga.receives(BUSY, to=last).advance(timedelta(seconds=2)).sent == [last.command]
    answer(saga, lambda _: BACK, kind=CallBack)
    assert saga.sent == [FreeTotal(batch_id="b-1")]


def test_a_withdrawal_comes_too_late_when_all_are_through() -> None:
    saga = answer(reserved(3), paying()).hears(WITHDRAWN)
    assert (saga.status, saga.reason, called_back(saga)) == ("running", "behind_the_pivot", [])
    with pytest.raises(OperationRefused):
        saga.operator("cancel")
    assert saga.receives(UnpaidFreed(batch_id="b-1", freed=Decimal(0))).status == "completed"


def test_two_days_are_enough_for_a_batch() -> None:
    saga = answer(reserved(50), paying(), at_most=49).advance(timedelta(days=2))
    assert saga.instance.phase is Phase.COMPENSATING
    answer(answer(saga, paying()), lambda _: BACK, kind=CallBack)
    assert saga.receives(FREED).instance.end_reason == "deadline"
    assert len(called_back(saga)) == 50


def test_a_bank_that_is_silent_for_too_many_turns_the_batch_back_and_is_asked_on() -> None:
    saga = answer(reserved(3), paying(), at_most=2).advance(timedelta(days=1))
    assert saga.instance.phase is Phase.COMPENSATING
    answer(answer(saga, paying()), lambda _: BACK, kind=CallBack)
    assert saga.receives(FREED).instance.end_reason == "timed_out"
    assert set(called_back(saga)) == {"a-0", "a-1", "a-2"}


def test_the_progress_can_be_asked_for_while_it_runs() -> None:
    saga = answer(reserved(200), paying(3), at_most=80)
    told = saga.asks("progress")
    assert (told["stage"], told["paid"], told["refused"], told["ordered"]) == ("paying", 79, 1, 200)
    assert saga.asks("everybody")[199] == {"account": "a-199", "amount": "200"}
