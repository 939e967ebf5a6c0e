"""One run of the demo: start the engine, place orders, wait until every one has ended, stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from running import AsyncioRunner
from runtime.commands.publish import checked
from runtime.demo import staging
from runtime.demo.orders import EVENT
from runtime.demo.watch import Watch
from runtime.engine import Engine
from runtime.signals import stop_signals
from runtime.startup import Patience
from storage.queries import Queries

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runtime.demo.orders import Order
    from runtime.demo.watch import Screen

AT_ONCE = 8
"""Orders under way at a time, so that a slow disk makes the demo long and no order late."""

SPREAD = 2.0
"""Seconds over which the orders are placed, so that one can watch."""

LONGEST_PACE = 0.1
GIVE_UP = 30.0
"""Seconds without any movement after which the demo waits no longer."""

DRAIN = 1.0
"""Seconds for what is under way when a signal stops the demo; what takes longer is in the file and begins anew."""

LOOK = 0.1


class Play:
    """The demo's process, from start to stop. `run` once."""

    def __init__(self, screen: Screen, log: Callable[[object], None]) -> None:
        """What concerns no order goes to `log`."""
        runner = AsyncioRunner()
        known = staging.known(self._until_given_up)
        self.interrupted = False
        self.watch = Watch(runner, screen, self._heard)
        self._runner = runner
        self._log = log
        self._settings = staging.settings()
        self._engine = Engine(
            self._settings, known, runner=runner, report=self.watch, participants=tuple(known.participants)
        )
        self._queries = Queries(self._engine.database)

    async def run(self, orders: Sequence[Order], unfinished: Sequence[Order]) -> None:
        """Place these orders, and finish them and those that an earlier process left unfinished.

        Returns early when a signal asks for a stop (`interrupted`), or when nothing has moved for long.

        Raises:
            ConfigurationError: another process runs on the file, or it cannot be used.
            Trouble: the database does not answer.
        """
        for order in unfinished:
            self.watch.expect(order.key)
        with stop_signals(self._stop):
            try:
                await self._engine.start(Patience(self._settings.startup_timeout, self._runner, self._heard))
                await self._place(orders)
                await self._until_over()
                await self._drain()
            finally:
                await self._engine.close()

    def _heard(self, fact: object) -> None:
        """What concerns no order; when it was interrupted, nobody wonders at what is left over."""
        if not self.interrupted:
            self._log(fact)

    def _stop(self, _signal: str) -> None:
        self.interrupted = True
        self.watch.wake()

    async def _place(self, orders: Sequence[Order]) -> None:
        """By the door that `antiphon publish` takes. The same order is the same message, so none is placed twice."""
        pace = min(LONGEST_PACE, SPREAD / max(len(orders), 1))
        for order in orders:
            while len(self.watch.open) >= AT_ONCE and not self._over():
                await self.watch.news(LOOK)
            if self._over():
                return
            self.watch.expect(order.key)
            await self._engine.storage.publish(checked(self._settings, EVENT, order.placed().encode(), order.key))
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
            return

    async def _until_given_up(self, key: str) -> None:
        """Until the saga of this key turns back; asks the database, since an earlier process may have heard of it."""
        while True:
            found = await self._queries.saga(key)
            if found is not None and found.saga.phase != "running":
                return
            await self.watch.news(LOOK)
