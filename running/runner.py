"""The `Runner` protocol and the implementation on asyncio."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")


class Runner(Protocol):
    """What code above the core may ask of the world besides its database and its broker."""

    def now(self) -> datetime:
        """The host's wall clock, aware UTC. Only SQLite and log lines use it; PostgreSQL's own clock decides there."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never steps back; for leases and timeouts."""
        ...

    def random(self) -> float:
        """A number in [0, 1), for jitter."""
        ...

    def token(self) -> uuid.UUID:
        """A fresh random identity: claim tokens, batch tokens, message ids of outside messages."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""
        ...

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Raise `TimeoutError` out of the block when it takes longer; None never does."""
        ...

    def start(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Run `work` beside the caller. The caller keeps the task, awaits or cancels it."""
        ...


class AsyncioRunner:
    """The real one."""

    def now(self) -> datetime:
        """See `Runner.now`."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See `Runner.monotonic`."""
        return time.monotonic()

    def random(self) -> float:
        """See `Runner.random`."""
        return random.random()  # noqa: S311 - jitter, not a secret

    def token(self) -> uuid.UUID:
        """See `Runner.token`."""
        return uuid.uuid4()

    async def sleep(self, seconds: float) -> None:
        """See `Runner.sleep`."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """See `Runner.timeout`."""
        return asyncio.timeout(seconds)

    def start(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """See `Runner.start`."""
        return asyncio.create_task(work, name=name)


async def happens(event: asyncio.Event, runner: Runner, within: float) -> bool:
    """Wait until an event is set, for so many seconds at most. Whether it is."""
    try:
        async with runner.timeout(within):
            await event.wait()
    except TimeoutError:
        pass
    return event.is_set()
