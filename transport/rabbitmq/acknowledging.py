"""Which tags to acknowledge when deliveries of one channel are settled out of order. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Acknowledgement: TypeAlias = tuple[int, bool]
"""(tag, multiple): with `multiple` every unacknowledged tag up to it is meant."""


class Ledger:
    """The tags of one channel lifetime, from 1.

    What is settled below the lowest unsettled tag (the *hole*) is acknowledged with one `multiple`. What is settled
    above it waits, because the hole is usually settled next and one frame then does for all. It does not wait for ever:
    it is acknowledged tag by tag as soon as the same hole is still there at the next settling, or when what waits makes
    up half of the prefetch and would keep new deliveries away.
    """

    def __init__(self, prefetch: int) -> None:
        self._patience = max(1, prefetch // 2)
        self._hole = 1
        self._waiting: set[int] = set()
        self._single: set[int] = set()  # above the hole, acknowledged one by one: the broker knows them no more

    def settle(self, tags: Iterable[int]) -> list[Acknowledgement]:
        """Note these as settled and say what to acknowledge now. A tag that was settled before changes nothing."""
        before, old = self._hole, frozenset(self._waiting)
        self._waiting.update(tag for tag in tags if tag >= self._hole and tag not in self._single)
        highest = self._advance()
        acknowledgements = [(highest, True)] if highest is not None else []
        if self._hole == before or len(self._waiting) >= self._patience:
            overdue = self._waiting if len(self._waiting) >= self._patience else self._waiting & old
            acknowledgements += [(tag, False) for tag in sorted(overdue)]
            self._single |= overdue
            self._waiting -= overdue
        return acknowledgements

    def flush(self) -> list[Acknowledgement]:
        """Everything settled that still waits: the channel is about to be closed."""
        tags, self._waiting = sorted(self._waiting), set()
        self._single.update(tags)
        return [(tag, False) for tag in tags]

    def _advance(self) -> int | None:
        """Move the hole up; the highest tag passed that the broker still waits for, or None."""
        highest = None
        while True:
            if self._hole in self._waiting:
                self._waiting.remove(self._hole)
                highest = self._hole
            elif self._hole in self._single:
                self._single.remove(self._hole)
            else:
                return highest
            self._hole += 1
