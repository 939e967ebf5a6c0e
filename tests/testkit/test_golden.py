"""A golden fails where something else is decided than was recorded, and only there; it is written on demand only."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from messages import Command, Event
from messages.errors import OperationRefused
from sagas import Saga, sleep, start, step, wait
from testkit import Harness, golden

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]


class Asked(Event, name="golden.Asked"):
    key: str


class Fetch(Command, name="golden.Fetch"):
    key: str
    much: int = 1


class Fetched(Event, name="golden.Fetched"):
    key: str


class Fetching(Saga, abstract=True):
    key: str
    fetched: bool = False

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(key=event.key)

    @step(timeout=timedelta(seconds=10))
    def fetch(self) -> Fetch:
        return Fetch(key=self.key)

    @fetch.on_success
    def done(self, reply: Fetched) -> None:
        self.fetched = True

    @sleep
    def breathe(self) -> timedelta:
        return timedelta(minutes=1)


class Errand(Fetching, key="key", version=1):
    flow = Fetching.fetch >> Fetching.breathe


def errand(saga: type[Saga] = Errand) -> Harness:
    """Asked twice, answered after a resend, and rested from."""
    story = Harness(saga).given(Asked(key="e-1")).given(Asked(key="e-1")).advance(timedelta(seconds=10))
    return story.operator("retry").receives(Fetched(key="e-1")).advance(timedelta(minutes=1))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of the errand, written."""
    file = tmp_path / "Errand-1" / "fetched.json"
    golden.check(errand(), file, update=True)
    return file


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


def refused(saga: type[Saga], path: Path) -> str:
    with pytest.raises(AssertionError) as raised:
        golden.replay(saga, path)
    return str(raised.value)


def test_what_is_recorded_is_what_happens(path: Path) -> None:
    golden.check(errand(), path)
    golden.replay(Errand, path)


def test_a_file_is_read_by_people(path: Path) -> None:
    told = json.loads(path.read_text())
    assert (told["saga"], told["version"]) == ("Errand", 1)
    assert [act["act"] for act in told["acts"]] == ["given", "given", "advance", "operator", "receives", "advance"]
    assert told["acts"][1]["then"]["disposition"] == ["ignored duplicate_start"]
    assert [row["kind"] for row in told["acts"][5]["then"]["history"]] == ["rested", "completed"]
    assert "\n" in path.read_text().strip()


def test_what_the_saga_has_refused_is_no_part_of_the_story(tmp_path: Path) -> None:
    story = errand()
    with pytest.raises(OperationRefused):
        story.operator("cancel")
    golden.check(story, tmp_path / "story.json", update=True)
    golden.check(errand(), tmp_path / "story.json")


def test_a_file_that_is_not_there_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"there is no .*new\.json; `pytest --golden-update` writes it"):
        golden.check(errand(), tmp_path / "new.json")
    assert not list(tmp_path.iterdir())


def test_another_decision_is_shown_with_its_act_and_both_ways(path: Path) -> None:
    class Greedy(Fetching, key="key", version=1, name="Errand"):
        @step(success=Fetched)
        def fetch_more(self) -> Fetch:
            return Fetch(key=self.key, much=2)

        flow = Fetching.fetch >> Fetching.breathe >> fetch_more

    told = refused(Greedy, path)
    assert told.startswith("Errand version 1 (its shape is another one) does not do any more what ")
    assert "In act 6 advance 60.0:" in told
    assert re.search(r'^- .*"kind": "completed"', told, re.MULTILINE)
    assert re.search(r'^\+ .*"body": \{"key": "e-1", "much": 2\}', told, re.MULTILINE)
    assert "`pytest --golden-update`" in told


def test_a_field_more_with_a_default_and_a_field_less_are_no_other_decision(path: Path) -> None:
    class Curious(Fetching, key="key", version=1, name="Errand"):
        why: str | None = None
        flow = Fetching.fetch >> Fetching.breathe

    golden.replay(Curious, path)
    golden.check(errand(Curious), path, update=True)
    golden.replay(Errand, path)


def test_a_state_that_does_not_load_any_more_is_told(path: Path) -> None:
    class Strict(Fetching, key="key", version=1, name="Errand"):
        why: str
        flow = Fetching.fetch >> Fetching.breathe

        @start
        def asked(cls, event: Asked) -> Self:
            return cls(key=event.key, why="because")

    told = refused(Strict, path)
    assert "What was stored after act 1 cannot be read any more" in told
    assert "why" in told


def test_an_event_that_is_not_taken_any_more_is_told(path: Path) -> None:
    changed(path, lambda told: told["acts"][4].update(message="golden.Brought"))
    assert "In act 5 receives golden.Brought: Errand does not take golden.Brought any more" in refused(Errand, path)


def test_an_instance_that_was_stored_otherwise_than_today_is_told(path: Path) -> None:
    def not_sent_again(told: dict[str, Any]) -> None:
        stored = told["acts"][2]["then"]
        stored["stored"]["progress"]["steps"]["fetch"][0][3] = 1
        stored["patches"][-1]["steps"]["set"]["fetch"][0][3] = 1

    changed(path, not_sent_again)
    assert "In act 3 advance 10.0:" in refused(Errand, path)


def test_a_row_that_cannot_be_read_any_more_is_told(path: Path) -> None:
    changed(path, lambda told: told["acts"][2]["then"]["stored"]["progress"]["steps"]["fetch"][0].pop())
    assert "What was stored after act 3 cannot be read any more: ValueError" in refused(Errand, path)


def test_a_history_that_amounts_to_something_else_is_told(path: Path) -> None:
    changed(path, lambda told: told["acts"][4]["then"]["patches"].pop())
    assert "After act 5 its history does not amount to what its row holds:" in refused(Errand, path)


def test_another_story_is_not_taken_for_another_decision(path: Path) -> None:
    with pytest.raises(AssertionError, match="the test tells another story than") as raised:
        golden.check(Harness(Errand).given(Asked(key="e-2")), path)
    assert re.search(r'^- .*"act": "operator", "action": "retry"', str(raised.value), re.MULTILINE)


def test_another_version_has_files_of_its_own(path: Path) -> None:
    class Next(Fetching, key="key", version=2, name="Errand"):
        flow = Fetching.fetch >> Fetching.breathe

    assert "tells of Errand version 1, and this is Errand version 2. Keep the old class" in refused(Next, path)


STORY = """
from testkit import Golden, Harness
from tests.testkit.test_golden import Asked, Errand

def test_it(golden: Golden) -> None:
    golden.check(Harness(Errand).given(Asked(key="e-1")), "Errand-1/asked.json")
"""


def test_pytest_writes_when_it_is_told_to_and_never_else(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["testkit.plugin"]\n')
    (tmp_path / "test_it.py").write_text(STORY)
    file = tmp_path / "Errand-1" / "asked.json"

    def ran(*words: str) -> tuple[int, bool]:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, file.exists()

    assert ran() == (1, False)
    assert ran("--golden-update") == (0, True)
    assert ran() == (0, True)
    file.write_text(file.read_text().replace("e-1", "e-2"))
    assert ran()[0] == 1


class Settled(Event, name="golden.Settled"):
    key: str


class Patient(Fetching, key="key", version=1):
    @wait(timeout=timedelta(days=1))
    def settlement(self, event: Settled) -> None:
        """Somebody else settles it."""

    flow = Fetching.fetch >> settlement >> Fetching.breathe


def test_an_event_that_came_too_early_is_kept_beside_what_was_stored(tmp_path: Path) -> None:
    story = Harness(Patient).given(Asked(key="e-1")).hears(Settled(key="e-1")).receives(Fetched(key="e-1"))
    assert story.kinds[-1] == "rest_began"
    golden.check(story, tmp_path / "early.json", update=True)
    golden.replay(Patient, tmp_path / "early.json")
