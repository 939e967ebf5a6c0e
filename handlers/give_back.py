"""A dead letter whose reader is elsewhere goes back to the queue that gave it up, by the outbox: the same bytes with
the same properties, whatever they are.

What is left out would make it another message, or end it once more: what the broker has written about its death,
`user_id`, which is the name of another connection, the queues that a sender named beside its own (`CC`), and
`expiration`, which the import has not even kept. Nobody here can know what its reader makes of it. What is known, and
told, is whether the broker has taken it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from handlers.awaited import why_nobody_waits
from handlers.repair import tried
from handlers.verdict import (
    GIVEN_BACK,
    IGNORED,
    NOT_FOUND,
    Request,
    Verdict,
    closed,
    failed_again,
    verdict_on,
    write,
)
from messages import codec
from messages.envelope import UNDECODABLE_HEADER
from messages.errors import MalformedMessage, MessageError
from outbox import store
from outbox.interface import Changes, GivenBack
from storage import dead_letters
from storage.statements import Batch

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from messages.codec import Limits
    from messages.envelope import Raw
    from outbox.interface import Outgoing
    from outbox.unit import SqlStorage
    from running import Runner
    from storage.database import Session
    from storage.dead_letters import Letter

_LEFT_OUT = frozenset(
    {
        "x-death",
        *(f"x-{which}-death-{what}" for which in ("first", "last") for what in ("exchange", "queue", "reason")),
        "x-delivery-count",
        "x-acquired-count",
        "cc",
        "bcc",
    }
)
GLANCE = 0.2
"""Seconds between two looks whether the broker has taken what was given back."""


class GiveBack:
    """Gives letters back to their queues."""

    def __init__(self, storage: SqlStorage, runner: Runner, *, limits: Limits) -> None:
        self._storage = storage
        self._runner = runner
        self._limits = limits

    async def replay(self, request: Request, *, dry_run: bool = False) -> Verdict:
        """Put the message into the outbox for its queue. The same request again changes nothing.

        Raises:
            Trouble: the database is away or busy; asking again with the same request id is safe.
        """
        return await tried(self._runner, lambda: self._attempt(request, dry_run=dry_run))

    async def foresee(self, request: Request, letter: Letter, _: object = None) -> Verdict:
        """See `handlers.replays.Way.foresee`."""
        async with self._storage.database.read() as session:
            return await self._foreseen(session, request, letter)

    async def _foreseen(self, session: Session, request: Request, letter: Letter) -> Verdict:
        if (why := await why_nobody_waits(session, letter.raw)) is not None:
            return verdict_on(request, IGNORED, why, letter.saga_id)
        try:
            self._checked(letter.raw)
        except MessageError as error:
            return failed_again(request, error)
        return verdict_on(
            request, GIVEN_BACK, f"to queue {letter.queue}; what its reader makes of it is not known here"
        )

    async def untaken(self, message_ids: Collection[str], *, patience: float) -> Mapping[str, str]:
        """Those that the broker has not taken within `patience` seconds, by id, with the reason as far as it is known.

        Raises:
            Trouble: the database is away or busy.
        """
        until = self._runner.monotonic() + patience
        while True:
            async with self._storage.database.read() as session:
                standing = await store.standing(session, message_ids)
            if not standing or self._runner.monotonic() >= until:
                return {message_id: _why(*row) for message_id, row in standing.items()}
            await self._runner.sleep(GLANCE)

    async def _attempt(self, request: Request, *, dry_run: bool) -> Verdict:
        async with self._storage.transaction() as unit:
            letter = await dead_letters.find(unit.session, request.dead_letter_id)
            if (ended := await closed(unit.session, request, letter)) is not None or letter is None:
                return ended or verdict_on(request, NOT_FOUND, "")
            verdict = await self._foreseen(unit.session, request, letter)
            if dry_run:
                return verdict
            batch, failed, outgoing = Batch(), None, []
            try:
                if verdict.outcome != IGNORED:
                    self._checked(letter.raw)
                    outgoing.append(_back(letter))
            except MessageError as error:
                failed = error
            write(batch, request, verdict, failed)
            await unit.save(Changes(consumer=letter.consumer, outgoing=outgoing), also=batch)
        return verdict

    def _checked(self, raw: Raw) -> None:
        """Make sure that it can be published.

        Raises:
            MalformedMessage, OversizeMessage: it cannot.
        """
        codec.check_size(raw.body, self._limits)
        if UNDECODABLE_HEADER in raw.headers:
            raise MalformedMessage(
                "its properties could not be read when it came, so nobody can write them again; publish it anew, and "
                "discard this one"
            )


def _back(letter: Letter) -> Outgoing:
    raw = letter.raw
    headers = {name: each for name, each in raw.headers.items() if name.lower() not in _LEFT_OUT}
    sent = replace(raw, headers=headers, user_id=None, type=raw.type or raw.routing_key)
    given_back = GivenBack(dead_letter_id=letter.dead_letter_id, raw=sent)
    return given_back.to(letter.queue or "", message_id=letter.message_id, name=letter.name)


def _why(state: str, error: str) -> str:
    if state == "returned":
        return f"the broker gave it back: {error or 'it has no such queue'}"
    return error or "no process with a relay has sent it yet; does antiphon run?"
