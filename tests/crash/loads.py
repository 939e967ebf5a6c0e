"""What the ships of `freight` carry, told from the id of an order, and what becomes of each piece of it.

Nothing of the product is imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CRATES, PAPERS = 24, 6
AT_ONCE = {"load": 5, "clear": 3}
"""How many of each are under way at the same time, by the step that works them off."""

TOLERATED = {"load": 2, "clear": PAPERS - 1}
"""How many of each may fail although the ship sails."""

PIECES = {"load": "c", "clear": "p"}
WORKERS = {"load": "crane", "clear": "stamp"}
LISTS = {"load": "crates", "clear": "papers"}
"""By step: how its items are called, who does them, and where they stand in the state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a ship carries, and what is done with certain crates and papers, by number, in the script's words."""

    ends: str
    crates: Mapping[int, str] = field(default_factory=dict)
    papers: Mapping[int, str] = field(default_factory=dict)

    def items(self, order: str, step: str) -> list[str]:
        """Each a name of its own, in the order of the list; its directives, if it has some, behind it."""
        words, amount = (self.crates, CRATES) if step == "load" else (self.papers, PAPERS)
        told = {number: f"~{WORKERS[step]}{word}" for number, word in words.items()}
        return [f"{ship(order)}/{PIECES[step]}{number}{told.get(number, '')}" for number in range(amount)]


PLAIN = {1: "=times:3", 3: "=late:0.4", 6: "=echo:0.3", 9: "=fail", 12: "=transient:1", 15: "=fail", 18: "=late:0.2"}
UNANSWERED = {1: "=late:2.2", 3: "=silent", 4: "=mute:1"}
LOADS: Mapping[str, Load] = {
    "plain": Load(ends="completed", crates=PLAIN, papers=UNANSWERED),
    "overloaded": Load(
        ends="compensated",
        crates={
            2: ".undo=late:0.3",
            4: ".undo=times:3",
            6: "=transient:1",
            8: "=late:0.3",
            10: "=fail",
            13: ".undo=echo:0.2",
            14: "=fail",
            16: "=late:0.6",
            17: "=fail",
        },
    ),
    "becalmed~captain=fail": Load(
        ends="compensated",
        crates={0: "=fail", 2: "=transient:2", 5: ".undo=times:2", 23: ".undo=late:0.3"},
        papers={2: "=late:2.2", 5: ".undo=mute:1"},
    ),
}
"""By the beginning of an order's id, and the directives behind it."""


def ship(order: str) -> str:
    """An order's id without its directives."""
    return order.partition("~")[0]


def load(order: str) -> Load:
    """What this order is about."""
    return next(each for name, each in LOADS.items() if ship(order).startswith(ship(name)))


def order(name: str, number: int) -> str:
    """An order for one of these loads."""
    words = name.partition("~")[2]
    return f"{ship(name)}-{number}" + (f"~{words}" if words else "")


def orders(number: int, names: Sequence[str] = tuple(LOADS)) -> list[str]:
    """One for each of these loads."""
    return [order(name, number) for name in names]
