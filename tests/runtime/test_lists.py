"""`sagas list` and `dead list`, page by page: people copy the next command, scripts go on behind the last one."""

from __future__ import annotations

import json
import shlex
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

import migrations
from outbox.interface import Changes
from outbox.unit import SqlStorage
from running import AsyncioRunner
from sagas.instance import Phase
from storage import Database
from tests.outbox.building import CONSUMER, NOW, dead_letter, new_instance
from tests.runtime.test_bad_input import assert_told

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runtime.conftest import Command

ENDED = {"phase": Phase.COMPENSATED, "ended_at": NOW, "waiting_for": None}


@pytest.fixture
async def stored(folder: Path) -> None:
    """Six instances, started two at a time, and five dead letters."""
    running = [new_instance(f"running-{n}", started_at=NOW + timedelta(seconds=n // 2)) for n in range(3)]
    parked = new_instance("parked", attention={"method_raised": "x", "unroutable": "y"}, started_at=NOW)
    failed = new_instance("failed", end_reason="timed_out", **ENDED)
    orphaned = new_instance("orphaned", end_reason="failed", attention={"orphaned_effect": "pay"}, **ENDED)
    database = Database(f"sqlite:///{folder / 'antiphon.db'}", AsyncioRunner())
    await migrations.up(database)
    async with SqlStorage(database).transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER, inserted=[*running, parked, failed, orphaned]))
    for number in range(5):
        async with SqlStorage(database).transaction() as unit:
            await unit.save(Changes(consumer=CONSUMER, dead_letters=[dead_letter(f"bad-{number}")]))
    await database.close()


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(("group", "identity", "number"), [("sagas", "saga_id", 6), ("dead", "dead_letter_id", 5)])
def test_a_script_goes_on_behind_the_last_one_until_there_is_none(
    antiphon: Command, group: str, identity: str, number: int
) -> None:
    found: list[dict[str, object]] = []
    onward: list[str] = []
    sizes = []
    while page := json.loads(antiphon(group, "list", "--json", "--limit", "2", *onward).stdout):
        found += page
        sizes.append(len(page))
        onward = ["--after", str(page[-1][identity])]
    assert sizes == [2, 2, *([2] if number == 6 else [1])]
    assert json.loads(antiphon(group, "list", "--json").stdout) == found


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("command", "number"), [("sagas list --type PlaceOrder --limit 4", 6), ("dead list --limit 3", 5)]
)
def test_a_person_copies_the_command_for_the_next_page(antiphon: Command, command: str, number: int) -> None:
    _, _, *first, last = antiphon(*command.split()).stdout.splitlines()
    text, name, options = last.partition("antiphon ")
    assert (text, name) == ("and more: ", "antiphon ")
    assert options.startswith(f"{command} --after ")
    _, _, *rest = antiphon(*shlex.split(options)).stdout.splitlines()
    assert len({row.partition("  ")[0] + row.rpartition("  ")[2] for row in (*first, *rest)}) == number
    assert not rest[-1].startswith("and more")


def column(text: str, name: str) -> dict[str, str]:
    """What a column of a table says, by the first cell of its row."""
    head, _, *rows = text.rstrip("\n").splitlines()
    begin = head.index(name)
    return {row.split()[0]: row[begin:].partition("  ")[0] for row in rows}


@pytest.mark.usefixtures("stored")
def test_why_an_instance_ended_and_what_it_wants_are_told_apart(antiphon: Command) -> None:
    shown = antiphon("sagas", "list").stdout
    quiet = dict.fromkeys(("running-0", "running-1", "running-2"), "")
    assert column(shown, "status")["parked"] == "parked"
    assert column(shown, "because") == {**quiet, "parked": "", "failed": "timed out", "orphaned": "failed"}
    assert column(shown, "attention") == {
        **quiet,
        "parked": "method_raised",
        "failed": "",
        "orphaned": "orphaned_effect",
    }
    wanting = antiphon("sagas", "list", "--attention").stdout
    assert column(wanting, "attention") == {"parked": "method_raised", "orphaned": "orphaned_effect"}
    assert "attention" not in antiphon("sagas", "list", "--status", "running").stdout


@pytest.mark.usefixtures("stored")
def test_a_page_beyond_the_last_says_so(antiphon: Command) -> None:
    assert antiphon("dead", "list", "--after", "1").stdout == "no more dead letters\n"
    *_, last = json.loads(antiphon("sagas", "list", "--json").stdout)
    assert antiphon("sagas", "list", "--after", last["saga_id"]).stdout == "no more instances\n"
    assert antiphon("sagas", "list", "--status", "completed").stdout == "no such instances\n"


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("place", ["rubbish", "-1", "9" * 30, "2026-13-01_x"])
def test_what_is_no_id_is_a_mistake_of_the_command_line(antiphon: Command, place: str) -> None:
    for group in ("sagas", "dead", "held"):
        done = antiphon(group, "list", f"--after={place}")
        assert (done.returncode, done.stdout, repr(place) in done.stderr) == (2, "", True)
        assert "begin with the first page" in done.stderr


@pytest.mark.usefixtures("stored")
def test_a_type_that_an_instance_is_not_of_is_named(antiphon: Command) -> None:
    for command in (("show",), ("retry", "--reason", "x")):
        done = antiphon("sagas", *command, "parked", "--type", "Nope")
        assert_told(done, 1, "'parked' is an instance of PlaceOrder, not of Nope")
        nobody = antiphon("sagas", *command, "no one", "--type", "Nope")
        assert_told(
            nobody, 1, "no instance has the id or business key 'no one'", "antiphon dead export | grep 'no one'"
        )


@pytest.mark.usefixtures("stored")
def test_an_instance_that_is_not_there_is_no_place_to_go_on_from(antiphon: Command) -> None:
    nobody = "00000000-0000-0000-0000-000000000000"
    assert_told(antiphon("sagas", "list", "--after", nobody), 1, nobody, "begin with the first page")
