"""Who can be measured without any server, by name."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.peer import Peer, driven
from bench.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from bench.contender import Contender, Place, Running


@dataclass(frozen=True, slots=True, kw_only=True)
class OneProcess:
    """A driver of our own, in this environment."""

    name: str
    title: str
    module: str

    @asynccontextmanager
    async def open(self, place: Place) -> AsyncIterator[Running]:
        """See `bench.contender.Contender.open`."""
        command = (sys.executable, "-m", self.module, "--folder", str(place.folder))
        async with driven(command, place, cwd=ROOT) as driver:
            yield driver


_ALL: Sequence[Contender] = (
    OneProcess(name="antiphon", title="Antiphon", module="bench.embedded.antiphon"),
    Peer(name="dbos", title="DBOS", folder="dbos", variant="sqlite"),
    OneProcess(name="floor", title="the floor: same rows, least code", module="bench.embedded.floor"),
)
EMBEDDED = {contender.name: contender for contender in _ALL}
