"""A real storage whose answer to COMMIT gets lost, after the commit or instead of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from messages.errors import CommitUnknown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from outbox.unit import SqlStorage, SqlUnit


class _NeverCommittedError(Exception):
    pass


class Lossy:
    """Everything of the storage it wraps; `lose` takes the answer of the next commit."""

    def __init__(self, storage: SqlStorage) -> None:
        self._storage = storage
        self._next: Literal["after", "instead"] | None = None
        self.lost = 0

    def lose(self, when: Literal["after", "instead"]) -> None:
        """Lose the answer to the next commit: it happens and nobody hears of it, or it never happens."""
        self._next = when

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlUnit]:
        """The storage's transaction."""
        when, self._next = self._next, None
        try:
            async with self._storage.transaction() as unit:
                yield unit
                if when == "instead":
                    raise _NeverCommittedError
        except _NeverCommittedError:
            self.lost += 1
            raise CommitUnknown("the connection was lost while COMMIT was under way") from None
        if when == "after":
            self.lost += 1
            raise CommitUnknown("the connection was lost while COMMIT was under way")

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._storage, name)
