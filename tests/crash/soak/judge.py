"""The verdict on a long run: the same checks as everywhere, over a few hundred orders at a time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from tests.crash.checker import Expected, violations
from tests.crash.driver import start_id
from tests.crash.views import read_orders

if TYPE_CHECKING:
    from tests.crash.driver import Setup
    from tests.crash.nemesis.customers import Customers
    from tests.crash.soak.findings import Findings

AT_A_TIME = 500  # orders
TOLD = 200  # wrongs that are told in full
GLANCE = 0.2  # seconds
UNREST = {
    "sagas have not ended": """
        select count(*) from v_saga where phase in ('running', 'compensating') and status <> 'parked'
    """,
    "messages are not confirmed": "select count(*) from v_outbox",
}
BOOKS = {
    "sagas": "select count(*) from v_saga",
    "history rows": "select count(*) from v_saga_event",
    "messages taken": "select count(*) from v_inbox",
    "held": "select count(*) from v_held",
    "in the outbox": "select count(*) from v_outbox",
    "dead letters replayed": "select count(*) from v_dead_letter where status = 'replayed'",
    "dead letters open": "select count(*) from v_dead_letter where status = 'open'",
}
STATUS = "select status from v_saga where business_key = $1"
OUTCOMES = "select status, count(*) as sagas from v_saga group by status order by status"
LATENCIES = """
    select status, percentile_cont(0.5) within group (order by extract(epoch from ended_at - started_at)) as median,
           percentile_cont(0.99) within group (order by extract(epoch from ended_at - started_at)) as slow
    from v_saga where ended_at is not null and business_key !~ $1 group by status order by status
"""


@dataclass(slots=True, kw_only=True)
class Judge:
    """Reads the views and the ledgers, and writes what it finds into the findings."""

    setup: Setup
    customers: Customers
    findings: Findings
    broken: str = "^$"  # the orders that waited for their saga to be mended: how long they took says nothing

    async def drained(self, bound: float) -> None:
        """Wait until nothing is on its way; what still is after `bound` seconds is wrong."""
        clock = asyncio.get_running_loop().time
        until, restless = clock() + bound, "nothing was read"
        connection = await self._connected()
        try:
            while clock() < until:
                if not (restless := await self._unrest(connection)):
                    return
                await asyncio.sleep(GLANCE)
        finally:
            await connection.close()
        self.findings.wrong.append(f"no rest within {bound:.0f} s: {restless}")

    async def progress(self, bound: float) -> None:
        """Everything is healed: an order that is placed now, and well served, goes through."""
        order = self.customers.one_more()
        clock = asyncio.get_running_loop().time
        until = clock() + bound
        connection = await self._connected()
        try:
            while clock() < until:
                if await connection.fetchval(STATUS, order) == "completed":
                    return
                await asyncio.sleep(GLANCE)
        finally:
            await connection.close()
        self.findings.wrong.append(f"{order} was placed after everything was healed and not completed in {bound:.0f} s")

    async def _unrest(self, connection: asyncpg.Connection) -> str:
        missing = self.customers.placed - await connection.fetchval("select count(*) from v_saga")
        counts = {"orders have no saga": missing}
        counts |= {what: await connection.fetchval(query) for what, query in UNREST.items()}
        counts["replies are owed"] = await asyncio.to_thread(self.setup.ledger.owed)
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count)

    async def books(self) -> dict[str, int]:
        """What the views and the ledgers count."""
        ledger = self.setup.ledger
        connection = await self._connected()
        try:
            counts = {what: int(await connection.fetchval(query)) for what, query in BOOKS.items()}
        finally:
            await connection.close()
        return counts | {"effects": ledger.done(), "commands that arrived": ledger.arrived()}

    async def judge(self) -> None:
        """Everything that can be said at the end."""
        findings, ledger = self.findings, self.setup.ledger
        findings.books = await self.books()
        findings.books["commands that arrived again"] = ledger.repeated()
        if findings.stalls:
            findings.wrong.append(f"somebody stalled, for the first time at {findings.stalls[0]}")
        if (opened := findings.books["dead letters open"]) != (malformed := ledger.malformed()):
            findings.wrong.append(f"{opened} dead letters are open, but {malformed} answers could not be read")
        if findings.books["held"]:
            findings.wrong.append(f"{findings.books['held']} messages are still held")
        connection = await self._connected()
        try:
            findings.outcomes = {row["status"]: row["sagas"] for row in await connection.fetch(OUTCOMES)}
            findings.latencies = [
                (row["status"], float(row["median"]), float(row["slow"]))
                for row in await connection.fetch(LATENCIES, self.broken)
            ]
            if (sagas := findings.books["sagas"]) != self.customers.placed:
                findings.wrong.append(f"{self.customers.placed} orders were placed, and there are {sagas} sagas")
            for first in range(0, self.customers.placed, AT_A_TIME):
                await self._judge_some(connection, first)
        finally:
            await connection.close()

    async def _judge_some(self, connection: asyncpg.Connection, first: int) -> None:
        numbers = range(first, min(first + AT_A_TIME, self.customers.placed))
        starts = {order: start_id(order) for order in map(self.customers.order, numbers)}
        picture = await read_orders(connection, self.setup.ledger, self.setup.namespace, starts)
        allowed = {order: self.customers.may_end(order) for order in starts}
        found = violations(picture, Expected(starts=starts, allowed=allowed))
        self.findings.judged += len(starts)
        self.findings.wrong += found[: max(0, TOLD - len(self.findings.wrong))]

    async def _connected(self) -> asyncpg.Connection:
        return await asyncpg.connect(
            self.setup.database_url, server_settings={"application_name": "judge", "search_path": self.setup.namespace}
        )
