"""`definitions list|show|diff|drain` as processes, on SQLite and on PostgreSQL: what they print and how they exit."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.runtime.shop import PARTICIPANT, SAGA
from tests.runtime.test_bad_input import assert_told
from tests.runtime.test_dead import asked, letter

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.runtime.conftest import Command
    from tests.runtime.office import Office
    from tests.runtime.processes import Process

SECOND = """
class Tinier(Saga, key="order_id", version=2, name="Tiny"):
    order_id: str
    note: str = ""

    @start
    def asked(cls, event: Asked) -> "Tinier":
        return cls(order_id=event.order_id)

    @step(success=Done)
    def work(self) -> Do:
        return Do(order_id=self.order_id)
"""
ROW = 2
"""The line of the first row of a table."""


class Definitions:
    """An office whose sidecar has run once, so that its saga is recorded, and the commands on definitions."""

    def __init__(self, office: Office, antiphon: Command) -> None:
        self.office = office
        self._antiphon = antiphon

    def __call__(self, *arguments: str) -> Any:  # noqa: ANN401 - what a command left
        return self._antiphon("definitions", *arguments, **self.office.settings)

    def ask(self, *arguments: str) -> Any:  # noqa: ANN401 - what JSON gives
        return json.loads(self(*arguments, "--json").stdout)

    def write(self, code: str) -> None:
        (self.office.folder / "shop.py").write_text(code + PARTICIPANT)

    def begin(self, order: str) -> None:
        """Start an instance, which nobody's process goes on with."""
        self.office.keep(asked(order))
        done = self.office.dead("replay", "--all")
        assert done.returncode == 0, done.stderr


@pytest.fixture
def definitions(office: Office, antiphon: Command, started: Callable[..., Process]) -> Definitions:
    run(office, started)
    return Definitions(office, antiphon)


def run(office: Office, started: Callable[..., Process]) -> None:
    """Have a sidecar record what it runs."""
    sidecar = started("run", **office.settings)
    sidecar.until("process.ready")
    sidecar.send(signal.SIGTERM)
    assert sidecar.ended() == 0


# -- list and show


def test_every_version_is_listed_with_what_lives_on_it(definitions: Definitions) -> None:
    definitions.begin("1")
    definitions.begin("2")
    definitions.write(SAGA + SECOND)
    first, second = definitions.ask("list")
    told = ("type", "version", "here", "starts_new", "live", "running", "parked")
    assert [first[name] for name in told] == ["Tiny", 1, "same", False, 2, 2, 0]
    assert [second[name] for name in told] == ["Tiny", 2, "new", True, 0, 0, 0]
    assert first["recorded_at"] < first["oldest_started_at"]
    assert (second["recorded_at"], second["oldest_started_at"]) == (None, None)
    assert set(first["digests"]) == {"shape", "state", "policy", "code"}
    shown = definitions("list")
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[ROW].split()[:4] == ["Tiny", "1", "same", "2"]
    assert first["digests"]["shape"][:7] in shown.stdout


def test_a_version_that_is_only_recorded_is_listed_as_missing_here(definitions: Definitions) -> None:
    definitions.begin("1")
    definitions.write(
        SAGA.replace("version=1):\n    order_id: str\n\n    @start", "version=2):\n    order_id: str\n\n    @start")
    )
    assert [(each["version"], each["here"], each["live"]) for each in definitions.ask("list")] == [
        (1, "missing", 1),
        (2, "new", 0),
    ]


def test_one_version_is_shown_with_its_patience(definitions: Definitions) -> None:
    shown = definitions("show", "Tiny")
    assert shown.returncode == 0
    for told in (
        "Tiny version 1",
        "as it was recorded",
        "deadline     7 d 0 h",
        "tiny.Asked version 1",
        "flow         work",
    ):
        assert told in shown.stdout
    assert (
        "work    work  tiny.Do version 1  30 s   3         1 s, times 2  1 min 0 s  tiny.Done version 1 (success)"
        in shown.stdout
    )
    whole = definitions.ask("show", "Tiny", "1")
    assert whole["document"]["policy"]["steps"]["work"]["do"]["timeout"] == 30


WAITS = """
from datetime import timedelta
from sagas import wait

class Nudge(Command, name="tiny.Nudge", version=1):
    order_id: str

class Patient(Saga, key="order_id", version=1):
    order_id: str

    @start
    def asked(cls, event: Asked) -> "Patient":
        return cls(order_id=event.order_id)

    @wait(timeout=timedelta(days=3))
    def approval(self, event: Done) -> None:
        self.order_id = event.order_id

    @approval.reminder(after=timedelta(hours=8), every=timedelta(hours=4))
    def nudge(self) -> Nudge:
        return Nudge(order_id=self.order_id)

    @step(reply=False)
    def work(self) -> Do:
        return Do(order_id=self.order_id)

    flow = approval >> work
"""


def test_what_a_version_waits_for_and_hears_is_shown_too(definitions: Definitions) -> None:
    definitions.write(SAGA + WAITS)
    shown = definitions("show", "Patient").stdout
    assert "flow         approval >> work" in shown
    assert "approval  after 3 d 0 h  it has failed  tiny.Nudge after 8 h 0 min, every 4 h 0 min" in shown
    assert "tiny.Done version 1  wait  approval  order_id" in shown


def test_what_is_not_there_is_told_with_what_is(definitions: Definitions) -> None:
    assert_told(
        definitions("show", "Tinny"), 1, "no saga is called 'Tinny', here or in the database (did you mean 'Tiny'?)"
    )
    assert_told(definitions("show", "Tiny", "3"), 1, "saga Tiny has no version 3; there is version 1")
    assert_told(definitions("diff", "Tiny", "1", "3"), 1, "saga Tiny has no version 3")
    assert_told(definitions("drain", "Tiny", "3"), 1, "Tiny was never recorded in version 3, only in 1")
    assert_told(definitions("drain", "Tinny", "1"), 1, "no saga 'Tinny' was ever recorded", "did you mean 'Tiny'?")
    assert definitions("show", "Tiny", "0").returncode == 2


# -- diff


def test_nothing_has_changed_when_nothing_has(definitions: Definitions) -> None:
    done = definitions("diff", "Tiny")
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        0,
        "Tiny version 1, from what is recorded to what is here: nothing has changed",
    )


def test_a_change_that_instances_forbid_is_told_with_its_remedy_and_ends_with_1(definitions: Definitions) -> None:
    definitions.write(
        SAGA.replace("def work", "def toil")
        .replace("@step(success=Done)", "@step(success=Done, attempts=2)")
        .replace("attempts=2", "in_doubt='wait'")
    )
    done = definitions("diff", "Tiny")
    assert done.returncode == 1
    assert "refused   shape   step work is gone" in done.stdout
    assert "give the class version=2 and keep this version beside it" in done.stdout
    [compared] = definitions.ask("diff", "Tiny", "1")
    assert (compared["old"], compared["new"], compared["recorded"], compared["refused"]) == (1, 1, True, True)
    assert {(each["part"], each["verdict"]) for each in compared["changes"]} == {
        ("shape", "refused"),
        ("policy", "recorded"),
        ("code", "recorded"),
    }


def test_an_addition_is_accepted_and_ends_with_0(definitions: Definitions) -> None:
    definitions.write(SAGA.replace("order_id: str\n\n    @start", 'order_id: str\n    note: str = ""\n\n    @start'))
    done = definitions("diff", "Tiny")
    assert done.returncode == 0
    assert "accepted  state   field note is new" in done.stdout


def test_between_two_versions_everything_is_allowed(definitions: Definitions) -> None:
    definitions.write(SAGA + SECOND)
    done = definitions("diff", "Tiny", "1", "2")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "Tiny version 1 to version 2"
    assert "allowed   state   field note is new" in done.stdout
    assert [each["recorded"] for each in definitions.ask("diff", "Tiny")] == [True, False]
    assert (
        "Tiny version 2: not recorded yet, so there is nothing to compare it with" in definitions("diff", "Tiny").stdout
    )


def test_a_version_whose_class_is_gone_is_not_compared(definitions: Definitions) -> None:
    definitions.write(
        SAGA.replace("version=1):\n    order_id: str\n\n    @start", "version=2):\n    order_id: str\n\n    @start")
    )
    assert_told(definitions("diff", "Tiny", "1"), 1, "no module of this process defines saga Tiny in version 1")


# -- drain


def test_a_version_that_is_needed_must_stay_and_ends_with_75(definitions: Definitions) -> None:
    definitions.begin("1")
    done = definitions("drain", "Tiny", "1")
    assert done.returncode == 75
    first, *_ = done.stdout.splitlines()
    assert first == (
        "Tiny version 1 is needed by 1 live instance, 0 held messages and 0 open dead letters: its class must stay"
    )
    assert "until one runs, new instances start on this one" in done.stdout
    needed = definitions.ask("drain", "Tiny", "1")
    assert (needed["removable"], needed["highest"], needed["live"]) == (False, True, 1)
    assert [each["business_key"] for each in needed["oldest"]] == ["1"]


def test_what_is_kept_for_an_instance_that_has_ended_needs_its_version_too(definitions: Definitions) -> None:
    definitions.begin("1")
    assert definitions.office.sagas("skip", "1", "work", "--reason", "a test").returncode == 0
    assert definitions("drain", "Tiny", "1").returncode == 0
    [instance] = json.loads(definitions.office.sagas("list", "--json").stdout)
    definitions.office.keep(letter("tiny.Done", "late", {"order_id": "1"}, saga_id=instance["saga_id"]))
    done = definitions("drain", "Tiny", "1")
    assert (done.returncode, "0 held messages and 1 open dead letter" in done.stdout) == (75, True)
    assert "antiphon dead list" in done.stdout


def test_a_version_that_is_not_the_highest_may_be_removed_when_nothing_needs_it(
    definitions: Definitions, started: Callable[..., Process]
) -> None:
    definitions.write(SAGA + SECOND)
    run(definitions.office, started)
    done = definitions("drain", "Tiny", "1")
    assert (done.returncode, done.stdout) == (0, "nothing needs Tiny version 1: its class may be removed\n")
    assert "until one runs" in definitions("drain", "Tiny", "2").stdout


def test_a_drain_waits_until_the_last_instance_has_ended(
    definitions: Definitions, started: Callable[..., Process]
) -> None:
    definitions.begin("1")
    waiting = started("definitions", "drain", "Tiny", "1", "--wait", **definitions.office.settings)
    assert definitions.office.sagas("cancel", "1", "--reason", "a test").returncode == 0
    waiting.says("nothing needs Tiny version 1")
    assert waiting.ended() == 0


def test_a_drain_whose_time_runs_out_ends_with_75(definitions: Definitions) -> None:
    definitions.begin("1")
    assert definitions("drain", "Tiny", "1", "--timeout", "0.1s").returncode == 75
    wrong = definitions("drain", "Tiny", "1", "--timeout", "soon")
    assert (wrong.returncode, "'soon' is no duration" in wrong.stderr) == (2, True)
