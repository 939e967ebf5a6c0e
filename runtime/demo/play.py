"""One run of the demo: start the engine, place orders, wait until every one has ended, stop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from running import AsyncioRunner
from runtime import schema
from runtime.commands.publish import checked
from runtime.database import connected
from runtime.demo import staging
from runtime.demo.orders import EVENT, told
from runtime.demo.watch import Watch
from runtime.engine import Engine
from runtime.signals import stop_signals
from runtime.startup import Patience
from storage.queries import Queries, SagaFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from runtime.demo.orders import Order
    from runtime.demo.watch import Screen
    from storage.queries import SagaDetail, SagaSummary

AT_ONCE = 8
"""Orders under way at a time, so that a slow disk makes the demo long and no order late."""

SPREAD = 2.0
"""Seconds over which the orders are placed, so that one can watch."""

LONGEST_PACE = 0.1
GIVE_UP = 30.0
"""Seconds without any movement after which the demo waits no longer."""

DRAIN = 5.0
LOOK = 0.1
PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What stands in the demo's file: its orders, and how many messages are still to be sent."""

    orders: Sequence[SagaSummary]
    outbox: int

    @property
    def unfinished(self) -> list[SagaSummary]:
        """The orders that have not come to their end."""
        return [saga for saga in self.orders if under_way(saga)]

    @property
    def latest_run(self) -> int:
        """The number of the latest run that began an order; 0 when none did."""
        return max((order.run for saga in self.orders if (order := told(saga.business_key))), default=0)

    def of(self, runs: Collection[int]) -> list[SagaSummary]:
        """The orders of these runs, in the order of their numbers."""
        found = [(order.run, order.number, saga) for saga in self.orders if (order := told(saga.business_key))]
        return [saga for run, _, saga in sorted(found, key=lambda one: one[:2]) if run in runs]


def under_way(saga: SagaSummary) -> bool:
    """Whether the engine has still something to do for it by itself."""
    return saga.ended_at is None and saga.status != "parked"


async def look() -> Found:
    """What earlier runs have left in the current folder; changes nothing, and works beside another run."""
    if not _began():
        return Found(orders=[], outbox=0)
    async with connected(staging.settings()) as database:
        if await schema.problem(database) is not None:
            return Found(orders=[], outbox=0)
        return await _found(Queries(database))


def _began() -> bool:
    return Path(staging.DATABASE).exists()


async def _found(queries: Queries) -> Found:
    orders: list[SagaSummary] = []
    page = await queries.sagas(SagaFilter(saga_type=staging.SAGA), limit=PAGE)
    orders += page.sagas
    while page.following is not None:
        page = await queries.sagas(SagaFilter(saga_type=staging.SAGA), limit=PAGE, following=page.following)
        orders += page.sagas
    return Found(orders=orders, outbox=(await queries.counts()).outbox)


class Play:
    """The demo's process. `run` once."""

    def __init__(self, screen: Screen, log: Callable[[object], None]) -> None:
        self._runner = AsyncioRunner()
        self._log = log
        self._settings = staging.settings()
        self.interrupted = False
        self.watch = Watch(self._runner, screen, self._log)
        self._engine = Engine(
            self._settings,
            known := staging.known(self._until_given_up),
            runner=self._runner,
            report=self.watch,
            participants=tuple(known.participants),
        )
        self._queries = Queries(self._engine.database)

    async def run(self, orders: Sequence[Order], unfinished: Sequence[SagaSummary]) -> Found:
        """Place these orders, finish them and those that an earlier process left, and say how all stand.

        Raises:
            ConfigurationError: another process runs on the file, or it cannot be used.
            Trouble: the database does not answer.
        """
        with stop_signals(self._stop):
            for saga in unfinished:
                self.watch.expect(saga.business_key)
            try:
                await self._engine.start(Patience(self._settings.startup_timeout, self._runner, self._log))
                await self._place(orders)
                await self._until_over()
                await self._drain()
                return await _found(self._queries)
            finally:
                await self._engine.close()

    async def order(self, saga: SagaSummary) -> SagaDetail | None:
        """Everything about one order."""
        return await self._queries.saga(saga.saga_id)

    def _stop(self, _signal: str) -> None:
        self.interrupted = True
        self.watch.wake()

    async def _place(self, orders: Sequence[Order]) -> None:
        """As the shop would, by the door that `antiphon publish` takes; the same order twice is the same message."""
        pace = min(LONGEST_PACE, SPREAD / max(len(orders), 1))
        for order in orders:
            while len(self.watch.open) >= AT_ONCE and not self._over():
                await self.watch.news(LOOK)
            if self._over():
                return
            self.watch.expect(order.key)
            await self._engine.storage.publish(checked(self._settings, EVENT, order.placed(), order.key))
            self._engine.relay.wake()
            await self._runner.sleep(pace)

    async def _until_over(self) -> None:
        while not self._over() and await self._anything_open():
            await self.watch.news(LOOK)

    def _over(self) -> bool:
        """Whether to wait no longer, whatever is open."""
        return self.interrupted or self.watch.idle > GIVE_UP

    async def _anything_open(self) -> bool:
        """Whether an order is under way, or a message that could begin one."""
        if self.watch.open:
            return True
        counts = await self._queries.counts()
        return bool(counts.outbox) or any(status in ("running", "compensating") for _, status in counts.sagas)

    async def _drain(self) -> None:
        try:
            async with self._runner.timeout(DRAIN):
                await self._engine.drain()
        except TimeoutError:
            return  # nothing is lost: whatever was begun is in the file

    async def _until_given_up(self, key: str) -> None:
        """Until the saga of this key turns back; asks the database, since an earlier process may have heard of it."""
        while True:
            found = await self._queries.saga(key)
            if found is not None and found.saga.phase != "running":
                return
            await self.watch.news(LOOK)
