"""Where rounds take place: on servers (`bench.servers`), or with a file for each and no server at all."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from bench.contender import Place
from bench.database import Work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from bench.contender import Running


class Meter(Protocol):
    """Counts the work of one contender in one round."""

    @property
    def own(self) -> Sequence[int]:
        """Processes of servers that are busy with counting."""
        ...

    async def read(self) -> Work:
        """As it stands now."""
        ...


class Ground(Protocol):
    """Where rounds take place."""

    def place(self, namespace: str, folder: Path) -> AbstractAsyncContextManager[Place]:
        """A place for one round, new and empty."""
        ...

    def meter(self, place: Place, running: Running) -> AbstractAsyncContextManager[Meter]:
        """What counts there."""
        ...

    def processes(self) -> Mapping[str, frozenset[int]]:
        """Those of the servers, by name."""
        ...


class Counting(Protocol):
    """A contender that says itself what it did."""

    @property
    def groups(self) -> Mapping[str, Sequence[int]]:
        """See `bench.contender.Running.groups`."""
        ...

    async def counted(self) -> Mapping[str, int]:
        """`statements` and `commits` so far."""
        ...


class Counts:
    """What a contender says, and what the system has seen its processes write to files."""

    own: Sequence[int] = ()

    def __init__(self, running: Counting) -> None:
        self._running = running

    async def read(self) -> Work:
        """See `Meter.read`."""
        said = await self._running.counted()
        written = sum(_written(pid) for pid in self._running.groups["orchestrator"])
        return Work(statements=said["statements"], commits=said["commits"], wal_bytes=written)


class Files:
    """No server: each contender makes a file in the folder of the round."""

    origin = f"no server, SQLite {sqlite3.sqlite_version}"

    @asynccontextmanager
    async def place(self, namespace: str, folder: Path) -> AsyncIterator[Place]:
        """See `Ground.place`."""
        yield Place(database_url=f"sqlite:///{folder / 'orders.db'}", broker_url="", namespace=namespace, folder=folder)

    @asynccontextmanager
    async def meter(self, place: Place, running: Running) -> AsyncIterator[Meter]:
        """See `Ground.meter`. For contenders behind a pipe, which count for themselves."""
        yield Counts(cast("Counting", running))

    def processes(self) -> Mapping[str, frozenset[int]]:
        """See `Ground.processes`."""
        return {"postgres": frozenset(), "broker": frozenset()}


def _written(pid: int) -> int:
    file = Path(f"/proc/{pid}/io")
    lines = file.read_text().splitlines() if file.exists() else ()
    return next((int(line.split()[1]) for line in lines if line.startswith("write_bytes")), 0)
