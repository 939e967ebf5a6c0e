"""The seam to a database on which a batch can be decided without locks: looked at once, and saved if nothing changed.

That is two round trips, where a transaction takes five or six. What was decided counts only if everything that it was
decided on still stands; whoever finds that it does not, or needs more than it asked for, decides again in a
transaction. See `outbox.optimistic` for how it is carried out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from messages.value import value

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from contextlib import AbstractAsyncContextManager
    from uuid import UUID

    from outbox.interface import ClaimedRow, InboxEntry, KeyClaim, Outgoing, Unit


class NeedsTransaction(Exception):  # noqa: N818
    """What is asked of the unit can only be answered, or kept true, in a transaction."""


@value
class Wanted:
    """What a batch may ask for: keys for its starts, its instances, its ids in the inbox."""

    saga_type: str
    claims: Sequence[KeyClaim]
    saga_ids: Collection[UUID]
    entries: Sequence[InboxEntry]


class Unlocked(Protocol):
    """The way without locks."""

    def unit(self, wanted: Wanted) -> AbstractAsyncContextManager[Unit]:
        """Look at what is wanted. The unit answers from that; `save` commits, and nothing else does.

        The unit's methods raise `NeedsTransaction` where a look is not enough. Leaving the block undoes nothing.

        Raises:
            DatabaseAway, DatabaseBusy: nothing was committed. From `save` the latter means, too, that somebody else
                was first: what was looked at has changed.
            CommitUnknown: only from `save`.
        """
        ...

    async def claimed(self, token: UUID, outgoing: Sequence[Outgoing]) -> Sequence[ClaimedRow]:
        """Which of these messages a save under this token claimed, where its answer was lost."""
        ...
