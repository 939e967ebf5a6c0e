"""Looks at a run while it goes on: rule 16's statement every half second, memory, and a line for whoever waits."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from tests.crash.nemesis.customers import AWAY
from tests.crash.views import published_statement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.crash.driver import Setup
    from tests.crash.nemesis.customers import Customers
    from tests.crash.nemesis.nemesis import Nemesis
    from tests.crash.nemesis.post import Post
    from tests.crash.soak.findings import Findings

EVERY = 0.5  # seconds, of the statement
TOLD, WEIGHED = 30, 120  # samples between two lines of progress, and two looks at the memory
REMEMBERED = 50  # stalls that are told in full
COUNTS = """
    select count(*) filter (where status = 'completed') as completed,
           count(*) filter (where status = 'compensated') as compensated,
           count(*) filter (where status in ('running', 'compensating')) as live,
           count(*) filter (where status = 'parked') as parked from {namespace}.v_saga
"""


@dataclass(slots=True, kw_only=True)
class Samples:
    """Samples go into the findings. While the database is away there are none."""

    setup: Setup
    posts: Sequence[Post]
    customers: Customers
    nemesis: Nemesis
    findings: Findings
    _connection: asyncpg.Connection | None = None
    _taken: int = field(default=0)

    async def take(self) -> None:
        """Sample until cancelled.

        Raises:
            ChildError: a process has ended that nobody killed.
        """
        clock = asyncio.get_running_loop().time
        began = due = clock()
        try:
            while True:
                for post in self.posts:
                    post.alive()
                await self._sample(clock() - began)
                self._taken += 1
                due = max(due + EVERY, clock())
                await asyncio.sleep(due - clock())
        finally:
            if self._connection is not None:
                await self._connection.close()

    async def _sample(self, seconds: float) -> None:
        if self._taken % WEIGHED == 0:
            sizes = [mebibytes(pid) for pid in (*(post.pid for post in self.posts), os.getpid())]
            self.findings.memory.append((seconds / 60, sizes))
        try:
            if self._connection is None:
                self._connection = await asyncpg.connect(
                    self.setup.database_url,
                    server_settings={"application_name": "judge", "search_path": self.setup.namespace},
                )
            await self._look(self._connection, seconds)
        except AWAY:
            self.findings.blind_samples += 1
            if self._connection is not None:
                self._connection.terminate()
            self._connection = None

    async def _look(self, connection: asyncpg.Connection, seconds: float) -> None:
        stalled = await connection.fetch(published_statement("PostgreSQL"))
        self.findings.stall_samples += 1
        if stalled and len(self.findings.stalls) < REMEMBERED:
            self.findings.stalls += [f"{seconds:.1f} s: {dict(row)}" for row in stalled]
        if self._taken % TOLD == 0:
            counts = await connection.fetchrow(COUNTS.format(namespace=self.setup.namespace))
            assert counts is not None
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            print(
                f"{int(seconds) // 60:3d}:{int(seconds) % 60:02d}  placed {self.customers.placed}, {told}; "
                f"struck {sum(self.nemesis.kinds.values())}, missed {len(self.nemesis.missed)}; "
                f"stalls {len(self.findings.stalls)}",
                flush=True,
            )


def mebibytes(pid: int) -> int:
    """The resident memory of a process; 0 when there is none."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(lines.get("VmRSS", "0 kB").split()[0]) // 1024
