"""What is said before the court of `court`, and when: too early, in time, twice, too late. Published over plain AMQP.

Nothing of the product is imported.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aio_pika
from aio_pika.abc import DeliveryMode

from tests.crash.driver import Shop
from tests.crash.process import STARTED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """Something that is said of a case: always under the same id, however often."""

    order: str
    name: str
    number: int = 1

    @property
    def message_id(self) -> str:
        """Under which it is published."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"court/{self.order}/{self.name}/{self.number}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """What is said of a case before it is placed, and what right behind that; `name` or `name:number`, each twice."""

    before: Sequence[str] = ()
    behind: Sequence[str] = ()

    def words(self, order: str, said: Sequence[str]) -> list[Word]:
        """These words of a case."""
        named = [each.partition(":") for each in said]
        return [Word(order=order, name=name, number=int(number or 1)) for name, _, number in named]


PLOTS: Mapping[str, Plot] = {
    "unborn": Plot(before=("Voted", "Noted", "Closed", "Voted:2", "Opened", "Noted:2", "Over")),
    "early": Plot(behind=("Closed", "Voted", "Opened", "Noted", "Voted:2", "Over", "Closed:2")),
    "silent": Plot(before=("Noted",)),
    "half": Plot(before=("Voted", "Noted"), behind=("Noted:2",)),
    "crowded": Plot(
        before=("Voted", "Voted:2"), behind=("Voted:3", "Voted:4", "Closed", "Closed:2", "Opened", "Opened:2", "Over")
    ),
    "withdrawn": Plot(before=("Opened", "Voted"), behind=("Noted", "Withdrawn", "Closed")),
    "refused~clerk=fail": Plot(before=("Voted",), behind=("Noted", "Over")),
}
"""By the beginning of a case's id. In silence nothing else is kept: while something is, nobody is given up on, and the
next look at that is half a minute later."""


class Court(Shop):
    """Takes cases as the shop takes orders, and publishes what is said of them."""

    async def hear(self, cases: Mapping[str, Plot]) -> tuple[dict[str, str], list[Word]]:
        """Place cases and say what is to be said; returns the ids of their starts, and everything that was said."""
        said: list[Word] = []
        for order, plot in cases.items():
            said += await self.say(*plot.words(order, plot.before))
        starts = await self.place(*cases)
        for order, plot in cases.items():
            said += await self.say(*plot.words(order, plot.behind))
        return starts, said

    async def say(self, *words: Word) -> Sequence[Word]:
        """Publish each of these twice, in this order."""
        for word in words:
            await asyncio.gather(self._say(word), self._say(word))
        return words

    async def _say(self, word: Word) -> None:
        assert self._events is not None, "the court is closed: use `async with`"
        event = aio_pika.Message(
            json.dumps({"order_id": word.order, "number": word.number}).encode(),
            message_id=word.message_id,
            type=f"court.{word.name}",
            content_type="application/json",
            app_id="court",
            delivery_mode=DeliveryMode.PERSISTENT,
            headers={"schema-version": 1},
        )
        await self._events.publish(event, f"court.{word.name}", timeout=STARTED)
