"""`definitions migrate` as a process, on SQLite and on PostgreSQL: what it moves, prints, and how it exits."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.runtime.shop import PARTICIPANT, SAGA
from tests.runtime.test_bad_input import assert_told
from tests.runtime.test_dead import asked

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.runtime.conftest import Command
    from tests.runtime.office import Office
    from tests.runtime.processes import Process

FIELDS = 'class Tiny(Saga, key="order_id", version=1):\n    order_id: str\n'
SECOND = SAGA.replace(
    FIELDS,
    """
from typing import Any, Self
from sagas import migrate

class Tiny(Saga, key="order_id", version=2):
    order_id: str
    carrier: str = "rail"

    @migrate(1)
    @classmethod
    def from_first(cls, state: dict[str, Any]) -> Self:
        if state["order_id"] == "odd":
            raise ValueError("not this one")
        return cls(**state, carrier="mail")
""",
)
"""The next version, in whose process the first is not defined any more."""


class Migrating:
    """An office in which both versions have run, with instances of the first, and the commands."""

    def __init__(self, office: Office, antiphon: Command) -> None:
        self.office = office
        self._antiphon = antiphon

    def __call__(self, *arguments: str) -> Any:  # noqa: ANN401 - what a command left
        return self._antiphon("definitions", *arguments, **self.office.settings)

    def migrate(self, *arguments: str) -> Any:  # noqa: ANN401 - what a command left
        return self("migrate", "Tiny", "1", *arguments)

    def ask(self, *arguments: str) -> Any:  # noqa: ANN401 - what JSON gives
        return json.loads(self.migrate(*arguments, "--json").stdout)

    def write(self, code: str) -> None:
        (self.office.folder / "shop.py").write_text(code + PARTICIPANT)

    def versions(self) -> dict[str, int]:
        found = self.office.rows("select business_key, version from v_saga")
        return {row["business_key"]: row["version"] for row in found}


def run(office: Office, started: Callable[..., Process]) -> None:
    sidecar = started("run", **office.settings)
    sidecar.until("process.ready")
    sidecar.send(signal.SIGTERM)
    assert sidecar.ended() == 0


@pytest.fixture
def first(office: Office, antiphon: Command, started: Callable[..., Process]) -> Migrating:
    """The first version has run, and three of its instances wait for a participant that is not there."""
    run(office, started)
    for order in ("1", "2", "odd"):
        office.keep(asked(order))
    assert office.dead("replay", "--all").returncode == 0
    return Migrating(office, antiphon)


@pytest.fixture
def both(first: Migrating, started: Callable[..., Process]) -> Migrating:
    """And the second has run, too: it is recorded."""
    first.write(SECOND)
    run(first.office, started)
    return first


def test_what_would_be_moved_is_told_without_moving_it(both: Migrating) -> None:
    done = both.migrate("--dry-run")
    assert done.returncode == 75
    assert done.stdout.splitlines()[0] == "Tiny version 1 to 2: 2 instances would be moved, 1 would stay on version 1"
    assert "method_raises  1 instance: Tiny.from_first: ValueError: not this one (shop.py:" in done.stdout
    assert both.versions() == {"1": 1, "2": 1, "odd": 1}


def test_what_can_be_moved_is_and_the_rest_is_told(both: Migrating) -> None:
    said = both.ask("--reason", "the carrier", "--actor", "ann")
    [left] = said.pop("left")
    assert said == {"type": "Tiny", "from": 1, "to": 2, "dry_run": False, "moved": 2, "remaining": 1}
    assert (left["code"], left["amount"]) == ("method_raises", 1)
    assert [each["business_key"] for each in left["examples"]] == ["odd"]
    assert both.versions() == {"1": 2, "2": 2, "odd": 1}
    shown = both.office.sagas("show", "1").stdout
    assert "migrated" in shown
    assert "from 1, to 2, actor ann, the carrier" in shown
    assert "carrier   mail" in shown


def test_when_nothing_is_left_it_ends_with_0_and_names_what_is_next(both: Migrating) -> None:
    both.write(SECOND.replace('if state["order_id"] == "odd"', "if False"))
    done = both.migrate("--reason", "the carrier")
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            "Tiny version 1 to 2: 3 instances moved, none left on version 1",
            "antiphon definitions drain Tiny 1 says whether its class may go",
        ],
    )
    assert both("drain", "Tiny", "1").returncode == 0


def test_so_many_are_moved_at_most(both: Migrating) -> None:
    done = both.migrate("--reason", "one first", "--limit", "1")
    assert done.returncode == 75
    assert done.stdout.splitlines()[0] == "Tiny version 1 to 2: 1 instance moved, 2 left on version 1"
    assert sorted(both.versions().values()) == [1, 1, 2]


def test_draining_names_the_command(both: Migrating) -> None:
    assert "antiphon definitions migrate Tiny 1 --dry-run" in both("drain", "Tiny", "1").stdout


def test_it_must_be_said_why(both: Migrating) -> None:
    for done in (both.migrate(), both.migrate("--reason", " ")):
        assert done.returncode == 2
        assert "Invalid value for '--reason': say why; it stands in the history" in done.stderr


def test_what_is_not_there_is_told_with_what_is(both: Migrating) -> None:
    why = ("--reason", "x")
    assert_told(both("migrate", "Tinny", "1", *why), 1, "no saga is called 'Tinny' here (did you mean 'Tiny'?)")
    assert_told(both("migrate", "Tiny", "3", "--to", "2", *why), 1, "was never recorded in version 3", "1 and 2")
    assert_told(both("migrate", "Tiny", "2", *why), 1, "it goes to a higher version")
    assert_told(both.migrate("--to", "7", *why), 1, "no module of this process defines Tiny version 7, only 2")


def test_a_class_that_does_not_say_how_is_told(both: Migrating) -> None:
    both.write(SECOND.replace("    @migrate(1)\n", ""))
    assert_told(both.migrate("--reason", "x"), 1, "write @migrate(1) and @classmethod over a method")


def test_a_version_that_never_ran_here_takes_nothing_over(first: Migrating) -> None:
    first.write(SECOND)
    assert_told(first.migrate("--reason", "x"), 1, "Tiny version 2 never ran on this database", "start antiphon run")
    assert first.versions() == {"1": 1, "2": 1, "odd": 1}


def test_a_version_that_is_not_as_it_was_recorded_takes_nothing_over(both: Migrating) -> None:
    both.write(SECOND.replace("def work", "def toil"))
    assert_told(both.migrate("--reason", "x"), 1, "is not here as it was recorded", "step work is gone")


def test_a_release_is_told_how_many_would_be_moved(first: Migrating, antiphon: Command) -> None:
    first.write(SECOND)
    settings = dict(first.office.settings)
    said = json.loads(antiphon("check", "--against", settings.pop("database_url"), "--json", **settings).stdout)
    assert [(each["code"], each["amount"]) for each in said["findings"]] == [("version_missing", 3)]
    assert [(each["code"], each["amount"]) for each in said["notes"]] == [
        ("migration_moves", 2),
        ("migration_leaves", 1),
    ]
    assert said["notes"][0]["remedy"] == "once this code runs: antiphon definitions migrate Tiny 1"
