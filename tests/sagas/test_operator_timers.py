"""An operator fires, moves and cancels timers: what follows, and what is refused in which words."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from messages.errors import OperationRefused
from sagas import Saga, sleep, step, wait
from sagas.decide import decide
from sagas.instance import CallStatus, Phase
from sagas.outcome import Action, Disposition, GiveUp, Operated, TimerFired
from testkit.harness import Harness
from tests.sagas.test_branches import Booked, Booking, Do, Done, answered, sent
from tests.sagas.test_wait import APPROVED, Approval, Approved, Escalate, Remind, last, waiting

if TYPE_CHECKING:
    from sagas.instance import Instance
    from sagas.outcome import Decision

HOUR = timedelta(hours=1)


class Resting(Booking, key="key", version=1, deadline=timedelta(days=30)):
    """a, a rest, and the others."""

    @sleep
    def nap(self) -> timedelta:
        return timedelta(days=14)

    flow = Booking.a >> nap >> Booking.b >> Booking.c >> Booking.d


def begun(saga: type[Saga] = Booking) -> Harness:
    return Harness(saga).given(Booked(key="k"))


def fire(saga: Harness, timer: str) -> Harness:
    return saga.operator("fire_timer", timer=timer)


def cancel(saga: Harness, timer: str) -> Harness:
    return saga.operator("cancel_timer", timer=timer)


def move(saga: Harness, timer: str, after: timedelta) -> Harness:
    return saga.operator("reschedule_timer", timer=timer, due=after)


class Plain(Booking, key="key", version=1):
    flow = Booking.a >> Booking.b >> Booking.c >> Booking.d


def acted(saga: Harness, instance: Instance, action: Action, timer: str, **more: Any) -> Decision:  # noqa: ANN401
    """What is decided of an operator's action, and not carried out: markers stay on their way."""
    asked = Operated(action=action, actor="ann", reason="why not", request_id="r", timer=timer, **more)
    return decide(saga.definition, instance, asked, saga.now)


# -- fire


def test_a_reply_timer_that_is_fired_sends_the_command_again_and_says_who_wanted_it() -> None:
    saga = fire(begun(Plain), "a/do")
    assert sent(saga) == ["do a"]
    assert saga.kinds[-2:] == ["operator_acted", "command_resent"]
    acted = last(saga, "operator_acted")
    assert (acted.step, acted.detail["timer"], acted.detail["actor"]) == ("a", "a/do", "operator")
    assert len({each.message_id for each in saga.log}) == 1


def test_a_last_timeout_that_is_fired_gives_up_through_its_marker() -> None:
    saga = begun(Plain)
    for _ in range(3):
        fire(saga, "a/do")
    assert (saga.instance.phase, saga.instance.end_reason) == (Phase.COMPENSATING, "timed_out")
    assert saga.instance.steps["a"].do.status is CallStatus.IN_DOUBT


def test_a_rest_that_is_fired_is_over() -> None:
    assert sent(fire(answered(begun(Resting), "a"), "nap/sleep")) == ["do b"]


def test_a_notice_that_is_fired_is_sent_and_the_next_one_counts_from_now() -> None:
    saga = fire(waiting(), "approval/nudge")
    assert saga.sent == [Remind(key="k")]
    assert saga.instance.timers["approval/nudge"].due_at == saga.now + timedelta(hours=4)
    assert fire(saga, "approval/to_the_boss").sent == [Escalate(key="k")]


def test_a_timeout_of_a_wait_and_a_deadline_that_are_fired_go_through_their_markers() -> None:
    saga = fire(waiting(), "approval/timeout")
    assert saga.instance.end_reason == "timed_out"
    assert saga.kinds[-4:] == ["timer_fired", "wait_timed_out", "compensation_started", "compensation_sent"]
    saga = fire(waiting(), "deadline")
    assert (saga.instance.end_reason, "deadline_struck" in saga.kinds) == ("deadline", True)


def test_what_still_sits_in_the_outbox_is_not_fired_in_vain() -> None:
    saga = begun(Plain)
    unsent = frozenset({saga.log[-1].message_id})
    with pytest.raises(OperationRefused, match="timer a/do can do nothing now: the command is still in the outbox"):
        acted(saga, saga.instance, Action.FIRE_TIMER, "a/do", unsent=unsent)


# -- reschedule


def test_a_timer_that_was_moved_fires_then_and_not_before() -> None:
    saga = move(begun(Plain), "a/do", HOUR)
    assert saga.advance(HOUR - timedelta(seconds=1)).sent == []
    assert saga.advance(timedelta(seconds=1)).sent == [Do(what="a")]
    moved = last(saga, "timer_rescheduled")
    assert (moved.step, moved.detail["timer"]) == ("a", "a/do")
    assert moved.detail["due_at"] > moved.detail["was"]


def test_a_timer_as_it_was_before_it_was_moved_is_stale() -> None:
    saga = begun(Plain)
    before = saga.instance.timers["a/do"]
    move(saga, "a/do", HOUR)
    fired = decide(saga.definition, saga.instance, TimerFired(name="a/do", fence=before.fence), saga.now + 2 * HOUR)
    assert (fired.disposition, fired.reason) == (Disposition.IGNORED, "stale_timer")


def test_the_deadline_is_moved_with_its_timer() -> None:
    saga = begun(Plain)
    move(saga, "deadline", timedelta(days=60))
    assert saga.instance.deadline_at == saga.instance.timers["deadline"].due_at == saga.now + timedelta(days=60)


def test_a_moment_in_the_past_is_refused_in_favour_of_firing() -> None:
    saga = begun(Plain)
    for due in (timedelta(0), timedelta(seconds=-1), saga.now - HOUR):
        with pytest.raises(OperationRefused, match=r"is not ahead; to have timer a/do now, fire it"):
            saga.operator("reschedule_timer", timer="a/do", due=due)
    with pytest.raises(OperationRefused, match="more than a hundred years ahead"):
        move(saga, "a/do", timedelta(days=40_000))
    with pytest.raises(OperationRefused, match="say when the timer is to be due"):
        saga.operator("reschedule_timer", timer="a/do")


MOVES = [
    (Approval, "approval/timeout", "reschedule_timer"),
    (Approval, "approval/timeout", "cancel_timer"),
    (Approval, "deadline", "reschedule_timer"),
    (Approval, "deadline", "cancel_timer"),
    (Plain, "a/do", "reschedule_timer"),
]


@pytest.mark.parametrize(("saga", "timer", "action"), MOVES, ids=lambda each: getattr(each, "__name__", each))
def test_a_marker_from_before_a_timer_was_moved_gives_nothing_up(saga: type[Saga], timer: str, action: str) -> None:
    story = waiting() if saga is Approval else fire(fire(begun(Plain), "a/do"), "a/do")
    asked = acted(story, story.instance, Action.FIRE_TIMER, timer)
    [marker] = [send for send in asked.sends if send.marker]
    came = GiveUp(message_id="m", timer=timer, entry=json.loads(marker.body or b"")["entry"])
    moved = acted(story, asked.instance, Action(action), timer, due=timedelta(days=2))
    assert decide(story.definition, asked.instance, came, story.now).disposition is Disposition.APPLIED
    late = decide(story.definition, moved.instance, came, story.now)
    assert (late.disposition, late.reason) == (Disposition.IGNORED, "stale_marker")


def test_a_timer_that_was_moved_gives_up_when_its_new_time_has_come() -> None:
    saga = move(waiting(), "approval/timeout", timedelta(days=5))
    assert "until 2026-01-06 00:00:00 UTC" in (saga.instance.waiting_for or "")
    assert saga.advance(timedelta(days=5) - timedelta(seconds=1)).instance.phase is Phase.RUNNING
    assert saga.advance(timedelta(seconds=1)).instance.end_reason == "timed_out"
    saga = move(begun(Plain), "deadline", HOUR).operator("pause")
    assert saga.operator("resume").advance(HOUR).instance.end_reason in ("deadline", "timed_out")


def test_a_step_that_is_done_leaves_nothing_of_a_timer_that_was_moved() -> None:
    saga = begun(Plain)
    for _ in range(2):
        move(saga, "a/do", HOUR)
    assert saga.instance.choices
    assert answered(saga, "a").instance.choices == {}
    rested = fire(move(answered(begun(Resting), "a"), "nap/sleep", HOUR), "nap/sleep")
    assert rested.instance.choices == {"nap": "rested"}


# -- cancel


def test_a_wait_without_its_timeout_waits_for_its_event_and_for_the_deadline() -> None:
    saga = cancel(waiting(), "approval/timeout")
    assert last(saga, "timer_cancelled").detail["timer"] == "approval/timeout"
    assert "until" not in (saga.instance.waiting_for or "")
    saga.advance(timedelta(days=10))
    assert saga.instance.phase is Phase.RUNNING
    assert sent(saga.hears(APPROVED)) == ["do b"]
    assert cancel(waiting(), "approval/timeout").advance(timedelta(days=30)).instance.end_reason == "deadline"


def test_nobody_is_reminded_any_more() -> None:
    saga = cancel(cancel(waiting(), "approval/nudge"), "approval/to_the_boss")
    assert saga.advance(timedelta(days=2)).sent == []


def test_a_saga_without_its_deadline_is_not_turned_back_for_it() -> None:
    saga = cancel(answered(begun(Resting), "a"), "deadline")
    assert sent(saga.advance(timedelta(days=14))) == ["do b"]
    saga = move(cancel(answered(begun(Resting), "a"), "deadline"), "nap/sleep", timedelta(days=90))
    assert saga.advance(timedelta(days=89)).instance.phase is Phase.RUNNING


@pytest.mark.parametrize(
    ("timer", "text"),
    [
        ("a/do", "without it nothing would be sent again or given up; reschedule it, or skip the step a"),
        ("nap/sleep", "nothing else would end the rest; skip ends it now, reschedule moves it"),
    ],
)
def test_what_the_saga_would_hang_without_is_not_cancelled(timer: str, text: str) -> None:
    saga = begun(Resting)
    if timer == "nap/sleep":
        answered(saga, "a")
    with pytest.raises(OperationRefused, match=f"Resting 'k': timer {timer} is not cancelled: {text}"):
        cancel(saga, timer)


def test_of_the_timeout_of_a_wait_and_the_deadline_one_stays() -> None:
    with pytest.raises(OperationRefused, match="nothing else would end the wait approval; reschedule it"):
        cancel(cancel(waiting(), "approval/timeout"), "deadline")
    with pytest.raises(OperationRefused, match="nothing else would end the wait approval; reschedule it, or skip"):
        cancel(cancel(waiting(), "deadline"), "approval/timeout")

    class Endless(Booking, key="key", version=1):
        @wait
        def word(self, event: Approved) -> None: ...

        flow = Booking.a >> word >> Booking.b >> Booking.c >> Booking.d

    with pytest.raises(OperationRefused, match="nothing else would end the wait word; reschedule it"):
        cancel(begun(Endless), "deadline")


# -- what stands still, has ended, or is not there


def test_a_paused_saga_lets_its_timers_be_moved_and_not_fired() -> None:
    saga = begun(Plain).operator("pause")
    with pytest.raises(OperationRefused, match="it is paused, and its timers stand still; resume it first"):
        fire(saga, "a/do")
    move(saga, "a/do", HOUR)
    assert saga.advance(2 * HOUR).sent == []
    assert saga.operator("resume").advance(timedelta(0)).sent == [Do(what="a")]


def test_a_saga_whose_method_raised_lets_its_timers_be_moved_and_not_fired() -> None:
    class Broken(Booking, key="key", version=1):
        @step(success=Done)
        def e(self) -> Do:
            raise ValueError(self.key)

        flow = Booking.a >> e >> Booking.b >> Booking.c >> Booking.d

    saga = answered(begun(Broken), "a")
    with pytest.raises(OperationRefused, match="a method raised, and its timers stand still; retry makes it go on"):
        fire(saga, "deadline")
    assert move(saga, "deadline", HOUR).instance.deadline_at == saga.now + HOUR


def test_a_timer_that_is_not_there_is_named_beside_those_that_are() -> None:
    saga = begun(Plain)
    with pytest.raises(OperationRefused, match="it has no timer 'b/do'; it has deadline, a/do"):
        fire(saga, "b/do")
    with pytest.raises(OperationRefused, match="say which timer; it has deadline, a/do"):
        saga.operator("fire_timer")
    for name in "abcd":
        answered(saga, name)
    with pytest.raises(OperationRefused, match="it is completed, and has no timers any more"):
        fire(saga, "deadline")


def test_a_notice_that_cannot_be_built_parks_the_saga_and_the_try_is_recorded() -> None:
    class Broken(Approval, key="key", version=1, deadline=timedelta(days=30)):
        @Approval.approval.reminder(after=HOUR)
        def nudge(self) -> Remind:
            raise ValueError(self.key)

        flow = Booking.a >> Approval.approval >> Booking.b >> Booking.c >> Booking.d

    saga = fire(waiting(Broken), "approval/nudge")
    assert (saga.status, saga.kinds[-2:]) == ("parked", ["operator_acted", "parked"])
    assert last(saga, "operator_acted").detail["timer"] == "approval/nudge"
