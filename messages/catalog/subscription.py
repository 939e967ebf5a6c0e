"""The messages of a subscription: trial, a charge for each period, a reminder for whoever does not pay, and the end.

Every message carries the subscription's id, which is the business key of the process. What billing says of a charge
names the period too: it may be said late, twice, or of a period that is long over.
"""

from __future__ import annotations

from decimal import Decimal

from messages import Command, Event


class Subscribed(Event, name="subscription.Subscribed", version=1):
    """A customer has subscribed. It starts the process."""

    subscription_id: str
    customer: str
    plan: str
    price: Decimal


class PlanChanged(Event, name="subscription.PlanChanged", version=1):
    """The customer has chosen another plan: its price is asked from the next period on."""

    subscription_id: str
    plan: str
    price: Decimal


class CardReplaced(Event, name="subscription.CardReplaced", version=1):
    """The customer has given another card. Whoever owes something is charged at once."""

    subscription_id: str


class Unsubscribed(Event, name="subscription.Unsubscribed", version=1):
    """The customer wants no more of it."""

    subscription_id: str


class Annulled(Event, name="subscription.Annulled", version=1):
    """It is to be as if nobody had ever subscribed."""

    subscription_id: str


# access


class GrantAccess(Command, name="access.GrantAccess", version=1):
    """Let the customer in."""

    subscription_id: str
    customer: str


class AccessGranted(Event, name="access.AccessGranted", version=1):
    """The customer may come in."""

    subscription_id: str


class AccessRefused(Event, name="access.AccessRefused", version=1):
    """The customer is not let in, and will not be."""

    subscription_id: str


class LockAccess(Command, name="access.LockAccess", version=1):
    """Let the customer in no more for now, and keep what is theirs."""

    subscription_id: str


class AccessLocked(Event, name="access.AccessLocked", version=1):
    """The customer cannot come in."""

    subscription_id: str


class UnlockAccess(Command, name="access.UnlockAccess", version=1):
    """Let the customer in again."""

    subscription_id: str


class AccessUnlocked(Event, name="access.AccessUnlocked", version=1):
    """The customer may come in again."""

    subscription_id: str


class WithdrawAccess(Command, name="access.WithdrawAccess", version=1):
    """Let the customer in no more, if they ever were, and keep nothing."""

    subscription_id: str


class AccessWithdrawn(Event, name="access.AccessWithdrawn", version=1):
    """The customer has no access."""

    subscription_id: str


# billing


class ChargePeriod(Command, name="billing.ChargePeriod", version=1):
    """Charge the customer for a period, if that was not done already. What is charged is never given back."""

    subscription_id: str
    period: int
    amount: Decimal


class PeriodPaid(Event, name="billing.PeriodPaid", version=1):
    """The period is paid."""

    subscription_id: str
    period: int


class ChargeDeclined(Event, name="billing.ChargeDeclined", version=1):
    """The card was declined: the period is not paid. It may be tried again."""

    subscription_id: str
    period: int


# mail


class SendNotice(Command, name="mail.SendNotice", version=1):
    """Write to the customer. Nobody answers."""

    subscription_id: str
    customer: str
    text: str
