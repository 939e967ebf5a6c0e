"""What the relay holds in memory: publications without an outcome yet, how many, how large, and to where.

Bounded, and shared out: whoever takes, takes half of what is free at most, and no destination gets more while it has as
much as is free. So one that answers slowly leaves room for a second, and both for a third.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from messages.value import value
from outbox.interface import CLAIM_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from outbox.interface import ClaimedRow, Destination

MAX_ROWS = 2_000
MAX_BYTES = CLAIM_BYTES


@value
class Flying:
    """A publication without an outcome; its lease ends at `until`, on the runner's monotonic clock."""

    row: ClaimedRow
    until: float
    sent_at: float


class InFlight:
    """Publications by ticket."""

    def __init__(self, thinned: Callable[[], None]) -> None:
        """`thinned` is called when a destination that was crowded is so no longer."""
        self._thinned = thinned
        self._flying: dict[int, Flying] = {}
        self._tickets = 0
        self._bytes = 0
        self._rows_to: Counter[Destination] = Counter()
        self._bytes_to: Counter[Destination] = Counter()
        self._crowded: set[Destination] = set()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._flying)

    def __iter__(self) -> Iterator[tuple[int, Flying]]:
        """All of them as they are now, with their tickets, the oldest first."""
        return iter(list(self._flying.items()))

    @property
    def room(self) -> int:
        """How many more may be taken at once."""
        return 0 if self._bytes >= MAX_BYTES else (MAX_ROWS - len(self._flying)) // 2

    @property
    def byte_room(self) -> int:
        """How many bytes more may be taken at once."""
        return (MAX_BYTES - self._bytes) // 2

    def crowded(self) -> frozenset[Destination]:
        """Where so many are under way to that no more are to be added for now."""
        rows, size = MAX_ROWS - len(self._flying), MAX_BYTES - self._bytes
        self._crowded |= {to for to, count in self._rows_to.items() if count >= rows or self._bytes_to[to] >= size}
        return frozenset(self._crowded)

    def fitting(self, rows: Sequence[ClaimedRow], closed: Collection[Destination]) -> list[ClaimedRow]:
        """Those for which there is room, and that do not go where nothing is to be published."""
        room = 0 if self._bytes >= MAX_BYTES else MAX_ROWS - len(self._flying)
        return [row for row in rows if row.outgoing.destination not in closed][:room]

    def add(self, row: ClaimedRow, *, until: float, now: float) -> int:
        """Take a row that is about to be published; returns its ticket."""
        destination, size = row.outgoing.destination, len(row.outgoing.envelope.body)
        self._tickets += 1
        self._flying[self._tickets] = Flying(row=row, until=until, sent_at=now)
        self._bytes += size
        self._rows_to[destination] += 1
        self._bytes_to[destination] += size
        return self._tickets

    def pop(self, ticket: int) -> Flying | None:
        """Forget one and return it; None when it was forgotten before."""
        flying = self._flying.pop(ticket, None)
        if flying is not None:
            destination, size = flying.row.outgoing.destination, len(flying.row.outgoing.envelope.body)
            self._bytes -= size
            self._rows_to[destination] -= 1
            self._bytes_to[destination] -= size
            if destination in self._crowded:
                self._thin_out(destination)
            if not self._rows_to[destination]:
                del self._rows_to[destination], self._bytes_to[destination]
        return flying

    def prolong(self, ticket: int, until: float) -> None:
        """Its lease was renewed; nothing when it was forgotten meanwhile."""
        if ticket in self._flying:
            self._flying[ticket] = replace(self._flying[ticket], until=until)

    def _thin_out(self, destination: Destination) -> None:
        """Also where others have too much: nothing that goes there would end any more, and have it looked at again."""
        rows, size = MAX_ROWS - len(self._flying), MAX_BYTES - self._bytes
        fits = self._rows_to[destination] <= rows // 2 and self._bytes_to[destination] <= size // 2
        if fits or not self._rows_to[destination]:
            self._crowded.discard(destination)
            self._thinned()
