"""The orders of the demo: which stories there are, which orders tell them, and how each must end.

An order's id says everything about it, so that a later process can tell what an earlier one meant.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from itertools import islice

EVENT = "ordering.OrderPlaced"

_ID = re.compile(r"demo-([1-9]\d*)-(\d{2,})-([a-z]+)")
_PRICE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What an order goes through. Its word stands in the order's id, where the participants look for it."""

    word: str
    plot: str
    status: str
    end_reason: str | None = None
    article: str = "teapot"
    share: float = 0.0  # of the orders beyond the first of each story


SMOOTH = Story(word="smooth", plot="stock reserved, paid, label printed", status="completed", share=0.67)
SOLD_OUT = Story(
    word="soldout",
    plot="sold out: nothing to undo",
    status="compensated",
    end_reason="failed",
    article="teapot-soldout",
    share=0.15,
)
DECLINED = Story(
    word="declined",
    plot="payment declined: stock put back",
    status="compensated",
    end_reason="failed",
    share=0.18,
)
LATE = Story(
    word="late",
    plot="paid too late: refunded, put back",
    status="compensated",
    end_reason="timed_out",
)
SILENT = Story(
    word="silent",
    plot="no answer for the label: all undone",
    status="compensated",
    end_reason="timed_out",
)

STORIES = (SMOOTH, SOLD_OUT, DECLINED, LATE, SILENT)
_FIRST = (SMOOTH, DECLINED, SOLD_OUT, LATE, SILENT)
"""The first orders tell one story each; the order in which fewer orders leave stories out, from the back."""

_LONG = (SILENT, LATE)
"""Whoever waits for a timeout is placed early, so that the others fill the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The order of that number in the demo's run of that number."""

    run: int
    number: int
    story: Story

    @property
    def key(self) -> str:
        """Its id, which is the business key of its saga."""
        return f"demo-{self.run}-{self.number:02}-{self.story.word}"

    def placed(self) -> str:
        """The event that the shop publishes, as JSON. The same order always gives the same bytes."""
        quantity = 1 + self.number % 3
        line = {"sku": self.story.article, "quantity": quantity, "unit_price": f"{_PRICE}.00"}
        order = {
            "order_id": self.key,
            "customer_id": f"customer-{self.number}",
            "lines": [line],
            "total": f"{quantity * _PRICE}.00",
        }
        return json.dumps(order)


def told(key: str) -> Order | None:
    """The order of this id, or None when it is none of the demo's."""
    match = _ID.fullmatch(key)
    story = next((story for story in STORIES if match and story.word == match[3]), None)
    return Order(run=int(match[1]), number=int(match[2]), story=story) if match and story else None


def orders(run: int, count: int) -> list[Order]:
    """So many orders, most of them smooth, in the order in which they are placed."""
    return [Order(run=run, number=number, story=story) for number, story in enumerate(_mixed(_cast(count)), start=1)]


def _cast(count: int) -> Counter[Story]:
    """How many orders tell which story: one each, then by their shares."""
    cast = Counter(islice(_FIRST, count))
    while cast.total() < count:
        story = min(STORIES, key=lambda one: (cast[one] + 1) / one.share if one.share else float("inf"))
        cast[story] += 1
    return cast


def _mixed(cast: Counter[Story]) -> list[Story]:
    """A smooth one first, then those that take long, then the others evenly mixed."""
    places = [
        ((place + 0.5) / amount, STORIES.index(story), story)
        for story, amount in cast.items()
        for place in range(amount)
        if story not in _LONG
    ]
    first, *others = [story for _, _, story in sorted(places, key=lambda one: one[:2])]
    return [first, *(story for story in _LONG if cast[story]), *others]
