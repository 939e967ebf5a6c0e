"""Steps that work off lists, told for people: how many items are how far, and by name only the few that differ."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.timeline import StepLine, steps

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from storage.queries import Event

FEW = 10
"""Items that are equally far have lines of their own if there are no more of them; else they are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The lines of the steps, and the items that have none because they are only counted."""

    steps: Sequence[StepLine]
    counted: frozenset[str]


def told(events: Iterable[Event]) -> Told:
    """The steps in the order they were entered, a list before its items."""
    events = list(events)
    lists = {event.step: int(event.detail["items"]) for event in events if event.kind == "each_began" and event.step}
    lines = steps(events)
    of: dict[str, list[StepLine]] = {path: [] for path in lists}
    for line in lines:
        if (path := list_of(line.step)) in of:
            of[path].append(line)
    counted = frozenset(item for items in of.values() for item in _many(items))
    return Told(steps=list(_with_lists(lines, of, lists, counted)), counted=counted)


def list_of(item: str) -> str:
    """The step that an item belongs to: `pay` of `pay[17]`; nothing of what is no item."""
    return item.rpartition("[")[0]


def _many(items: Collection[StepLine]) -> Iterator[str]:
    """The items that are as far as many others."""
    common = Counter(item.state for item in items)
    return (item.step for item in items if common[item.state] > FEW)


def _with_lists(
    lines: Iterable[StepLine], of: Mapping[str, Sequence[StepLine]], lists: Mapping[str, int], counted: Collection[str]
) -> Iterator[StepLine]:
    """Each list where its first item was begun, and of its items those that are not counted."""
    begun: set[str] = set()
    for line in lines:
        path = list_of(line.step)
        if of.get(path) and path not in begun:
            begun.add(path)
            yield _whole(path, of[path], lists[path])
        if not of.get(line.step) and line.step not in counted:
            yield line


def _whole(path: str, items: Sequence[StepLine], total: int) -> StepLine:
    """All items of a list in one line: how many are how far, the most first."""
    how_far = Counter(item.state for item in items)
    how_far["not begun"] = max(total - len(items), 0)
    return StepLine(
        step=path,
        state=", ".join(f"{number} {state}" for state, number in how_far.most_common() if number),
        sends=sum(item.sends for item in items),
        undo_sends=sum(item.undo_sends for item in items),
        at=max(item.at for item in items),
    )
