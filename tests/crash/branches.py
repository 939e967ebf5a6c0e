"""The judge of `travelling`: what the rules promise of branches, checked like everything else from outside.

A part of an instance may be given up while the rest goes on, so "all or nothing" and "the last one first" are said
anew: by what may be left in the end, and by who had to wait for whom.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.crash.checker import BACKWARD, ENDED, FORWARD, SOUND, Expected, violations
from tests.crash.script import TRAVEL, Word, directives

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from tests.crash.checker import Check
    from tests.crash.views import HistoryRow, Picture, SagaRow

SAGA_TYPE = "TravelOrder"
PIVOT = "cashier"
UNDOABLE = tuple(name for name, trade in TRAVEL.items() if trade.undo)
BY_AIR, RIVALS = ("plane", "lounge"), ("inn", "hostel")
BRANCH = {"plane": "by air", "lounge": "by air", "inn": "inn", "hostel": "hostel"}
"""The branches that may be given up while the rest goes on, by step. A step is called as its participant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One saga: its history by kind and step, and at which moment each participant did and undid."""

    saga: SagaRow
    sent: Mapping[str, int]
    completed: Mapping[str, int]
    undo_sent: Mapping[str, int]
    undone: Mapping[str, int]
    turned: int | None
    done_at: Mapping[str, int] = field(default_factory=dict)
    undone_at: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For sentences."""
        return f"saga {self.saga.business_key}"

    def left(self, participant: str) -> bool:
        """Whether a participant's effect stands in the end."""
        return participant in self.done_at and participant not in self.undone_at

    def given_up_together(self, one: str, other: str) -> bool:
        """Whether these two steps were to be undone in the order of one way back."""
        alone = self.turned is None or self.undo_sent[one] < self.turned
        return not alone or BRANCH.get(one) == BRANCH.get(other)


def judged(picture: Picture, starts: Mapping[str, str]) -> list[str]:
    """Everything that is wrong at the end of a run of travels."""
    expected = Expected(
        starts=starts, allowed={order: ends(order) for order in starts}, saga_type=SAGA_TYPE, participants=tuple(TRAVEL)
    )
    return violations(picture, expected, CHECKS)


def ends(order: str) -> Collection[str]:
    """Where an order may end, told from its id: the plane may always be too slow, and then it is the train's turn."""
    told = directives(order)
    refuses = {who for (who, _), behaviour in told.items() if behaviour.word is Word.FAIL}
    if refuses & {"car", PIVOT} or refuses.issuperset(RIVALS):
        return {"compensated"}
    if "train" in refuses:
        return {"compensated"} if refuses & set(BY_AIR) else ENDED
    return {"completed"}


def what_is_left_is_a_travel_or_nothing(picture: Picture, expected: Expected) -> Iterator[str]:
    """One way there, one place to stay, a car for who wants one, the money and the letter; or none of it."""
    for life in lives(picture):
        left = [name for name in TRAVEL if life.left(name)]
        if life.saga.phase == "completed":
            way, beds = [name for name in left if name in (*BY_AIR, "train")], [name for name in left if name in RIVALS]
            if way not in (list(BY_AIR), ["train"]):
                yield f"{life.name} is completed, and its ways there are {way}"
            if len(beds) != 1:
                yield f"{life.name} is completed, and its places to stay are {beds}"
            if ("car" in left) != ("car" in life.saga.business_key):
                yield f"{life.name} is completed, and its car is another one than it wanted"
            if not {PIVOT, "post"} <= set(left):
                yield f"{life.name} is completed, and all that is left is {left}"
        elif life.saga.phase == "compensated" and left:
            yield f"{life.name} is compensated, and {left} is left"


def who_came_later_is_undone_before(picture: Picture, expected: Expected) -> Iterator[str]:
    """Of what is given up together: what was sent after another had completed is undone before that; in deed, too."""
    for life in lives(picture):
        for earlier, its_undo in life.undo_sent.items():
            for later in life.undo_sent:
                follows = earlier in life.completed and life.sent.get(later, 0) > life.completed[earlier]
                if not follows or not life.given_up_together(earlier, later):
                    continue
                if not life.undone.get(later, its_undo + 1) < its_undo:
                    yield f"{life.name}: {earlier} was undone before {later}, which had come after it"
                if earlier in life.undone_at and life.undone_at.get(later, 0) > life.undone_at[earlier]:
                    yield f"{life.name}: the {earlier} was let go before the {later}"


def another_way_begins_when_the_first_is_undone(picture: Picture, expected: Expected) -> Iterator[str]:
    """The train is asked when nothing of the flight is left, nor on its way back."""
    for life in lives(picture):
        if "train" not in life.sent:
            continue
        for step in BY_AIR:
            if step in life.completed and life.undone.get(step, life.sent["train"]) >= life.sent["train"]:
                yield f"{life.name}: the train was asked before the {step} was given back"
            if step in life.done_at and life.undone_at.get(step, 0) > life.done_at.get("train", life.done_at[step]):
                yield f"{life.name}: the train was taken before the {step} was let go"


def nothing_is_undone_after_the_pivot(picture: Picture, expected: Expected) -> Iterator[str]:
    """But who has lost to a faster one."""
    for life in lives(picture):
        if PIVOT not in life.completed:
            continue
        if life.turned is not None:
            yield f"{life.name} turned back, and its {PIVOT} had completed"
        passed, paid = life.completed[PIVOT], life.done_at.get(PIVOT, 0)
        for step, at in life.undo_sent.items():
            if at > passed and step not in RIVALS:
                yield f"{life.name}: {step} was to be undone after the {PIVOT} had completed"
        for participant, moment in life.undone_at.items():
            if moment > paid and participant not in RIVALS:
                yield f"{life.name}: the {participant} was let go after the {PIVOT} was paid"


def what_was_given_up_is_undone(picture: Picture, expected: Expected) -> Iterator[str]:
    """A compensated saga has undone each step that had completed and can be undone; the history says so, too."""
    for life in lives(picture):
        if life.saga.phase == "compensated":
            for step in UNDOABLE:
                if step in life.completed and step not in life.undone:
                    yield f"{life.name} is compensated, but its step {step} was completed and never undone"


CHECKS: Sequence[Check] = (
    *SOUND,
    what_is_left_is_a_travel_or_nothing,
    who_came_later_is_undone_before,
    another_way_begins_when_the_first_is_undone,
    nothing_is_undone_after_the_pivot,
    what_was_given_up_is_undone,
)


def lives(picture: Picture) -> Iterator[Life]:
    """Every travel of a picture."""
    rows: dict[str, list[HistoryRow]] = defaultdict(list)
    for row in picture.history:
        rows[row.saga_id].append(row)
    moments: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for effect in picture.effects:
        moments[effect.order_id, effect.purpose][effect.participant] = effect.at
    for saga in picture.sagas:
        own = rows[saga.saga_id]
        yield Life(
            saga=saga,
            sent=_steps(own, FORWARD),
            completed=_steps(own, "step_completed", "late_success"),
            undo_sent=_steps(own, BACKWARD),
            undone=_steps(own, "step_compensated"),
            turned=next((row.seq for row in own if row.kind == "compensation_started"), None),
            done_at=moments[saga.business_key, "do"],
            undone_at=moments[saga.business_key, "undo"],
        )


def _steps(rows: Sequence[HistoryRow], *kinds: str) -> dict[str, int]:
    """Where each step first has a row of one of these kinds."""
    found: dict[str, int] = {}
    for row in sorted(rows, key=lambda each: each.seq):
        if row.kind in kinds and row.step in TRAVEL:
            found.setdefault(str(row.step), row.seq)
    return found
