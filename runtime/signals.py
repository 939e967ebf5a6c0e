"""SIGTERM and SIGINT: the first asks for an orderly stop, the second stops at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runtime.exits import TRY_AGAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STOPPING = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_signals(on_first: Callable[[str], None]) -> Iterator[None]:
    """Within the block, the first signal calls `on_first` with its name and a second one ends the process.

    The second needs no cleaning up: whatever was not committed is delivered again, whatever was not confirmed is sent
    again, and the lock of an SQLite file goes with the process.
    """
    loop = asyncio.get_running_loop()
    seen: list[signal.Signals] = []

    def received(number: signal.Signals) -> None:
        if seen:
            _stop_at_once()
        seen.append(number)
        on_first(number.name)

    for number in STOPPING:
        loop.add_signal_handler(number, received, number)
    try:
        yield
    finally:
        for number in STOPPING:
            loop.remove_signal_handler(number)


def _stop_at_once() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(TRY_AGAIN)
