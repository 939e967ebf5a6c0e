"""The items of a list that a step works off one by one: kept beside the instance, and only those at hand are here.

Whoever decides on an instance need not bring them: `decide` raises `NeedsItems` for those that it lacks, and is asked
again with them.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING

from messages.value import value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sagas.instance import StepProgress

AT_HAND = 200
"""So many of the next items are brought at once."""


@value
class Items:
    """What is at hand: the `bodies` of items, as JSON, by the field of the list; and by the path of a step the items
    that it has done and that are still to be undone, `owed`, the one that ended last first.
    """

    bodies: Mapping[str, Mapping[int, bytes]] = field(default_factory=dict)
    owed: Mapping[str, Sequence[tuple[int, StepProgress]]] = field(default_factory=dict)


@value
class Want:
    """What is needed: items of the list in a field, None: all of them; or of a step those owed that ended `before`."""

    list_field: str
    indexes: frozenset[int] | None = frozenset()
    path: str | None = None
    before: int = 0


@value
class Rested:
    """An item that is done with for now: how its step went, and whether that may have to be undone."""

    path: str
    index: int
    step: StepProgress
    owed: bool


class NeedsItems(Exception):  # noqa: N818 - names the situation
    """A decision needs items that are not at hand."""

    def __init__(self, want: Want) -> None:
        super().__init__(f"items of {want.list_field}")
        self.want = want


def with_bodies(items: Items, list_field: str, bodies: Mapping[int, bytes]) -> Items:
    """What is at hand, with these items of a list."""
    known = items.bodies.get(list_field, {})
    return replace(items, bodies={**items.bodies, list_field: {**known, **bodies}})


def with_owed(items: Items, path: str, owed: Sequence[tuple[int, StepProgress]]) -> Items:
    """What is at hand, with these items of a step that are still to be undone, behind those that ended after them."""
    return replace(items, owed={**items.owed, path: [*items.owed.get(path, ()), *owed]})
