"""Messages that come again and again without an end: perhaps because they kill the process that takes them.

Whoever was in hand when a process died comes again, the guilty and the innocent alike. So such a message is met alone,
after a note that outlives the process. The innocent come to an end, and their notes vanish. Three notes are three
processes that died while they had this one message in hand and no other suspect: it is a dead letter.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from messages import codec
from messages.errors import KilledProcess
from messages.printable import printable
from outbox.interface import Accused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from messages.envelope import Raw
    from outbox.interface import Storage
    from running import Runner
    from transport.interface import Delivery

SUSPICIOUS = 3
"""Deliveries before this one, none of which came to an end."""

MOST_NOTES = 3
_LONGEST = 255  # characters of a name in the table


def suspicious(delivery: Delivery) -> bool:
    """Whether it has to be met alone."""
    return delivery.delivery_count >= SUSPICIOUS


class Suspects:
    """All suspects of one process, whoever consumes them: one at a time, or two would be noted for one's deed."""

    def __init__(self, storage: Storage, runner: Runner) -> None:
        self._storage = storage
        self._life = runner.token()
        self._alone = asyncio.Lock()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Wait until no other suspect is being met in this process."""
        async with self._alone:
            yield

    async def noted(self, consumer: str, raws: Sequence[Raw]) -> Sequence[int]:
        """How many processes have noted each of them and were not heard of again.

        Raises:
            Trouble: ask again.
        """
        return await self._storage.noted([_accused(consumer, raw) for raw in raws])

    async def note(self, consumer: str, raw: Raw) -> KilledProcess | None:
        """Note that it is about to be met; what is wrong with it when it must not be met any more.

        Raises:
            Trouble: it must not be met yet; call it again.
        """
        accused = _accused(consumer, raw)
        notes = await self._storage.note_accused(accused, self._life)
        if notes <= MOST_NOTES:
            return None
        return KilledProcess(
            f"{MOST_NOTES} processes died while they had this message in hand and no other suspect; find out why, mend "
            "it, then replay",
            message_id=accused.message_id,
        )

    async def acquit(self, consumer: str, raw: Raw) -> None:
        """It has come to an end.

        Raises:
            Trouble: the note may stand; call it again.
        """
        await self._storage.acquit(_accused(consumer, raw))


def _accused(consumer: str, raw: Raw) -> Accused:
    """By what it is known without being read: reading it may be what kills."""
    body_hash = codec.body_hash(raw.body)
    return Accused(
        consumer=consumer,
        source=printable(raw.user_id or raw.app_id or "", _LONGEST),
        message_id=printable(raw.message_id or body_hash.hex(), _LONGEST),
        body_hash=body_hash,
    )
