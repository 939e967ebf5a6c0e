"""A real storage whose answer to a commit gets lost, after the commit or instead of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

from messages.errors import CommitUnknown
from tests.handlers.wrapped import Wrapped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from outbox.interface import Changes, ClaimedRow
    from outbox.unit import SqlStorage, SqlUnit


class _NeverCommittedError(Exception):
    pass


class Lossy(Wrapped):
    """Everything of the storage it wraps; `lose` takes the answer of the next commit."""

    def __init__(self, storage: SqlStorage) -> None:
        super().__init__(storage)
        self._next: Literal["after", "instead"] | None = None
        self.lost = 0

    def lose(self, when: Literal["after", "instead"]) -> None:
        """Lose the answer to the next commit: it happens and nobody hears of it, or it never happens."""
        self._next = when

    @asynccontextmanager
    async def around(self, opening: AbstractAsyncContextManager[SqlUnit], *, at_once: bool) -> AsyncIterator[SqlUnit]:
        """See `Wrapped`."""
        when, self._next = self._next, None
        try:
            async with opening as unit:
                save = unit.save

                async def never(_changes: Changes) -> Sequence[ClaimedRow]:
                    raise _NeverCommittedError

                async def unheard(changes: Changes) -> Sequence[ClaimedRow]:
                    await save(changes)
                    raise self._lost()

                if at_once and when is not None:
                    unit.save = never if when == "instead" else unheard  # type: ignore[assignment, method-assign]
                yield unit
                if when == "instead":
                    raise _NeverCommittedError
        except _NeverCommittedError:
            raise self._lost() from None
        if when == "after":
            raise self._lost()

    def _lost(self) -> CommitUnknown:
        self.lost += 1
        return CommitUnknown("the connection was lost while COMMIT was under way")
