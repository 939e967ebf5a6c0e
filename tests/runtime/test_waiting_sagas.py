"""A saga that waits for a human, as its people see it: published events, a query, what `sagas show` says of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.runtime.test_bad_input import assert_told

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runtime.conftest import Command
    from tests.runtime.processes import Process

LEAVE = '''
"""Somebody wants to be away, and the boss decides."""
from datetime import timedelta
from messages import Command, Event
from sagas import Saga, cancel, query, signal, start, step, wait

class Asked(Event, name="leave.Asked"):
    leave_id: str
    days: int

class Granted(Event, name="leave.Granted"):
    leave_id: str
    by: str
    why: str | None = None

class Denied(Event, name="leave.Denied"):
    leave_id: str
    by: str
    why: str | None = None

class Shortened(Event, name="leave.Shortened"):
    leave_id: str
    days: int

class Withdrawn(Event, name="leave.Withdrawn"):
    leave_id: str

class Remind(Command, name="boss.Remind"):
    leave_id: str

class Book(Command, name="calendar.Book"):
    leave_id: str
    days: int

class Booked(Event, name="calendar.Booked"):
    leave_id: str

class Leave(Saga, key="leave_id", version=1):
    leave_id: str
    days: int

    @start
    def asked(cls, event: Asked) -> "Leave":
        return cls(leave_id=event.leave_id, days=event.days)

    @wait(timeout=timedelta(days=3), by="by", because="why")
    def decided(self, event: Granted) -> None: ...

    @decided.on_failure
    def denied(self, event: Denied) -> None: ...

    @decided.reminder(after=timedelta(seconds=1))
    def remind(self) -> Remind:
        return Remind(leave_id=self.leave_id)

    @signal
    def shortened(self, event: Shortened) -> None:
        self.days = event.days

    @cancel
    def withdrawn(self, event: Withdrawn) -> None: ...

    @query
    def wish(self) -> dict[str, int]:
        return {"days": self.days}

    @query
    def broken(self) -> int:
        return self.days // 0

    @step(success=Booked)
    def book(self) -> Book:
        return Book(leave_id=self.leave_id, days=self.days)

    flow = decided >> book

from handlers import Participant

calendar, boss = Participant("calendar"), Participant("boss")

@calendar.handles
async def booking(command: Book) -> Booked:
    return Booked(leave_id=command.leave_id)

@boss.handles
async def reminding(command: Remind) -> None: ...
'''


@pytest.fixture
def leaving(folder: Path, started: Callable[..., Process]) -> Process:
    """A process that runs the saga on SQLite."""
    (folder / "leaving.py").write_text(LEAVE)
    process = started("run", modules="leaving")
    process.until("process.ready")
    return process


def publish(antiphon: Command, name: str, **body: object) -> None:
    done = antiphon("publish", name, json.dumps(body), modules="leaving")
    assert done.returncode == 0, done.stderr


def shown(antiphon: Command, key: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(antiphon("sagas", "show", key, "--json", modules="leaving").stdout)
    return found


def test_people_decide_by_events_and_the_history_says_who_and_why(antiphon: Command, leaving: Process) -> None:
    publish(antiphon, "leave.Asked", leave_id="l-1", days=9)
    leaving.until("saga.wait_began", key="l-1")
    page = antiphon("sagas", "show", "l-1", modules="leaving").stdout
    assert "leave.Granted or leave.Denied (wait decided, until" in page
    assert "decided  waiting for an event" in page
    leaving.until("saga.reminded", key="l-1")
    publish(antiphon, "leave.Shortened", leave_id="l-1", days=2)
    leaving.until("saga.signal_received", key="l-1")
    publish(antiphon, "leave.Granted", leave_id="l-1", by="Ada", why="you earned it")
    leaving.until("saga.completed", key="l-1")
    events = shown(antiphon, "l-1")["events"]
    [received] = [each["detail"] for each in events if each["kind"] == "event_received"]
    assert (received["decided_by"], received["because"]) == ("Ada", "you earned it")
    done = antiphon("sagas", "query", "l-1", "wish", modules="leaving")
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout), done.returncode) == ({"days": 2}, 0)


def test_a_no_and_a_withdrawal_turn_it_back(antiphon: Command, leaving: Process) -> None:
    publish(antiphon, "leave.Asked", leave_id="l-1", days=9)
    publish(antiphon, "leave.Denied", leave_id="l-1", by="Bob")
    leaving.until("saga.compensated", key="l-1")
    publish(antiphon, "leave.Withdrawn", leave_id="l-2")
    publish(antiphon, "leave.Asked", leave_id="l-2", days=1)
    leaving.until("saga.compensated", key="l-2")
    assert [shown(antiphon, key)["saga"]["end_reason"] for key in ("l-1", "l-2")] == ["failed", "cancelled"]


def test_a_query_that_is_not_there_or_broken_says_so(antiphon: Command, leaving: Process) -> None:
    publish(antiphon, "leave.Asked", leave_id="l-1", days=9)
    leaving.until("saga.wait_began", key="l-1")
    ask = ("sagas", "query", "l-1")
    assert_told(antiphon(*ask, "wisch", modules="leaving"), 1, "did you mean 'wish'?", "there are: broken and wish")
    assert_told(antiphon(*ask, "broken", modules="leaving"), 1, "Leave.broken: ZeroDivisionError", "leaving.py")
