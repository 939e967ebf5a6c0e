"""`sagas show`: what stands below the first line of an instance, and of instances that have ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import migrations
from outbox.interface import Changes
from outbox.unit import SqlStorage
from running import AsyncioRunner
from sagas.instance import Phase
from storage import Database
from tests.outbox.building import CONSUMER, NOW, new_instance
from tests.runtime.test_bad_input import assert_told
from tests.runtime.test_dead import asked

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runtime.conftest import Command
    from tests.runtime.office import Office


@pytest.fixture
async def stored(folder: Path) -> None:
    """An ended instance with an effect that nobody undid, and two instances of different types with one key."""
    orphaned = new_instance(
        "order 1",
        phase=Phase.COMPENSATED,
        ended_at=NOW,
        waiting_for=None,
        skipped=1,
        attention={"orphaned_effect": "succeeded late, and nothing will undo it: pay"},
    )
    twins = [new_instance("twin", saga_type=saga_type) for saga_type in ("PlaceOrder", "ReturnOrder")]
    database = Database(f"sqlite:///{folder / 'antiphon.db'}", AsyncioRunner())
    await migrations.up(database)
    async with SqlStorage(database).transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER, inserted=[orphaned, *twins]))
    await database.close()


@pytest.mark.usefixtures("stored")
def test_an_effect_that_nobody_undid_names_the_commands_that_help_although_all_is_over(antiphon: Command) -> None:
    shown = antiphon("sagas", "show", "order 1").stdout
    assert "waiting for" not in shown
    assert "antiphon sagas undo 'order 1'" in shown
    assert "antiphon sagas resolve 'order 1'" in shown
    assert "  skipped      1 step\n" in shown


@pytest.mark.usefixtures("stored")
def test_a_key_of_two_types_says_how_to_name_one(antiphon: Command) -> None:
    done = antiphon("sagas", "show", "twin")
    assert_told(done, 1, "instances of several types have the key 'twin' (PlaceOrder and ReturnOrder)", "--type")
    assert antiphon("sagas", "show", "twin", "--type", "ReturnOrder").stdout.startswith("ReturnOrder twin  running")


def test_a_letter_that_was_dealt_with_does_not_look_open(small: Office) -> None:
    small.keep(asked("1"))
    assert small.dead("replay", "--all").returncode == 0
    head, _, row, *_ = small.sagas("show", "1").stdout.partition("Dead letters\n")[2].splitlines()
    assert head.split() == ["id", "status", "reason", "message", "last", "seen", "error"]
    assert row.split()[:4] == ["1", "replayed", "method_raised", "tiny.Asked"]
