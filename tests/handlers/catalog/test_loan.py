"""Lending, credit bureaus, identity and treasury over each database: what they keep, what they say no to, and why."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from handlers.catalog.loan import bureau, identity, lending, second_bureau, treasury
from messages import codec
from messages.catalog.loan import (
    ApplyRule,
    AskToDecide,
    CheckIdentity,
    CheckScore,
    CheckScoreElsewhere,
    CloseFile,
    Declined,
    IdentityDoubted,
    LoanPaidOut,
    OpenFile,
    PayOut,
    ReleaseLine,
    ReserveLine,
    RuleApproved,
    ScoreReported,
    SendOffer,
    SendPayoutNotice,
)
from messages.envelope import Envelope
from sagas import definition_of
from sagas.catalog.loan import ApproveLoan
from tests.handlers.desk import Desk, asked, undo_of

if TYPE_CHECKING:
    from handlers import Participant
    from messages import Command, Event
    from outbox.unit import SqlStorage

AMOUNT = Decimal("9.90")
TWO, ONE = ("Bob", "Eve"), ("Bob", "Bob")


def declined(loan_id: str, because: str) -> Event:
    return Declined(loan_id=loan_id, because=because)


def reserve(loan_id: str, decided_by: tuple[str, ...] = TWO) -> ReserveLine:
    return ReserveLine(loan_id=loan_id, amount=AMOUNT, decided_by=decided_by)


ANSWERS = [
    (bureau, CheckScore(loan_id="l-1", applicant="Ada"), ScoreReported(loan_id="l-1", score=781)),
    (bureau, CheckScore(loan_id="poor", applicant="Ada"), ScoreReported(loan_id="poor", score=300)),
    (
        bureau,
        CheckScore(loan_id="bureau-closed", applicant="Ada"),
        declined("bureau-closed", "the credit bureau has no score"),
    ),
    (
        bureau,
        CheckScore(loan_id="unheard-of", applicant="Ada"),
        declined("unheard-of", "the credit bureau has no score"),
    ),
    (
        second_bureau,
        CheckScoreElsewhere(loan_id="bureau-closed", applicant="Ada"),
        ScoreReported(loan_id="bureau-closed", score=781),
    ),
    (
        second_bureau,
        CheckScoreElsewhere(loan_id="unheard-of", applicant="Ada"),
        declined("unheard-of", "no credit bureau has a score"),
    ),
    (
        identity,
        CheckIdentity(loan_id="doubtful", applicant="Ada"),
        IdentityDoubted(loan_id="doubtful", because="the passport has expired"),
    ),
    (
        lending,
        ApplyRule(loan_id="l-1", amount=AMOUNT, score=500),
        RuleApproved(loan_id="l-1", rule="score of 500 or more"),
    ),
    (lending, ApplyRule(loan_id="l-1", amount=AMOUNT, score=499), declined("l-1", "the score 499 is below 500")),
    (treasury, reserve("no-line"), declined("no-line", "there is no money left to lend")),
    (treasury, reserve("l-1", ONE), declined("l-1", "one person has decided where two have to")),
    (treasury, PayOut(loan_id="l-1", amount=AMOUNT), declined("l-1", "not so much is set aside for it")),
    (
        treasury,
        PayOut(loan_id="account-closed", amount=AMOUNT),
        declined("account-closed", "the applicant's account takes no money"),
    ),
]


async def at_work(participant: Participant, storage: SqlStorage) -> Desk:
    async with storage.transaction() as unit:
        for table in ("loan_file", "loan_note", "credit_line"):
            await unit.session.connection.execute(text(f"drop table if exists {table}"))
    return await Desk(participant, storage).open()


async def answer(desk: Desk, kind: type[Event]) -> Event:
    raw = await desk.reply()
    assert raw.type == kind.message_name
    return codec.parse(Envelope(message_id=raw.message_id or "", name=kind.message_name, body=raw.body), kind)


@pytest.mark.parametrize(
    ("participant", "command", "reply"),
    ANSWERS,
    ids=[f"{do.message_name}-{reply.message_name}" for _, do, reply in ANSWERS],
)
async def test_what_they_say(storage: SqlStorage, participant: Participant, command: Command, reply: Event) -> None:
    desk = await at_work(participant, storage)
    try:
        await desk.take(asked(command))
        assert await answer(desk, type(reply)) == reply
    finally:
        await desk.close()


def test_each_command_of_the_saga_is_taken_and_answered_with_what_the_saga_understands() -> None:
    participants = (bureau, identity, lending, second_bureau, treasury)
    taken = {name: handler for each in participants for (name, _), handler in each.handlers.items()}
    definition = definition_of(ApproveLoan)
    assert taken.keys() == definition.commands.keys()
    for step in definition.steps.values():
        for call in (step.do, step.undo) if step.undo else (step.do,):
            replies = {reply.message_name for reply in taken[call.command.message_name].replies if reply is not None}
            assert replies == call.replies.keys()


async def test_a_file_is_opened_once_and_stays_with_the_reason_when_it_is_closed(storage: SqlStorage) -> None:
    desk = await at_work(lending, storage)
    try:
        do, undo = OpenFile(loan_id="l-1", applicant="Ada"), CloseFile(loan_id="l-1", because="too dear")
        await desk.take(asked(do), asked(do), undo_of(undo), undo_of(undo))
        [file] = await desk.rows("select applicant, closed_because from loan_file")
        assert (file.applicant, file.closed_because) == ("Ada", "too dear")
        assert [row.note for row in await desk.rows("select note from loan_note")] == ["no loan: too dear"]
    finally:
        await desk.close()


async def test_what_is_written_is_written_once(storage: SqlStorage) -> None:
    desk = await at_work(lending, storage)
    try:
        notes: list[Command] = [
            AskToDecide(loan_id="l-1", whom="clerk", amount=AMOUNT, score=700),
            SendOffer(loan_id="l-1", applicant="Ada", amount=AMOUNT),
            SendPayoutNotice(loan_id="l-1", applicant="Ada", amount=AMOUNT),
        ]
        for number, note in enumerate(notes):
            await desk.take(asked(note, key=f"s/{number}/do"), asked(note, key=f"s/{number}/do"))
        rows = await desk.rows("select note from loan_note order by idempotency_key")
        assert [row.note for row in rows] == ["to clerk: 9.90 at a score of 700?", "offered: 9.90", "paid out: 9.90"]
    finally:
        await desk.close()


async def test_money_is_set_aside_once_and_released(storage: SqlStorage) -> None:
    desk = await at_work(treasury, storage)
    try:
        await desk.take(asked(reserve("l-1")), asked(reserve("l-1")))
        [line] = await desk.rows("select loan_id, cents, payout from credit_line")
        assert (line.loan_id, line.cents, line.payout) == ("l-1", 990, None)
        await desk.take(undo_of(ReleaseLine(loan_id="l-1")), undo_of(ReleaseLine(loan_id="l-1")))
        assert not await desk.rows("select * from credit_line")
    finally:
        await desk.close()


async def test_no_more_is_paid_than_was_set_aside_and_the_line_is_used_up(storage: SqlStorage) -> None:
    desk = await at_work(treasury, storage)
    try:
        await desk.take(asked(reserve("l-1"), key="s/1/do"))
        await desk.replies(1)
        for number, amount in enumerate((Decimal("9.91"), Decimal("9.00"), Decimal("0.90"))):
            await desk.take(asked(PayOut(loan_id="l-1", amount=amount), key=f"p/{number}/do"))
        nothing = declined("l-1", "not so much is set aside for it")
        assert await answer(desk, Declined) == nothing
        assert await answer(desk, LoanPaidOut) == LoanPaidOut(loan_id="l-1")
        assert await answer(desk, Declined) == nothing
        [line] = await desk.rows("select cents, payout from credit_line")
        assert (line.cents, line.payout) == (900, "p/1/do")
    finally:
        await desk.close()
