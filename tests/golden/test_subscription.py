"""Version 1 of a subscription goes on as it began, in whatever state a release finds it, for years to come."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from messages.catalog.subscription import (
    AccessGranted,
    AccessLocked,
    AccessRefused,
    AccessUnlocked,
    AccessWithdrawn,
    Annulled,
    CardReplaced,
    ChargeDeclined,
    PeriodPaid,
    PlanChanged,
    Subscribed,
    Unsubscribed,
)
from sagas.catalog.subscription import BETWEEN_REMINDERS, KEPT_WHILE_SUSPENDED, PERIOD, TRIAL, Subscription
from testkit import Harness

if TYPE_CHECKING:
    from testkit import Golden

GRANTED, WITHDRAWN = AccessGranted(subscription_id="s-1"), AccessWithdrawn(subscription_id="s-1")
LOCKED, UNLOCKED = AccessLocked(subscription_id="s-1"), AccessUnlocked(subscription_id="s-1")
NO_MORE = Unsubscribed(subscription_id="s-1")


def requested() -> Harness:
    event = Subscribed(subscription_id="s-1", customer="Ada", plan="basic", price=Decimal("9.90"))
    return Harness(Subscription).given(event)


def active() -> Harness:
    return requested().receives(GRANTED).advance(TRIAL)


def paid(period: int) -> PeriodPaid:
    return PeriodPaid(subscription_id="s-1", period=period)


def declined(period: int) -> ChargeDeclined:
    return ChargeDeclined(subscription_id="s-1", period=period)


def suspended() -> Harness:
    story = active().hears(declined(1))
    for _ in range(4):
        story.advance(BETWEEN_REMINDERS)
    return story


def test_paid_until_the_customer_leaves(golden: Golden) -> None:
    story = active().hears(paid(1)).advance(PERIOD)
    story.hears(PlanChanged(subscription_id="s-1", plan="gold", price=Decimal(20))).hears(paid(2)).advance(PERIOD)
    assert story.hears(NO_MORE).receives(WITHDRAWN).status == "completed"
    golden.check(story, "Subscription-1/paid.json")


def test_a_plan_that_was_changed_before_the_trial_began(golden: Golden) -> None:
    story = requested().hears(PlanChanged(subscription_id="s-1", plan="gold", price=Decimal(20))).receives(GRANTED)
    assert story.hears(NO_MORE).receives(WITHDRAWN).status == "completed"
    golden.check(story, "Subscription-1/changed_early.json")


def test_not_let_in(golden: Golden) -> None:
    story = requested().receives(AccessRefused(subscription_id="s-1"))
    assert story.status == "compensated"
    golden.check(story, "Subscription-1/no_access.json")


def test_paid_late(golden: Golden) -> None:
    story = active().hears(declined(1)).advance(BETWEEN_REMINDERS).hears(paid(1)).hears(declined(1)).advance(PERIOD)
    assert story.hears(NO_MORE).receives(WITHDRAWN).status == "completed"
    golden.check(story, "Subscription-1/paid_late.json")


def test_suspended_and_let_in_again(golden: Golden) -> None:
    story = suspended().receives(LOCKED).hears(CardReplaced(subscription_id="s-1")).hears(paid(1))
    story.advance(timedelta(hours=1)).receives(UNLOCKED).advance(PERIOD)
    assert story.hears(NO_MORE).receives(WITHDRAWN).status == "completed"
    golden.check(story, "Subscription-1/let_in_again.json")


def test_suspended_and_given_up(golden: Golden) -> None:
    story = suspended().receives(LOCKED).advance(KEPT_WHILE_SUSPENDED).receives(WITHDRAWN)
    assert story.status == "completed"
    golden.check(story, "Subscription-1/given_up.json")


def test_a_payment_that_comes_while_the_door_is_being_locked(golden: Golden) -> None:
    story = suspended().hears(paid(1)).receives(LOCKED).receives(UNLOCKED).hears(NO_MORE)
    assert story.receives(WITHDRAWN).status == "completed"
    golden.check(story, "Subscription-1/paid_while_locked.json")


def test_annulled(golden: Golden) -> None:
    story = active().hears(paid(1)).hears(Annulled(subscription_id="s-1")).receives(WITHDRAWN)
    assert (story.status, story.instance.end_reason) == ("compensated", "cancelled")
    golden.check(story, "Subscription-1/annulled.json")
