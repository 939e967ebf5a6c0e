"""The seam between the load and whoever is measured: a contender is opened for one round and takes orders.

Knows no broker and no database; `bench.services` has those who speak the wire contract, `bench.peer` those who do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime
    from pathlib import Path


class Unavailable(RuntimeError):  # noqa: N818 - names the situation
    """It cannot be had on this machine, and why in one line: reported, and no fault of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one round takes place: a database, a namespace and a folder of its own.

    A database may hold what was there before the round: then `since` is when the round begins, by the database's clock,
    and `orders` is what its orders are called, with a number behind, as no earlier one was.
    """

    database_url: str
    broker_url: str
    namespace: str
    folder: Path
    orders: str = "order"
    since: datetime | None = None


class Running(Protocol):
    """A contender in one round, with everything it needs started."""

    @property
    def groups(self) -> Mapping[str, Sequence[int]]:
        """Its processes, by the group they are counted in."""
        ...

    @property
    def observers(self) -> Sequence[int]:
        """Processes of the servers that serve the benchmark itself, and count for nobody."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """Of what it is made of, beyond what all share."""
        ...

    def place(self, orders: Sequence[str]) -> None:
        """Have one saga started for each, now; waits for nothing."""
        ...

    async def glance(self, under_way: Sequence[str]) -> Sequence[str]:
        """Wait a moment at most, and say which of these are durably completed.

        Raises:
            ConnectionError: it has ended.
        """
        ...

    async def end(self, placed: Sequence[str]) -> Sequence[str]:
        """Let everything come to its end, stop it, and say what contradicts that each order was done, in words."""
        ...


class Contender(Protocol):
    """Somebody who runs the ordering saga."""

    @property
    def name(self) -> str:
        """One word: as `--only` takes it."""
        ...

    @property
    def title(self) -> str:
        """As the report prints it."""
        ...

    def open(self, place: Place) -> AbstractAsyncContextManager[Running]:
        """Start it and wait until it takes orders; leaving the block ends whatever still runs.

        Raises:
            DidNotStart: it ended, or was not ready in time.
            Unavailable: it cannot be had here.
        """
        ...
