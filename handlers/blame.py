"""Whose fault trouble with the database is: that of what was tried, or the database's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages.errors import DatabaseBusy, DatabaseExhausted, MessageError, Trouble

if TYPE_CHECKING:
    from outbox.interface import Storage


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
