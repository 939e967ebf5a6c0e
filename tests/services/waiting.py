"""Wait for a condition with a bound, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from typing import TYPE_CHECKING, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_PAUSE = 0.02


def until(condition: Callable[[], T], *, timeout: float = 15.0, what: str) -> T:
    """Ask `condition` until it answers with something true, and return that.

    Raises:
        AssertionError: it did not within `timeout` seconds; the text says what was awaited and the last answer.
    """
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}; last answer: {answer!r}")
        pause.wait(_PAUSE)
    return answer


@overload
async def until_async(condition: Callable[[], Awaitable[T]], *, timeout: float = ..., what: str) -> T: ...  # noqa: ASYNC109


@overload
async def until_async(condition: Callable[[], T], *, timeout: float = ..., what: str) -> T: ...  # noqa: ASYNC109


async def until_async(
    condition: Callable[[], object],
    *,
    timeout: float = 15.0,  # noqa: ASYNC109 - it says what was awaited, which `asyncio.timeout` cannot
    what: str,
) -> object:
    """The same for code on an event loop; `condition` may be a plain or an async function."""
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        found = await answer if inspect.isawaitable(answer) else answer
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}; last answer: {found!r}")
        await asyncio.sleep(_PAUSE)
