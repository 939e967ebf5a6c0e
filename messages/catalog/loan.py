"""The messages of approving a loan: checked, decided by a rule or by people, offered, signed, paid out.

Every message carries the loan's id, which is the business key of the process.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from messages import Command, Event

Amount = Annotated[Decimal, Field(gt=0, max_digits=15, decimal_places=2)]
"""Money, to the cent."""


# applicant


class LoanRequested(Event, name="loan.LoanRequested", version=1):
    """Somebody applies for a loan. It starts the process."""

    loan_id: str
    applicant: str
    amount: Amount


class AmountReduced(Event, name="loan.AmountReduced", version=1):
    """The applicant wants less. Whoever wants more applies anew, because nobody has decided about more."""

    loan_id: str
    amount: Amount


class LoanWithdrawn(Event, name="loan.LoanWithdrawn", version=1):
    """The applicant wants no loan any more."""

    loan_id: str


class ContractSigned(Event, name="loan.ContractSigned", version=1):
    """The applicant has signed what was offered."""

    loan_id: str


class OfferDeclined(Event, name="loan.OfferDeclined", version=1):
    """The applicant has not signed, and will not."""

    loan_id: str


# whoever says no, and whoever decides


class Declined(Event, name="loan.Declined", version=1):
    """A service of the bank says no, and why. Nothing was done."""

    loan_id: str
    because: str


class Approval(Event, abstract=True):
    """Somebody says yes, and perhaps why."""

    loan_id: str
    by: str
    comment: str | None = None


class Refusal(Event, abstract=True):
    """Somebody says no, and has to say why: the applicant is told."""

    loan_id: str
    by: str
    comment: str


class LoanApproved(Approval, name="loan.LoanApproved", version=1):
    """A clerk, or the manager in the clerk's place, says yes."""


class LoanRefused(Refusal, name="loan.LoanRefused", version=1):
    """A clerk, or the manager in the clerk's place, says no."""


class FrontOfficeApproved(Approval, name="loan.FrontOfficeApproved", version=1):
    """The first of two pairs of eyes: those who know the customer say yes."""


class FrontOfficeRefused(Refusal, name="loan.FrontOfficeRefused", version=1):
    """Those who know the customer say no."""


class RiskApproved(Approval, name="loan.RiskApproved", version=1):
    """The second pair of eyes: those who answer for the risk say yes."""


class RiskRefused(Refusal, name="loan.RiskRefused", version=1):
    """Those who answer for the risk say no."""


# lending


class OpenFile(Command, name="loan.OpenFile", version=1):
    """Open a file for the application."""

    loan_id: str
    applicant: str


class FileOpened(Event, name="loan.FileOpened", version=1):
    """There is a file."""

    loan_id: str


class CloseFile(Command, name="loan.CloseFile", version=1):
    """Close the file, if there is one: there will be no loan. The applicant is told why."""

    loan_id: str
    because: str


class FileClosed(Event, name="loan.FileClosed", version=1):
    """No file is open, and the applicant has been told why."""

    loan_id: str
    because: str


class ApplyRule(Command, name="loan.ApplyRule", version=1):
    """Decide by the rule for small sums."""

    loan_id: str
    amount: Amount
    score: int


class RuleApproved(Event, name="loan.RuleApproved", version=1):
    """The rule says yes."""

    loan_id: str
    rule: str


class AskToDecide(Command, name="loan.AskToDecide", version=1):
    """Put the application on somebody's desk, or remind whoever has it there. Nobody answers."""

    loan_id: str
    whom: str
    amount: Amount
    score: int


class SendOffer(Command, name="loan.SendOffer", version=1):
    """Send the applicant a contract to sign, over the amount or less."""

    loan_id: str
    applicant: str
    amount: Amount


class OfferSent(Event, name="loan.OfferSent", version=1):
    """The contract is on its way."""

    loan_id: str


class SendPayoutNotice(Command, name="loan.SendPayoutNotice", version=1):
    """Tell the applicant that the money is there. Nobody answers."""

    loan_id: str
    applicant: str
    amount: Amount


# bureau, second-bureau


class CheckScore(Command, name="loan.CheckScore", version=1):
    """Ask the credit bureau how the applicant has paid so far."""

    loan_id: str
    applicant: str


class CheckScoreElsewhere(Command, name="loan.CheckScoreElsewhere", version=1):
    """Ask the other credit bureau."""

    loan_id: str
    applicant: str


class ScoreReported(Event, name="loan.ScoreReported", version=1):
    """From 0, never pays, to 1000, always does."""

    loan_id: str
    score: int = Field(ge=0, le=1000)


# identity


class CheckIdentity(Command, name="loan.CheckIdentity", version=1):
    """Find out whether the applicant is who they say they are."""

    loan_id: str
    applicant: str


class IdentityConfirmed(Event, name="loan.IdentityConfirmed", version=1):
    """They are."""

    loan_id: str


class IdentityDoubted(Event, name="loan.IdentityDoubted", version=1):
    """They may not be."""

    loan_id: str
    because: str


# treasury


class ReserveLine(Command, name="loan.ReserveLine", version=1):
    """Set the money aside. One person's word never counts twice."""

    loan_id: str
    amount: Amount
    decided_by: tuple[str, ...]


class LineReserved(Event, name="loan.LineReserved", version=1):
    """The money is set aside."""

    loan_id: str


class ReleaseLine(Command, name="loan.ReleaseLine", version=1):
    """Set nothing aside any more, if it was."""

    loan_id: str


class LineReleased(Event, name="loan.LineReleased", version=1):
    """Nothing is set aside for the loan."""

    loan_id: str


class PayOut(Command, name="loan.PayOut", version=1):
    """Pay out of what was set aside, which is free otherwise. The money is never called back by this process."""

    loan_id: str
    amount: Amount


class LoanPaidOut(Event, name="loan.LoanPaidOut", version=1):
    """The money is with the applicant."""

    loan_id: str
