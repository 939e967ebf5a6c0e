"""A subscription, told as its customer would: tried, paid for years, declined, locked out, let in again, left."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from messages.catalog.subscription import (
    AccessGranted,
    AccessLocked,
    AccessRefused,
    AccessUnlocked,
    AccessWithdrawn,
    Annulled,
    CardReplaced,
    ChargeDeclined,
    ChargePeriod,
    GrantAccess,
    LockAccess,
    PeriodPaid,
    PlanChanged,
    SendNotice,
    Subscribed,
    UnlockAccess,
    Unsubscribed,
    WithdrawAccess,
)
from sagas.catalog.subscription import BETWEEN_REMINDERS, KEPT_WHILE_SUSPENDED, PERIOD, TRIAL, Standing, Subscription
from sagas.instance import pack_progress
from sagas.names import step_name
from testkit import Harness

if TYPE_CHECKING:
    from collections.abc import Callable

GRANTED, WITHDRAWN = AccessGranted(subscription_id="s-1"), AccessWithdrawn(subscription_id="s-1")
LOCKED, UNLOCKED = AccessLocked(subscription_id="s-1"), AccessUnlocked(subscription_id="s-1")
ANOTHER_CARD = CardReplaced(subscription_id="s-1")
NO_MORE = Unsubscribed(subscription_id="s-1")
PARTED = SendNotice(subscription_id="s-1", customer="Ada", text="Your subscription of basic has ended.")
TEN_YEARS = timedelta(days=3650)


def requested() -> Harness:
    event = Subscribed(subscription_id="s-1", customer="Ada", plan="basic", price=Decimal("9.90"))
    return Harness(Subscription).given(event)


def tried() -> Harness:
    return requested().receives(GRANTED)


def active() -> Harness:
    """The first period has begun, and billing has not said anything yet."""
    return tried().advance(TRIAL)


def past_due() -> Harness:
    return active().hears(declined(1))


def suspended() -> Harness:
    saga = past_due()
    for _ in range(4):
        saga.advance(BETWEEN_REMINDERS)
    return saga.receives(LOCKED)


def paid(period: int) -> PeriodPaid:
    return PeriodPaid(subscription_id="s-1", period=period)


def declined(period: int) -> ChargeDeclined:
    return ChargeDeclined(subscription_id="s-1", period=period)


def charge(period: int, amount: str = "9.90") -> ChargePeriod:
    return ChargePeriod(subscription_id="s-1", period=period, amount=Decimal(amount))


def reminder(period: int) -> SendNotice:
    text = f"Period {period} of basic is not paid. Please give us another card."
    return SendNotice(subscription_id="s-1", customer="Ada", text=text)


def standing(saga: Harness) -> str:
    return saga.instance.choices["lifecycle"]


def test_a_trial_costs_nothing_and_then_the_first_period_is_charged() -> None:
    assert requested().sent == [GrantAccess(subscription_id="s-1", customer="Ada")]
    saga = tried()
    assert (standing(saga), saga.sent) == (Standing.TRIAL, [])
    assert saga.advance(TRIAL).sent == [charge(1)]
    assert standing(saga) == Standing.ACTIVE


def test_who_is_not_let_in_is_never_charged() -> None:
    saga = requested().receives(AccessRefused(subscription_id="s-1"))
    assert (saga.status, saga.instance.end_reason, saga.sent) == ("compensated", "failed", [])


def test_period_after_period_is_charged_when_the_one_before_is_paid() -> None:
    saga = active().hears(paid(1))
    assert saga.advance(PERIOD - timedelta(seconds=1)).sent == []
    assert saga.advance(timedelta(seconds=1)).sent == [charge(2)]
    assert saga.hears(paid(2)).advance(PERIOD).sent == [charge(3)]


def test_a_plan_that_is_changed_costs_another_price_from_the_next_period_on() -> None:
    saga = active().hears(paid(1)).hears(PlanChanged(subscription_id="s-1", plan="gold", price=Decimal(20)))
    assert (standing(saga), saga.sent) == (Standing.ACTIVE, [])
    assert saga.asks("account") == {"plan": "gold", "price": "20", "period": 1, "paid": 1}
    assert saga.advance(PERIOD).sent == [charge(2, "20")]


def test_a_card_that_is_declined_is_tried_again_with_each_reminder() -> None:
    saga = past_due()
    assert (standing(saga), saga.sent) == (Standing.PAST_DUE, [reminder(1)])
    for _ in range(3):
        assert saga.advance(BETWEEN_REMINDERS).sent == [reminder(1), charge(1)]
    assert saga.advance(BETWEEN_REMINDERS).sent == [LockAccess(subscription_id="s-1")]
    assert standing(saga) == Standing.SUSPENDED


def test_what_is_paid_late_is_charged_once_and_the_next_period_begins_when_it_was_paid() -> None:
    saga = past_due().advance(BETWEEN_REMINDERS).hears(paid(1))
    assert (standing(saga), saga.sent) == (Standing.ACTIVE, [])
    assert saga.advance(PERIOD).sent == [charge(2)]


def test_who_pays_when_the_door_is_locked_is_let_in_again() -> None:
    saga = suspended().hears(ANOTHER_CARD)
    assert (standing(saga), saga.sent) == (Standing.PAST_DUE, [reminder(1), charge(1)])
    assert saga.hears(paid(1)).sent == [UnlockAccess(subscription_id="s-1")]
    saga.receives(UNLOCKED)
    assert (standing(saga), saga.sent) == (Standing.ACTIVE, [])
    assert saga.advance(PERIOD).sent == [charge(2)]


def test_another_card_begins_the_reminders_anew() -> None:
    saga = past_due().advance(BETWEEN_REMINDERS).advance(BETWEEN_REMINDERS).hears(ANOTHER_CARD)
    assert saga.sent == [reminder(1), charge(1)]
    assert saga.advance(BETWEEN_REMINDERS).advance(BETWEEN_REMINDERS).sent == [reminder(1), charge(1)]
    assert saga.advance(BETWEEN_REMINDERS).sent == [LockAccess(subscription_id="s-1")]


def test_billing_that_says_nothing_for_a_whole_period_is_asked_again_about_the_same_one() -> None:
    saga = active().advance(PERIOD)
    assert (standing(saga), saga.sent) == (Standing.PAST_DUE, [reminder(1), charge(1)])


@pytest.mark.parametrize("period", [0, 2])
def test_what_is_said_of_another_period_changes_nothing(period: int) -> None:
    saga = active().hears(paid(1)).advance(PERIOD).hears(paid(2)).advance(PERIOD)
    assert standing(saga.hears(declined(period))) == Standing.ACTIVE
    saga.hears(declined(3)).hears(paid(period))
    assert standing(saga) == Standing.PAST_DUE


def test_a_decline_that_is_told_after_the_payment_changes_nothing() -> None:
    saga = active().hears(paid(1)).hears(declined(1))
    assert (standing(saga), saga.sent) == (Standing.ACTIVE, [])


def test_a_payment_that_comes_while_the_door_is_being_locked_is_kept_and_opens_it_again() -> None:
    saga = past_due()
    for _ in range(4):
        saga.advance(BETWEEN_REMINDERS)
    assert saga.hears(paid(1)).sent == []
    assert saga.receives(LOCKED).sent == [UnlockAccess(subscription_id="s-1")]


def test_a_door_that_is_out_of_order_for_a_month_ends_nothing() -> None:
    saga = suspended().hears(paid(1)).advance(timedelta(days=30))
    assert (saga.status, standing(saga)) == ("running", Standing.ACTIVE)
    assert set(map(type, saga.sent)) == {UnlockAccess}
    saga.receives(UNLOCKED)
    assert saga.instance.waiting_for == (
        "billing.ChargeDeclined or billing.PeriodPaid or subscription.PlanChanged or subscription.Unsubscribed "
        "(state active)"
    )


@pytest.mark.parametrize("come_to", [tried, active, past_due, suspended])
def test_whoever_wants_no_more_of_it_is_let_go_from_wherever_it_stands(
    come_to: Callable[[], Harness],
) -> None:
    saga = come_to()
    assert saga.hears(NO_MORE).sent == [WithdrawAccess(subscription_id="s-1")]
    assert saga.receives(WITHDRAWN).sent == [PARTED]
    assert (saga.status, standing(saga)) == ("completed", Standing.ENDED)


def test_whoever_stays_suspended_is_let_go_too() -> None:
    assert suspended().advance(KEPT_WHILE_SUSPENDED).sent == [WithdrawAccess(subscription_id="s-1")]


@pytest.mark.parametrize("come_to", [tried, active, past_due, suspended])
def test_what_is_annulled_is_taken_back_and_nobody_is_written_to(come_to: Callable[[], Harness]) -> None:
    saga = come_to()
    saga.hears(Annulled(subscription_id="s-1"))
    assert (saga.sent, saga.instance.end_reason) == ([WithdrawAccess(subscription_id="s-1")], "cancelled")
    assert (saga.receives(WITHDRAWN).status, saga.sent) == ("compensated", [])


def test_for_ten_years_every_period_is_charged_once_and_the_row_does_not_grow() -> None:
    saga, sizes, period = active(), list[int](), 1
    ends = saga.now + TEN_YEARS
    while saga.now < ends:
        if period % 5 == 0:
            saga.hears(declined(period)).advance(BETWEEN_REMINDERS)
        saga.hears(paid(period))
        sizes.append(len(pack_progress(saga.instance)) + len(saga.instance.state))
        saga.advance(PERIOD)
        period += 1
    assert charged(saga, "charge") == list(range(1, period + 1))
    assert charged(saga, "charge_again") == list(range(5, period, 5))
    assert period > 115
    assert max(sizes) - sizes[0] < 24  # digits of its numbers


def charged(saga: Harness, step: str) -> list[int]:
    """The periods for which a step has asked, in their order."""
    asked = [each.command for each in saga.log if step_name(each.path) == step]
    return [each.period for each in asked if isinstance(each, ChargePeriod)]
