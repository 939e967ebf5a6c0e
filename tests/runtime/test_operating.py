"""What an operator types to repair an instance, and what they read."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

import migrations
from messages.envelope import Raw
from outbox.holding import Held
from outbox.interface import Changes
from outbox.unit import SqlStorage
from running import AsyncioRunner
from sagas.instance import message_id, saga_id
from storage import Database
from tests.outbox.building import CONSUMER
from tests.runtime.office import NAMESPACE
from tests.runtime.shop import PARTICIPANT, SAGA
from tests.runtime.test_bad_input import assert_told
from tests.runtime.test_dead import asked, letter, outcomes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runtime.conftest import Command, Settings
    from tests.runtime.office import Office
    from tests.runtime.processes import Process

WHY = ("--reason", "the customer called")


@pytest.fixture
def waiting(antiphon: Command, servers: Settings, started: Callable[..., Process]) -> Settings:
    """A sidecar with one instance, `1`, whose command nobody takes."""
    sidecar = started("run", **servers)
    sidecar.until("process.ready")
    assert antiphon("publish", "tiny.Asked", '{"order_id": "1"}', **servers).returncode == 0
    sidecar.until("saga.command_sent")
    return servers


def shown(antiphon: Command, settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(antiphon("sagas", "show", "1", "--json", **settings).stdout)
    return found


def test_an_instance_is_paused_and_goes_on(antiphon: Command, waiting: Settings) -> None:
    paused = antiphon("sagas", "pause", "1", *WHY, "--actor", "ann", **waiting)
    assert paused.returncode == 0, paused.stderr
    assert "Tiny 1: paused; it is running, paused" in paused.stdout
    assert "waiting for  an operator (paused); tiny.Done" in paused.stdout
    again = antiphon("sagas", "pause", "1", *WHY, **waiting)
    assert_told(again, 1, "Tiny '1': it is paused already")
    resumed = json.loads(antiphon("sagas", "resume", "1", *WHY, "--json", **waiting).stdout)
    assert (resumed["status"], resumed["paused"], resumed["repeated"]) == ("running", False, False)
    acted = [event for event in shown(antiphon, waiting)["events"] if event["kind"] == "operator_acted"]
    assert [event["detail"]["actor"] for event in acted][:1] == ["ann"]
    assert {event["detail"]["reason"] for event in acted} == {"the customer called"}


def test_the_same_request_typed_twice_is_done_once(antiphon: Command, waiting: Settings) -> None:
    first = antiphon("sagas", "retry", "1", *WHY, "--request-id", "r-1", **waiting)
    assert first.returncode == 0, first.stderr
    assert "Tiny 1: retried; it is running" in first.stdout
    second = antiphon("sagas", "retry", "1", *WHY, "--request-id", "r-1", **waiting)
    assert second.returncode == 0, second.stderr
    assert "Tiny 1: done before under this request id; it is running" in second.stdout
    assert [event["kind"] for event in shown(antiphon, waiting)["events"]].count("operator_acted") == 1


def test_a_cancelled_instance_turns_back(antiphon: Command, waiting: Settings) -> None:
    done = antiphon("sagas", "cancel", "1", *WHY, **waiting)
    assert "Tiny 1: cancelled; it is compensat" in done.stdout  # ed, if its command could still be taken back
    assert shown(antiphon, waiting)["saga"]["end_reason"] == "cancelled"
    assert_told(antiphon("sagas", "cancel", "1", *WHY, **waiting), 1, "Tiny '1': it is ")


def test_a_step_is_skipped_and_counted(antiphon: Command, waiting: Settings) -> None:
    wrong = antiphon("sagas", "skip", "1", "wrok", *WHY, **waiting)
    assert_told(wrong, 1, "Tiny '1': step 'wrok' cannot be skipped now; possible: work")
    done = antiphon("sagas", "skip", "1", "work", *WHY, **waiting)
    assert "Tiny 1: skipped; it is completed" in done.stdout
    assert shown(antiphon, waiting)["saga"]["skipped"] == 1


def test_what_is_refused_says_why_and_what_to_do(antiphon: Command, waiting: Settings) -> None:
    assert_told(antiphon("sagas", "cancel", "2", *WHY, **waiting), 1, "no instance has the id or business key '2'")
    assert_told(antiphon("sagas", "undo", "1", *WHY, **waiting), 1, "there is nothing to undo; antiphon sagas show")
    stale = antiphon("sagas", "cancel", "1", *WHY, "--revision", "99", **waiting)
    assert_told(stale, 1, "is at revision 1, not 99: something has happened since you looked")
    assert antiphon("sagas", "cancel", "1", **waiting).returncode == 2
    silent = antiphon("sagas", "cancel", "1", "--reason", " ", **waiting)
    assert (silent.returncode, "say why" in silent.stderr) == (2, True)


RAISES = """
    @work.on_success
    def done(self, reply: Done) -> None:
        raise KeyError("ink")
"""


def test_a_resume_says_which_held_message_failed(small: Office, antiphon: Command) -> None:
    (small.folder / "shop.py").write_text(SAGA.replace("@step(success=Done)", "@step") + RAISES + PARTICIPANT)
    saga = saga_id(NAMESPACE, "Tiny", "1")
    reply = letter("tiny.Done", "done-1", {"order_id": "1"})
    answers = {"causation-id": message_id(saga, "work", 1, 1, "do")}
    raw = replace(reply.raw, correlation_id=str(saga), headers=answers)
    start, answer = small.keep(asked("1"), replace(reply, raw=raw))
    assert small.dead("replay", str(start)).returncode == 0
    assert antiphon("sagas", "pause", "1", *WHY, **small.settings).returncode == 0
    assert outcomes(small.ask("replay", str(answer))) == ["held"]
    resumed = antiphon("sagas", "resume", "1", *WHY, **small.settings)
    assert resumed.returncode == 0
    assert "resumed; it is parked" in resumed.stdout
    assert "tiny.Done, which was held and is a dead letter now: Tiny.done: KeyError: 'ink'" in resumed.stdout
    assert f"antiphon dead list --saga {saga}" in resumed.stdout
    assert "reopened by antiphon: a copy of it failed" in small.dead("show", str(answer)).stdout


@pytest.fixture
async def held(folder: Path) -> None:
    """Three held messages, two for people and one too early."""
    database = Database(f"sqlite:///{folder / 'antiphon.db'}", AsyncioRunner())
    await migrations.up(database)
    async with SqlStorage(database).transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER, held=[_held(n) for n in range(3)]))
    await database.close()


def _held(number: int) -> Held:
    reason = "early" if number == 2 else "paused"
    return Held(
        saga_type="PlaceOrder",
        source="shop",
        message_id=f"m-{number}",
        body_hash=sha256(b"{}").digest(),
        name="stock.StockReserved",
        schema_version=1,
        raw=Raw(body=b"{}", routing_key="x"),
        reason=reason,
        business_key=f"o-{number}",
        expires_in=3600.0 if reason == "early" else None,
    )


@pytest.mark.usefixtures("held")
def test_held_messages_are_listed_with_what_they_wait_for(antiphon: Command) -> None:
    told = antiphon("held", "list").stdout
    assert told.index("m-0") < told.index("m-1") < told.index("m-2")
    assert "antiphon sagas resume" in told
    assert "never" in told
    page = antiphon("held", "list", "--reason", "paused", "--limit", "1").stdout
    assert "and more: antiphon held list --reason paused --limit 1 --after 1" in page
    [second] = json.loads(antiphon("held", "list", "--reason", "paused", "--after", "1", "--json").stdout)
    assert (second["message_id"], second["expires_at"]) == ("m-1", None)
    assert "no more held messages" in antiphon("held", "list", "--after", "3").stdout
    wrong = antiphon("held", "list", "--reason", "late")
    assert (wrong.returncode, "a reason is one of early, unawaited, awaited, paused, version" in wrong.stderr) == (
        2,
        True,
    )
    lost = antiphon("held", "list", "--after", "x")
    assert (lost.returncode, "'x' is no id to go on from; begin with the first page" in lost.stderr) == (2, True)
