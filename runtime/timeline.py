"""One instance told for people: its steps and what happened to it, in order of time. Reads what the views say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from storage.queries import Event

_SENT = ("command_sent", "command_resent")

_STEP_STATES: Mapping[str, str] = {
    "command_sent": "waiting for a reply",
    "command_resent": "waiting for a reply",
    "command_withdrawn": "taken back before it was sent",
    "reply_transient": "will try again",
    "step_completed": "completed",
    "step_failed": "failed",
    "step_timed_out": "timed out",
    "late_success": "completed late",
    "compensation_sent": "being undone",
    "step_compensated": "undone",
    "compensation_failed": "could not be undone",
}
"""What the latest of these events says of its step; other events leave it as it is."""

ATTENTION: Mapping[str, str] = {
    "method_raised": "a method of the saga raised; mend the class, deploy it, and the next copy of the message goes on",
    "undo_needs_reply": "a compensation cannot be built from what is known; resolve it by hand",
    "compensation_failed": "a participant refused to undo its step; retry, skip or resolve it",
    "compensation_exhausted": "a compensation is not answered; it goes on trying, so look at the participant",
    "orphaned_effect": "a step succeeded after it was given up, and nothing undoes it; send its compensation by hand",
    "compensation_overdue": "the deadline passed while it was being undone; look at the participant it waits for",
    "stalled": "it waits for nothing at all; retry or cancel it",
    "version_missing": "no process knows the definition version of this instance; deploy it",
    "unroutable": "a command finds no queue; start the participant that takes it",
    "refused": "the broker refuses a message as it is; mend what it says, or cancel the instance",
    "timer_overdue": "a timer is overdue; is a process with timers running?",
    "outbox_overdue": "a message is not published; is a process with a relay running, and the broker there?",
}
"""What a reason for attention means, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLine:
    """A step that was entered: how far it is, how many commands were sent, and when it last moved."""

    step: str
    state: str
    sends: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One event: when, how long after the start, what, and what else is known of it."""

    at: datetime
    after: float
    kind: str
    step: str
    message: str
    detail: str


def steps(events: Iterable[Event]) -> list[StepLine]:
    """The steps in the order they were entered."""
    found: dict[str, StepLine] = {}
    for event in events:
        if event.step is None or event.kind not in _STEP_STATES:
            continue
        before = found.get(event.step)
        sends = (before.sends if before else 0) + (event.kind in _SENT)
        found[event.step] = StepLine(step=event.step, state=_STEP_STATES[event.kind], sends=sends, at=event.at)
    return list(found.values())


def moments(events: Iterable[Event]) -> list[Moment]:
    """The events in order of time, which is that of their numbers."""
    ordered = sorted(events, key=lambda event: event.seq)
    return [
        Moment(
            at=event.at,
            after=(event.at - ordered[0].at).total_seconds(),
            kind=event.kind.replace("_", " "),
            step=event.step or "",
            message=event.message_name or "",
            detail=", ".join(_told(event.detail)),
        )
        for event in ordered
    ]


_EVIDENT = ("purpose", "causation_id", "version")
"""Details that the row says anyway, or that only programs need; `--json` has them."""

_USUALLY_ONE = ("generation", "attempt", "send")


def _told(detail: Mapping[str, Any]) -> Iterable[str]:
    """The details worth a person's time."""
    for name, value in detail.items():
        if name in _EVIDENT or (name in _USUALLY_ONE and value == 1):
            continue
        if name == "reply_due":
            yield f"reply due {_clock(value)}"
        elif name in _USUALLY_ONE:
            yield f"{name} {value}"
        else:
            yield str(value).replace("_", " ") if name in ("reply", "reason") else f"{name} {value}"


def _clock(text: object) -> str:
    """The local time of an ISO date."""
    try:
        return datetime.fromisoformat(str(text)).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return str(text)


def after(seconds: float) -> str:
    """A time since the start: `+0.012 s`, `+2 min 5 s`, `+3 h 4 min`."""
    return f"+{duration(seconds)}"


def duration(seconds: float) -> str:
    """A duration in the two largest units that matter."""
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + " s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
