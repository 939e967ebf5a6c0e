"""The servers themselves go away, now and then: restarted in order, or killed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.services.private import PrivatePostgres, PrivateRabbitMQ

DOWN = 3.0  # seconds at most, beside the time that a start takes


@dataclass(slots=True, kw_only=True)
class Outages:
    """`caused` counts them by kind."""

    postgres: PrivatePostgres
    rabbitmq: PrivateRabbitMQ
    pauses: tuple[float, float]  # seconds between two, at least and at most
    caused: Counter[str] = field(default_factory=Counter)
    _up: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._up.set()

    async def cause(self, seed: int) -> None:
        """One after the other, until cancelled; one that has begun is seen to its end."""
        dice = random.Random(f"{seed}/outages")
        while True:
            kinds = [(server, graceful) for server in (self.postgres, self.rabbitmq) for graceful in (True, False)]
            dice.shuffle(kinds)
            for server, graceful in kinds:
                await asyncio.sleep(dice.uniform(*self.pauses))
                self._up.clear()
                outage = asyncio.create_task(self._outage(server, dice.uniform(0, DOWN), graceful=graceful))
                await asyncio.shield(outage)

    async def over(self) -> None:
        """Wait until both servers are up."""
        await self._up.wait()

    async def _outage(self, server: PrivatePostgres | PrivateRabbitMQ, seconds: float, *, graceful: bool) -> None:
        await asyncio.to_thread(server.stop, graceful=graceful)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(server.start)
        self.caused[f"{server.name} {'restarted' if graceful else 'killed'}"] += 1
        self._up.set()
