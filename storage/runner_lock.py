"""One runner on an SQLite file: a lock that the operating system lets go of when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from messages.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def runner_lock(path: str | Path) -> Iterator[None]:
    """Hold the runner's lock on the database file `path` while the block runs, in `path.lock` beside it.

    For `run` and `demo` only; every other command works beside a runner.

    Raises:
        ConfigurationError: another process holds it, or the lock file cannot be opened.
    """
    lock = Path(f"{path}.lock")
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"the lock file {lock} cannot be opened: {error.strerror}; the database must lie in a folder that can be "
            "written"
        ) from error
    try:
        _take(handle, path)
        with suppress(OSError):  # a full disk: the lock holds all the same, and only the holder's number is not told
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)


def _take(handle: int, path: str | Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(handle, 32).decode("ascii", "replace").strip()
        who = f"process {holder}" if holder.isdecimal() else "another process"
        raise ConfigurationError(
            f"{Path(path).absolute()} is in use: {who} is running on it, and an SQLite database takes one runner; "
            "stop that process, or start this one in another folder or with another file in ANTIPHON_DATABASE_URL"
        ) from None
