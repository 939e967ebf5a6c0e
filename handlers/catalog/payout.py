"""The participants of paying out a batch: the cash pool, the bank's clearing and the back office.

They stand in for real services, so some words steer them:

| where | word | what happens |
|---|---|---|
| batch id | contains `no-money` | `NotEnoughMoney` |
| account | contains `closed` | `NoSuchAccount` |
| account | contains `busy` | `BankBusy` at the first attempt to transfer, and at the first to call back |

An undo finds what it takes back by `context.compensates`, never by the body: the saga may not have heard the reply.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from sqlalchemy import text

from handlers import Context, Participant
from messages.catalog.payout import (
    BankBusy,
    CallBack,
    CalledBack,
    FreeTotal,
    FreeUnpaid,
    NoSuchAccount,
    NotEnoughMoney,
    ReserveTotal,
    SendReport,
    TotalFreed,
    TotalReserved,
    Transfer,
    Transferred,
    UnpaidFreed,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


def _cents(amount: Decimal) -> int:
    return int(amount.scaleb(2))


# cash-pool

cash_pool = Participant("cash-pool")

_RESERVE = text("insert into cash_reserved (idempotency_key, batch_id, cents) values (:key, :batch_id, :cents)")
_FREE = text("delete from cash_reserved where idempotency_key = :key")
_BOOK = text("""
    update cash_reserved set booked = :cents where batch_id = :batch_id and booked is null and cents >= :cents
    returning cents - :cents as freed
""")


@cash_pool.setup
async def cash_pool_tables(connection: AsyncConnection) -> None:
    """What is set aside for which batch, and what of it was paid in the end."""
    await connection.execute(
        text("""
            create table if not exists cash_reserved (
                idempotency_key text primary key, batch_id text not null, cents bigint not null, booked bigint
            )
        """)
    )


@cash_pool.handles
async def reserve_total(command: ReserveTotal, context: Context) -> TotalReserved | NotEnoughMoney:
    """All of it or nothing."""
    if "no-money" in command.batch_id:
        return NotEnoughMoney(batch_id=command.batch_id)
    row = {"key": context.idempotency_key, "batch_id": command.batch_id, "cents": _cents(command.total)}
    await context.connection.execute(_RESERVE, row)
    return TotalReserved(batch_id=command.batch_id)


@cash_pool.handles
async def free_total(command: FreeTotal, context: Context) -> TotalFreed:
    """Nobody was paid."""
    await context.connection.execute(_FREE, {"key": context.compensates})
    return TotalFreed(batch_id=command.batch_id)


@cash_pool.handles
async def free_unpaid(command: FreeUnpaid, context: Context) -> UnpaidFreed:
    """Book what was paid. Where that is more than was set aside the books are wrong, and only a person can say why."""
    row = {"batch_id": command.batch_id, "cents": _cents(command.paid)}
    freed = (await context.connection.execute(_BOOK, row)).scalar_one()
    return UnpaidFreed(batch_id=command.batch_id, freed=Decimal(freed).scaleb(-2))


# clearing

clearing = Participant("clearing")

_TRANSFER = text("""
    insert into payout_transfer (idempotency_key, batch_id, account, cents, status)
    values (:key, :batch_id, :account, :cents, 'transferred')
""")
_CALL_BACK = text("update payout_transfer set status = 'called back' where idempotency_key = :key")

_turned_away: set[str] = set()
"""Effects that were too much for the bank once: where that is forgotten it is busy once more."""


@clearing.setup
async def clearing_tables(connection: AsyncConnection) -> None:
    """What was transferred to whom."""
    await connection.execute(
        text("""
            create table if not exists payout_transfer (
                idempotency_key text primary key, batch_id text not null, account text not null,
                cents bigint not null, status text not null
            )
        """)
    )


@clearing.handles(transient=BankBusy)
async def transfer(command: Transfer, context: Context) -> Transferred | NoSuchAccount | BankBusy:
    """Money on an account, if there is such an account and the bank has time."""
    if "closed" in command.account:
        return NoSuchAccount(batch_id=command.batch_id)
    if _is_busy(command.account, context.idempotency_key):
        return BankBusy(batch_id=command.batch_id)
    row = {
        "key": context.idempotency_key,
        "batch_id": command.batch_id,
        "account": command.account,
        "cents": _cents(command.amount),
    }
    await context.connection.execute(_TRANSFER, row)
    return Transferred(batch_id=command.batch_id)


@clearing.handles(transient=BankBusy)
async def call_back(command: CallBack, context: Context) -> CalledBack | BankBusy:
    """The row stays: that money came and went is no secret."""
    if _is_busy(command.account, context.idempotency_key):
        return BankBusy(batch_id=command.batch_id)
    await context.connection.execute(_CALL_BACK, {"key": context.compensates})
    return CalledBack(batch_id=command.batch_id)


def _is_busy(account: str, idempotency_key: str) -> bool:
    if "busy" in account and idempotency_key not in _turned_away:
        _turned_away.add(idempotency_key)
        return True
    _turned_away.discard(idempotency_key)
    return False


# back-office

back_office = Participant("back-office")

_FILE = text("insert into payout_report (idempotency_key, batch_id, report) values (:key, :batch_id, :report)")


@back_office.setup
async def back_office_tables(connection: AsyncConnection) -> None:
    """What was reported."""
    await connection.execute(
        text("""
            create table if not exists payout_report (
                idempotency_key text primary key, batch_id text not null, report text not null
            )
        """)
    )


@back_office.handles
async def send_report(command: SendReport, context: Context) -> None:
    """A letter to whoever ordered the batch."""
    said = [f"{command.paid} of {command.ordered} paid, {command.amount} in all"]
    said += [f"no such account: {payout.account}, {payout.amount}" for payout in command.refused]
    if given_up := command.ordered - command.paid - len(command.refused):
        said.append(f"given up: {given_up}")
    row = {"key": context.idempotency_key, "batch_id": command.batch_id, "report": "\n".join(said)}
    await context.connection.execute(_FILE, row)
