"""The replay of a participant's dead letter: its command is answered in the database, as if it had come once more.

What the handler does, the reply and the letter's new state are one transaction, so it is safe any number of times. The
reply waits in the outbox for a relay. What the saga that sent it does not wait for any more is not carried out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from handlers.awaited import why_nobody_waits
from handlers.decoding import uuid_of
from handlers.repair import tried
from handlers.verdict import (
    DUPLICATE,
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
from outbox.interface import Changes
from storage import dead_letters
from storage.statements import Batch

if TYPE_CHECKING:
    from handlers.answering import Answering, Ending
    from outbox.unit import SqlStorage
    from running import Runner
    from storage.dead_letters import Letter


class CommandReplayer:
    """Replays the dead letters of one participant whose tables are in this database."""

    def __init__(self, answering: Answering, storage: SqlStorage, runner: Runner) -> None:
        self._answering = answering
        self._storage = storage
        self._runner = runner

    async def replay(self, request: Request, *, dry_run: bool = False) -> Verdict:
        """Answer the command of a letter. The same request again changes nothing and gets the same verdict.

        With `dry_run` no handler is called, because it may act beyond the database: whether one would succeed is not
        known then.

        Raises:
            Trouble: the database is away or busy; asking again with the same request id is safe.
        """
        return await tried(self._runner, lambda: self._attempt(request, dry_run=dry_run))

    async def is_at_home(self) -> bool:
        """Whether the participant's memory is in this database."""
        return await self._answering.store.is_at_home()

    async def foresee(self, request: Request, letter: Letter, _: object = None) -> Verdict:
        """See `handlers.replays.Way.foresee`. No handler is called."""
        return self._verdict(request, letter, await self._foreseen(letter))

    async def _attempt(self, request: Request, *, dry_run: bool) -> Verdict:
        async with self._storage.database.read() as session:
            letter = await dead_letters.find(session, request.dead_letter_id)
            if (ended := await closed(session, request, letter)) is not None or letter is None:
                return ended or verdict_on(request, NOT_FOUND, "")
        foreseen = await self._foreseen(letter)
        if foreseen.dropped and not dry_run:
            await self._leave(request, letter, foreseen)
        if foreseen.dropped or dry_run:
            return self._verdict(request, letter, foreseen)

        def beside(batch: Batch, ending: Ending) -> None:
            write(batch, request, self._verdict(request, letter, ending), ending.error)

        return self._verdict(request, letter, await self._answering.take(letter.raw, beside))

    async def _foreseen(self, letter: Letter) -> Ending:
        ending = await self._answering.foresee(letter.raw)
        if ending.error is not None or ending.repeated or ending.dropped:
            return ending
        async with self._storage.database.read() as session:
            why = await why_nobody_waits(session, letter.raw)
        return ending if why is None else replace(ending, dropped=True, detail=why)

    async def _leave(self, request: Request, letter: Letter, ending: Ending) -> None:
        """Mark a letter whose command is not to be carried out."""
        batch = Batch()
        write(batch, request, self._verdict(request, letter, ending), None)
        async with self._storage.transaction() as unit:
            await unit.save(Changes(consumer=letter.consumer), also=batch)

    def _verdict(self, request: Request, letter: Letter, ending: Ending) -> Verdict:
        saga_id = letter.saga_id or uuid_of(letter.raw.correlation_id)
        if ending.error is not None:
            return failed_again(request, ending.error, saga_id)
        if ending.dropped:
            return verdict_on(request, IGNORED, ending.detail, saga_id)
        if ending.repeated:
            return verdict_on(request, DUPLICATE, "it was carried out before; its reply is sent again", saga_id)
        return verdict_on(request, PROCESSED, ending.detail, saga_id)
