"""Discarding a dead letter: it stays in the table with who did it, when and why, and wants nobody any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.repair import tried
from handlers.verdict import DISCARDED, NOT_FOUND, Request, Verdict, closed, verdict_on
from outbox.interface import Changes
from storage import dead_letters
from storage.statements import Batch

if TYPE_CHECKING:
    from outbox.unit import SqlStorage
    from running import Runner


class Discarder:
    """Discards letters, one transaction each."""

    def __init__(self, storage: SqlStorage, runner: Runner) -> None:
        self._storage = storage
        self._runner = runner

    async def discard(self, request: Request, *, dry_run: bool = False) -> Verdict:
        """Discard a letter that is open; of one that is not, say what became of it.

        Raises:
            Trouble: the database is away or busy; asking again with the same request id is safe.
        """
        return await tried(self._runner, lambda: self._attempt(request, dry_run=dry_run))

    async def _attempt(self, request: Request, *, dry_run: bool) -> Verdict:
        async with self._storage.transaction() as unit:
            letter = await dead_letters.find(unit.session, request.dead_letter_id, lock=True)
            if (ended := await closed(unit.session, request, letter)) is not None or letter is None:
                return ended or verdict_on(request, NOT_FOUND, "")
            verdict = verdict_on(request, DISCARDED, request.reason, letter.saga_id)
            if dry_run:
                return verdict
            batch = Batch()
            dead_letters.resolve(
                batch, letter.dead_letter_id, status=dead_letters.DISCARDED, actor=request.actor, why=request.reason
            )
            dead_letters.record(
                batch,
                letter.dead_letter_id,
                kind="discarded",
                actor=request.actor,
                why=request.reason,
                request_id=request.request_id,
                outcome=verdict.outcome,
                detail=verdict.detail,
            )
            await unit.save(Changes(consumer=letter.consumer), also=batch)
        return verdict
