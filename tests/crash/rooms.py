"""The removals of `removal`, told from the id of an order, and what becomes of each room.

Nothing of the product is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOMS = ("kitchen", "attic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where a removal ends, and what the movers do in its rooms, in the script's words."""

    ends: str
    kitchen: str = ""
    attic: str = ""


PLANS: Mapping[str, Plan] = {
    "plain": Plan(ends="completed", kitchen="~boxes=times:3", attic="~carrier=late:0.3"),
    # Both rooms are empty when the notary says no: they are put in order again.
    "refused~notary=fail": Plan(ends="compensated", kitchen="~carrier=echo:0.2", attic="~boxes=late:0.2"),
    # One room cannot be emptied while the other one is at it, which is told to stop.
    "stuck": Plan(ends="compensated", kitchen="~boxes=late:1~boxes.undo=times:2", attic="~carrier=fail"),
    # The other one is nearly done: whether it is stopped or put in order is a matter of moments.
    "close": Plan(ends="compensated", kitchen="~boxes=fail", attic="~boxes=late:0.1"),
}
"""By the beginning of an order's id, and the directives behind it."""


def home(order: str) -> str:
    """An order's id without its directives."""
    return order.partition("~")[0]


def plan(order: str) -> Plan:
    """What this order is about."""
    return next(each for name, each in PLANS.items() if home(order).startswith(home(name)))


def room(order: str, name: str) -> str:
    """The key of a room: the order's, its name and its directives."""
    return f"{home(order)}/{name}{getattr(plan(order), name)}"


def rooms(order: str) -> Sequence[str]:
    """The keys of all rooms."""
    return [room(order, name) for name in ROOMS]


def orders(number: int, names: Sequence[str] = tuple(PLANS)) -> list[str]:
    """An order for each of these plans."""
    return [f"{home(name)}-{number}" + name[len(home(name)) :] for name in names]
