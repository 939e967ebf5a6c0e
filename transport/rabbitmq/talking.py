"""Every word with the broker goes through here: bounded in time, and with one name for all the ways to be cut off."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from aiormq.exceptions import AMQPChannelError

from transport.rabbitmq.address import said

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from running import Runner


FAREWELL = 3.0  # seconds for a goodbye that nobody may answer


class CutOff(Exception):  # noqa: N818 - names the situation
    """The channel or connection ended, or did not answer in time, while something was asked of it."""


@asynccontextmanager
async def talking(runner: Runner, seconds: float) -> AsyncIterator[None]:
    """Bound what is asked of the broker.

    The client library cancels whoever waits for a lost connection; that is told apart from a real cancellation here.

    Raises:
        CutOff: no answer within `seconds`, or the connection was lost.
        AMQPChannelError: the broker answered by closing the channel, with a reason.
    """
    try:
        async with runner.timeout(seconds):
            yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise CutOff("the connection was lost") from None
    except AMQPChannelError:
        raise
    except Exception as error:  # the library has many more ways to say so than it documents
        raise CutOff(said(error)) from error


async def parting(runner: Runner, farewell: Coroutine[Any, Any, object], seconds: float) -> bool:
    """Say a last word and wait no longer than that; whether it was said.

    The client library answers a cancelled call with another frame, which waits for as long as the socket is full; so
    a farewell that takes too long is not cancelled but left behind, to end when its connection is aborted.
    """
    saying = runner.start(farewell, name="broker farewell")
    saying.add_done_callback(_looked_at)
    with suppress(TimeoutError):
        async with runner.timeout(seconds):
            await asyncio.wait([saying])
    return saying.done()


def _looked_at(task: asyncio.Task[object]) -> None:
    if not task.cancelled():
        task.exception()


def backoff(runner: Runner, attempt: int, *, longest: float = 10.0) -> float:
    """Seconds to wait before attempt `attempt` (from 1): at once or nearly so, then doubling, never all together."""
    if attempt <= 1:
        return 0.2 * runner.random()
    return min(longest, 0.5 * 2.0 ** min(attempt - 2, 10)) * (0.5 + runner.random() / 2)
