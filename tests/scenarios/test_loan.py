"""Approving a loan, told as a banker would: what is checked, who decides, what the applicant may still do, and until
when."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from messages.catalog.loan import (
    AmountReduced,
    ApplyRule,
    AskToDecide,
    CheckIdentity,
    CheckScore,
    CheckScoreElsewhere,
    CloseFile,
    ContractSigned,
    Declined,
    FileClosed,
    FileOpened,
    FrontOfficeApproved,
    FrontOfficeRefused,
    IdentityConfirmed,
    IdentityDoubted,
    LineReleased,
    LineReserved,
    LoanApproved,
    LoanPaidOut,
    LoanRefused,
    LoanRequested,
    LoanWithdrawn,
    OfferDeclined,
    OfferSent,
    OpenFile,
    PayOut,
    ReleaseLine,
    ReserveLine,
    RiskApproved,
    RiskRefused,
    RuleApproved,
    ScoreReported,
    SendOffer,
    SendPayoutNotice,
)
from messages.errors import OperationRefused
from sagas.catalog.loan import MIDDLE, SMALL, ApproveLoan
from testkit import Harness

if TYPE_CHECKING:
    from messages import Command, Event, Message

DAY = timedelta(days=1)
OPENED = FileOpened(loan_id="l-1")
SCORED = ScoreReported(loan_id="l-1", score=700)
CONFIRMED = IdentityConfirmed(loan_id="l-1")
BY_RULE = RuleApproved(loan_id="l-1", rule="pays usually")
APPROVED = LoanApproved(loan_id="l-1", by="Grace", comment="a good customer")
REFUSED = LoanRefused(loan_id="l-1", by="Grace", comment="too many loans already")
BY_FRONT_OFFICE = FrontOfficeApproved(loan_id="l-1", by="Bob")
BY_RISK = RiskApproved(loan_id="l-1", by="Eve")
RESERVED = LineReserved(loan_id="l-1")
OFFERED = OfferSent(loan_id="l-1")
SIGNED = ContractSigned(loan_id="l-1")
PAID = LoanPaidOut(loan_id="l-1")
WITHDRAWN = LoanWithdrawn(loan_id="l-1")

SMALL_SUM, MIDDLE_SUM, LARGE_SUM = Decimal(900), Decimal(20_000), Decimal(250_000)


def declined(because: str = "no") -> Declined:
    return Declined(loan_id="l-1", because=because)


def requested(amount: Decimal) -> Harness:
    return Harness(ApproveLoan).given(LoanRequested(loan_id="l-1", applicant="Ada", amount=amount))


def checked(amount: Decimal) -> Harness:
    return requested(amount).receives(OPENED).receives(SCORED).receives(CONFIRMED)


def offered(amount: Decimal = SMALL_SUM) -> Harness:
    return checked(amount).receives(BY_RULE).receives(RESERVED).receives(OFFERED)


def sent(saga: Harness) -> list[type[Message]]:
    return [type(each) for each in saga.sent]


def desks(saga: Harness) -> list[str]:
    return [each.whom for each in saga.sent if isinstance(each, AskToDecide)]


def closing(because: str) -> list[Command]:
    return [CloseFile(loan_id="l-1", because=because)]


@pytest.mark.parametrize("amount", ["0", "-900", "9.999", "1e30"])
def test_nobody_applies_for_what_is_no_sum_of_money(amount: str) -> None:
    with pytest.raises(ValidationError):
        LoanRequested(loan_id="l-1", applicant="Ada", amount=Decimal(amount))


def test_score_and_identity_are_checked_side_by_side() -> None:
    saga = requested(SMALL_SUM)
    assert sent(saga) == [OpenFile]
    assert sent(saga.receives(OPENED)) == [CheckScore, CheckIdentity]
    assert sent(saga.receives(CONFIRMED)) == []
    assert saga.receives(SCORED).sent == [ApplyRule(loan_id="l-1", amount=SMALL_SUM, score=700)]


def test_a_small_loan_is_decided_by_the_rule_and_paid_out_two_weeks_after_it_was_signed() -> None:
    saga = checked(SMALL_SUM).receives(BY_RULE)
    assert saga.sent == [ReserveLine(loan_id="l-1", amount=SMALL_SUM, decided_by=("pays usually",))]
    assert saga.receives(RESERVED).sent == [SendOffer(loan_id="l-1", applicant="Ada", amount=SMALL_SUM)]
    assert sent(saga.receives(OFFERED).hears(SIGNED).advance(14 * DAY - timedelta(seconds=1))) == []
    assert saga.advance(timedelta(seconds=1)).sent == [PayOut(loan_id="l-1", amount=SMALL_SUM)]
    saga.receives(PAID)
    told = SendPayoutNotice(loan_id="l-1", applicant="Ada", amount=SMALL_SUM)
    assert (saga.sent, saga.status) == ([told], "completed")


@pytest.mark.parametrize(
    ("amount", "answer"), [(SMALL, "small"), (SMALL + 1, "middle"), (MIDDLE, "middle"), (MIDDLE + 1, "large")]
)
def test_the_larger_the_sum_the_more_people_look_at_it(amount: Decimal, answer: str) -> None:
    assert checked(amount).instance.choices["size"] == answer


def test_the_other_bureau_is_asked_when_the_first_one_fails() -> None:
    saga = requested(SMALL_SUM).receives(OPENED).receives(CONFIRMED)
    assert sent(saga.receives(declined())) == [CheckScoreElsewhere]
    assert sent(saga.receives(SCORED)) == [ApplyRule]
    assert saga.state.score == 700


def test_the_other_bureau_is_asked_when_the_first_one_says_nothing() -> None:
    saga = requested(SMALL_SUM).receives(OPENED).receives(CONFIRMED).advance(timedelta(minutes=4))
    assert sent(saga)[-1] is CheckScoreElsewhere


@pytest.mark.parametrize(
    "replies",
    [
        (CONFIRMED, declined("closed"), declined("nobody knows her")),
        (SCORED, IdentityDoubted(loan_id="l-1", because="nobody knows her")),
        (SCORED, CONFIRMED, declined("nobody knows her")),
        (SCORED, CONFIRMED, BY_RULE, declined("nobody knows her")),
    ],
    ids=["no bureau has a score", "the identity is doubted", "the rule says no", "the treasury says no"],
)
def test_the_file_is_closed_with_the_reason_of_whoever_says_no(replies: tuple[Event, ...]) -> None:
    saga = requested(SMALL_SUM).receives(OPENED)
    for reply in replies:
        saga.receives(reply)
    assert saga.sent == closing("nobody knows her")
    saga.receives(FileClosed(loan_id="l-1", because="nobody knows her"))
    assert (saga.status, saga.asks("standing")["stage"]) == ("compensated", "closed")


def test_a_clerk_says_yes_to_a_middle_sum_and_the_history_says_who_and_why() -> None:
    saga = checked(MIDDLE_SUM).hears(APPROVED)
    assert saga.sent == [ReserveLine(loan_id="l-1", amount=MIDDLE_SUM, decided_by=("Grace",))]
    [decided] = [entry.detail for entry in saga.history if entry.kind == "event_received"]
    assert (decided["decided_by"], decided["because"]) == ("Grace", "a good customer")


def test_a_clerk_says_no_and_the_applicant_is_told_why() -> None:
    assert checked(MIDDLE_SUM).hears(REFUSED).sent == closing("too many loans already")


def test_the_clerk_is_asked_every_day_and_the_manager_after_three() -> None:
    saga = checked(MIDDLE_SUM)
    assert desks(saga.advance(timedelta(minutes=1))) == ["clerk"]
    assert desks(saga.advance(2 * DAY)) == ["clerk", "clerk"]
    assert desks(saga.advance(DAY)) == ["manager", "clerk"]
    assert sent(saga.hears(LoanApproved(loan_id="l-1", by="Mary, manager"))) == [ReserveLine]
    assert desks(saga.advance(7 * DAY)) == []


def test_a_week_without_an_answer_is_a_no() -> None:
    saga = checked(MIDDLE_SUM).advance(7 * DAY)
    assert saga.sent[-1:] == closing("it could not be concluded")
    assert "wait_timed_out" in saga.kinds
    saga.receives(FileClosed(loan_id="l-1", because="it could not be concluded"))
    assert (saga.status, saga.instance.end_reason) == ("compensated", "timed_out")
    assert saga.asks("standing")["because"] == "it could not be concluded"


def test_an_operator_gives_no_reason_and_the_letter_invents_none() -> None:
    saga = checked(MIDDLE_SUM).operator("cancel", reason="the wrong customer")
    assert saga.sent == closing("it could not be concluded")


@pytest.mark.parametrize("votes", [(BY_FRONT_OFFICE, BY_RISK), (BY_RISK, BY_FRONT_OFFICE)])
def test_a_large_sum_takes_two_in_whatever_order(votes: tuple[Event, Event]) -> None:
    saga = checked(LARGE_SUM)
    assert desks(saga.advance(timedelta(minutes=1))) == ["front office", "risk"]
    first, second = votes
    assert sent(saga.hears(first)) == []
    [reserve] = saga.hears(second).sent
    assert isinstance(reserve, ReserveLine)
    assert set(reserve.decided_by) == {"Bob", "Eve"}


def test_who_has_decided_is_not_asked_again_while_the_other_one_is() -> None:
    saga = checked(LARGE_SUM).hears(BY_FRONT_OFFICE)
    assert desks(saga.advance(2 * DAY)) == ["risk", "risk"]


@pytest.mark.parametrize(
    "refusal",
    [
        FrontOfficeRefused(loan_id="l-1", by="Bob", comment="too large"),
        RiskRefused(loan_id="l-1", by="Eve", comment="too large"),
    ],
)
def test_of_the_two_one_no_is_enough(refusal: Event) -> None:
    saga = checked(LARGE_SUM).hears(refusal)
    assert saga.sent == closing("too large")
    assert sent(saga.hears(BY_RISK).hears(BY_FRONT_OFFICE)) == []


def test_a_clerk_alone_does_not_decide_a_large_sum() -> None:
    saga = checked(LARGE_SUM).hears(APPROVED)
    assert (sent(saga), saga.reason) == ([], "not_awaited")


def test_less_is_possible_until_the_contract_is_signed_and_more_never() -> None:
    saga = offered()
    for amount, then in ((1000, 900), (700, 700), (800, 700)):
        saga.hears(AmountReduced(loan_id="l-1", amount=Decimal(amount)))
        assert saga.asks("standing") == {"stage": "offered", "amount": str(then), "because": None}
    saga.hears(SIGNED).hears(AmountReduced(loan_id="l-1", amount=Decimal(1)))
    assert saga.advance(14 * DAY).sent == [PayOut(loan_id="l-1", amount=Decimal(700))]


def test_a_reduced_sum_is_still_decided_by_those_who_had_it_on_their_desk() -> None:
    saga = checked(MIDDLE_SUM).hears(AmountReduced(loan_id="l-1", amount=Decimal(100)))
    [reminder] = saga.advance(timedelta(minutes=1)).sent
    assert reminder == AskToDecide(loan_id="l-1", whom="clerk", amount=Decimal(100), score=700)
    assert sent(saga.hears(APPROVED)) == [ReserveLine]


@pytest.mark.parametrize("signed", [False, True])
def test_the_applicant_may_withdraw_until_the_money_is_on_its_way(*, signed: bool) -> None:
    saga = offered()
    if signed:
        saga.hears(SIGNED).advance(13 * DAY)
    assert sent(saga.hears(WITHDRAWN)) == [ReleaseLine]
    assert saga.receives(LineReleased(loan_id="l-1")).sent == closing("the applicant has withdrawn")
    saga.receives(FileClosed(loan_id="l-1", because="the applicant has withdrawn"))
    assert (saga.status, saga.instance.end_reason) == ("compensated", "cancelled")


def test_a_withdrawal_after_that_comes_too_late() -> None:
    saga = offered().hears(SIGNED).advance(14 * DAY).hears(WITHDRAWN)
    assert (saga.status, saga.reason) == ("running", "behind_the_pivot")
    assert saga.receives(PAID).status == "completed"
    assert saga.asks("standing") == {"stage": "paid out", "amount": "900", "because": None}


@pytest.mark.parametrize(
    ("event", "because"),
    [
        (OfferDeclined(loan_id="l-1"), "the offer was turned down"),
        (None, "it could not be concluded"),
    ],
)
def test_an_offer_that_is_not_signed_frees_the_money_that_was_set_aside(event: Event | None, because: str) -> None:
    saga = offered()
    if event is None:
        saga.advance(30 * DAY)
    else:
        saga.hears(event)
    assert sent(saga) == [ReleaseLine]
    assert saga.receives(LineReleased(loan_id="l-1")).sent == closing(because)


def test_an_account_that_takes_no_money_turns_it_back_too() -> None:
    saga = offered().hears(SIGNED).advance(14 * DAY).receives(declined("the account is closed"))
    assert sent(saga) == [ReleaseLine]
    assert saga.receives(LineReleased(loan_id="l-1")).sent == closing("the account is closed")


def test_a_treasury_that_says_nothing_is_asked_until_it_does() -> None:
    saga = offered().hears(SIGNED).advance(14 * DAY + timedelta(hours=2))
    assert set(sent(saga)) == {PayOut}
    with pytest.raises(OperationRefused):
        saga.operator("cancel")
    assert saga.receives(PAID).status == "completed"
