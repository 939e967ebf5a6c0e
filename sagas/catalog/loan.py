"""Approve a loan: check, have it decided by a rule or by people, offer it, have it signed, let it rest, pay it out.

Whatever says no turns the process back: money that was set aside is released, and the file is closed with the reason
in it. Once the money is paid out there is no way back.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Literal, Self

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
from sagas import Retry, Saga, alternative, cancel, decision, match, parallel, query, signal, sleep, start, step, wait

SMALL = Decimal(5_000)
MIDDLE = Decimal(75_000)
AT_ONCE = timedelta(minutes=1)
DAY = timedelta(days=1)


class ApproveLoan(Saga, key="loan_id", version=1, deadline=90 * DAY):
    """One application, from the request to the money, or to the letter that says why not."""

    loan_id: str
    applicant: str
    amount: Decimal
    score: int = 0
    decided_by: tuple[str, ...] = ()
    stage: Literal["under review", "offered", "signed", "paid out", "closed"] = "under review"
    because: str | None = None

    @start
    def requested(cls, event: LoanRequested) -> Self:
        """Somebody needs money."""
        return cls(loan_id=event.loan_id, applicant=event.applicant, amount=event.amount)

    @step(success=FileOpened)
    def open_file(self) -> OpenFile:
        """From here on the applicant gets an answer."""
        return OpenFile(loan_id=self.loan_id, applicant=self.applicant)

    @open_file.compensation
    def close_file(self) -> CloseFile:
        """There will be no loan, and this is why."""
        return CloseFile(loan_id=self.loan_id, because=self.because or "it could not be concluded")

    @close_file.on_success
    def closed(self, reply: FileClosed) -> None:
        """The applicant has been told."""
        self.stage, self.because = "closed", reply.because

    # what is known of the applicant

    @step(timeout=timedelta(minutes=1), failure=Declined)
    def check_score(self) -> CheckScore:
        """How have they paid so far?"""
        return CheckScore(loan_id=self.loan_id, applicant=self.applicant)

    @step(timeout=timedelta(minutes=1))
    def check_score_elsewhere(self) -> CheckScoreElsewhere:
        """The other bureau is asked when the first one does not know, or says nothing."""
        return CheckScoreElsewhere(loan_id=self.loan_id, applicant=self.applicant)

    @check_score.on_success
    @check_score_elsewhere.on_success
    def scored(self, reply: ScoreReported) -> None:
        """Whichever of them knows."""
        self.score = reply.score

    @step(success=IdentityConfirmed, timeout=timedelta(minutes=5))
    def check_identity(self) -> CheckIdentity:
        """Are they who they say they are?"""
        return CheckIdentity(loan_id=self.loan_id, applicant=self.applicant)

    @check_identity.on_failure
    def doubted(self, reply: IdentityDoubted) -> None:
        """Perhaps not."""
        self.because = reply.because

    # who decides

    @decision
    def size(self) -> Literal["small", "middle", "large"]:
        """The larger the sum, the more people look at it."""
        return "small" if self.amount <= SMALL else "middle" if self.amount <= MIDDLE else "large"

    @step
    def rule(self) -> ApplyRule:
        """A small sum: nobody has to look."""
        return ApplyRule(loan_id=self.loan_id, amount=self.amount, score=self.score)

    @rule.on_success
    def allowed(self, reply: RuleApproved) -> None:
        """The rule says yes."""
        self.decided_by = (reply.rule,)

    @wait(timeout=7 * DAY, by="by", because="comment")
    def clerk(self, event: LoanApproved) -> None:
        """A middle sum: one person says yes. A week without an answer is a no."""
        self.decided_by = (event.by,)

    @clerk.on_failure
    def refused(self, event: LoanRefused) -> None:
        """Or no."""
        self.because = event.comment

    @clerk.reminder(after=AT_ONCE, every=DAY)
    def ask_clerk(self) -> AskToDecide:
        """On the clerk's desk, and again every day."""
        return self._ask("clerk")

    @clerk.escalation(after=3 * DAY)
    def ask_manager(self) -> AskToDecide:
        """The manager hears of it, and may decide in the clerk's place."""
        return self._ask("manager")

    @wait(timeout=14 * DAY, by="by", because="comment")
    def front_office(self, event: FrontOfficeApproved) -> None:
        """A large sum: those who know the customer say yes,"""
        self.decided_by = (*self.decided_by, event.by)

    @front_office.on_failure
    def refused_by_front_office(self, event: FrontOfficeRefused) -> None:
        """(one no is enough)"""
        self.because = event.comment

    @front_office.reminder(after=AT_ONCE, every=DAY)
    def ask_front_office(self) -> AskToDecide:
        """On their desk, and again every day."""
        return self._ask("front office")

    @wait(timeout=14 * DAY, by="by", because="comment")
    def risk(self, event: RiskApproved) -> None:
        """and so do those who answer for the risk. The treasury sees to it that it was not the same person twice."""
        self.decided_by = (*self.decided_by, event.by)

    @risk.on_failure
    def refused_by_risk(self, event: RiskRefused) -> None:
        """One no is enough."""
        self.because = event.comment

    @risk.reminder(after=AT_ONCE, every=DAY)
    def ask_risk(self) -> AskToDecide:
        """On their desk, and again every day."""
        return self._ask("risk")

    def _ask(self, whom: str) -> AskToDecide:
        return AskToDecide(loan_id=self.loan_id, whom=whom, amount=self.amount, score=self.score)

    # from the yes to the money

    @step(success=LineReserved)
    def reserve_line(self) -> ReserveLine:
        """Set the money aside before it is promised."""
        return ReserveLine(loan_id=self.loan_id, amount=self.amount, decided_by=self.decided_by)

    @reserve_line.compensation(success=LineReleased)
    def release_line(self) -> ReleaseLine:
        """Others may have it."""
        return ReleaseLine(loan_id=self.loan_id)

    @step
    def offer(self) -> SendOffer:
        """A contract to sign."""
        return SendOffer(loan_id=self.loan_id, applicant=self.applicant, amount=self.amount)

    @offer.on_success
    def offered(self, reply: OfferSent) -> None:
        """It is the applicant's turn."""
        self.stage = "offered"

    @wait(timeout=30 * DAY)
    def signature(self, event: ContractSigned) -> None:
        """The applicant has a month to sign it."""
        self.stage = "signed"

    @signature.on_failure
    def turned_down(self, event: OfferDeclined) -> None:
        """And need not."""
        self.because = "the offer was turned down"

    @sleep
    def cool_off(self) -> timedelta:
        """Two weeks to think better of it."""
        return 14 * DAY

    @step(pivot=True, retry=Retry(cap=timedelta(minutes=10)))
    def pay_out(self) -> PayOut:
        """The money goes, and is not called back."""
        return PayOut(loan_id=self.loan_id, amount=self.amount)

    @pay_out.on_success
    def paid(self, reply: LoanPaidOut) -> None:
        """It has arrived."""
        self.stage = "paid out"

    @step(reply=False)
    def tell(self) -> SendPayoutNotice:
        """Say that it is there."""
        return SendPayoutNotice(loan_id=self.loan_id, applicant=self.applicant, amount=self.amount)

    # what may come at any time

    @check_score_elsewhere.on_failure
    @rule.on_failure
    @reserve_line.on_failure
    @pay_out.on_failure
    def declined(self, reply: Declined) -> None:
        """One of the bank's services says no."""
        self.because = reply.because

    @signal
    def reduced(self, event: AmountReduced) -> None:
        """Less is possible until the contract is signed; about more nobody has decided."""
        if self.stage in ("under review", "offered"):
            self.amount = min(self.amount, event.amount)

    @cancel
    def withdrawn(self, event: LoanWithdrawn) -> None:
        """The applicant may think better of it until the money is paid out."""
        self.because = "the applicant has withdrawn"

    @query
    def standing(self) -> dict[str, object]:
        """What the applicant's page shows."""
        return {"stage": self.stage, "amount": self.amount, "because": self.because}

    flow = (
        open_file
        >> parallel(alternative(check_score, check_score_elsewhere), check_identity)
        >> match(size, {"small": rule, "middle": clerk, "large": parallel(front_office, risk)})
        >> reserve_line
        >> offer
        >> signature
        >> cool_off
        >> pay_out
        >> tell
    )
