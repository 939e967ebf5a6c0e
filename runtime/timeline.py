"""One instance told for people: its steps and what happened to it, in order of time. Reads what the views say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from storage.queries import Event

_OPEN = ("waiting for a reply", "will try again")

_STATES: Mapping[str, tuple[str | None, str | None]] = {
    "command_sent": ("waiting for a reply", None),
    "command_resent": ("waiting for a reply", "being undone"),
    "command_withdrawn": ("taken back before it was sent", None),
    "reply_transient": ("will try again", "will try again to undo it"),
    "step_completed": ("completed", None),
    "step_failed": ("failed", None),
    "step_timed_out": ("timed out", None),
    "late_success": ("completed late", None),
    "compensation_sent": (None, "being undone"),
    "step_compensated": (None, "undone"),
    "compensation_failed": (None, "could not be undone"),
    "effect_resolved": (None, "undone by hand"),
    "step_skipped": ("skipped", "undo skipped"),
    "rest_began": ("resting", None),
    "rested": ("rested", None),
    "wait_began": ("waiting for an event", None),
    "event_received": ("answered", None),
    "wait_timed_out": ("timed out", None),
    "state_entered": ("in a state", None),
}
"""What an event says of its step, while it is done and while it is undone; where it says nothing the state stays. That
of a lifecycle is the state it is in, which the event names."""

_OF_AN_UNDO = ("compensation_sent", "step_compensated", "compensation_failed", "effect_resolved")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLine:
    """A step that was entered: how far it is, how often its command was sent and its undo, and when it last moved."""

    step: str
    state: str
    sends: int
    undo_sends: int
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
        if event.kind == "migrated":
            found = dict(_renamed(line, event.detail.get("renamed", {})) for line in found.values())
        if event.step is not None and event.kind in _STATES:
            found[event.step] = _moved(found.get(event.step), event, event.step)
    return list(found.values())


def _renamed(line: StepLine, names: Mapping[str, str]) -> tuple[str, StepLine]:
    """The line of a step by its name of today."""
    base = line.step.partition("[")[0]
    step = names.get(base, base) + line.step[len(base) :]
    return step, replace(line, step=step)


def _moved(line: StepLine | None, event: Event, step: str) -> StepLine:
    """The line of a step after one more event."""
    undoing = _concerns_undo(line, event)
    state = _STATES[event.kind][undoing]
    if "state" in event.detail:
        state = f"in the state {event.detail['state']}"
    if state == "undone" and event.detail.get("by") == "operator":
        state = "undone by hand"
    sent = event.kind.endswith("_sent") or event.kind == "command_resent"
    return StepLine(
        step=step,
        state=state or (line.state if line else ""),
        sends=(line.sends if line else 0) + (sent and not undoing),
        undo_sends=(line.undo_sends if line else 0) + (sent and undoing),
        at=event.at,
    )


def _concerns_undo(line: StepLine | None, event: Event) -> bool:
    """Once an undo is out, all that comes is of it; what is skipped is the undo where the step itself has ended."""
    if line is None or event.kind in _OF_AN_UNDO:
        return event.kind in _OF_AN_UNDO
    return line.undo_sends > 0 or (event.kind == "step_skipped" and line.state not in _OPEN)


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
        elif name == "aliases":
            yield ", ".join(f"{alias} {given}" for alias, given in value.items()) or "no alias any more"
        elif name == "refused":
            yield ", ".join(f"{alias} refused: {why}" for alias, why in value.items())
        elif name == "renamed":
            yield ", ".join(f"{old} is called {new} now" for old, new in value.items())
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
