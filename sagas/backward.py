"""The way back: what has to be undone, in which order, and when everything is (design: section 4, rules 12, 13 and 15).

The set is every step that completed or is in doubt and has an undo: of the whole instance once it has turned back, else
of the branches that were given up. If B was dispatched after A completed, B's undo is confirmed before A's is sent. A
step that is still pending then is awaited: until it is known how it ended, nothing that completed before it was
dispatched is undone.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from messages.errors import MethodRaised
from sagas.definition import Purpose
from sagas.instance import CallProgress, CallStatus, Phase
from sagas.recalling import recall_given_up
from sagas.scopes import given_up, spare, wake_given_up
from sagas.tally import items_at_hand, tally, whole_of, wholes
from sagas.unannounced import UNANNOUNCED, announce_due
from sagas.waits import reply_wait
from sagas.working_off import last_owed, recall, stop, tolerated

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sagas.definition import Retry
    from sagas.turn import Turn

DEADLINE = "deadline"
OVERDUE = "overdue"
_PATIENCE = timedelta(days=1)  # how long a compensation may take before people are told, if the deadline is nearer


def turn_back(turn: Turn, reason: str, path: str | None = None) -> None:
    """Begin compensation: no step starts any more, pending ones are held back or awaited, the rest is undone."""
    turn.phase = Phase.COMPENSATING
    turn.end_reason = reason
    turn.record("compensation_started", path, reason=reason)
    turn.timers.pop(DEADLINE, None)
    turn.set_timer(OVERDUE, max(turn.deadline_at - turn.now, _PATIENCE))
    undo_given_up(turn)


def fail(turn: Turn, path: str, reason: str) -> None:
    """A step or wait has failed: its branch is given up where the flow can do without it, else the whole turns back."""
    if turn.phase is not Phase.RUNNING:
        return
    if (whole := whole_of(turn, path)) != path:
        if not tolerated(turn, whole, reason):
            fail(turn, whole, reason)
        return
    if path in given_up(turn):
        return
    if spare(turn, path):
        undo_given_up(turn)
    else:
        turn_back(turn, reason, path)


def undo_given_up(turn: Turn) -> None:
    """Begin to undo what was given up: what is pending of it is held back or awaited."""
    wake_given_up(turn)
    among = given_up(turn)
    for path in [path for path in wholes(turn) if path in among]:
        stop(turn, path)
    for path in [path for path in among if path in turn.steps]:
        do = turn.steps[path].do
        if do.status is CallStatus.WAITING:
            stop_retrying(turn, path)
        elif do.status is CallStatus.PENDING and do.spent == 1:
            turn.withdraw.append(turn.current_id(path, Purpose.DO))
    undo_next(turn)


def stop_retrying(turn: Turn, path: str) -> None:
    """End a step whose last attempt got a transient reply: it failed, unless an earlier attempt fell silent."""
    silent = turn.steps[path].do.silent
    ended = turn.record("step_timed_out" if silent else "step_failed", path, reason="no attempts left")
    turn.close(path, Purpose.DO, CallStatus.IN_DOUBT if silent else CallStatus.FAILED, ended)


def withdrawn(turn: Turn, message_ids: Collection[str]) -> None:
    """Commands that never left the outbox are gone: their steps were never sent."""
    for path, step in list(turn.steps.items()):
        if step.do.status.open and turn.current_id(path, Purpose.DO) in message_ids:
            ended = turn.record("command_withdrawn", path)
            turn.close(path, Purpose.DO, CallStatus.WITHDRAWN, ended)


def undo_next(turn: Turn) -> None:
    """Send every undo whose turn has come; when the whole has turned back and nothing is left, it is compensated."""
    if UNANNOUNCED in turn.choices:
        announce_due(turn)
    if turn.halted or (turn.phase is not Phase.COMPENSATING and not given_up(turn)):
        return
    if turn.definition.children:
        recall_given_up(turn)
    try:
        _recall(turn)
        while not turn.halted and (paths := list(due(turn))):
            for path in paths:
                if not turn.halted:
                    send_undo(turn, path)
            _recall(turn)
    except MethodRaised as error:
        turn.park("method_raised", str(error))
    else:
        over = turn.phase is Phase.COMPENSATING and not turn.halted
        if over and not any(unresolved(turn, path) for path in given_up(turn)):
            turn.end(Phase.COMPENSATED, "compensated")


def _recall(turn: Turn) -> None:
    """Let the items go that are undone, and fetch back those that are to be undone next."""
    among = given_up(turn) if turn.definition.eaches else ()
    for whole in [path for path in wholes(turn) if path in among]:
        recall(turn, whole, resolved=[item for item in items_at_hand(turn, whole) if not unresolved(turn, item)])


def exhausted(progress: CallProgress, retry: Retry) -> bool:
    """Whether a command goes on being sent although its attempts are used up."""
    waiting = progress.status is CallStatus.WAITING
    return progress.status.open and progress.spent + waiting > retry.attempts


def due(turn: Turn) -> Iterator[str]:
    """The steps whose undo may be sent now, and was not."""
    among = given_up(turn)
    left = [path for path in turn.steps if path in among and unresolved(turn, path)]
    dispatched = (turn.steps[path].do.dispatched for path in left)
    last = max((*dispatched, *(last_owed(turn, path) for path in wholes(turn) if path in among)), default=0)
    for path in left:
        step = turn.steps[path]
        if step.undo is None and _in_set(turn, path) and step.do.ended >= last:  # else a later one is not undone yet
            yield path


def unresolved(turn: Turn, path: str) -> bool:
    """Whether something of a step is still to be awaited or undone; of one that was never entered there is nothing."""
    if path not in turn.steps:
        return path in wholes(turn) and (
            tally(turn, path).owed > 0 or any(unresolved(turn, item) for item in items_at_hand(turn, path))
        )
    step = turn.steps[path]
    undone = step.undo is not None and step.undo.status in (CallStatus.SUCCEEDED, CallStatus.SKIPPED)
    return step.do.status.open or (_in_set(turn, path) and not undone)


def _in_set(turn: Turn, path: str) -> bool:
    do = turn.steps[path].do
    happened = do.status in (CallStatus.SUCCEEDED, CallStatus.IN_DOUBT)
    possible = do.status is CallStatus.SKIPPED and do.spent > 0
    return (happened or possible) and turn.step(path).undo is not None


def send_undo(turn: Turn, path: str) -> None:
    """Send the first undo of a step; one in doubt whose undo needs its reply waits for that, or for an operator.

    Raises:
        MethodRaised: the undo of a step that is not in doubt cannot be built.
    """
    call = turn.step(path).undo
    if call is None:
        raise LookupError(f"{path} has no compensation")
    progress = CallProgress(status=CallStatus.PENDING, generation=turn.steps[path].do.generation)
    try:
        turn.send(path, call, progress, reply_wait(call, 1))
    except MethodRaised as error:
        if turn.steps[path].do.status is not CallStatus.IN_DOUBT:
            raise
        turn.put(path, Purpose.UNDO, CallProgress(status=CallStatus.BLOCKED, sends=0, spent=0))
        turn.park("undo_needs_reply", str(error), path)
        return
    if not call.replies:
        turn.close(path, Purpose.UNDO, CallStatus.SUCCEEDED, turn.record("step_compensated", path))
