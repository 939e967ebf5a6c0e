"""Customers who place orders at a steady pace, and do not stop asking until the broker has each of them.

Most come over AMQP, some by way of the database. Some orders are placed twice, and some once more much later, by a shop
that does not remember.
"""

from __future__ import annotations

import asyncio
import random
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aio_pika
import asyncpg

from tests.crash.checker import ENDED
from tests.crash.driver import Shop, order_body, start_id
from tests.crash.script import TRADES, Script, Word

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.crash.driver import Setup

AWAY = (
    OSError,
    TimeoutError,
    aio_pika.exceptions.AMQPError,
    aio_pika.exceptions.ChannelInvalidStateError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg says when its connection ends at a bad moment
)
BY_SQL = "3"  # the last digit of the orders that are placed by way of the database
PAUSE = 0.3  # seconds before the shop is opened again
AT_ONCE, LATER = 0.1, 0.05  # the shares of orders that are placed once more
FINAL = (Word.FAIL, Word.SILENT, Word.DEAF)  # who is answered like this never gets a success


@dataclass(slots=True, kw_only=True)
class Customers:
    """`placed` is how many orders there are, numbered from 0; each is with the broker or being asked for again.

    Orders that `broken` matches have a saga that raises.
    """

    setup: Setup
    script: Script
    per_second: float
    broken: str = "^$"
    placed: int = 0
    copies: int = 0
    _dice: random.Random = field(init=False)
    _counter: Shop | None = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._dice = random.Random(f"{self.script.seed}/customers")

    async def shop(self) -> None:
        """Place orders until cancelled; `all_placed` then waits for the last ones."""
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            await asyncio.sleep(max(0.0, due - clock()))
            due += 1 / self.per_second
            again = self._dice.random()
            self._start(self.placed)
            self.placed += 1
            if again < AT_ONCE:
                self._start(self.placed - 1, copy=True)
            elif again < AT_ONCE + LATER:
                self._start(self._dice.randrange(self.placed), copy=True)

    async def all_placed(self) -> None:
        """Wait until the broker has every order."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def one_more(self) -> str:
        """Place one more order, one that goes through; returns its name."""
        while not self.goes_through(self.order(self.placed)):
            self._start(self.placed)
            self.placed += 1
        self._start(self.placed)
        self.placed += 1
        return self.order(self.placed - 1)

    def order(self, number: int) -> str:
        """What an order is called."""
        return f"o-{number:07d}"

    def may_end(self, order: str) -> Collection[str]:
        """The statuses that an order may come to: it is completed only if all participants answer success."""
        return ("compensated",) if set(self._words(order)) & set(FINAL) else ENDED

    def goes_through(self, order: str) -> bool:
        """Whether everybody serves it well, over AMQP and by a saga that does not raise."""
        served_well = set(self._words(order)) == {Word.OK}
        return served_well and not order.endswith(BY_SQL) and re.search(self.broken, order) is None

    def _words(self, order: str) -> list[Word]:
        return [self.script.behaviour(order, participant, "do").word for participant in TRADES]

    def _start(self, number: int, *, copy: bool = False) -> None:
        self.copies += copy
        task = asyncio.create_task(self._place(self.order(number)))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _place(self, order: str) -> None:
        while True:
            try:
                await (self._through_sql(order) if order.endswith(BY_SQL) else self._over_amqp(order))
            except AWAY:
                await asyncio.sleep(PAUSE)
            else:
                return

    async def _through_sql(self, order: str) -> None:
        """As a service that shares the database does, in its own transaction."""
        connection = await asyncpg.connect(self.setup.database_url)
        try:
            publish = f"select {self.setup.namespace}.publish('ordering.OrderPlaced', $1, $2)"
            await connection.execute(publish, order_body(order), start_id(order))
        finally:
            await connection.close()

    async def _over_amqp(self, order: str) -> None:
        async with self._opening:
            if self._counter is None:
                self._counter = await Shop(self.setup.broker_url, self.setup.namespace).__aenter__()
            counter = self._counter
        try:
            await counter.place(order)
        except AWAY:
            if self._counter is counter:
                self._counter = None
            raise

    async def close(self) -> None:
        """Close the shop."""
        if self._counter is not None:
            await self._counter.__aexit__()
