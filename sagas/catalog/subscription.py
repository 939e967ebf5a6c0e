"""A subscription: a trial, then period after period for years, until somebody does not pay or wants no more of it.

It is no line but a lifecycle. Billing is asked for the money of a period and nothing waits for its answer: whether the
card was charged or declined is an event like any other, and leads from state to state whenever it comes.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Literal, Self

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
from sagas import Retry, Saga, cancel, decision, lifecycle, on, query, start, step, when

TRIAL, PERIOD = timedelta(days=14), timedelta(days=30)
BETWEEN_REMINDERS, REMINDERS = timedelta(days=7), 3
KEPT_WHILE_SUSPENDED = timedelta(days=60)

PATIENT = Retry(attempts=200, cap=timedelta(hours=6))
"""A door that is out of order for a month must not end what has lasted for years."""


class Standing(StrEnum):
    """How a subscription stands."""

    TRIAL = "trial"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    SUSPENDED = "suspended"
    ENDED = "ended"


class Subscription(Saga, key="subscription_id", version=1, deadline=timedelta(days=36_500)):
    """One subscription of one customer. A period begins when the subscription becomes active, or goes on to be."""

    subscription_id: str
    customer: str
    plan: str
    price: Decimal
    period: int = 0
    paid: int = 0
    reminders: int = 0
    locked: bool = False

    @start
    def subscribed(cls, event: Subscribed) -> Self:
        """It begins with a trial."""
        return cls(subscription_id=event.subscription_id, customer=event.customer, plan=event.plan, price=event.price)

    # -- from state to state

    @on(Standing.TRIAL, after=TRIAL)
    def trial_is_over(self) -> Literal[Standing.ACTIVE]:
        """Now it costs something."""
        self.period = 1
        return Standing.ACTIVE

    @on(Standing.ACTIVE, after=PERIOD)
    def renewed(self) -> Literal[Standing.ACTIVE, Standing.PAST_DUE]:
        """Another period, unless billing has never said what became of this one."""
        if self._is_owing():
            self.reminders = 1
            return Standing.PAST_DUE
        self.period += 1
        return Standing.ACTIVE

    @on(Standing.ACTIVE, elsewhere="ignore")
    def declined(self, event: ChargeDeclined) -> Literal[Standing.PAST_DUE] | None:
        """This period is not paid; what is said of another is old."""
        if event.period != self.period or not self._is_owing():
            return None
        self.reminders = 0
        return Standing.PAST_DUE

    @on(Standing.PAST_DUE, after=BETWEEN_REMINDERS)
    def still_owing(self) -> Literal[Standing.PAST_DUE, Standing.SUSPENDED]:
        """A reminder, and another, each with another try; then the door is locked."""
        if self.reminders == REMINDERS:
            return Standing.SUSPENDED
        self.reminders += 1
        return Standing.PAST_DUE

    @on(Standing.PAST_DUE, Standing.SUSPENDED, elsewhere="ignore")
    def card_replaced(self, event: CardReplaced) -> Literal[Standing.PAST_DUE]:
        """Another card, another try; what is locked stays locked until it is paid."""
        self.reminders = 1
        return Standing.PAST_DUE

    @on(Standing.ACTIVE, elsewhere="ignore")
    def paid_in_time(self, event: PeriodPaid) -> None:
        """As it should be."""
        self.paid = max(self.paid, event.period)

    @on(Standing.PAST_DUE, Standing.SUSPENDED)
    def paid_late(self, event: PeriodPaid) -> Literal[Standing.ACTIVE] | None:
        """All is well again, if it is this period that is paid."""
        self.paid = max(self.paid, event.period)
        return None if self._is_owing() else Standing.ACTIVE

    @on(Standing.TRIAL, Standing.ACTIVE, Standing.PAST_DUE, Standing.SUSPENDED)
    def plan_changed(self, event: PlanChanged) -> None:
        """Another plan; what was asked for already stays as it was asked."""
        self.plan, self.price = event.plan, event.price

    @on(Standing.SUSPENDED, after=KEPT_WHILE_SUSPENDED)
    def given_up(self) -> Literal[Standing.ENDED]:
        """Nothing more will come."""
        return Standing.ENDED

    @on(Standing.TRIAL, Standing.ACTIVE, Standing.PAST_DUE, Standing.SUSPENDED)
    def unsubscribed(self, event: Unsubscribed) -> Literal[Standing.ENDED]:
        """At once, whatever was paid."""
        return Standing.ENDED

    @cancel
    def annulled(self, event: Annulled) -> None:
        """Access is withdrawn, and nobody writes a letter."""

    @query
    def account(self) -> dict[str, str | int]:
        """The plan, the period that it is in, and the last one that was paid."""
        return {"plan": self.plan, "price": str(self.price), "period": self.period, "paid": self.paid}

    def _is_owing(self) -> bool:
        return self.paid < self.period

    # -- what is done

    @step(success=AccessGranted, failure=AccessRefused, retry=PATIENT)
    def grant(self) -> GrantAccess:
        """Let the customer in."""
        return GrantAccess(subscription_id=self.subscription_id, customer=self.customer)

    @grant.compensation(success=AccessWithdrawn)
    def withdraw(self) -> WithdrawAccess:
        """Or not."""
        return WithdrawAccess(subscription_id=self.subscription_id)

    @decision
    def is_locked(self) -> bool:
        """The door was locked while nobody paid."""
        return self.locked

    @step(retry=PATIENT)
    def unlock(self) -> UnlockAccess:
        """It is paid: let the customer in again."""
        return UnlockAccess(subscription_id=self.subscription_id)

    @unlock.on_success
    def unlocked(self, reply: AccessUnlocked) -> None:
        """The door is open."""
        self.locked = False

    @decision
    def owes(self) -> bool:
        """The period is to be paid, and was not paid late."""
        return self._is_owing()

    @step(reply=False)
    def charge(self) -> ChargePeriod:
        """Ask for the money. What became of it is told by an event."""
        return ChargePeriod(subscription_id=self.subscription_id, period=self.period, amount=self.price)

    @step(reply=False)
    def remind(self) -> SendNotice:
        """Say that it is not paid."""
        return self._notice(f"Period {self.period} of {self.plan} is not paid. Please give us another card.")

    @decision
    def is_worth_a_try(self) -> bool:
        """It was not just now that the card was declined."""
        return self.reminders > 0

    @step(reply=False)
    def charge_again(self) -> ChargePeriod:
        """Perhaps it works now; billing charges no period twice."""
        return self.charge()

    @step(retry=PATIENT)
    def lock(self) -> LockAccess:
        """Nobody pays: let the customer in no more."""
        return LockAccess(subscription_id=self.subscription_id)

    @lock.on_success
    def was_locked(self, reply: AccessLocked) -> None:
        """The door is locked."""
        self.locked = True

    @step(success=AccessWithdrawn, retry=PATIENT)
    def close(self) -> WithdrawAccess:
        """It is over."""
        return WithdrawAccess(subscription_id=self.subscription_id)

    @step(reply=False)
    def part(self) -> SendNotice:
        """Say goodbye."""
        return self._notice(f"Your subscription of {self.plan} has ended.")

    def _notice(self, text: str) -> SendNotice:
        return SendNotice(subscription_id=self.subscription_id, customer=self.customer, text=text)

    flow = (
        grant
        >> lifecycle(
            Standing.TRIAL,
            entering={
                Standing.ACTIVE: when(is_locked, unlock) >> when(owes, charge),
                Standing.PAST_DUE: remind >> when(is_worth_a_try, charge_again),
                Standing.SUSPENDED: lock,
            },
            final=[Standing.ENDED],
        )
        >> close
        >> part
    )
