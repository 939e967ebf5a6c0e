"""What a reason for attention means and what helps: one text, on every screen and in the docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runtime.attention import ADVICE, what_only_a_person_can_do
from sagas.aliases import REFUSED
from sagas.instance import PARKING
from sagas.outcome import Action
from sagas.watching import WATCHED

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()


def test_every_reason_is_explained() -> None:
    assert {
        *PARKING,
        *WATCHED,
        REFUSED,
        "orphaned_effect",
        "in_doubt",
        "messages_held",
        "compensation_overdue",
        "deadline_passed",
    } == set(ADVICE)


@pytest.mark.parametrize("reason", [*PARKING, "orphaned_effect"])
def test_the_page_for_operators_names_the_same_commands(reason: str) -> None:
    helps = re.search(rf"^\| .*\(`{reason}`\) \| (.*) \|$", PAGE, re.MULTILINE)
    assert helps is not None
    named = {action.value for action in Action if re.search(rf"\b{action}\b", ADVICE[reason].remedy)}
    assert {*re.findall(r"`(\w+)`", helps[1])} == named


def test_a_key_is_named_as_a_shell_reads_it() -> None:
    assert "antiphon sagas undo 'order 1'; " in ADVICE["orphaned_effect"].remedy_for("order 1")


def test_the_gravest_reason_for_which_an_instance_stands_still_says_what_to_do() -> None:
    told = what_only_a_person_can_do({"compensation_failed", "method_raised", "unroutable"}, "o-1")
    assert told == ADVICE["method_raised"].remedy_for("o-1")
    assert what_only_a_person_can_do({"unroutable", "compensation_exhausted"}, "o-1") is None
