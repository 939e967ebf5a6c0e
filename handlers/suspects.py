"""What comes again and again without an end, or is held for ever, a message or a timer: perhaps it kills its process.

Whoever was in hand when a process died comes again, the guilty and the innocent alike. So such a one is met alone,
after a note that outlives the process. The innocent come to an end, and their notes vanish; so do those of a process
that is hindered and lives. Three notes are three processes that died while they had this one in hand and no other
suspect: a message is a dead letter then, and a timer is not fired any more.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from messages import codec
from messages.errors import KilledProcess, Trouble
from messages.printable import printable
from outbox.interface import Accused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from uuid import UUID

    from messages.envelope import Raw
    from outbox.holding import Held
    from outbox.interface import DueTimer, Storage
    from running import Runner
    from transport.interface import Delivery

SUSPICIOUS = 3
"""Deliveries before this one, none of which came to an end."""

MOST_NOTES = 3
_TIMERS = "timers"
CROWD = Accused(consumer=_TIMERS, source="", message_id="", body_hash=b"")
"""Timers that are met together."""

_BRIEF = 5.0  # seconds
_LONGEST = 255  # characters of a name in the table


def suspicious(delivery: Delivery) -> bool:
    """Whether it has to be met alone."""
    return delivery.delivery_count >= SUSPICIOUS


class Suspects:
    """All suspects of one process, whoever consumes them: one at a time, or two would be noted for one's deed."""

    def __init__(self, storage: Storage, runner: Runner) -> None:
        self._storage = storage
        self._runner = runner
        self._life = runner.token()
        self._alone = asyncio.Lock()
        self._withdrawing = False  # notes stand that should not

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Wait until no other suspect is being met in this process.

        Trouble ends the block without telling how it went with the suspect; but it did not kill us.

        Raises:
            Trouble: as in the block, or before it: what was noted earlier could not be withdrawn yet.
        """
        async with self._alone:
            if self._withdrawing:
                await self._withdraw()
            try:
                yield
            except BaseException as error:
                self._withdrawing = True
                if isinstance(error, Trouble):
                    await self.leave()
                raise

    async def leave(self) -> None:
        """Withdraw what stands of this process, if that can be done now: it was hindered or ends, and is not killed."""
        if self._withdrawing:
            with suppress(Trouble, TimeoutError):
                async with self._runner.timeout(_BRIEF):
                    await self._withdraw()

    async def withdraw(self) -> None:
        """Take back what this process has noted: it lives, and was not hurt."""
        self._withdrawing = True
        await self.leave()

    async def _withdraw(self) -> None:
        await self._storage.withdraw_notes(self._life)
        self._withdrawing = False

    async def noted(self, wanted: Sequence[Accused]) -> Sequence[int]:
        """How many processes have noted each of them and were not heard of again; all are of one consumer.

        Raises:
            Trouble: ask again.
        """
        return await self._storage.noted(wanted)

    async def in_hand(self, wanted: Sequence[Accused]) -> Sequence[bool]:
        """Whether a process that lives may be meeting each of them just now; all are of one consumer.

        Raises:
            Trouble: ask again.
        """
        return await self._storage.in_hand(wanted)

    async def note(self, accused: Accused) -> bool:
        """Note that it is about to be met; whether it may be.

        Raises:
            Trouble: it must not be met yet; call it again.
        """
        return await self._storage.note_accused(accused, self._life) <= MOST_NOTES

    async def note_crowd(self) -> bool:
        """Note that many timers are about to be met together; whether they may be: no other process died of it."""
        return await self._storage.note_accused(CROWD, self._life) == 1

    async def acquit(self, accused: Accused) -> None:
        """It has come to an end.

        Raises:
            Trouble: the note may stand; call it again.
        """
        await self._storage.acquit(accused)


def killed_process(accused: Accused) -> KilledProcess:
    """What is wrong with a message that must not be met any more."""
    return KilledProcess(
        f"{MOST_NOTES} processes died while they had this message in hand and no other suspect; find out why, mend "
        "it, then replay",
        message_id=accused.message_id,
    )


def accused_timer(timer: DueTimer) -> Accused:
    """A timer as it was armed: armed anew it is another, and nothing stands against it."""
    return Accused(
        consumer=_TIMERS, source=str(timer.saga_id), message_id=timer.name, body_hash=timer.fence.to_bytes(32)
    )


def held_crowd(saga_type: str) -> Accused:
    """Held messages of a saga type that are applied together."""
    return Accused(consumer=f"held.{saga_type}", source="", message_id="", body_hash=b"")


def accused_held(row: Held) -> Accused:
    """A held message, which is noted apart from its deliveries: it has none any more."""
    return replace(held_crowd(row.saga_type), source=row.source, message_id=row.message_id, body_hash=row.body_hash)


def accused_resume(saga_id: UUID) -> Accused:
    """Whatever is held for an instance, applied with the end of its pause."""
    return Accused(consumer="resume", source=str(saga_id), message_id="", body_hash=b"")


def accused_message(consumer: str, raw: Raw) -> Accused:
    """A message by what it is known without being read: reading it may be what kills."""
    body_hash = codec.body_hash(raw.body)
    return Accused(
        consumer=consumer,
        source=printable(raw.user_id or raw.app_id or "", _LONGEST),
        message_id=printable(raw.message_id or body_hash.hex(), _LONGEST),
        body_hash=body_hash,
    )
