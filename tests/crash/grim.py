"""A saga and a participant that some orders kill: the process that takes them dies as if by `kill -9`, nothing tidied.

An order with `killer` in its id kills whoever starts its saga, one with `deadly` whoever carries out its command, and
one with `doomed` whoever builds its command for the second time, which is a timer's work.
"""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Self

from handlers import Participant
from messages import Command, Event
from messages.catalog.ordering import OrderPlaced  # noqa: TC001 - the annotation of a start is read when it is defined
from sagas import Retry, Saga, start, step


class TouchOrder(Command, name="grim.TouchOrder"):
    """Touch an order."""

    order_id: str


class OrderTouched(Event, name="grim.OrderTouched"):
    """It was touched."""

    order_id: str


class NotNow(Event, name="grim.NotNow"):
    """Try again."""


class GrimOrder(Saga, key="order_id", version=1):
    """Have every order touched."""

    order_id: str

    @start
    def placed(cls, event: OrderPlaced) -> Self:
        """The shop has taken the order."""
        die_of(event.order_id, "killer")
        return cls(order_id=event.order_id)

    @step(success=OrderTouched, transient=NotNow, retry=Retry(backoff=timedelta(seconds=0.1)))
    def touch(self) -> TouchOrder:
        """Have it touched."""
        if "doomed" in self.order_id:
            built = Path(f"{self.order_id}.built")
            if built.exists():
                die_of(self.order_id, "doomed")
            built.touch()
        return TouchOrder(order_id=self.order_id)


grim = Participant("grim")


@grim.handles(transient=NotNow)
async def touch_it(command: TouchOrder) -> OrderTouched | NotNow:
    """It is enough to live through it."""
    die_of(command.order_id, "deadly")
    if "doomed" in command.order_id:
        return NotNow()
    return OrderTouched(order_id=command.order_id)


def die_of(order_id: str, word: str) -> None:
    """End the process when the order's id has this word in it."""
    if word in order_id:
        os.kill(os.getpid(), signal.SIGKILL)
