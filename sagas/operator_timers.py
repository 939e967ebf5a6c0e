"""What an operator may do to one timer of an instance (design: section 4, rules 11 and 13).

| action           | fits                                                   | what follows                            |
|------------------|--------------------------------------------------------|-----------------------------------------|
| fire_timer       | every timer, unless the instance stands still          | what it would do when it is due, now    |
| reschedule_timer | every timer, also while it stands still; only ahead    | it is due then; the deadline is another |
| cancel_timer     | a wait's timeout, its notices, the deadline, `overdue` | it never comes; nothing else changes    |

A marker that was sent before its timer was moved or cancelled gives nothing up any more. No timer is cancelled without
which the instance might wait for ever.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sagas.backward import DEADLINE, OVERDUE
from sagas.definition import Purpose
from sagas.instance import WAITING, Timer
from sagas.keywords import LONGEST
from sagas.names import SLEEP, moved_at, step_name
from sagas.outcome import Action
from sagas.pauses import OPEN, TIMEOUT
from sagas.scopes import pauses
from sagas.timeouts import fire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sagas.outcome import Operated
    from sagas.turn import Turn


def operate_timer(turn: Turn, operated: Operated) -> None:
    """Carry out an operator's action on a timer.

    Raises:
        OperationRefused: it does not fit where the instance stands; the turn must be thrown away.
        MethodRaised: a command cannot be built; the turn must be thrown away and the instance parked.
    """
    if turn.phase.ended:
        raise turn.refused(f"it is {turn.phase}, and has no timers any more")
    if operated.timer not in turn.timers:
        named = f"it has no timer {operated.timer!r}" if operated.timer else "say which timer"
        raise turn.refused(f"{named}; it has {', '.join(turn.timers) or 'none'}")
    ACTIONS[operated.action](turn, operated.timer, operated)


def _fire(turn: Turn, name: str, operated: Operated) -> None:
    if turn.paused:
        raise turn.refused("it is paused, and its timers stand still; resume it first")
    if turn.halted:
        raise turn.refused("a method raised, and its timers stand still; retry makes it go on")
    fire(turn, name, operated.unsent)
    done = turn.history[-1]
    if done.kind == "timer_set":
        raise turn.refused(
            f"timer {name} can do nothing now: {done.detail['reason']}; what has not left it need not be sent again"
        )


def _reschedule(turn: Turn, name: str, operated: Operated) -> None:
    due = operated.due
    due_at = turn.now + due if isinstance(due, timedelta) else due
    if due_at is None:
        raise turn.refused("say when the timer is to be due")
    if due_at <= turn.now:
        raise turn.refused(f"{_shown(due_at)} is not ahead; to have timer {name} now, fire it")
    if due_at - turn.now > LONGEST:
        raise turn.refused(f"{_shown(due_at)} is more than a hundred years ahead; be earlier")
    seq = _record(turn, "timer_rescheduled", name, due_at)
    turn.timers[name] = Timer(due_at=due_at, fence=seq)
    _outdate_markers(turn, name, f"{due_at.isoformat()}/{seq}")
    if name == DEADLINE:
        turn.deadline_at = due_at


def _cancel(turn: Turn, name: str, _: Operated) -> None:
    if (obstacle := _needed(turn, name)) is not None:
        raise turn.refused(f"timer {name} is not cancelled: {obstacle}")
    seq = _record(turn, "timer_cancelled", name)
    del turn.timers[name]
    _outdate_markers(turn, name, str(seq))


ACTIONS: Mapping[Action, Callable[[Turn, str, Operated], None]] = {
    Action.FIRE_TIMER: _fire,
    Action.RESCHEDULE_TIMER: _reschedule,
    Action.CANCEL_TIMER: _cancel,
}


def _needed(turn: Turn, name: str) -> str | None:
    """Why the instance might wait for ever without a timer, and what helps; None where it would not."""
    if name == OVERDUE:
        children = [path for path in turn.steps if turn.step(path).do.child and turn.steps[path].do.status.open]
        return f"nothing else would tell of the child of {children[0]}; reschedule it" if children else None
    if name == DEADLINE:
        endless = ", ".join(sorted(_endless(turn)))
        return f"nothing else would end {endless}; reschedule it" if endless else None
    path, _, what = name.rpartition("/")
    if turn.definition.lifecycle is not None and path == turn.definition.lifecycle.path:
        return "its state might never be left; reschedule it"
    if step_name(path) in turn.definition.waits:
        last = what == TIMEOUT and DEADLINE not in turn.timers
        return f"nothing else would end the wait {path}; reschedule it, or skip the wait" if last else None
    if what == SLEEP:
        return "nothing else would end the rest; skip ends it now, reschedule moves it"
    return f"without it nothing would be sent again or given up; reschedule it, or skip the step {path}"


def _endless(turn: Turn) -> set[str]:
    """What only the deadline ends: waits, by class or because their timeout was cancelled, children, a lifecycle."""
    by_class = {name for name, wait in turn.definition.waits.items() if wait.timeout is None}
    waiting = [path for path in pauses(turn) if turn.choices[path] == WAITING]
    waits = by_class | {path for path in waiting if f"{path}/{TIMEOUT}" not in turn.timers}
    lifecycle = turn.definition.lifecycle
    children = {f"the child of {name}" for name in turn.definition.children}
    return (
        children
        | {f"the wait {path}" for path in waits}
        | ({f"the {lifecycle.path}"} if lifecycle is not None else set())
    )


def _record(turn: Turn, kind: str, name: str, due_at: datetime | None = None) -> int:
    due = None if due_at is None else due_at.isoformat()
    return turn.record(
        kind, name.rpartition("/")[0] or None, timer=name, due_at=due, was=turn.timers[name].due_at.isoformat()
    )


def _outdate_markers(turn: Turn, name: str, entry: str) -> None:
    """Give the wait that the timer would end another name, so that markers that bear the one before change nothing."""
    path, _, what = name.rpartition("/")
    if step_name(path) in turn.definition.waits:
        if what == TIMEOUT:
            turn.choices[name] = entry
    elif name == DEADLINE or what == Purpose.DO or f"{path}/{OPEN}" in turn.choices:
        turn.choices[moved_at(name)] = entry


def _shown(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
