"""What becomes of a dead letter that is replayed: the words for it, and how it is written down with everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages.errors import MessageError
from messages.value import value
from storage import dead_letters

if TYPE_CHECKING:
    from uuid import UUID

    from outbox.interface import DeadLetter
    from storage.database import Session
    from storage.dead_letters import Letter
    from storage.statements import Batch

PROCESSED = "processed"
DUPLICATE = "duplicate"
IGNORED = "ignored"
HELD = "held"
FAILED_AGAIN = "failed_again"
ALREADY_REPLAYED = "already_replayed"
DISCARDED = "discarded"
NOT_FOUND = "not_found"
GIVEN_BACK = "given_back"
NOT_TAKEN = "not_taken"

UNSETTLED = frozenset({FAILED_AGAIN, NOT_FOUND, NOT_TAKEN})
"""Outcomes after which somebody has to look at the letter once more."""


@value
class Verdict:
    """What became of a letter, or with `dry_run` what would become of it.

    `outcome` is `processed`, `duplicate` (a copy was applied before), `ignored` (it changes nothing any more), `held`
    (it waits for something), `failed_again`, `already_replayed`, `discarded` or `not_found`; for one whose reader is
    elsewhere `given_back` or, as long as the broker has not taken it, `not_taken`. `detail` says more. `seq` is the
    number of the history row of the instance that it caused.
    """

    dead_letter_id: int
    outcome: str
    detail: str
    saga_id: UUID | None = None
    seq: int | None = None

    @property
    def settled(self) -> bool:
        """Whether the letter wants nobody any more."""
        return self.outcome not in UNSETTLED


@value
class Request:
    """Who wants a letter replayed, and why.

    The same `request_id` again changes nothing and gets the same verdict, unless that was `failed_again`: what failed
    has changed nothing either, and is tried anew.
    """

    dead_letter_id: int
    actor: str
    reason: str
    request_id: str


async def closed(session: Session, request: Request, letter: Letter | None) -> Verdict | None:
    """What there is to say of a letter that is not open, or whose request was carried out before; None: try it."""
    if letter is None:
        return verdict_on(request, NOT_FOUND, "there is no dead letter of that id")
    before = await dead_letters.recorded(session, letter.dead_letter_id, request.request_id)
    if before is not None and before.outcome != FAILED_AGAIN:
        return verdict_on(request, before.outcome, before.detail, before.saga_id, before.seq)
    if letter.status == dead_letters.OPEN:
        return None
    outcome = ALREADY_REPLAYED if letter.status == dead_letters.REPLAYED else DISCARDED
    said = f": {letter.resolved_why}" if letter.resolved_why else ""
    detail = f"by {letter.resolved_by} at {letter.resolved_at:%Y-%m-%d %H:%M:%S} UTC{said}"
    return verdict_on(request, outcome, detail, letter.saga_id, letter.replayed_seq)


def write(batch: Batch, request: Request, verdict: Verdict, failed: MessageError | DeadLetter | None) -> None:
    """Have the letter's new state written, and the record of what was done."""
    if failed is None:
        dead_letters.resolve(
            batch,
            request.dead_letter_id,
            status=dead_letters.REPLAYED,
            actor=request.actor,
            why=request.reason,
            saga_id=verdict.saga_id,
            seq=verdict.seq,
        )
    else:
        dead_letters.fail(
            batch,
            request.dead_letter_id,
            reason=failed.reason,
            error_class=failed.error_class,
            error=str(failed) if isinstance(failed, MessageError) else failed.error,
            saga_id=verdict.saga_id,
        )
    kind = "failed_again" if failed is not None else "given_back" if verdict.outcome == GIVEN_BACK else "replayed"
    dead_letters.record(
        batch,
        request.dead_letter_id,
        kind=kind,
        actor=request.actor,
        why=request.reason,
        request_id=request.request_id,
        outcome=verdict.outcome,
        detail=verdict.detail,
        saga_id=verdict.saga_id,
        seq=verdict.seq,
    )


def failed_again(request: Request, error: MessageError, saga_id: UUID | None = None) -> Verdict:
    """The verdict on a letter that failed with this error."""
    return verdict_on(request, FAILED_AGAIN, f"{error.reason}: {error}", saga_id)


def verdict_on(
    request: Request, outcome: str, detail: str, saga_id: UUID | None = None, seq: int | None = None
) -> Verdict:
    """A verdict on the letter that the request names."""
    return Verdict(dead_letter_id=request.dead_letter_id, outcome=outcome, detail=detail, saga_id=saga_id, seq=seq)
