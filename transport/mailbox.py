"""A queue that is emptied in one go: whoever takes waits for the first item and gets all there are."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Unbounded; what goes in is bounded by whoever puts."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether nothing more goes in."""
        return self._closed

    def put(self, item: T) -> None:
        """Add an item; after `close` nobody would take it, so it is dropped."""
        if not self._closed:
            self._items.append(item)
            self._changed.set()

    async def take(self) -> list[T]:
        """All items, at least one; none only when the mailbox is closed and empty."""
        while not self._items and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        items, self._items = self._items, []
        return items

    def close(self) -> None:
        """Let those who wait go; what is in it can still be taken."""
        self._closed = True
        self._changed.set()
