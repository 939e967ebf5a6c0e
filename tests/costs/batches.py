"""Batches of orders for whoever counts what they cost, and a count of calls."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import sagas
from handlers.handle import Attempt
from messages.catalog.ordering import PaymentCompleted, ShippingLabelCreated, StockReserved
from tests.handlers.house import House, placed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from messages import Event
    from messages.envelope import Raw

BATCH = 50
MESSAGES = 4  # of a saga: the order and three replies

ROOT = Path(sagas.__file__).parent.parent
OURS = tuple(f"{ROOT / name}/" for name in ("messages", "sagas", "storage", "transport", "outbox", "handlers"))


class Orders:
    """Batches of as many orders as a batch has, one stage of the process after the other."""

    def __init__(self, house: House, batch: int = BATCH) -> None:
        self._house = house
        self._batch = batch
        self._number = 0

    def stages(self) -> Sequence[Sequence[Raw]]:
        """The messages of new orders: those that start, then the replies, stage by stage."""
        keys = [f"o-{self._number + number}" for number in range(self._batch)]
        self._number += self._batch
        replies: Sequence[tuple[str, type[Event], str]] = (
            ("reserve", StockReserved, "reservation_id"),
            ("pay", PaymentCompleted, "payment_id"),
            ("label", ShippingLabelCreated, "tracking_code"),
        )
        starts = [self._house.message(placed(key)) for key in keys]
        answered = [
            [self._house.answer(key, event(**{"order_id": key, field: f"x-{key}"}), step) for key in keys]
            for step, event, field in replies
        ]
        return [starts, *answered]

    async def run(self) -> None:
        """Let new orders go through all their stages."""
        for stage in self.stages():
            await self.take(stage)

    async def take(self, stage: Sequence[Raw]) -> None:
        """One batch through the path, up to its commit; what it sends counts as confirmed."""
        prepared = await self._house.handler.handle(self._house.decoded(stage), Attempt(token=uuid4()))
        assert len(prepared.claimed) in (self._batch, 0)
        self._house.relay.give_back([(row.outbox_id, row.token) for row in prepared.claimed])


class Calls:
    """Counts the calls of functions while it is entered: those of our own packages, and all of them."""

    def __init__(self) -> None:
        self.ours = self.all = 0

    def __enter__(self) -> Calls:
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _count(self, frame: FrameType, event: str, _: Any) -> None:  # noqa: ANN401 - as setprofile gives it
        if event == "call":
            self.ours += frame.f_code.co_filename.startswith(OURS)
            self.all += 1
        elif event == "c_call":
            self.all += 1
