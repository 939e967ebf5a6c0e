"""Which way a dead letter is replayed.

A saga's letter and that of a participant whose memory is in this database are replayed in it; any other goes back to
the queue that gave it up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from handlers.verdict import FAILED_AGAIN, NOT_FOUND, Request, Verdict, verdict_on
from messages.errors import OperationRefused
from storage import dead_letters
from transport.topology import dead_queue, participant_queue, saga_queue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from handlers.give_back import GiveBack
    from handlers.replay import Instead, Replayer
    from handlers.replay_command import CommandReplayer
    from outbox.unit import SqlStorage, SqlUnit
    from storage.dead_letters import Letter

_PARTICIPANT = "participant."


class Way(Protocol):
    """How letters of one kind are replayed."""

    async def replay(self, request: Request, *, dry_run: bool = False) -> Verdict:
        """Replay a letter; with `dry_run` say what would become of it, and change nothing.

        Raises:
            OperationRefused: this process cannot; the text says why and which can.
            Trouble: the database is away or busy; asking again with the same request id is safe.
        """
        ...

    async def foresee(self, request: Request, letter: Letter, write: Callable[[SqlUnit], Awaitable[int]]) -> Verdict:
        """What would become of a letter that is not there and that `write` would write, with the same errors."""
        ...


class Replays:
    """Replays any dead letter."""

    def __init__(
        self,
        storage: SqlStorage,
        *,
        namespace: str,
        sagas: Replayer,
        participants: Mapping[str, CommandReplayer],
        give_back: GiveBack,
    ) -> None:
        """`participants` holds those by name that this process knows."""
        self._storage = storage
        self._namespace = namespace
        self._sagas = _BySaga(sagas)
        self._participants = participants
        self._give_back = give_back

    async def replay(self, request: Request, *, dry_run: bool = False) -> Verdict:
        """See `Way.replay`. A letter that this process cannot replay has failed again, and says why.

        Raises:
            Trouble: the database is away or busy; asking again with the same request id is safe.
        """
        async with self._storage.database.read() as session:
            letter = await dead_letters.find(session, request.dead_letter_id)
        if letter is None:
            return verdict_on(request, NOT_FOUND, "there is no dead letter of that id")
        try:
            return await (await self._way(letter)).replay(request, dry_run=dry_run)
        except OperationRefused as error:
            return verdict_on(request, FAILED_AGAIN, str(error), letter.saga_id)

    async def foresee(self, request: Request, letter: Letter, write: Callable[[SqlUnit], Awaitable[int]]) -> Verdict:
        """See `Way.foresee`."""
        return await (await self._way(letter)).foresee(request, letter, write)

    async def _way(self, letter: Letter) -> Way:
        consumer, queue = letter.consumer, letter.queue
        if not consumer.startswith(_PARTICIPANT) and queue in (None, saga_queue(self._namespace, consumer)):
            if consumer == dead_queue(self._namespace):
                raise OperationRefused("nobody knows which queue gave it up: publish it anew, and discard this one")
            return self._sagas
        name = consumer.removeprefix(_PARTICIPANT)
        participant = self._participants.get(name)
        if participant is not None and (
            queue is None or (queue == participant_queue(self._namespace, name) and await participant.is_at_home())
        ):
            return participant
        if queue is not None:
            return self._give_back
        raise OperationRefused(
            f"dead letter {letter.dead_letter_id} is for the participant {name}, which is not known here; run this "
            "where its code is, with ANTIPHON_MODULES as that has it"
        )


class _BySaga:
    """The `Way` of the letters of sagas."""

    def __init__(self, replayer: Replayer) -> None:
        self._replayer = replayer

    async def replay(self, request: Request, *, dry_run: bool = False) -> Verdict:
        return await self._ask(request, dry_run=dry_run)

    async def foresee(self, request: Request, letter: Letter, write: Callable[[SqlUnit], Awaitable[int]]) -> Verdict:
        return await self._ask(request, dry_run=True, instead=(letter, write))

    async def _ask(self, request: Request, *, dry_run: bool, instead: Instead | None = None) -> Verdict:
        return await self._replayer.replay(
            request.dead_letter_id,
            actor=request.actor,
            reason=request.reason,
            request_id=request.request_id,
            dry_run=dry_run,
            instead=instead,
        )
