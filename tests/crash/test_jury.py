"""The judge of events bites: a sound case has no violations, and each thing that can go wrong with one is named."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.crash.jury import SAGA_TYPE, judged
from tests.crash.test_checker import START, Story
from tests.crash.views import DeadRow, InboxRow, Picture
from tests.crash.witnesses import Word

if TYPE_CHECKING:
    from collections.abc import Callable

ORDER = "half-1"
VOTED, CLOSED = Word(order=ORDER, name="Voted"), Word(order=ORDER, name="Closed")
STARTS = {ORDER: START}


def sound() -> Picture:
    """One vote, and a word that comes too late."""
    case = Story(saga_type=SAGA_TYPE, order=ORDER)
    case.take("started", None, START)
    case.do("clerk")
    case.note("wait_began", "vote[0]")
    case.take("event_received", "vote[0]", VOTED.message_id)
    case.note("state_entered", "lifecycle")
    case.do("vault")
    case.note("message_ignored", None, CLOSED.message_id)
    case.inbox.append(InboxRow(consumer=SAGA_TYPE, source="", message_id=CLOSED.message_id, disposition="ignored"))
    case.do("herald")
    case.note("completed")
    return case.picture("completed")


def without(picture: Picture, kind: str) -> Picture:
    """The same, and nothing of that kind in its history."""
    left = [row for row in picture.history if row.kind != kind]
    return replace(picture, history=[replace(row, seq=seq) for seq, row in enumerate(left, start=1)])


def dead_too(picture: Picture) -> Picture:
    letter = DeadRow(
        consumer=SAGA_TYPE, message_id=VOTED.message_id, name="court.Voted", reason="not_awaited", status="replayed"
    )
    return replace(picture, dead=[letter])


WRONGS: dict[str, tuple[Callable[[], Picture], str]] = {
    "a word is lost": (
        lambda: replace(sound(), inbox=[row for row in sound().inbox if row.message_id != CLOSED.message_id]),
        "Closed 1 of half-1 stands in the inbox 0 times",
    ),
    "a word is decided twice": (lambda: dead_too(sound()), "Voted 1 of half-1 is applied, and is told of as"),
    "nobody says why a word changed nothing": (
        lambda: without(sound(), "message_ignored"),
        "Closed 1 of half-1 is ignored, and is told of as",
    ),
    "a wait never ended": (lambda: without(sound(), "event_received"), "its votes went wait_began"),
    "a state was entered and nothing done": (
        lambda: replace(sound(), effects=[each for each in sound().effects if each.participant != "vault"]),
        "was sent to the vault 1 times, which locked it away 0 times",
    ),
    "nobody was told": (
        lambda: replace(sound(), effects=[each for each in sound().effects if each.participant != "herald"]),
        "is completed, and of the herald is left 0",
    ),
}


def test_a_sound_case_has_no_violations() -> None:
    assert judged(sound(), STARTS, [VOTED, CLOSED]) == []


@pytest.mark.parametrize("wrong", WRONGS)
def test_what_is_wrong_is_named(wrong: str) -> None:
    make, sentence = WRONGS[wrong]
    found = judged(make(), STARTS, [VOTED, CLOSED])
    assert any(sentence in each for each in found), found
