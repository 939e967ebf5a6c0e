"""The messages of paying out a batch: the total reserved, each payout transferred, what could not be paid freed again.

Every message carries the batch's id, which is the business key of the process.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from messages import Command, Event

MOST = 10_000
"""Payouts of one batch."""

Amount = Annotated[Decimal, Field(gt=0, max_digits=13, decimal_places=2)]
"""What one payout may be worth, to the cent."""

Total = Annotated[Decimal, Field(ge=0, max_digits=17, decimal_places=2)]
"""What the largest payouts of the longest batch come to."""


class Payout(BaseModel):
    """So much to one account."""

    model_config = ConfigDict(frozen=True)

    account: str = Field(min_length=1, max_length=34)
    amount: Amount


# whoever orders


class BatchOrdered(Event, name="payout.BatchOrdered", version=1):
    """Somebody wants all of these paid. It starts the process."""

    batch_id: str
    payouts: list[Payout] = Field(min_length=1, max_length=MOST)


class BatchWithdrawn(Event, name="payout.BatchWithdrawn", version=1):
    """It was a mistake: whatever was transferred is to be called back."""

    batch_id: str
    because: str


# cash-pool


class ReserveTotal(Command, name="payout.ReserveTotal", version=1):
    """Set aside what the whole batch comes to."""

    batch_id: str
    total: Total


class TotalReserved(Event, name="payout.TotalReserved", version=1):
    """The money is set aside."""

    batch_id: str


class NotEnoughMoney(Event, name="payout.NotEnoughMoney", version=1):
    """There is not so much. Nothing is set aside."""

    batch_id: str


class FreeTotal(Command, name="payout.FreeTotal", version=1):
    """Set nothing aside for the batch any more, if it was."""

    batch_id: str


class TotalFreed(Event, name="payout.TotalFreed", version=1):
    """Nothing is set aside for the batch."""

    batch_id: str


class FreeUnpaid(Command, name="payout.FreeUnpaid", version=1):
    """Book what was paid out of what was set aside, and free the rest. Nothing is called back from here on."""

    batch_id: str
    paid: Total


class UnpaidFreed(Event, name="payout.UnpaidFreed", version=1):
    """What was not paid, which may be nothing, is free for others."""

    batch_id: str
    freed: Total


# clearing


class Transfer(Command, name="payout.Transfer", version=1):
    """Pay one of the batch."""

    batch_id: str
    account: str
    amount: Amount


class Transferred(Event, name="payout.Transferred", version=1):
    """The money is on the account."""

    batch_id: str


class NoSuchAccount(Event, name="payout.NoSuchAccount", version=1):
    """There is no such account. Nothing was transferred, and nothing will be."""

    batch_id: str


class BankBusy(Event, name="payout.BankBusy", version=1):
    """Not now. Nothing was transferred, or called back; it may be tried again."""

    batch_id: str


class CallBack(Command, name="payout.CallBack", version=1):
    """Take the money back, if it was transferred."""

    batch_id: str
    account: str
    amount: Amount


class CalledBack(Event, name="payout.CalledBack", version=1):
    """The money is not on the account, or not any more."""

    batch_id: str


# back-office


class SendReport(Command, name="payout.SendReport", version=1):
    """Tell whoever ordered the batch what became of it. Nobody answers.

    What is neither `paid` nor `refused` of the `ordered` was given up: the bank was busy for too long.
    """

    batch_id: str
    ordered: int
    paid: int
    amount: Total
    refused: list[Payout]
