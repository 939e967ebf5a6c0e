"""The participants of a subscription: access, billing and mail, each with a table of its own.

They stand in for real services, so some words in the subscription's id steer them: `no-access` is not let in, the card
of `declined` is declined, and that of `declined-once` only when it is tried for the first time in a period.

Billing charges a period once, whatever the number of commands: it is the period that is paid, not the command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from handlers import Context, Participant
from messages.catalog.subscription import (
    AccessGranted,
    AccessLocked,
    AccessRefused,
    AccessUnlocked,
    AccessWithdrawn,
    ChargeDeclined,
    ChargePeriod,
    GrantAccess,
    LockAccess,
    PeriodPaid,
    SendNotice,
    UnlockAccess,
    WithdrawAccess,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

# access

access = Participant("access")

_GRANT = text(
    "insert into access_grant values (:subscription_id, :customer, 0) on conflict (subscription_id) do nothing"
)
_LOCK = text("update access_grant set locked = :locked where subscription_id = :subscription_id")
_WITHDRAW = text("delete from access_grant where subscription_id = :subscription_id")


@access.setup
async def doors(connection: AsyncConnection) -> None:
    """Make the table of who may come in."""
    await connection.execute(
        text(
            "create table if not exists access_grant "
            "(subscription_id text primary key, customer text not null, locked integer not null)"
        )
    )


@access.handles
async def grant(command: GrantAccess, context: Context) -> AccessGranted | AccessRefused:
    """Whoever is no stranger may come in."""
    if "no-access" in command.subscription_id:
        return AccessRefused(subscription_id=command.subscription_id)
    row = {"subscription_id": command.subscription_id, "customer": command.customer}
    await context.connection.execute(_GRANT, row)
    return AccessGranted(subscription_id=command.subscription_id)


@access.handles
async def lock(command: LockAccess, context: Context) -> AccessLocked:
    """The door is locked; the row stays."""
    await context.connection.execute(_LOCK, {"subscription_id": command.subscription_id, "locked": 1})
    return AccessLocked(subscription_id=command.subscription_id)


@access.handles
async def unlock(command: UnlockAccess, context: Context) -> AccessUnlocked:
    """The door is open again."""
    await context.connection.execute(_LOCK, {"subscription_id": command.subscription_id, "locked": 0})
    return AccessUnlocked(subscription_id=command.subscription_id)


@access.handles
async def withdraw(command: WithdrawAccess, context: Context) -> AccessWithdrawn:
    """At the end, or because it is taken back: a subscription has one row, so its id is enough to find it."""
    await context.connection.execute(_WITHDRAW, {"subscription_id": command.subscription_id})
    return AccessWithdrawn(subscription_id=command.subscription_id)


# billing

billing = Participant("billing")

_TRY = text("""
    insert into billing_period values (:subscription_id, :period, 1, null)
    on conflict (subscription_id, period) do update set tries = billing_period.tries + 1
    returning tries, paid
""")
_PAY = text("""
    update billing_period set paid = :amount where subscription_id = :subscription_id and period = :period
""")


@billing.setup
async def books(connection: AsyncConnection) -> None:
    """Make the table of what was charged."""
    await connection.execute(
        text(
            "create table if not exists billing_period "
            "(subscription_id text not null, period integer not null, tries integer not null, paid text, "
            "primary key (subscription_id, period))"
        )
    )


@billing.handles
async def charge(command: ChargePeriod, context: Context) -> PeriodPaid | ChargeDeclined:
    """The money for a period, unless it is there or the card is declined."""
    period = {"subscription_id": command.subscription_id, "period": command.period}
    tries, paid = (await context.connection.execute(_TRY, period)).one()
    if paid is None and _is_declined(command.subscription_id, tries):
        return ChargeDeclined(subscription_id=command.subscription_id, period=command.period)
    if paid is None:
        await context.connection.execute(_PAY, {**period, "amount": str(command.amount)})
    return PeriodPaid(subscription_id=command.subscription_id, period=command.period)


def _is_declined(subscription_id: str, tries: int) -> bool:
    return "declined" in subscription_id and (tries == 1 or "declined-once" not in subscription_id)


# mail

mail = Participant("mail")

_WRITE = text("insert into mail_notice values (:idempotency_key, :customer, :text)")


@mail.setup
async def letters(connection: AsyncConnection) -> None:
    """Make the table of what was written."""
    await connection.execute(
        text(
            "create table if not exists mail_notice "
            "(idempotency_key text primary key, customer text not null, text text not null)"
        )
    )


@mail.handles
async def send_notice(command: SendNotice, context: Context) -> None:
    """Write to the customer."""
    row = {"idempotency_key": context.idempotency_key, "customer": command.customer, "text": command.text}
    await context.connection.execute(_WRITE, row)
