"""The participants of approving a loan: lending, two credit bureaus, identity and the treasury.

They stand in for real services, so some words in the loan's id steer them:

| word | what happens |
|---|---|
| `bureau-closed` | the first bureau says no, the other one knows a score |
| `unheard-of` | both bureaus say no |
| `poor` | the score is too low for the rule |
| `doubtful` | the identity is doubted |
| `no-line` | the treasury sets nothing aside |
| `account-closed` | the treasury cannot pay out |

The people who decide are no participants: they publish events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import NAMESPACE_DNS, uuid5

from sqlalchemy import text

from handlers import Context, Participant
from messages.catalog.loan import (
    ApplyRule,
    AskToDecide,
    CheckIdentity,
    CheckScore,
    CheckScoreElsewhere,
    CloseFile,
    Declined,
    FileClosed,
    FileOpened,
    IdentityConfirmed,
    IdentityDoubted,
    LineReleased,
    LineReserved,
    LoanPaidOut,
    OfferSent,
    OpenFile,
    PayOut,
    ReleaseLine,
    ReserveLine,
    RuleApproved,
    ScoreReported,
    SendOffer,
    SendPayoutNotice,
)

if TYPE_CHECKING:
    from decimal import Decimal

    from sqlalchemy.ext.asyncio import AsyncConnection

ENOUGH = 500
POOR = 300

_LENDING = uuid5(NAMESPACE_DNS, "lending.antiphon")


def _score(loan_id: str, applicant: str) -> int:
    """What a bureau makes of somebody: always the same."""
    return POOR if "poor" in loan_id else ENOUGH + uuid5(_LENDING, applicant).int % (1001 - ENOUGH)


# lending

lending = Participant("lending")

_OPEN = text("insert into loan_file (idempotency_key, loan_id, applicant) values (:key, :loan_id, :applicant)")
_CLOSE = text("update loan_file set closed_because = :because where idempotency_key = :key")
_WRITE = text("insert into loan_note (idempotency_key, loan_id, note) values (:key, :loan_id, :note)")


@lending.setup
async def lending_tables(connection: AsyncConnection) -> None:
    """The files, and what was written to applicants and put on desks."""
    await connection.execute(
        text("""
            create table if not exists loan_file (
                idempotency_key text primary key, loan_id text not null, applicant text not null, closed_because text
            )
        """)
    )
    await connection.execute(
        text("""
            create table if not exists loan_note (
                idempotency_key text primary key, loan_id text not null, note text not null
            )
        """)
    )


@lending.handles
async def open_file(command: OpenFile, context: Context) -> FileOpened:
    """An empty file."""
    row = {"key": context.idempotency_key, "loan_id": command.loan_id, "applicant": command.applicant}
    await context.connection.execute(_OPEN, row)
    return FileOpened(loan_id=command.loan_id)


@lending.handles
async def close_file(command: CloseFile, context: Context) -> FileClosed:
    """It stays, with the reason in it; and the applicant gets a letter."""
    await context.connection.execute(_CLOSE, {"key": context.compensates, "because": command.because})
    await _write(context, command.loan_id, f"no loan: {command.because}")
    return FileClosed(loan_id=command.loan_id, because=command.because)


@lending.handles
async def apply_rule(command: ApplyRule) -> RuleApproved | Declined:
    """Whoever pays usually may have a small sum."""
    if command.score < ENOUGH:
        return Declined(loan_id=command.loan_id, because=f"the score {command.score} is below {ENOUGH}")
    return RuleApproved(loan_id=command.loan_id, rule=f"score of {ENOUGH} or more")


@lending.handles
async def ask_to_decide(command: AskToDecide, context: Context) -> None:
    """A note on somebody's desk."""
    await _write(context, command.loan_id, f"to {command.whom}: {command.amount} at a score of {command.score}?")


@lending.handles
async def send_offer(command: SendOffer, context: Context) -> OfferSent:
    """A contract in the post."""
    await _write(context, command.loan_id, f"offered: {command.amount}")
    return OfferSent(loan_id=command.loan_id)


@lending.handles
async def send_payout_notice(command: SendPayoutNotice, context: Context) -> None:
    """A letter one likes to get."""
    await _write(context, command.loan_id, f"paid out: {command.amount}")


async def _write(context: Context, loan_id: str, note: str) -> None:
    await context.connection.execute(_WRITE, {"key": context.idempotency_key, "loan_id": loan_id, "note": note})


# bureau, second-bureau

bureau = Participant("bureau")
second_bureau = Participant("second-bureau")


@bureau.handles
async def check_score(command: CheckScore) -> ScoreReported | Declined:
    """A score, unless the bureau is closed or has never heard of the applicant."""
    if "bureau-closed" in command.loan_id or "unheard-of" in command.loan_id:
        return Declined(loan_id=command.loan_id, because="the credit bureau has no score")
    return ScoreReported(loan_id=command.loan_id, score=_score(command.loan_id, command.applicant))


@second_bureau.handles
async def check_score_elsewhere(command: CheckScoreElsewhere) -> ScoreReported | Declined:
    """A score, unless nobody has ever heard of the applicant."""
    if "unheard-of" in command.loan_id:
        return Declined(loan_id=command.loan_id, because="no credit bureau has a score")
    return ScoreReported(loan_id=command.loan_id, score=_score(command.loan_id, command.applicant))


# identity

identity = Participant("identity")


@identity.handles
async def check_identity(command: CheckIdentity) -> IdentityConfirmed | IdentityDoubted:
    """A look at the passport."""
    if "doubtful" in command.loan_id:
        return IdentityDoubted(loan_id=command.loan_id, because="the passport has expired")
    return IdentityConfirmed(loan_id=command.loan_id)


# treasury

treasury = Participant("treasury")

_RESERVE = text("insert into credit_line (idempotency_key, loan_id, cents) values (:key, :loan_id, :cents)")
_RELEASE = text("delete from credit_line where idempotency_key = :key")
_PAY = text("""
    update credit_line set cents = :cents, payout = :key
    where loan_id = :loan_id and cents >= :cents and payout is null
""")


@treasury.setup
async def treasury_tables(connection: AsyncConnection) -> None:
    """What is set aside for which loan, and what of it was paid out."""
    await connection.execute(
        text("""
            create table if not exists credit_line (
                idempotency_key text primary key, loan_id text not null, cents bigint not null, payout text
            )
        """)
    )


@treasury.handles
async def reserve_line(command: ReserveLine, context: Context) -> LineReserved | Declined:
    """Money, unless there is none, or one person has decided for two."""
    if len(set(command.decided_by)) < len(command.decided_by):
        return Declined(loan_id=command.loan_id, because="one person has decided where two have to")
    if "no-line" in command.loan_id:
        return Declined(loan_id=command.loan_id, because="there is no money left to lend")
    row = {"key": context.idempotency_key, "loan_id": command.loan_id, "cents": _cents(command.amount)}
    await context.connection.execute(_RESERVE, row)
    return LineReserved(loan_id=command.loan_id)


@treasury.handles
async def release_line(command: ReleaseLine, context: Context) -> LineReleased:
    """Found by the key of what set it aside: the saga may not have heard the reply."""
    await context.connection.execute(_RELEASE, {"key": context.compensates})
    return LineReleased(loan_id=command.loan_id)


@treasury.handles
async def pay_out(command: PayOut, context: Context) -> LoanPaidOut | Declined:
    """The amount out of what was set aside, of which nothing is left then."""
    if "account-closed" in command.loan_id:
        return Declined(loan_id=command.loan_id, because="the applicant's account takes no money")
    row = {"key": context.idempotency_key, "loan_id": command.loan_id, "cents": _cents(command.amount)}
    if not (await context.connection.execute(_PAY, row)).rowcount:
        return Declined(loan_id=command.loan_id, because="not so much is set aside for it")
    return LoanPaidOut(loan_id=command.loan_id)


def _cents(amount: Decimal) -> int:
    return int(amount.scaleb(2))
