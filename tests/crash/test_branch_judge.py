"""The judge of branches bites: a sound travel has no violations, and each thing that can go wrong with one is named."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.crash.branches import CHECKS, SAGA_TYPE, ends, judged
from tests.crash.checker import SOUND, Expected
from tests.crash.script import TRAVEL
from tests.crash.test_checker import Story

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tests.crash.views import Picture

START = "start-1"
PLAIN, FULL, DEAR = "t-1", "t-1~lounge=fail", "t-1~car=ok~cashier=fail"


class Travel(Story):
    """A travel, told in a word for each thing that happens to it."""

    def __init__(self, order: str) -> None:
        super().__init__(saga_type=SAGA_TYPE, order=order)
        self.take("started", None, START)

    def does(self, *steps: str) -> Travel:
        for step in steps:
            self.do(step)
        return self

    def undoes(self, *steps: str) -> Travel:
        for step in steps:
            self.undo(step)
        return self

    def fails(self, step: str, *, so: str) -> Travel:
        self.send(step, "do", effect=False)
        self.take("reply_received", step, f"{step}-failed")
        self.note("step_failed", step)
        self.note(so, step)
        return self

    def ended(self, phase: str) -> Picture:
        self.note(phase)
        return self.picture(phase)


def by_air() -> Picture:
    """Both beds are there when one is asked for; the hostel is let go when the money is paid."""
    travel = Travel(PLAIN).does("plane", "inn", "hostel")
    travel.note("branches_done")
    return travel.does("lounge", "cashier").undoes("hostel").does("post").ended("completed")


def by_rail(*, undone: tuple[str, ...] = ("plane",)) -> Picture:
    travel = Travel(FULL).does("plane", "inn").fails("lounge", so="alternative_failed").undoes(*undone)
    return travel.does("train", "cashier", "post").ended("completed")


def turned_back(*undone: str) -> Picture:
    travel = Travel(DEAR).does("plane", "inn", "car", "lounge").fails("cashier", so="compensation_started")
    return travel.undoes(*undone or ("lounge", "car", "inn", "plane")).ended("compensated")


def lost_alone_first() -> Picture:
    """What was given up by itself does not wait for what turns back later."""
    travel = Travel(DEAR).does("hostel", "plane").does("inn", "car").undoes("hostel").does("lounge")
    travel.fails("cashier", so="compensation_started")
    return travel.undoes("lounge", "car", "inn", "plane").ended("compensated")


@pytest.mark.parametrize("sound", [by_air(), by_rail(), turned_back(), lost_alone_first()])
def test_a_sound_travel_has_no_violations(sound: Picture) -> None:
    assert judged(sound, {sound.sagas[0].business_key: START}) == []


def late_undo() -> Picture:
    travel = Travel(FULL).does("plane", "inn").fails("lounge", so="alternative_failed")
    return travel.does("train", "cashier").undoes("plane").does("post").ended("completed")


def swapped_in_deed() -> Picture:
    """The history has the right order, the participants have not."""
    picture = turned_back()
    moments = {(each.participant, each.purpose): each.at for each in picture.effects}
    other = {"lounge": moments["plane", "undo"], "plane": moments["lounge", "undo"]}
    effects = [
        replace(each, at=other.get(each.participant, each.at)) if each.purpose == "undo" else each
        for each in picture.effects
    ]
    return replace(picture, effects=effects)


def turned_after_the_pivot() -> Picture:
    travel = Travel(DEAR).does("plane", "inn", "car", "lounge", "cashier")
    travel.note("compensation_started")
    return travel.undoes("lounge", "car", "inn", "plane").ended("compensated")


WRONGS: dict[str, tuple[Callable[[], Picture], str]] = {
    "there are two beds": (
        lambda: Travel(PLAIN).does("plane", "lounge", "inn", "hostel", "cashier", "post").ended("completed"),
        "its places to stay are ['inn', 'hostel']",
    ),
    "the winner was let go, too": (
        lambda: (
            Travel(PLAIN)
            .does("plane", "lounge", "inn", "hostel")
            .undoes("inn", "hostel")
            .does("cashier", "post")
            .ended("completed")
        ),
        "its places to stay are []",
    ),
    "there are two ways": (lambda: by_rail(undone=()), "its ways there are ['plane', 'train']"),
    "there is a car that nobody wanted": (
        lambda: Travel(PLAIN).does("plane", "lounge", "inn", "car", "cashier", "post").ended("completed"),
        "its car is another one than it wanted",
    ),
    "nobody paid": (
        lambda: Travel(PLAIN).does("plane", "lounge", "inn", "post").ended("completed"),
        "and all that is left is ['plane', 'lounge', 'inn', 'post']",
    ),
    "something is left": (
        lambda: turned_back("lounge", "inn", "plane"),
        "is compensated, and ['car'] is left",
    ),
    "first in, first out": (
        lambda: turned_back("plane", "inn", "car", "lounge"),
        "plane was undone before lounge, which had come after it",
    ),
    "first in, first out, in deed": (swapped_in_deed, "the plane was let go before the lounge"),
    "the train did not wait": (late_undo, "the train was asked before the plane was given back"),
    "the train did not wait, in deed": (late_undo, "the train was taken before the plane was let go"),
    "turned back after the pivot": (turned_after_the_pivot, "turned back, and its cashier had completed"),
    "undone after the pivot": (late_undo, "plane was to be undone after the cashier had completed"),
    "undone after the pivot, in deed": (late_undo, "the plane was let go after the cashier was paid"),
    "a completed step was never undone": (
        lambda: turned_back("lounge", "inn", "plane"),
        "its step car was completed and never undone",
    ),
    "it ended where it must not": (
        lambda: Travel(DEAR).does("plane", "lounge", "inn", "car", "cashier", "post").ended("completed"),
        "allowed: compensated",
    ),
}


@pytest.mark.parametrize("wrong", WRONGS)
def test_what_is_wrong_is_named(wrong: str) -> None:
    make, sentence = WRONGS[wrong]
    picture = make()
    found = judged(picture, {picture.sagas[0].business_key: START})
    assert any(sentence in each for each in found), found


def test_no_check_of_branches_is_idle() -> None:
    def finds(check: Callable[[Picture, Expected], object]) -> bool:
        expected = Expected(starts={}, saga_type=SAGA_TYPE, participants=tuple(TRAVEL))
        return any(list(check(make(), expected)) for make, _ in WRONGS.values())  # type: ignore[call-overload]

    assert [check.__name__ for check in CHECKS if check not in SOUND and not finds(check)] == []


@pytest.mark.parametrize(
    ("order", "allowed"),
    [
        ("t", {"completed"}),
        ("t~plane=fail", {"completed"}),
        ("t~plane=fail~train=fail", {"compensated"}),
        ("t~train=fail", {"completed", "compensated"}),
        ("t~inn=fail", {"completed"}),
        ("t~inn=fail~hostel=fail", {"compensated"}),
        ("t~car=fail", {"compensated"}),
        ("t~lounge=fail~cashier=fail", {"compensated"}),
        ("t~post=transient:1", {"completed"}),
    ],
)
def test_where_a_travel_may_end_is_told_from_its_id(order: str, allowed: Collection[str]) -> None:
    assert set(ends(order)) == allowed
