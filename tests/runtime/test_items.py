"""A list of many items, told by how many are how far; by name only the few that differ from the others."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from runtime.items import FEW, told
from tests.runtime.test_timeline import event

if TYPE_CHECKING:
    from collections.abc import Iterable

    from storage.queries import Event

Happened = tuple[str, str]


def history(items: int, *happened: Happened) -> list[Event]:
    """A list was begun, and then this happened to the named steps."""
    numbers = count(3)
    began = event(1, "started"), event(2, "each_began", "pay", items=items)
    return [*began, *(event(next(numbers), kind, step) for step, kind in happened)]


def of_items(indexes: Iterable[int], *kinds: str) -> list[Happened]:
    return [(f"pay[{index}]", kind) for index in indexes for kind in kinds]


def lines(events: list[Event]) -> list[tuple[str, str, int, int]]:
    return [(line.step, line.state, line.sends, line.undo_sends) for line in told(events).steps]


MANY = range(FEW + 1)
PAID, REFUSED = ("command_sent", "step_completed"), ("command_sent", "step_failed")


def test_many_that_are_equally_far_are_counted_and_the_few_others_named() -> None:
    events = history(100, *of_items(MANY, *PAID), *of_items([50], *REFUSED), *of_items([60], "command_sent"))
    assert lines(events) == [
        ("pay", "87 not begun, 11 completed, 1 failed, 1 waiting for a reply", 13, 0),
        ("pay[50]", "failed", 1, 0),
        ("pay[60]", "waiting for a reply", 1, 0),
    ]
    assert told(events).counted == {f"pay[{index}]" for index in MANY}


def test_few_are_all_named() -> None:
    events = history(FEW, *of_items(range(FEW), *PAID), ("pay", "step_completed"))
    assert lines(events)[0] == ("pay", "10 completed", 10, 0)
    assert [line[0] for line in lines(events)[1:]] == [f"pay[{index}]" for index in range(FEW)]
    assert not told(events).counted


def test_what_is_undone_is_counted_as_that() -> None:
    undone = (*PAID, "compensation_sent", "command_resent", "step_compensated")
    events = history(len(MANY), *of_items(MANY, *undone))
    assert lines(events) == [("pay", "11 undone", 11, 22)]


def test_a_list_stands_where_it_was_begun_and_its_last_item_says_when_it_moved() -> None:
    sent = history(len(MANY), ("reserve", "step_completed"), *of_items(MANY, *PAID), ("bill", "command_sent"))
    assert [line[0] for line in lines(sent)] == ["reserve", "pay", "bill"]
    assert told(sent).steps[1].at == sent[-2].at


def test_each_time_of_a_loop_is_a_list_of_its_own() -> None:
    events = [
        event(1, "each_began", "pay[0]", items=1),
        event(2, "command_sent", "pay[0][0]"),
        event(3, "each_began", "pay[1]", items=1),
        event(4, "command_sent", "pay[1][0]"),
        event(5, "command_sent", "retry[0]"),
    ]
    assert [line[0] for line in lines(events)] == ["pay[0]", "pay[0][0]", "pay[1]", "pay[1][0]", "retry[0]"]


def test_a_list_without_items_is_a_step_like_any_other() -> None:
    assert lines(history(0, ("pay", "step_completed"))) == [("pay", "completed", 0, 0)]
