"""The replay of one dead letter: its message is applied in the database, in the transaction that marks the letter.

So it is safe any number of times, by anyone, even after the inbox has forgotten the message: the letter is open once.
The instance is locked before the letter, which is the order of the message path. What the message makes the saga send
waits in the outbox for a relay.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from handlers.deciding import Deciding, SagaType, claim_keys
from handlers.decoding import decode
from handlers.facts import MessageIgnored
from handlers.routing import Router
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
from messages.errors import IdConflict, MessageError, OperationRefused, Trouble
from outbox.interface import InboxEntry
from sagas.decision import Action, Disposition, Operated
from storage import dead_letters
from storage.statements import Batch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from handlers.routing import Routed
    from handlers.work import Definitions
    from messages.codec import Limits
    from outbox.interface import DeadLetter
    from outbox.unit import SqlStorage, SqlUnit
    from running import Runner
    from storage.dead_letters import Letter

_TRIES = 5


class _TakenBack(Exception):  # noqa: N818
    """Everything was decided, and nothing of it may stay."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.outcome)
        self.verdict = verdict


class Replayer:
    """Replays the dead letters of sagas."""

    def __init__(
        self,
        sagas: Mapping[str, Definitions],
        *,
        namespace: str,
        storage: SqlStorage,
        runner: Runner,
        report: Callable[[object], None],
        limits: Limits,
    ) -> None:
        self._sagas = {name: SagaType(definitions, namespace) for name, definitions in sagas.items()}
        self._storage = storage
        self._runner = runner
        self._report = report
        self._limits = limits

    async def replay(
        self,
        dead_letter_id: int,
        *,
        actor: str,
        reason: str,
        request_id: str,
        dry_run: bool = False,
        first: Callable[[SqlUnit], Awaitable[int]] | None = None,
    ) -> Verdict:
        """Apply the message of a letter. The same request again changes nothing and gets the same verdict.

        With `dry_run` everything is done and then taken back: it needs the same locks. What is done `first`, in the
        same transaction, names the letter in the place of the given one.

        Raises:
            OperationRefused: the letter is no saga's, or of a type that this process does not know.
            Trouble: the database is away or busy; asking again with the same request id is safe.
        """
        request = Request(dead_letter_id=dead_letter_id, actor=actor, reason=reason, request_id=request_id)
        tries = 0
        while True:
            try:
                return await self._attempt(request, first, dry_run=dry_run)
            except Trouble:
                tries += 1
                if tries == _TRIES:
                    raise
            await self._runner.sleep(0.1 * 2**tries)

    async def _attempt(
        self, request: Request, first: Callable[[SqlUnit], Awaitable[int]] | None, *, dry_run: bool
    ) -> Verdict:
        facts: list[object] = []
        try:
            async with self._storage.transaction() as unit:
                if first is not None:
                    request = replace(request, dead_letter_id=await first(unit))
                verdict = await self._replay(unit, request, facts)
                if dry_run:
                    raise _TakenBack(verdict)
        except _TakenBack as dry:
            return dry.verdict
        except MessageError as error:  # the database refuses what it makes
            return await self._fail(request, error, dry_run=dry_run)
        for fact in facts:
            self._report(fact)
        return verdict

    async def _replay(self, unit: SqlUnit, request: Request, facts: list[object]) -> Verdict:
        seen = await dead_letters.find(unit.session, request.dead_letter_id)
        if (ended := await closed(unit.session, request, seen)) is not None or seen is None:
            return ended or verdict_on(request, NOT_FOUND, "")
        saga = self._saga_of(seen)
        message = decode(seen.raw, saga.latest, self._limits)
        owners = await claim_keys(saga, unit, [message])
        router = Router(saga.latest, saga.namespace, owners)
        locked = await unit.lock(router.wanted([message]), wait=True)
        routed = router.route(0, message, locked)
        claimed = await unit.claim_inbox(saga.name, self._runner.token(), _entries(routed))
        letter = await dead_letters.find(unit.session, request.dead_letter_id, lock=True)
        if (ended := await closed(unit.session, request, letter)) is not None or letter is None:
            raise _TakenBack(ended or verdict_on(request, NOT_FOUND, ""))  # somebody was faster: nothing of it may stay
        deciding = Deciding(saga, unit, claimed.now, self._limits, owners)
        known = claimed.known.get(routed.identity) if routed.identity is not None else None
        if known is None:
            verdict, failed = await _decided(deciding, routed, request)
            await _let_go_on(unit, deciding, letter, request)
        elif known.body_hash == letter.body_hash:
            verdict, failed = verdict_on(request, DUPLICATE, "a copy of it was handled before"), None
        else:
            text = f"message id {letter.message_id} was used before for another body; edit it to give it a new one"
            verdict, failed = failed_again(request, IdConflict(text)), IdConflict(text)
        batch = Batch()
        write(batch, request, verdict, failed)
        await unit.save(replace(await deciding.changes(), dead_letters=()), also=batch)
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
    if deciding.dead_letters:
        [again] = deciding.dead_letters
        return verdict_on(request, FAILED_AGAIN, f"{again.reason}: {again.error}", again.saga_id), again
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


async def _let_go_on(unit: SqlUnit, deciding: Deciding, letter: Letter, request: Request) -> None:
    """An instance that this very letter had parked goes on, also where the method that raised has another name now."""
    retry = Operated(action=Action.RETRY, actor=request.actor, reason=request.reason, request_id=request.request_id)
    for fold in list(deciding.work.folds.values()):
        its_cause = fold.current.attention.get("method_raised") == letter.error
        if its_cause and not fold.current.paused and not deciding.dead_letters:
            await deciding.work.decide(unit, fold, retry)
