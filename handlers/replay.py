"""The replay of one dead letter: its message is applied in the database, in the transaction that marks the letter.

So it is safe any number of times, by anyone, even after the inbox has forgotten the message: the letter is open once.
The instance is locked before the letter, which is the order of the message path. What the message makes the saga send
waits in the outbox for a relay.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from handlers.aliases import find_aliases, still_there
from handlers.deciding import Deciding
from handlers.decoding import decode
from handlers.facts import MessageIgnored
from handlers.repair import Repair, tried
from handlers.routing import Router
from handlers.saga_types import claim_keys
from handlers.verdict import (
    DUPLICATE,
    FAILED_AGAIN,
    HELD,
    IGNORED,
    NOT_FOUND,
    PROCESSED,
    Request,
    Verdict,
    closed,
    failed_again,
    verdict_on,
    write,
)
from messages.errors import IdConflict, MessageError, OperationRefused
from messages.printable import printable
from outbox.interface import InboxEntry
from outbox.unit import SqlStorage
from sagas.outcome import Action, Disposition, Operated
from storage import dead_letters
from storage.statements import Batch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from handlers.routing import Routed
    from handlers.saga_types import SagaType
    from outbox.interface import DeadLetter
    from outbox.unit import SqlUnit
    from storage.dead_letters import Letter


Instead: TypeAlias = "tuple[Letter, Callable[[SqlUnit], Awaitable[int]]]"
"""A letter that is to take the place of the given one, and what writes it within a transaction and returns its id."""


class _TakenBack(Exception):  # noqa: N818
    """Everything was decided, and nothing of it may stay."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.outcome)
        self.verdict = verdict


class Replayer(Repair[SqlStorage]):
    """Replays the dead letters of sagas."""

    async def replay(
        self,
        dead_letter_id: int,
        *,
        actor: str,
        reason: str,
        request_id: str,
        dry_run: bool = False,
        instead: Instead | None = None,
    ) -> Verdict:
        """Apply the message of a letter. The same request again changes nothing and gets the same verdict.

        With `dry_run` everything is done and then taken back: it needs the same locks.

        Raises:
            OperationRefused: the letter is no saga's, or of a type that this process does not know.
            Trouble: the database is away or busy; asking again with the same request id is safe.
        """
        request = Request(dead_letter_id=dead_letter_id, actor=actor, reason=reason, request_id=request_id)
        return await tried(self._runner, lambda: self._attempt(request, instead, dry_run=dry_run))

    async def _attempt(self, request: Request, instead: Instead | None, *, dry_run: bool) -> Verdict:
        facts: list[object] = []
        try:
            async with self._storage.transaction() as unit:
                verdict = await self._replay(unit, request, instead, facts)
                if dry_run:
                    raise _TakenBack(verdict)
        except _TakenBack as dry:
            return dry.verdict
        except MessageError as error:  # the database refuses what it makes
            return await self._fail(request, error, dry_run=dry_run)
        for fact in facts:
            self._report(fact)
        return verdict

    async def _replay(self, unit: SqlUnit, request: Request, instead: Instead | None, facts: list[object]) -> Verdict:
        seen = instead[0] if instead is not None else await dead_letters.find(unit.session, request.dead_letter_id)
        if (ended := await closed(unit.session, request, seen)) is not None or seen is None:
            return ended or verdict_on(request, NOT_FOUND, "")
        saga = self._saga_of(seen)
        message = decode(seen.raw, saga.latest, self._limits)
        owners = await claim_keys(saga, unit, [message])
        aliases = await find_aliases(saga, unit, [message])
        router = Router(saga.latest, saga.namespace, owners, aliases)
        locked = await unit.lock(router.wanted([message]), wait=True)
        aliases = still_there(aliases, locked)
        routed = router.route(0, message, locked)
        claimed = await unit.claim_inbox(saga.name, self._runner.token(), _entries(routed))
        if instead is not None:
            request = replace(request, dead_letter_id=await instead[1](unit))
        letter = await dead_letters.find(unit.session, request.dead_letter_id, lock=True)
        if (ended := await closed(unit.session, request, letter)) is not None or letter is None:
            raise _TakenBack(ended or verdict_on(request, NOT_FOUND, ""))  # somebody was faster: nothing of it may stay
        deciding = Deciding(saga, unit, claimed.now, self._limits, owners, aliases=aliases)
        known = claimed.known.get(routed.identity) if routed.identity is not None else None
        failed: MessageError | DeadLetter | None
        if known is None:
            verdict, failed = await _decided(deciding, routed, request)
            await _let_go_on(unit, deciding, await _errors(unit, letter), request)
            _sign(deciding, request)
        elif known.body_hash == letter.body_hash:
            verdict, failed = verdict_on(request, DUPLICATE, "a copy of it was handled before"), None
        else:
            failed = IdConflict(
                f"message id {letter.message_id} was used before for another body; edit it to give it a new one"
            )
            verdict = failed_again(request, failed)
        batch = Batch()
        write(batch, request, verdict, failed)
        changes = await deciding.changes()
        others = [each for each in deciding.dead_letters if each is not failed]  # of what was held for a start
        await unit.save(replace(changes, dead_letters=others), also=batch)
        facts += [fact for fact in (*deciding.facts, *deciding.work.facts()) if failed is None]
        return verdict

    def _saga_of(self, letter: Letter) -> SagaType:
        saga = self._sagas.get(letter.consumer)
        if saga is None:
            raise OperationRefused(
                f"dead letter {letter.dead_letter_id} is for {letter.consumer}, which is no saga known here; run this "
                "where its code is, with ANTIPHON_MODULES as the sidecar has it"
            )
        return saga

    async def _fail(self, request: Request, error: MessageError, *, dry_run: bool) -> Verdict:
        """Write down that it failed again, where the database undid everything else."""
        verdict = failed_again(request, error)
        if not dry_run:
            batch = Batch()
            write(batch, request, verdict, error)
            async with self._storage.database.write() as session:
                await session.write(batch, self._runner.now())
        return verdict


def _entries(routed: Routed) -> list[InboxEntry]:
    """What the inbox has to remember: nothing of a message without an id, or that is for nobody."""
    if routed.identity is None or routed.nobody:
        return []
    source, message_id = routed.identity
    return [InboxEntry(source=source, message_id=message_id, body_hash=routed.message.body_hash)]


async def _decided(
    deciding: Deciding, routed: Routed, request: Request
) -> tuple[Verdict, MessageError | DeadLetter | None]:
    """What the message comes to, when it is applied as if for the first time."""
    if routed.nobody:
        return verdict_on(request, IGNORED, "it answers no instance of this saga"), None
    if routed.identity is None:
        error = routed.message.error or MessageError("it cannot be read")
        return failed_again(request, error), error
    await deciding.apply(routed)
    for letter in deciding.dead_letters:
        if (letter.source, letter.message_id) == routed.identity:
            return verdict_on(request, FAILED_AGAIN, f"{letter.reason}: {letter.error}", letter.saga_id), letter
    outcome = {
        None: PROCESSED,
        Disposition.APPLIED.value: PROCESSED,
        Disposition.IGNORED.value: IGNORED,
        Disposition.HELD.value: HELD,
    }[deciding.dispositions.get(routed.identity)]
    rows = deciding.work.history()
    detail = ", ".join(row.entry.kind for row in rows)
    if outcome == IGNORED:
        reasons = [row.entry.detail.get("reason") for row in rows]
        reasons += [fact.reason for fact in deciding.facts if isinstance(fact, MessageIgnored)]
        detail = ", ".join(str(reason) for reason in reasons if reason)
    saga_id, seq = (rows[0].saga_id, rows[0].entry.seq) if rows else (routed.target, None)
    return verdict_on(request, outcome, detail, saga_id, seq), None


async def _errors(unit: SqlUnit, letter: Letter) -> set[str]:
    """What is wrong with a letter, and was with those that it was made of."""
    errors = {letter.error}
    while letter.replaces is not None and (earlier := await dead_letters.find(unit.session, letter.replaces)):
        letter = earlier
        errors.add(letter.error)
    return errors


async def _let_go_on(unit: SqlUnit, deciding: Deciding, errors: set[str], request: Request) -> None:
    """An instance that this very letter had parked goes on, also where the method that raised has another name now."""
    retry = Operated(action=Action.RETRY, actor=request.actor, reason=request.reason, request_id=request.request_id)
    for fold in list(deciding.work.folds.values()):
        its_cause = fold.current.attention.get("method_raised") in errors
        if its_cause and not fold.current.paused and not deciding.dead_letters:
            await deciding.operate(fold, retry)


def _sign(deciding: Deciding, request: Request) -> None:
    """What the replay made an instance do begins with a row of its history that says who wanted it, and why."""
    signature = {
        "dead_letter": request.dead_letter_id,
        "actor": printable(request.actor, dead_letters.MAX_NAME),
        "why": printable(request.reason, dead_letters.MAX_ERROR),
    }
    for fold in deciding.work.folds.values():
        if fold.history:
            first = fold.history[0]
            entry = replace(first.entry, detail={**first.entry.detail, **signature})
            fold.history[0] = replace(first, entry=entry)
