"""Whose fault trouble with the database is: that of what was tried, or its own; and when enough is enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from messages.errors import DatabaseBusy, DatabaseExhausted, MessageError, Trouble

if TYPE_CHECKING:
    from outbox.interface import Storage

ALONE_TIMES = 5
ALONE_SECONDS = 60.0
"""A message that fails alone is given up only after so many times, and so long after the first of them."""


async def is_to_blame(storage: Storage, error: Trouble) -> bool:
    """Whether what was tried may be to blame: the database was busy with it, and a probe beside it succeeds.

    Never for an outage, a full disk, a lock on a whole table: those meet whatever is tried.
    """
    if not isinstance(error, DatabaseBusy) or isinstance(error, DatabaseExhausted):
        return False
    try:
        await storage.probe()
    except (Trouble, MessageError):
        return False
    return True


@dataclass(slots=True)
class Failures:
    """How often one message has failed alone, by its own doing; the first time at `since`."""

    times: int = 0
    since: float = 0.0

    def another(self, error: Trouble, now: float) -> MessageError | None:
        """It failed once more; what it is to be refused with, once that was often and long enough."""
        if not self.times:
            self.since = now
        self.times += 1
        if self.times < ALONE_TIMES or now - self.since < ALONE_SECONDS:
            return None
        return MessageError(
            f"it failed alone {self.times} times in {now - self.since:.0f} s while the database worked; the last time: "
            f"{error}"
        )
