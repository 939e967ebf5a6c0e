"""Output that several processes share: each of its lines is whole, whoever else writes at the same time.

The system keeps together what is written at once to a file or a terminal, and to a pipe up to 4 KiB of it. A longer
line, a traceback say, would be cut in two by another's as soon as its reader is behind; so whoever writes to a pipe
locks it.
"""

from __future__ import annotations

import fcntl
import io
import os
import stat
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from _typeshed import ReadableBuffer


def share_output() -> None:
    """Have stdout and stderr write line by line, none of them within a line of another process that does so too."""
    sys.stdout, sys.stderr = shared(sys.stdout), shared(sys.stderr)


def shared(stream: TextIO) -> TextIO:
    """A stream that writes to where this one does, line by line and none in pieces."""
    stream.flush()
    whole = io.BufferedWriter(_Whole(stream.fileno()))
    return io.TextIOWrapper(whole, encoding=stream.encoding, errors=stream.errors, line_buffering=True)


class _Whole(io.RawIOBase):
    """Writes all that it is given before anybody else does. It does not own the descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        mode = os.fstat(descriptor).st_mode
        self._locked = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: ReadableBuffer, /) -> int:
        rest = memoryview(data)
        size = len(rest)
        with self._alone():
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        return size

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock; it goes with a process that dies. Where pipes have none, short lines are whole still."""
        if not self._locked:
            yield
            return
        with suppress(OSError):
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
