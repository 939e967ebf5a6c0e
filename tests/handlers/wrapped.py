"""A real storage with something in between: in its transactions, and in what it saves without locks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager
    from uuid import UUID

    from outbox.interface import ClaimedRow, Outgoing
    from outbox.unit import SqlStorage, SqlUnit
    from outbox.unlocked import Unlocked, Wanted


class Wrapped:
    """Everything of the storage that it wraps, whose units go through `around`."""

    def __init__(self, storage: SqlStorage) -> None:
        self.storage = storage

    def around(
        self, opening: AbstractAsyncContextManager[SqlUnit], *, at_once: bool
    ) -> AbstractAsyncContextManager[SqlUnit]:
        """A unit, to be changed. `at_once`: it commits when it saves, and not at the end of the block."""
        raise NotImplementedError

    def transaction(self) -> AbstractAsyncContextManager[SqlUnit]:
        """See `outbox.interface.Storage`."""
        return self.around(self.storage.transaction(), at_once=False)

    @property
    def unlocked(self) -> Wrapped | None:
        """See `outbox.interface.Storage`."""
        return None if self.storage.unlocked is None else self

    def unit(self, wanted: Wanted) -> AbstractAsyncContextManager[SqlUnit]:
        """See `outbox.unlocked.Unlocked`."""
        return self.around(self._way.unit(wanted), at_once=True)  # type: ignore[arg-type]

    async def claimed(self, token: UUID, outgoing: Sequence[Outgoing]) -> Sequence[ClaimedRow]:
        """See `outbox.unlocked.Unlocked`."""
        return await self._way.claimed(token, outgoing)

    @property
    def _way(self) -> Unlocked:
        assert self.storage.unlocked is not None
        return self.storage.unlocked

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.storage, name)
