"""Where a live instance stands, in one line: what it waits for, since when, what happens next and when, and what went
wrong last. Made from what the views say; what a timer will do follows from the recorded policy and the sends so far.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from messages.printable import printable
from runtime.attention import what_only_a_person_can_do
from runtime.printing import counted
from runtime.timeline import duration
from sagas.backward import DEADLINE, OVERDUE
from sagas.instance import PARKING
from sagas.names import step_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from storage.queries import ArmedTimer, Event, SagaDetail

_SENDS = ("command_sent", "compensation_sent", "command_resent")
_MOVES = (*_SENDS, "reply_transient", "timer_fired")
_LONGEST_WAIT, _LONGEST_ERROR = 600, 300
_LIFECYCLE = "lifecycle"
_RESUME = "antiphon sagas resume {key}"
_TAKEN_ONE_DAY = "published again as soon as it is taken"
"""When that is tried nobody can tell: a destination that takes nothing is tried with whatever waits for it."""


_PAUSES = {"sleep": "it goes on", "timeout": "given up waiting"}
"""What the timers of rests and waits do; every other one of a wait sends something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """The parts of the line. `next` is what happens by itself, at `next_at`; `remedy` what only a person can do."""

    waiting_for: str
    since: datetime | None
    next: str | None
    next_at: datetime | None
    remedy: str | None
    last_error: str | None
    line: str


def outlook(found: SagaDetail) -> Outlook | None:
    """How a live instance goes on; None for one that has ended."""
    if found.saga.ended_at is not None:
        return None
    awaited = _awaited(found)
    waiting_for = printable(found.saga.waiting_for or "nothing", _LONGEST_WAIT)
    since = _since(found, awaited)
    what, at = _next(found, awaited)
    remedy, error = _remedy(found), _last_error(found)
    clauses = (
        waiting_for + (f" since {_clock(since, found)}, {_ago(since, found)}" if since else ""),
        (what or "") + (f" at {_clock(at, found)} ({_ago(at, found)})" if at else ""),
        f"{'the rest' if what else 'it'} needs an operator: {remedy}" if remedy else "",
        _held(found),
        f"last error: {error}" if error and error not in waiting_for else "",
    )
    return Outlook(
        waiting_for=waiting_for,
        since=since,
        next=what,
        next_at=at,
        remedy=remedy,
        last_error=error,
        line="; ".join(clause for clause in clauses if clause),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """The command whose timer falls due next: its timer, what was sent of this entry, and what happened last."""

    timer: ArmedTimer
    path: str
    purpose: str
    sends: Sequence[Event]
    last: Event


def _awaited(found: SagaDetail) -> _Call | None:
    for timer in found.timers:  # in the order in which they fall due
        path, _, purpose = timer.name.rpartition("/")
        sends = [each for each in found.events if _is_send(each, path, purpose)]
        if sends:
            entry = [each for each in sends if each.detail.get("generation") == sends[-1].detail.get("generation")]
            after = [each for each in found.events if each.step == path and each.seq >= entry[-1].seq]
            last = [each for each in after if each.kind in _MOVES][-1]
            return _Call(timer=timer, path=path, purpose=purpose, sends=entry, last=last)
    return None


def _is_send(event: Event, path: str, purpose: str) -> bool:
    return event.kind in _SENDS and event.step == path and event.detail.get("purpose") == purpose


def _since(found: SagaDetail, awaited: _Call | None) -> datetime | None:
    if awaited is not None:
        return awaited.last.at if awaited.last.kind == "reply_transient" else awaited.sends[0].at
    if found.saga.paused:
        return max((event.at for event in found.events if event.kind == "paused"), default=None)
    parked = {each.reason: each.since for each in found.attention}
    return next((parked[reason] for reason in PARKING if reason in parked), found.saga.updated_at)


def _next(found: SagaDetail, awaited: _Call | None) -> tuple[str | None, datetime | None]:
    """What happens next by itself, and when that is known."""
    if awaited is None:
        timers = {timer.name: timer.due_at for timer in found.timers}
        for timer in found.timers:
            path, _, what = timer.name.rpartition("/")
            if path:
                return _paused(path, what), timer.due_at
        if DEADLINE in timers:
            return "turned back for its deadline", timers[DEADLINE]
        return ("people are told that it takes long", timers[OVERDUE]) if OVERDUE in timers else (None, None)
    for row in found.outbox:
        if row.message_id == awaited.sends[-1].message_id and (row.error or row.state != "claimed"):
            return (_TAKEN_ONE_DAY if row.error else "published as soon as it can be"), None
    if awaited.last.kind == "timer_fired":
        return "given up when every reply before that is read", None
    return _timed(found, awaited), awaited.timer.due_at


def _paused(path: str, what: str) -> str:
    """What the timer of a rest, a wait or a state does when it falls due."""
    if path == _LIFECYCLE:
        return f"the time of its state is over ({what})"
    return _PAUSES.get(what, f"{what} is sent")


def _timed(found: SagaDetail, awaited: _Call) -> str:
    """What the timer of a command does when it falls due."""
    if awaited.last.kind == "reply_transient":
        return "tried again"
    step: Mapping[str, Any] = ((found.policy or {}).get("steps") or {}).get(step_name(awaited.path)) or {}
    patience = step.get(awaited.purpose)
    if patience is None:
        return "its timer is due"
    for_ever = awaited.purpose == "undo" or any(each.reason == "in_doubt" for each in found.attention)
    if len(awaited.sends) >= patience["retry"]["attempts"] and not for_ever:
        return "given up"
    return "a new attempt" if step.get("on_silence") == "new_attempt" else "sent again"


def _remedy(found: SagaDetail) -> str | None:
    """What a person can do where nothing happens by itself."""
    key = found.saga.business_key
    if not found.saga.paused:
        return what_only_a_person_can_do({each.reason for each in found.attention}, key)
    by = next((each.detail for each in reversed(found.events) if each.detail.get("action") == "pause"), None)
    who = f" ({by.get('actor')} paused it: {by.get('reason')})" if by else ""
    return _RESUME.format(key=shlex.quote(key)) + who


def _held(found: SagaDetail) -> str:
    if not found.held:
        return ""
    reasons = ", ".join(sorted({each.reason for each in found.held}))
    return f"{counted(len(found.held), 'message is', 'messages are')} held ({reasons})"


def _last_error(found: SagaDetail) -> str | None:
    """What is wrong with a message on its way out, else what went wrong last."""
    stuck = [row for row in found.outbox if row.error]
    if stuck:
        return printable(f"{stuck[-1].name}: {stuck[-1].error}", _LONGEST_ERROR)
    letters = [letter for letter in found.dead_letters if letter.status == "open"]
    errors = [*_attention_errors(found), *_told_errors(found.events, {letter.message_id for letter in letters})]
    errors += [(each.last_seen_at, f"dead letter {each.dead_letter_id}: {each.error}") for each in letters]
    return printable(max(errors)[1], _LONGEST_ERROR) if errors else None


def _attention_errors(found: SagaDetail) -> Iterator[tuple[datetime, str]]:
    return ((each.since, each.detail) for each in found.attention if each.reason != "messages_held")


def _told_errors(events: Sequence[Event], dead: Collection[str]) -> Iterator[tuple[datetime, str]]:
    """What the history says; why a command has no reply its dead letter knows better."""
    before = ""
    for event in events:
        asked, before = before == "operator_acted", event.kind
        said = event.detail.get("error") or event.detail.get("reason")
        match event.kind:
            case "reply_transient":
                yield event.at, f"{event.message_name} (not now)"
            case "command_resent" if not asked and event.message_id not in dead:
                yield event.at, f"no reply in time to {event.message_name}"
            case "step_timed_out":
                yield event.at, f"no reply in time to step {event.step}"
            case "step_failed" | "compensation_failed" | "parked":
                yield event.at, f"{event.kind.replace('_', ' ')}: {said}"


def _clock(at: datetime, found: SagaDetail) -> str:
    """The local time, with its day when that is not today."""
    here = at.astimezone()
    return here.strftime("%H:%M:%S" if here.date() == found.read_at.astimezone().date() else "%Y-%m-%d %H:%M:%S")


def _ago(at: datetime, found: SagaDetail) -> str:
    seconds = round((at - found.read_at).total_seconds())
    return f"in {duration(seconds)}" if seconds > 0 else f"{duration(-seconds)} ago"
