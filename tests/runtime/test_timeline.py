"""An instance told for people: its steps, and what happened in order of time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runtime.timeline import duration, moments, steps
from storage.queries import Event

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def event(seq: int, kind: str, step: str | None = None, **detail: object) -> Event:
    at = START + timedelta(seconds=seq - 1)
    return Event(seq=seq, at=at, kind=kind, step=step, message_id=None, message_name="x.Y", detail=detail)


HISTORY = [
    event(1, "started"),
    event(2, "command_sent", "reserve", purpose="do", attempt=1, send=1),
    event(3, "reply_received", "reserve", reply="success"),
    event(4, "step_completed", "reserve"),
    event(5, "command_sent", "pay", send=1, reply_due="2026-11-21T12:01:00+00:00"),
    event(6, "command_resent", "pay", send=2),
    event(7, "step_timed_out", "pay", reason="no_answer"),
    event(8, "compensation_sent", "reserve"),
    event(9, "something_from_the_future", "reserve"),
]


def test_each_step_is_told_by_the_latest_event_that_says_how_far_it_is() -> None:
    told = [(line.step, line.state, line.sends, line.undo_sends) for line in steps(HISTORY)]
    assert told == [("reserve", "being undone", 1, 1), ("pay", "timed out", 2, 0)]


def told_of(*kinds: str | tuple[str, dict[str, object]]) -> tuple[str, int, int]:
    """What is told of a step to which these things happened."""
    named = [(kind, {}) if isinstance(kind, str) else kind for kind in kinds]
    [line] = steps([event(seq, kind, "hotel", **detail) for seq, (kind, detail) in enumerate(named, start=1)])
    return line.state, line.sends, line.undo_sends


DONE = ("command_sent", "step_completed")
IN_DOUBT = ("command_sent", "command_resent", "step_timed_out")
BY_HAND = ("step_compensated", {"by": "operator"})


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        ((*DONE, "compensation_sent", "command_resent", "command_resent"), ("being undone", 1, 3)),
        ((*DONE, "compensation_sent", "reply_transient"), ("will try again to undo it", 1, 1)),
        ((*DONE, "compensation_sent", "reply_transient", "compensation_sent"), ("being undone", 1, 2)),
        ((*DONE, "compensation_sent", "step_compensated"), ("undone", 1, 1)),
        ((*DONE, "compensation_sent", "compensation_failed"), ("could not be undone", 1, 1)),
        ((*DONE, "compensation_sent", "command_resent", "step_skipped"), ("undo skipped", 1, 2)),
        ((*DONE, "compensation_sent", BY_HAND), ("undone by hand", 1, 1)),
        ((*DONE, "step_skipped"), ("undo skipped", 1, 0)),
        ((*IN_DOUBT, "step_skipped"), ("undo skipped", 2, 0)),
        ((*IN_DOUBT, "compensation_sent", "late_success"), ("being undone", 2, 1)),
        ((*IN_DOUBT, "late_success", "effect_resolved"), ("undone by hand", 2, 0)),
        ((*IN_DOUBT, "late_success", "compensation_sent"), ("being undone", 2, 1)),
        (("command_sent", "reply_transient", "step_skipped"), ("skipped", 1, 0)),
        (("step_skipped",), ("skipped", 0, 0)),
        ((("state_entered", {"state": "open"}), ("event_received", {"state": "open"})), ("in the state open", 0, 0)),
    ],
)
def test_what_concerns_an_undo_is_not_taken_for_the_step(
    kinds: tuple[str | tuple[str, dict[str, object]], ...], told: tuple[str, int, int]
) -> None:
    assert told_of(*kinds) == told


def test_what_happened_is_told_in_order_with_what_a_person_wants_to_know() -> None:
    told = moments(reversed(HISTORY))
    assert [moment.kind for moment in told][:3] == ["started", "command sent", "reply received"]
    assert [moment.after for moment in told] == [float(seconds) for seconds in range(9)]
    due = datetime(2026, 11, 21, 12, 1, tzinfo=UTC).astimezone().strftime("%H:%M:%S")
    assert [moment.detail for moment in told] == [
        "",
        "",
        "success",
        "",
        f"reply due {due}",
        "send 2",
        "no answer",
        "",
        "",
    ]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0 s"),
        (0.0123, "0.012 s"),
        (59.5, "59.5 s"),
        (125, "2 min 5 s"),
        (3 * 3600 + 240, "3 h 4 min"),
        (864_000, "10 d 0 h"),
    ],
)
def test_durations_are_told_in_the_units_that_matter(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_a_step_that_is_called_otherwise_since_it_was_moved_is_told_by_its_name_of_today() -> None:
    moved = event(3, "migrated", renamed={"nod": "approval"})
    history = [event(1, "wait_began", "nod[1]"), event(2, "command_sent", "pay"), moved]
    told = [(line.step, line.state) for line in steps([*history, event(4, "event_received", "approval[1]")])]
    assert told == [("approval[1]", "answered"), ("pay", "waiting for a reply")]
    assert moments([moved])[0].detail == "nod is called approval now"
