"""Waits: for what humans and other services decide, with reminders, escalation, a timeout and a default."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from messages import Command, Event
from sagas import Saga, alternative, cancel, definition_of, parallel, query, signal, sleep, step, wait
from sagas.decide import decide
from sagas.instance import Phase
from sagas.outcome import Disposition, TimerFired
from testkit.harness import Harness
from tests.sagas.test_branches import Booked, Booking, Do, Undo, Undone, answered, sent, undone

if TYPE_CHECKING:
    from sagas.outcome import HistoryEntry


class Approved(Event, name="waiting.Approved"):
    key: str
    by: str
    comment: str | None = None


class Rejected(Event, name="waiting.Rejected"):
    key: str
    by: str
    comment: str | None = None


class Remind(Command, name="waiting.Remind"):
    key: str


class Escalate(Command, name="waiting.Escalate"):
    key: str


class Renamed(Event, name="waiting.Renamed"):
    key: str
    name: str


class CalledOff(Event, name="waiting.CalledOff"):
    key: str


class Approval(Booking, key="key", version=1, deadline=timedelta(days=30)):
    """a, then somebody approves, then b."""

    approved_by: str | None = None
    refused_by: str | None = None

    @wait(timeout=timedelta(days=3), by="by", because="comment")
    def approval(self, event: Approved) -> None:
        self.approved_by = event.by

    @approval.on_failure
    def rejected(self, event: Rejected) -> None:
        self.refused_by = event.by

    @approval.reminder(after=timedelta(hours=8), every=timedelta(hours=4))
    def nudge(self) -> Remind:
        return Remind(key=self.key)

    @approval.escalation(after=timedelta(days=1))
    def to_the_boss(self) -> Escalate:
        return Escalate(key=self.key)

    flow = Booking.a >> approval >> Booking.b >> Booking.c >> Booking.d


def waiting(saga: type[Saga] = Approval) -> Harness:
    return answered(Harness(saga).given(Booked(key="k")), "a")


APPROVED = Approved(key="k", by="Ada", comment="looks fine")
REJECTED = Rejected(key="k", by="Bob", comment="too dear")


def kinds(saga: Harness, *wanted: str) -> list[str]:
    return [entry.kind for entry in saga.history if entry.kind in wanted]


def last(saga: Harness, kind: str) -> HistoryEntry:
    return [entry for entry in saga.history if entry.kind == kind][-1]


def test_the_flow_goes_on_when_the_event_has_come_and_its_history_says_who_and_why() -> None:
    saga = waiting()
    assert sent(saga) == []
    assert saga.instance.waiting_for == (
        "waiting.Approved or waiting.Rejected (wait approval, until 2026-01-04 00:00:00 UTC)"
    )
    assert sent(saga.hears(APPROVED)) == ["do b"]
    assert saga.state.approved_by == "Ada"
    detail = last(saga, "event_received").detail
    assert (detail["decided_by"], detail["because"]) == ("Ada", "looks fine")
    assert set(saga.instance.timers) == {"b/do", "deadline"}
    assert saga.instance.choices == {"approval": "answered"}


def test_an_event_that_says_no_turns_the_saga_back() -> None:
    saga = waiting().hears(REJECTED)
    assert (saga.instance.phase, saga.instance.end_reason) == (Phase.COMPENSATING, "failed")
    assert sent(saga) == ["undo a"]
    assert saga.state.refused_by == "Bob"
    assert undone(saga, "a").instance.phase is Phase.COMPENSATED


def test_people_are_reminded_again_and_again_and_somebody_else_is_told_once() -> None:
    saga = waiting()
    assert saga.advance(timedelta(hours=8)).sent == [Remind(key="k")]
    assert saga.advance(timedelta(hours=16)).sent == [Remind(key="k")] * 4 + [Escalate(key="k")]
    assert len({each.message_id for each in saga.log if isinstance(each.command, Remind)}) == 5
    assert len({each.idempotency_key for each in saga.log if isinstance(each.command, Remind)}) == 5
    assert kinds(saga, "reminded", "escalated") == ["reminded"] * 5 + ["escalated"]
    saga.hears(APPROVED)
    assert not any(isinstance(command, Remind) for command in saga.advance(timedelta(days=1)).sent)


def test_a_wait_that_times_out_has_failed() -> None:
    saga = waiting().advance(timedelta(days=3))
    assert (saga.instance.phase, saga.instance.end_reason) == (Phase.COMPENSATING, "timed_out")
    assert "wait_timed_out" in saga.kinds
    saga.hears(APPROVED)
    assert (saga.disposition, saga.reason) == (Disposition.IGNORED, "turned_back")


def test_a_wait_may_end_with_a_default_instead() -> None:
    class Lenient(Approval, key="key", version=1, deadline=timedelta(days=30)):
        @Approval.approval.on_timeout
        def nobody_said_anything(self) -> None:
            self.approved_by = "the rule"

        flow = Booking.a >> Approval.approval >> Booking.b >> Booking.c >> Booking.d

    saga = waiting(Lenient)
    assert saga.advance(timedelta(days=3)).sent[-1:] == [Do(what="b")]
    assert saga.state.approved_by == "the rule"
    saga.hears(REJECTED)
    assert (saga.disposition, saga.reason) == (Disposition.IGNORED, "too_late")
    assert saga.state.refused_by is None


def test_a_default_may_be_a_no_and_whatever_undoes_is_told_why() -> None:
    class Strict(Approval, key="key", version=1):
        @Approval.approval.on_timeout(fails=True)
        def nobody_said_yes(self) -> None:
            self.refused_by = "the rule"

        @Booking.a.compensation(success=Undone)
        def undo_a(self) -> Undo:
            return Undo(what=f"{self.end_reason} {self.refused_by}")

        flow = Booking.a >> Approval.approval >> Booking.b >> Booking.c >> Booking.d

    saga = waiting(Strict).advance(timedelta(days=3))
    assert saga.sent[-1] == Undo(what="timed_out the rule")
    assert saga.instance.choices["approval"] == "timed_out"


def test_reminders_may_begin_at_once_and_an_outage_does_not_move_them() -> None:
    class Urgent(Booking, key="key", version=1):
        @wait
        def approval(self, event: Approved) -> None: ...

        @approval.reminder(after=timedelta(0), every=timedelta(days=1))
        def nudge(self) -> Remind:
            return Remind(key=self.key)

        flow = approval >> Booking.a >> Booking.b >> Booking.c >> Booking.d

    saga = Harness(Urgent).given(Booked(key="k"))
    began = saga.now
    assert saga.advance(timedelta(0)).sent == [Remind(key="k")]
    fence = saga.instance.timers["approval/nudge"].fence
    late = began + timedelta(days=2, hours=5)
    after = decide(saga.definition, saga.instance, TimerFired(name="approval/nudge", fence=fence), late)
    assert after.instance.timers["approval/nudge"].due_at == began + timedelta(days=3)


def test_a_failed_wait_is_replaced_by_the_alternative() -> None:
    class Other(Approval, key="key", version=1):
        flow = Booking.a >> alternative(Approval.approval, Booking.b) >> Booking.c >> Booking.d

    assert sent(waiting(Other).hears(REJECTED)) == ["do b"]


def test_an_event_that_comes_early_is_kept_and_applied_when_the_flow_has_come_to_it() -> None:
    saga = Harness(Approval).given(Booked(key="k")).hears(APPROVED)
    assert saga.disposition is Disposition.HELD
    assert saga.kinds[-1] == "message_held"
    assert saga.instance.attention == {}
    assert sent(answered(saga, "a")) == ["do b"]
    assert saga.state.approved_by == "Ada"


def test_of_two_events_the_first_decides() -> None:
    saga = waiting().hears(APPROVED).hears(REJECTED)
    assert (saga.disposition, saga.reason) == (Disposition.IGNORED, "already_answered")
    assert saga.instance.phase is Phase.RUNNING


def test_a_given_up_wait_is_over() -> None:
    class First(Approval, key="key", version=1):
        flow = Booking.a >> parallel(Approval.approval, Booking.b, first=1) >> Booking.c >> Booking.d

    saga = answered(waiting(First), "b")
    assert saga.instance.choices["approval"] == "woken"
    assert set(saga.instance.timers) == {"c/do", "deadline"}
    saga.hears(APPROVED)
    assert (saga.disposition, saga.reason) == (Disposition.IGNORED, "not_awaited")


@pytest.mark.parametrize(("policy", "disposition"), [("ignore", "ignored"), ("dead_letter", "dead_lettered")])
def test_the_class_says_what_becomes_of_an_event_that_comes_early(policy: str, disposition: str) -> None:
    class Strict(Booking, key="key", version=1):
        @wait(unexpected=policy)  # type: ignore[call-overload, untyped-decorator]
        def approval(self, event: Approved) -> None: ...

        flow = Booking.a >> approval >> Booking.b >> Booking.c >> Booking.d

    saga = Harness(Strict).given(Booked(key="k")).hears(APPROVED)
    assert (saga.disposition, saga.reason) == (Disposition(disposition), "not_awaited_yet")


def test_too_many_early_events_are_not_kept() -> None:
    saga = Harness(Approval).given(Booked(key="k"))
    for _ in range(100):
        saga.hears(APPROVED)
    assert saga.disposition is Disposition.HELD
    saga.hears(APPROVED)
    assert (saga.disposition, saga.reason) == (Disposition.DEAD_LETTERED, "too_many_kept")


def test_an_operator_may_go_on_without_the_event() -> None:
    saga = waiting().operator("skip", "approval")
    assert sent(saga) == ["do b"]
    assert saga.instance.skipped == 1
    assert last(saga, "operator_acted").detail["actor"] == "operator"


class Told(Booking, key="key", version=1, deadline=timedelta(days=30)):
    name: str = "nobody"

    @signal
    def renamed(self, event: Renamed) -> None:
        self.name = event.name

    @cancel
    def called_off(self, event: CalledOff) -> None:
        self.name = "called off"

    @query
    def shout(self) -> str:
        return self.name.upper()

    @step(reply=False)
    def e(self) -> Do:
        return Do(what=self.name)

    flow = Booking.a >> Booking.b >> Booking.c >> Booking.d >> e


def test_a_signal_changes_the_state_at_any_time_and_sends_nothing() -> None:
    saga = Harness(Told).given(Booked(key="k")).hears(Renamed(key="k", name="Ada"))
    assert sent(saga) == []
    assert saga.asks("shout") == "ADA"
    assert last(saga, "signal_received").detail == {"signal": "renamed"}
    for name in "abcd":
        answered(saga, name)
    assert sent(saga) == ["do Ada"]


def test_a_cancel_turns_the_saga_back() -> None:
    saga = answered(Harness(Told).given(Booked(key="k")), "a")
    saga.hears(CalledOff(key="k"))
    assert (saga.instance.phase, saga.instance.end_reason) == (Phase.COMPENSATING, "cancelled")
    assert saga.state.name == "called off"
    saga.hears(CalledOff(key="k"))
    assert (saga.disposition, saga.reason) == (Disposition.IGNORED, "turned_back")


def test_nothing_is_signalled_to_a_saga_that_has_turned_back() -> None:
    saga = Harness(Told).given(Booked(key="k")).hears(CalledOff(key="k")).hears(Renamed(key="k", name="Ada"))
    assert saga.state.name == "called off"
    assert (saga.disposition, saga.reason) == (Disposition.IGNORED, "turned_back")


def test_a_cancel_behind_the_pivot_comes_too_late() -> None:
    class Final(Booking, key="key", version=1):
        @cancel
        def called_off(self, event: CalledOff) -> None: ...

        @step(reply=False, pivot=True)
        def sign(self) -> Do:
            return Do(what="sign")

        @sleep
        def rest(self) -> timedelta:
            return timedelta(hours=1)

        flow = parallel(Booking.a, Booking.b, Booking.c, Booking.d) >> sign >> rest

    saga = Harness(Final).given(Booked(key="k"))
    for name in "abcd":
        answered(saga, name)
    saga.hears(CalledOff(key="k"))
    assert (saga.disposition, saga.reason) == (Disposition.IGNORED, "behind_the_pivot")
    assert saga.instance.phase is Phase.RUNNING


def test_a_hook_that_raises_parks_the_saga_and_the_event_can_be_replayed() -> None:
    class Strict(Booking, key="key", version=1):
        broken: bool = True

        @wait(timeout=timedelta(days=3))
        def approval(self, event: Approved) -> None:
            if self.broken:
                raise ValueError(event.by)

        @signal
        def mended(self, event: Renamed) -> None:
            self.broken = False

        flow = Booking.a >> approval >> Booking.b >> Booking.c >> Booking.d

    saga = waiting(Strict).hears(APPROVED)
    assert saga.disposition is Disposition.DEAD_LETTERED
    assert saga.status == "parked"
    saga.hears(Renamed(key="k", name="x"))
    assert sent(saga.hears(APPROVED)) == ["do b"]
    assert saga.status == "running"


def test_waits_are_methods_and_part_of_the_shape() -> None:
    saga = Approval(key="k")
    saga.approval(APPROVED)
    assert saga.approved_by == "Ada"
    assert saga.nudge() == Remind(key="k")
    shape = definition_of(Approval).document["shape"]
    assert {"wait": "approval"} in shape["flow"]
    assert set(shape["heard"]) == {"waiting.Approved", "waiting.Rejected"}
    assert shape["notices"]["approval/nudge"]["command"] == "waiting.Remind"
