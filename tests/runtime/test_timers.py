"""What an operator types to see, fire, move and cancel timers, and what they read."""

from __future__ import annotations

import json
import re
import shlex
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.runtime.test_bad_input import assert_told

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runtime.conftest import Command, Settings
    from tests.runtime.processes import Process

WHY = ("--reason", "the customer called")

LEAVE = '''
"""Somebody asks for leave, and somebody else says yes."""
from datetime import timedelta
from typing import Self
from handlers import Participant
from messages import Command, Event
from sagas import Saga, start, step, wait

class Asked(Event, name="leave.Asked"):
    who: str

class Approved(Event, name="leave.Approved"):
    who: str

class Nudge(Command, name="leave.Nudge"):
    who: str

class Book(Command, name="leave.Book"):
    who: str

class Booked(Event, name="leave.Booked"):
    who: str

class Leave(Saga, key="who", deadline=timedelta(days=9)):
    who: str

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(who=event.who)

    @wait(timeout=timedelta(days=3))
    def approval(self, event: Approved) -> None: ...

    @approval.reminder(after=timedelta(hours=8))
    def remind(self) -> Nudge:
        return Nudge(who=self.who)

    @step(success=Booked)
    def book(self) -> Book:
        return Book(who=self.who)

    flow = approval >> book

office = Participant("office")

@office.handles
async def nudge(command: Nudge) -> None: ...

@office.handles
async def book(command: Book) -> Booked:
    return Booked(who=command.who)
'''


SETTINGS = {"modules": "leave"}


@pytest.fixture
def sidecar(folder: Path, started: Callable[..., Process]) -> Process:
    """A sidecar on SQLite."""
    (folder / "leave.py").write_text(LEAVE)
    running = started("run", **SETTINGS)
    running.until("process.ready")
    return running


@pytest.fixture
def waiting(antiphon: Command, sidecar: Process) -> Settings:
    """Its settings; two instances, `ada` and `bob`, wait for somebody's yes."""
    for who in ("ada", "bob"):
        assert antiphon("publish", "leave.Asked", json.dumps({"who": who}), **SETTINGS).returncode == 0
        sidecar.until("saga.wait_began", key=who)
    return SETTINGS


def listed(antiphon: Command, settings: Settings, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(antiphon("timers", "list", *arguments, "--json", **settings).stdout)
    return found


def due(antiphon: Command, settings: Settings, who: str) -> dict[str, datetime]:
    return {each["name"]: datetime.fromisoformat(each["due_at"]) for each in listed(antiphon, settings, who)}


def shown(antiphon: Command, settings: Settings, who: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(antiphon("sagas", "show", who, "--json", **settings).stdout)
    return found


def test_timers_are_listed_soonest_first_with_what_happens_then(antiphon: Command, waiting: Settings) -> None:
    told = antiphon("timers", "list", **waiting).stdout
    head, _, *rows = told.splitlines()
    assert head.split() == ["due", "in", "timer", "key", "what", "happens", "saga", "saga", "id"]
    names = ["approval/remind", "approval/timeout", "deadline"]
    assert [next(name for name in names if name in row) for row in rows] == [name for name in names for _ in range(2)]
    for what in ("remind is sent", "the wait is given up", "the instance turns back"):
        assert what in told
    assert re.search(r"  (7 h 5\d|8 h 0) min  ", told)
    assert [each["business_key"] for each in listed(antiphon, waiting, "bob")] == ["bob"] * 3
    assert listed(antiphon, waiting, "--type", "Nope") == []
    assert antiphon("timers", "list", "--type", "Nope", **waiting).stdout == "no timers\n"


def test_pages_name_the_next_one_and_a_script_goes_on_behind_the_last(antiphon: Command, waiting: Settings) -> None:
    everything = listed(antiphon, waiting)
    found, onward = list[dict[str, Any]](), list[str]()
    while page := listed(antiphon, waiting, "--limit", "4", *onward):
        found += page
        onward = ["--after", page[-1]["place"]]
    assert found == everything
    *_, last = antiphon("timers", "list", "--limit", "4", "--type", "Leave", **waiting).stdout.splitlines()
    text, name, options = last.partition("antiphon ")
    assert (text, name) == ("and more: ", "antiphon ")
    _, _, *rest = antiphon(*shlex.split(options), **waiting).stdout.splitlines()
    assert len(rest) == 2
    assert antiphon("timers", "list", *onward, **waiting).stdout == "no more timers\n"
    lost = antiphon("timers", "list", "--after", "x", **waiting)
    assert (lost.returncode, "'x' is no timer to go on from; begin with the first page" in lost.stderr) == (2, True)


def test_a_timer_that_was_fired_has_done_what_it_would_have_done(antiphon: Command, waiting: Settings) -> None:
    done = antiphon("timers", "fire", "ada", "approval/remind", *WHY, "--actor", "ann", **waiting)
    assert done.returncode == 0, done.stderr
    assert "Leave ada: timer approval/remind fired; it is running" in done.stdout
    assert "approval/remind" not in due(antiphon, waiting, "ada")
    events = shown(antiphon, waiting, "ada")["events"]
    acted, reminded = [event for event in events if event["kind"] in ("operator_acted", "reminded")]
    assert (acted["step"], acted["detail"]["timer"], acted["detail"]["actor"]) == ("approval", "approval/remind", "ann")
    assert (acted["detail"]["reason"], reminded["message_name"]) == ("the customer called", "leave.Nudge")


def test_a_deadline_that_was_fired_turns_the_instance_back(
    antiphon: Command, waiting: Settings, sidecar: Process
) -> None:
    assert "timer deadline fired" in antiphon("timers", "fire", "ada", "deadline", *WHY, **waiting).stdout
    sidecar.until("saga.compensated", key="ada")
    assert shown(antiphon, waiting, "ada")["saga"]["end_reason"] == "deadline"


def test_a_deadline_moves_with_its_timer(antiphon: Command, waiting: Settings) -> None:
    before = due(antiphon, waiting, "ada")
    at = datetime(2040, 5, 1, 12, 30, tzinfo=UTC)
    done = antiphon("timers", "reschedule", "ada", "deadline", "--at", at.isoformat(), *WHY, **waiting)
    assert "Leave ada: timer deadline rescheduled; it is running" in done.stdout
    assert "deadline at 2040-05-01" in done.stdout
    assert due(antiphon, waiting, "ada") == {**before, "deadline": at}
    assert datetime.fromisoformat(shown(antiphon, waiting, "ada")["saga"]["deadline_at"]) == at
    done = antiphon("timers", "reschedule", "ada", "approval/timeout", "--in", "5d", "--json", *WHY, **waiting)
    said = json.loads(done.stdout)
    assert (said["action"], said["timer"], said["repeated"]) == ("reschedule_timer", "approval/timeout", False)
    moved = due(antiphon, waiting, "ada")["approval/timeout"]
    assert moved == datetime.fromisoformat(said["due_at"])
    assert timedelta(days=1) < moved - before["approval/timeout"] <= timedelta(days=3)


def test_a_timer_is_cancelled_unless_the_instance_would_hang(antiphon: Command, waiting: Settings) -> None:
    done = antiphon("timers", "cancel", "ada", "approval/timeout", *WHY, **waiting)
    assert "Leave ada: timer approval/timeout cancelled; it is running" in done.stdout
    assert set(due(antiphon, waiting, "ada")) == {"approval/remind", "deadline"}
    refused = antiphon("timers", "cancel", "ada", "deadline", *WHY, **waiting)
    assert_told(refused, 1, "timer deadline is not cancelled: nothing else would end the wait approval; reschedule it")
    assert antiphon("timers", "cancel", "bob", "deadline", *WHY, **waiting).returncode == 0
    assert "deadline     cancelled" in antiphon("sagas", "show", "bob", **waiting).stdout


def test_the_same_request_typed_twice_is_done_once(antiphon: Command, waiting: Settings) -> None:
    again = (*WHY, "--request-id", "r-1")
    for said in ("timer approval/remind rescheduled", "done before under this request id"):
        done = antiphon("timers", "reschedule", "ada", "approval/remind", "--in", "2h", *again, **waiting)
        assert said in done.stdout
    for other in (("fire", "ada", "deadline"), ("reschedule", "ada", "approval/remind", "--in", "3h")):
        assert_told(antiphon("timers", *other, *again, **waiting), 1, "the request id r-1 was used for something else")
    kinds = [event["kind"] for event in shown(antiphon, waiting, "ada")["events"]]
    assert kinds.count("timer_rescheduled") == 1


def test_timers_of_a_paused_instance_stand_still_and_can_be_moved(antiphon: Command, waiting: Settings) -> None:
    assert antiphon("sagas", "pause", "ada", *WHY, **waiting).returncode == 0
    told = antiphon("timers", "list", "ada", **waiting).stdout
    assert told == "Leave ada is paused; its timers stand still until antiphon sagas resume ada\n"
    fired = antiphon("timers", "fire", "ada", "deadline", *WHY, **waiting)
    assert_told(fired, 1, "Leave 'ada': it is paused, and its timers stand still; resume it first")
    assert antiphon("timers", "reschedule", "ada", "deadline", "--in", "90d", *WHY, **waiting).returncode == 0
    assert antiphon("sagas", "resume", "ada", *WHY, **waiting).returncode == 0
    assert due(antiphon, waiting, "ada")["deadline"] > datetime.now(UTC) + timedelta(days=89)


def test_what_is_refused_says_why_and_what_to_do(antiphon: Command, waiting: Settings) -> None:
    wrong = antiphon("timers", "fire", "ada", "remind", *WHY, **waiting)
    assert_told(wrong, 1, "it has no timer 'remind'; it has deadline, approval/timeout, approval/remind")
    past = antiphon("timers", "reschedule", "ada", "deadline", "--at", "2020-01-01", *WHY, **waiting)
    assert_told(past, 1, "is not ahead; to have timer deadline now, fire it")
    assert_told(antiphon("timers", "fire", "eve", "deadline", *WHY, **waiting), 1, "no instance has the id or business")
    assert_told(antiphon("timers", "list", "eve", **waiting), 1, "no instance has the id or business key 'eve'")
    assert antiphon("timers", "fire", "ada", "deadline", **waiting).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "say either when or after how long"),
        (("--in", "2h", "--at", "2040-01-01"), "say either when or after how long"),
        (("--in", "2"), "'2' is no duration of at most a hundred years; write a number with s, m, h or d"),
        (("--in", "99999d"), "'99999d' is no duration of at most a hundred years"),
        (("--at", "2h"), "'2h' is no time; write one such as 2026-11-21T12:30"),
    ],
)
def test_a_time_that_is_none_is_a_mistake_of_the_command_line(
    antiphon: Command, arguments: tuple[str, ...], text: str
) -> None:
    done = antiphon("timers", "reschedule", "ada", "deadline", *arguments, *WHY)
    assert (done.returncode, done.stdout, text in done.stderr) == (2, "", True)
