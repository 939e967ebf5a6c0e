"""The judge of `removal`: what the rules promise of sagas that start others, checked like all else from outside.

Whoever completes has all its children completed; of whoever is compensated each child was never started, was
compensated, or had completed and is undone once; and each knows who its parent is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from tests.crash.checker import SOUND, Expected, violations
from tests.crash.rooms import plan, rooms
from tests.crash.script import MOVERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.crash.views import Picture, SagaRow

    Verdict = Callable[["Household"], Iterator[str]]

PARENT_TYPE, CHILD_TYPE = "Removal", "Room"
AT_A_ROOM = ("boxes", "carrier")
PARENTS = "select saga_id::text, parent_id::text from {}.v_saga"


@dataclass(frozen=True, slots=True, kw_only=True)
class Household:
    """A parent and what became of each of its rooms; `net` is what is left, by the key and the participant."""

    saga: SagaRow
    children: Mapping[str, SagaRow]
    parents: Mapping[str, str | None]
    net: Mapping[tuple[str, str], int]
    undone_at: Mapping[tuple[str, str], int]

    @property
    def name(self) -> str:
        """For sentences."""
        return f"removal {self.saga.business_key}"


async def parents(database_url: str, namespace: str) -> Mapping[str, str | None]:
    """Who has started each instance, by its id."""
    connection = await asyncpg.connect(database_url)
    try:
        return {row["saga_id"]: row["parent_id"] for row in await connection.fetch(PARENTS.format(namespace))}
    finally:
        await connection.close()


def judged(picture: Picture, starts: Mapping[str, str], found: Mapping[str, str | None]) -> list[str]:
    """Everything that is wrong at the end of a run of removals."""
    expected = Expected(
        starts=starts,
        allowed={order: {plan(order).ends} for order in starts},
        saga_type=PARENT_TYPE,
        participants=tuple(MOVERS),
    )
    return [
        *violations(picture, expected, SOUND),
        *(sentence for each in households(picture, found) for verdict in VERDICTS for sentence in verdict(each)),
    ]


def households(picture: Picture, found: Mapping[str, str | None]) -> Iterator[Household]:
    """Every parent of a picture."""
    net: Counter[tuple[str, str]] = Counter()
    undone_at: dict[tuple[str, str], int] = {}
    for effect in picture.effects:
        net[effect.order_id, effect.participant] += 1 if effect.purpose == "do" else -1
        if effect.purpose == "undo" or effect.participant == "sweeper":
            undone_at[effect.order_id, effect.participant] = effect.at
    children = {saga.business_key: saga for saga in picture.sagas if saga.saga_type == CHILD_TYPE}
    for saga in picture.sagas:
        if saga.saga_type == PARENT_TYPE:
            mine = {key: children[key] for key in rooms(saga.business_key) if key in children}
            yield Household(saga=saga, children=mine, parents=found, net=net, undone_at=undone_at)


def a_child_has_the_parent_that_started_it(home: Household) -> Iterator[str]:
    """So that people find the one from the other."""
    for key, child in home.children.items():
        if (parent := home.parents.get(child.saga_id)) != home.saga.saga_id:
            yield f"room {key} has the parent {parent} instead of {home.saga.saga_id}"


def a_child_is_all_or_nothing(home: Household) -> Iterator[str]:
    """Its own effects are there when it has completed, and not otherwise."""
    for key in rooms(home.saga.business_key):
        completed = key in home.children and home.children[key].phase == "completed"
        for participant in AT_A_ROOM:
            if (left := home.net[key, participant]) != (1 if completed else 0):
                yield f"room {key} is {'' if completed else 'not '}completed, and of {participant} is left {left}"


def children_end_as_their_parent_wants(home: Household) -> Iterator[str]:
    """All of them completed for one that has completed; undone each, and each once, for one that turned back."""
    for key in rooms(home.saga.business_key):
        phase = home.children[key].phase if key in home.children else "never started"
        due = 1 if home.saga.phase == "compensated" and phase == "completed" else 0
        if home.saga.phase == "completed" and phase != "completed":
            yield f"{home.name} is completed, and its room {key} is {phase}"
        if (swept := home.net[key, "sweeper"]) != due:
            yield f"{home.name} is {home.saga.phase}, its room {key} {phase}, and it was swept {swept} times"


def what_came_before_the_children_is_undone_after_them(home: Household) -> Iterator[str]:
    """In deed: the van leaves when nothing of the rooms is still to be undone."""
    left = home.undone_at.get((home.saga.business_key, "van"))
    for key in rooms(home.saga.business_key):
        for participant in (*AT_A_ROOM, "sweeper"):
            at = home.undone_at.get((key, participant))
            if left is not None and at is not None and at > left:
                yield f"{home.name}: the van left before {participant} had undone {key}"


VERDICTS: Sequence[Verdict] = (
    a_child_has_the_parent_that_started_it,
    a_child_is_all_or_nothing,
    children_end_as_their_parent_wants,
    what_came_before_the_children_is_undone_after_them,
)
