"""What silence changes: a timer of the instance is due, or the marker of a last timeout came back (design: section 4,
rules 10 and 11).

A timer resends, starts the next attempt, or, when nothing is left to try, sends a marker through the saga's own queue;
only the marker gives up, because it arrives behind every reply that was queued before it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from sagas.backward import DEADLINE, OVERDUE, fail, turn_back
from sagas.definition import Purpose
from sagas.doubts import doubted
from sagas.forward import go_on
from sagas.heard import lead
from sagas.instance import EXPIRED, RESTED, TIMED_OUT, WAITING, CallStatus, Phase
from sagas.names import SLEEP, moved_at, step_name, timer_name
from sagas.pauses import OPEN, TIMEOUT, end_pause, notify, wait_entry
from sagas.recalling import is_recalled, recall
from sagas.replies import note_doubts, note_exhausted
from sagas.scopes import given_up, must_succeed, pivot_of
from sagas.waits import reply_wait

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sagas.definition import Call, LifecycleNode
    from sagas.instance import CallProgress, Timer
    from sagas.turn import Turn

_MARKER_PATIENCE = timedelta(seconds=30)  # how long the deadline waits for its marker before it sends another
_LONGEST_PATIENCE = timedelta(hours=1)


def fire(turn: Turn, name: str, unsent: Collection[str]) -> None:
    """Act on a timer that is due.

    Raises:
        MethodRaised: the next attempt cannot be built; the turn must be thrown away and the instance parked.
    """
    if name == DEADLINE:
        _ask_to_give_up(turn, DEADLINE, _moved(turn, DEADLINE), _MARKER_PATIENCE, unsent)
    elif name == OVERDUE:
        del turn.timers[OVERDUE]
        turn.record("timer_fired", timer=OVERDUE)
        turn.attention["compensation_overdue"] = "the compensation has not come to its end in time"
    elif name.endswith(f"/{SLEEP}"):
        wake(turn, name.rpartition("/")[0])
    else:
        path, _, what = name.rpartition("/")
        if f"{path}/{OPEN}" in turn.choices:
            _ask_to_give_up(turn, name, _state_entry(turn, path, name), _MARKER_PATIENCE, unsent)
        elif step_name(path) not in turn.definition.waits:
            _fire_call(turn, path, Purpose(what), unsent)
        elif what == TIMEOUT:
            _ask_to_give_up(turn, name, wait_entry(turn, path), _MARKER_PATIENCE, unsent)
        else:
            notify(turn, path, what)


def wake(turn: Turn, path: str) -> None:
    """A rest is over."""
    end_pause(turn, path, RESTED)
    turn.record("rested", path)
    go_on(turn)


def give_up(turn: Turn, timer: str, entry: str) -> str | None:
    """Act on a marker. Returns why it was ignored, or None."""
    if timer == DEADLINE:
        return _strike(turn, entry)
    path, _, purpose = timer.rpartition("/")
    if (node := turn.definition.lifecycle) is not None and path == node.path:
        return _pass(turn, node, purpose, entry)
    if step_name(path) in turn.definition.waits:
        return _expire(turn, path, entry)
    step = turn.steps.get(path)
    stale = purpose != Purpose.DO or step is None or not step.do.status.open or _entry(turn, path, step.do) != entry
    if stale or _awaited_for_ever(turn, path):
        return "stale_marker"
    _doubt(turn, path)
    return None


def _strike(turn: Turn, entry: str) -> str | None:
    if turn.phase is not Phase.RUNNING or entry != _moved(turn, DEADLINE):
        return "stale_marker"
    turn.record("deadline_struck")
    if (pivot := pivot_of(turn)) is None:
        turn_back(turn, "deadline")
    else:
        turn.timers.pop(DEADLINE, None)
        turn.attention["deadline_passed"] = f"it has not ended in time; since the pivot {pivot} nothing is undone"
    return None


def _pass(turn: Turn, node: LifecycleNode, name: str, entry: str) -> str | None:
    """The time of a state is over, and every event that came before is taken."""
    way, timer = turn.definition.ways.get(name), f"{node.path}/{name}"
    if way is None or timer not in turn.timers or _state_entry(turn, node.path, timer) != entry:
        return "stale_marker"
    target = turn.run_hook(way.take, way=way)
    del turn.timers[timer]
    turn.record("time_passed", node.path, state=turn.choices[node.path], way=name)
    lead(turn, node, target)
    return None


def _expire(turn: Turn, path: str, entry: str) -> str | None:
    """Nobody has said anything in time: the default holds, or the wait has failed."""
    if turn.choices.get(path) != WAITING or wait_entry(turn, path) != entry:
        return "stale_marker"
    wait = turn.definition.waits[step_name(path)]
    turn.run_hook(wait.expire)
    end_pause(turn, path, TIMED_OUT if wait.fails else EXPIRED)
    turn.record("wait_timed_out", path, default=None if wait.fails else True)
    if wait.fails:
        fail(turn, path, "timed_out")
    go_on(turn)
    return None


def _doubt(turn: Turn, path: str) -> None:
    """The budget is used up in silence: nobody knows whether the step happened."""
    if turn.step(path).do.child is not None:
        recall(turn, path, "timed_out")
        return
    ended = turn.record("step_timed_out", path)
    if turn.step(path).in_doubt == "wait":
        note_doubts(turn, [*doubted(turn), path])
        turn.set_timer(timer_name(path, Purpose.DO), turn.step(path).do.retry.cap)
    else:
        turn.close(path, Purpose.DO, CallStatus.IN_DOUBT, ended)
    fail(turn, path, "timed_out")
    go_on(turn)


def _fire_call(turn: Turn, path: str, purpose: Purpose, unsent: Collection[str]) -> None:
    call = turn.step(path).call(purpose)
    progress = turn.progress(path, purpose)
    if call is None:
        raise LookupError(f"{path} has no command to {purpose} it")
    if progress.status is CallStatus.WAITING:
        next_attempt(turn, path, call, progress)
    elif turn.current_id(path, purpose) in unsent:
        turn.record("timer_set", path, timer=timer_name(path, purpose), reason="the command is still in the outbox")
        turn.set_timer(timer_name(path, purpose), reply_wait(call, progress.sends))
    elif progress.spent < call.retry.attempts:
        again(turn, path, call, progress, reply_wait(call, progress.sends + 1))
    elif purpose is Purpose.UNDO or _awaited_for_ever(turn, path):
        again(turn, path, call, progress, call.retry.cap)
    elif must_succeed(turn, path):
        note_doubts(turn, [*doubted(turn), path])
        again(turn, path, call, progress, call.retry.cap)
    else:
        wait = reply_wait(call, progress.sends)
        _ask_to_give_up(turn, timer_name(path, purpose), _entry(turn, path, progress), wait, unsent)
    if purpose is Purpose.UNDO:
        note_exhausted(turn)


def _ask_to_give_up(turn: Turn, timer: str, entry: str, patience: timedelta, unsent: Collection[str]) -> None:
    """Send a marker, unless the one sent before still waits for the broker: an outage does not heap them up.

    Nor does a queue that nobody reads: from the third on each is waited for as long as all before it.
    """
    if turn.marker_id(timer, turn.timers[timer].fence) in unsent:
        turn.record(
            "timer_set", timer.rpartition("/")[0] or None, timer=timer, reason="the marker is still in the outbox"
        )
        turn.postpone(timer, patience)
    else:
        asked_at = _asked_at(turn, turn.timers[timer])
        turn.send_marker(timer, entry)
        turn.set_timer(timer, max(patience, min(turn.now - asked_at, _LONGEST_PATIENCE)), asked_at=asked_at)


def _asked_at(turn: Turn, timer: Timer) -> datetime:
    """Since when no marker has come back; one that stood still meanwhile begins anew."""
    stood_still = turn.now - timer.due_at > _MARKER_PATIENCE
    return turn.now if timer.asked_at is None or stood_still else timer.asked_at


def _awaited_for_ever(turn: Turn, path: str) -> bool:
    return path in doubted(turn)


def again(turn: Turn, path: str, call: Call, progress: CallProgress, wait: timedelta) -> None:
    """Send a pending command once more: the same attempt, or the next for participants that swallow repeated ids."""
    forward = turn.phase is Phase.RUNNING and path not in given_up(turn)
    if call.child is not None:
        _ask_child_again(turn, path, call, progress, forward=forward)
        return
    may_attempt = forward or call.purpose is Purpose.UNDO
    if may_attempt and turn.step(path).on_silence == "new_attempt":
        next_attempt(turn, path, call, replace(progress, silent=True))
    else:
        turn.resend(path, call, replace(progress, sends=progress.sends + 1, spent=progress.spent + 1), wait)


def _ask_child_again(turn: Turn, path: str, call: Call, progress: CallProgress, *, forward: bool) -> None:
    """A child that is there takes another start as the same one; where it has ended it answers once more."""
    if is_recalled(turn, path) or not forward:
        recall(turn, path, "turned_back")
    else:
        next_attempt(turn, path, call, progress)


def next_attempt(turn: Turn, path: str, call: Call, progress: CallProgress) -> None:
    """Send the next attempt of a command.

    Raises:
        MethodRaised: it cannot be built.
    """
    upcoming = replace(
        progress, status=CallStatus.PENDING, attempt=progress.attempt + 1, sends=1, spent=progress.spent + 1
    )
    wait = reply_wait(call, 1) if progress.spent < call.retry.attempts else max(call.timeout, call.retry.cap)
    turn.send(path, call, upcoming, wait)


def _entry(turn: Turn, path: str, progress: CallProgress) -> str:
    """What names this wait for a reply: the sends so far, and when there was the last sign of life, or it was moved."""
    timer = timer_name(path, Purpose.DO)
    signs = [sign for sign in (turn.choices.get(timer, ""), _moved(turn, timer)) if sign]
    return "/".join((f"{progress.generation}/{progress.attempt}/{progress.spent}", *signs))


def _state_entry(turn: Turn, path: str, timer: str) -> str:
    """What names the time of a state: its entry, and when an operator moved it."""
    return "/".join(sign for sign in (turn.choices[f"{path}/{OPEN}"], _moved(turn, timer)) if sign)


def _moved(turn: Turn, timer: str) -> str:
    return turn.choices.get(moved_at(timer), "")
