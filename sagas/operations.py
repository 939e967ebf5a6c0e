"""What an operator may do to an instance, and in which of its states (design: section 4, rules 8, 12 and 13).

| action  | fits                                                | what follows                                   |
|---------|-----------------------------------------------------|------------------------------------------------|
| cancel  | running, before its pivot                           | compensation; if paused, sent only on resume   |
| retry   | a method raised; a command or undo open or blocked  | it goes on, and what is open is sent at once   |
| skip    | a step that is open or cannot be built; its undo    | the flow, or the way back, goes on without it  |
| skip    | a rest, a wait                                      | it is over now                                 |
| skip    | an announcement that cannot be built                | nobody is told                                 |
| resolve | an undo open or blocked; an orphaned effect         | it was dealt with by hand                      |
| undo    | an orphaned effect of a step that has an undo       | the undo is sent                               |
| pause   | alive, not paused                                   | nothing is sent, applied or fired              |
| resume  | paused                                              | it goes on where it stood                      |

Everything else is refused in words, and nothing is changed. Of timers see `sagas.operator_timers`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sagas import operator_timers
from sagas.backward import due, exhausted, send_undo, turn_back
from sagas.definition import Purpose
from sagas.forward import go_on, ready
from sagas.instance import RESTING, SKIPPED, WAITING, CallProgress, CallStatus, Phase, StepProgress
from sagas.outcome import Action
from sagas.pauses import end_pause
from sagas.replies import note_blocked, note_exhausted, note_orphans, orphaned, settled
from sagas.scopes import pauses, pivot_of
from sagas.timeouts import again, next_attempt, wake
from sagas.unannounced import leave_unannounced, unannounced
from sagas.waits import reply_wait
from sagas.working_off import next_items

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sagas.definition import Call
    from sagas.outcome import Operated
    from sagas.turn import Turn


def operate(turn: Turn, operated: Operated) -> None:
    """Carry out an operator's action.

    Raises:
        OperationRefused: it does not fit where the instance stands; the turn must be thrown away.
        MethodRaised: a command cannot be built; the turn must be thrown away and the instance parked.
    """
    note(turn, operated)
    whole = _WHOLE.get(operated.action)
    if operated.action in operator_timers.ACTIONS:
        operator_timers.operate_timer(turn, operated)
    elif whole is None:
        _STEPWISE[operated.action](turn, operated.step)
    elif operated.step is None:
        whole(turn)
    else:
        raise turn.refused(f"{operated.action} concerns the whole instance; leave the step out")


def note(turn: Turn, operated: Operated) -> None:
    """Record who wants what, and why."""
    turn.record(
        "operator_acted",
        operated.step or (operated.timer or "").rpartition("/")[0] or None,
        action=operated.action.value,
        timer=operated.timer,
        actor=operated.actor,
        reason=operated.reason,
        request_id=operated.request_id,
    )


# -- the whole instance


def _cancel(turn: Turn) -> None:
    if turn.phase is Phase.COMPENSATING:
        raise turn.refused("it is being compensated already")
    if turn.phase.ended:
        raise turn.refused(f"it is {turn.phase}, and what has ended is not cancelled")
    if (pivot := pivot_of(turn)) is not None:
        raise turn.refused(f"its pivot {pivot} was sent, and from there on nothing is undone")
    turn.attention.pop("method_raised", None)
    turn.record("cancelled")
    turn_back(turn, "cancelled")


def _pause(turn: Turn) -> None:
    if turn.phase.ended:
        raise turn.refused(f"it is {turn.phase}; there is nothing left to pause")
    if turn.paused:
        raise turn.refused("it is paused already")
    turn.paused = True
    turn.record("paused")


def _resume(turn: Turn) -> None:
    if not turn.paused:
        raise turn.refused("it is not paused; retry makes a parked instance go on")
    turn.paused = False
    turn.attention.pop("messages_held", None)
    turn.record("resumed")
    go_on(turn)


_WHOLE: Mapping[Action, Callable[[Turn], None]] = {
    Action.CANCEL: _cancel,
    Action.PAUSE: _pause,
    Action.RESUME: _resume,
}


# -- one step


def _retry(turn: Turn, step: str | None) -> None:
    _refuse_paused(turn)
    raised = turn.attention.pop("method_raised", None)
    if raised is not None and step is None:
        turn.record("resumed")
        _ask_again(turn)
        go_on(turn)
        return
    path = _chosen(turn, step, "retry", _retriable(turn, guess=step is None))
    progress = turn.steps[path]
    if progress.undo is not None and progress.undo.status is CallStatus.BLOCKED:
        _retry_blocked(turn, path, progress.undo)
    else:
        _send_now(turn, path, progress)
    note_blocked(turn)
    note_exhausted(turn)
    go_on(turn)


def _ask_again(turn: Turn) -> None:
    """Send once more whatever waits for its reply: that may be the dead letter, and would not come by itself."""
    for path, step in list(turn.steps.items()):
        if step.do.status is CallStatus.PENDING or (step.undo and step.undo.status is CallStatus.PENDING):
            _send_now(turn, path, step)
    note_exhausted(turn)


def _retry_blocked(turn: Turn, path: str, undo: CallProgress) -> None:
    """An undo that was never built is built; one that has failed for good begins a new generation."""
    if not undo.spent:
        turn.steps[path] = replace(turn.steps[path], undo=None)
        send_undo(turn, path)
        return
    call = _undo_of(turn, path)
    anew = CallProgress(
        status=CallStatus.PENDING, generation=undo.generation + 1, earlier=(*undo.earlier, undo.attempt)
    )
    turn.send(path, call, anew, reply_wait(call, 1))


def _send_now(turn: Turn, path: str, step: StepProgress) -> None:
    """The open command of a step, without waiting for its timer."""
    call, progress = (
        (_undo_of(turn, path), step.undo)
        if step.undo is not None and step.undo.status.open
        else (turn.step(path).do, step.do)
    )
    if progress.status is CallStatus.WAITING:
        next_attempt(turn, path, call, progress)
    else:
        again(turn, path, call, progress, reply_wait(call, progress.sends + 1))


def _skip(turn: Turn, step: str | None) -> None:
    _refuse_paused(turn)
    silent = [each.name for each in unannounced(turn)]
    path = _chosen(turn, step, "skip", [*_unfinished_undos(turn), *_unfinished_steps(turn), *pauses(turn), *silent])
    if path in _resting(turn):
        wake(turn, path)
        return
    if path in silent:
        leave_unannounced(turn, path)
        _dealt_with(turn)
        return
    skipped = turn.record("step_skipped", path)
    if path in _waiting(turn):
        end_pause(turn, path, SKIPPED)
    elif path in _unfinished_undos(turn):
        _end_undo(turn, path, CallStatus.SKIPPED, skipped)
    elif path in turn.steps:
        turn.close(path, Purpose.DO, CallStatus.SKIPPED, skipped)
        settled(turn, path)
    else:
        never = CallProgress(status=CallStatus.SKIPPED, sends=0, spent=0, dispatched=skipped, ended=skipped)
        turn.steps[path] = StepProgress(do=never)
    _dealt_with(turn)


def _resolve(turn: Turn, step: str | None) -> None:
    _refuse_paused(turn)
    path = _chosen(turn, step, "resolve", [*_unfinished_undos(turn), *orphaned(turn)])
    if path in orphaned(turn):
        turn.record("effect_resolved", path)
        note_orphans(turn, [other for other in orphaned(turn) if other != path])
        return
    _end_undo(turn, path, CallStatus.SUCCEEDED, turn.record("step_compensated", path, by="operator"))
    _dealt_with(turn)


def _undo(turn: Turn, step: str | None) -> None:
    _refuse_paused(turn)
    path = _chosen(turn, step, "undo", orphaned(turn))
    if turn.step(path).undo is None:
        raise turn.refused(f"step {path} has no compensation; undo it by hand, then resolve it")
    note_orphans(turn, [other for other in orphaned(turn) if other != path])
    turn.close(path, Purpose.DO, CallStatus.SUCCEEDED, turn.seq)
    send_undo(turn, path)


_STEPWISE: Mapping[Action, Callable[[Turn, str | None], None]] = {
    Action.RETRY: _retry,
    Action.SKIP: _skip,
    Action.RESOLVE: _resolve,
    Action.UNDO: _undo,
}


def _refuse_paused(turn: Turn) -> None:
    if turn.paused:
        raise turn.refused("it is paused; resume it first")


def _chosen(turn: Turn, step: str | None, action: str, possible: Iterable[str]) -> str:
    paths = list(dict.fromkeys(possible))
    if step is None and len(paths) == 1:
        return paths[0]
    if step in paths:
        return step
    if not paths:
        raise turn.refused(f"there is nothing to {action}; antiphon sagas show tells where it stands")
    named = ", ".join(paths)
    if step is None:
        raise turn.refused(f"say which step to {action}: {named}")
    raise turn.refused(f"step {step!r} cannot be {_DONE[action]} now; possible: {named}")


_DONE = {"retry": "retried", "skip": "skipped", "resolve": "resolved", "undo": "undone"}


def _retriable(turn: Turn, *, guess: bool) -> list[str]:
    """What stands still, and whatever else is open; to guess what is meant, the gravest of it only."""
    blocked = [path for path in turn.steps if _status(turn, path) is CallStatus.BLOCKED]
    spent = [
        path
        for path, step in turn.steps.items()
        if step.undo is not None and exhausted(step.undo, _undo_of(turn, path).retry)
    ]
    unanswered = [path for path, step in turn.steps.items() if step.do.status.open or _open(step.undo)]
    return (blocked or spent or unanswered) if guess else [*blocked, *spent, *unanswered]


def _unfinished_undos(turn: Turn) -> list[str]:
    """Undos that are open, blocked, or due and not sent because the instance stands still."""
    begun = [path for path in turn.steps if _status(turn, path) in _UNFINISHED]
    return begun + [path for path in due(turn) if path not in begun]


def _unfinished_steps(turn: Turn) -> list[str]:
    """Steps that are open, or cannot be entered because the instance stands still."""
    begun = [path for path, step in turn.steps.items() if step.do.status.open]
    return [*begun, *ready(turn), *next_items(turn)] if turn.phase is Phase.RUNNING else begun


def _resting(turn: Turn) -> list[str]:
    return [path for path in pauses(turn) if turn.choices[path] == RESTING]


def _waiting(turn: Turn) -> list[str]:
    return [path for path in pauses(turn) if turn.choices[path] == WAITING]


_UNFINISHED = (CallStatus.PENDING, CallStatus.WAITING, CallStatus.BLOCKED)


def _status(turn: Turn, path: str) -> CallStatus | None:
    undo = turn.steps[path].undo
    return None if undo is None else undo.status


def _open(progress: CallProgress | None) -> bool:
    return progress is not None and progress.status.open


def _undo_of(turn: Turn, path: str) -> Call:
    call = turn.step(path).undo
    if call is None:
        raise LookupError(f"{path} has no compensation")
    return call


def _end_undo(turn: Turn, path: str, status: CallStatus, ended: int) -> None:
    if turn.steps[path].undo is None:
        never = CallProgress(status=status, sends=0, spent=0)
        turn.put(path, Purpose.UNDO, never)
    turn.close(path, Purpose.UNDO, status, ended)


def _dealt_with(turn: Turn) -> None:
    """A step has ended by an operator's word: it is counted, what it stood in the way of goes on."""
    turn.skipped += 1
    turn.attention.pop("method_raised", None)
    note_blocked(turn)
    note_exhausted(turn)
    go_on(turn)
