"""Pay out a batch: reserve the total, transfer each payout, free what could not be paid, and report.

A batch has one payout or ten thousand. Some may fail, and the others are paid; when too many do, or somebody withdraws
the batch, what was transferred is called back and the total is freed.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Literal, Self

from messages.catalog.payout import (
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
from sagas import Retry, Saga, cancel, each, query, start, step

BUSY = Retry(attempts=12, backoff=timedelta(seconds=5), cap=timedelta(minutes=10))
"""A bank that is busy is asked again for about an hour."""


class PayOut(Saga, key="batch_id", version=1, deadline=timedelta(days=2)):
    """One batch, from the order to the report."""

    batch_id: str
    payouts: list[Payout]
    ordered: int
    total: Decimal
    stage: Literal["ordered", "paying", "settled", "turned back"] = "ordered"
    paid: int = 0
    amount: Decimal = Decimal(0)
    refused: tuple[Payout, ...] = ()
    called_back: int = 0
    because: str | None = None

    @start
    def batch_ordered(cls, event: BatchOrdered) -> Self:
        """Somebody has many to pay."""
        total = sum((each.amount for each in event.payouts), Decimal(0))
        return cls(batch_id=event.batch_id, payouts=event.payouts, ordered=len(event.payouts), total=total)

    @step
    def reserve(self) -> ReserveTotal:
        """Nobody is paid before there is money for everybody."""
        return ReserveTotal(batch_id=self.batch_id, total=self.total)

    @reserve.on_success
    def reserved(self, reply: TotalReserved) -> None:
        """There is."""
        self.stage = "paying"

    @reserve.on_failure
    def not_reserved(self, reply: NotEnoughMoney) -> None:
        """There is not."""
        self.stage, self.because = "turned back", "there is not enough money"

    @reserve.compensation
    def free(self) -> FreeTotal:
        """Others may have it."""
        return FreeTotal(batch_id=self.batch_id)

    @free.on_success
    def freed(self, reply: TotalFreed) -> None:
        """Nobody is paid, and nothing is set aside."""
        self.stage = "turned back"

    # each of many

    @each("payouts", at_once=50, tolerate=0.02, in_doubt="wait", transient=BankBusy, retry=BUSY)
    def transfer(self, payout: Payout) -> Transfer:
        """Fifty at a time. Whether a bank that says nothing has paid is not guessed: it is asked until it does."""
        return Transfer(batch_id=self.batch_id, account=payout.account, amount=payout.amount)

    @transfer.on_success
    def transferred(self, reply: Transferred, payout: Payout) -> None:
        """One of many is paid."""
        self.paid += 1
        self.amount += payout.amount

    @transfer.on_failure
    def not_transferred(self, reply: NoSuchAccount, payout: Payout) -> None:
        """One of fifty may be wrong: whoever ordered the batch is told which."""
        self.refused = (*self.refused, payout)

    @transfer.compensation(transient=BankBusy)
    def call_back(self, payout: Payout) -> CallBack:
        """Take it back."""
        return CallBack(batch_id=self.batch_id, account=payout.account, amount=payout.amount)

    @call_back.on_success
    def taken_back(self, reply: CalledBack, payout: Payout) -> None:
        """One of many is back."""
        self.called_back += 1

    # when all are through

    @step(pivot=True, retry=Retry(cap=timedelta(minutes=10)))
    def free_unpaid(self) -> FreeUnpaid:
        """What was paid is booked and stays paid; what was not is free again."""
        return FreeUnpaid(batch_id=self.batch_id, paid=self.amount)

    @free_unpaid.on_success
    def settled(self, reply: UnpaidFreed) -> None:
        """The books are closed."""
        self.stage = "settled"

    @step(reply=False)
    def report(self) -> SendReport:
        """Say what became of it."""
        return SendReport(
            batch_id=self.batch_id,
            ordered=self.ordered,
            paid=self.paid,
            amount=self.amount,
            refused=list(self.refused),
        )

    # what may come at any time

    @cancel
    def withdrawn(self, event: BatchWithdrawn) -> None:
        """It was a mistake. As long as money moves it can be called back."""
        self.because = event.because

    @query
    def progress(self) -> dict[str, object]:
        """What a page with a bar on it shows."""
        return {
            "stage": self.stage,
            "ordered": self.ordered,
            "total": self.total,
            "paid": self.paid,
            "amount": self.amount,
            "refused": len(self.refused),
            "called_back": self.called_back,
            "because": self.because,
        }

    @query
    def everybody(self) -> list[Payout]:
        """Who was to be paid, and how much."""
        return self.payouts

    flow = reserve >> transfer >> free_unpaid >> report
