"""What a reply changes: which command it answers, and the table of what each kind does to a step that stands where it
stands (design: section 4, rules 5, 7, 10, 12 and 13).

The first committed definitive reply decides. One that contradicts, repeats or comes from a superseded attempt changes
nothing. A late success keeps its data, and its effect is undone, covered by an undo under way, or shown to people.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from messages.value import value
from sagas.backward import exhausted, fail, stop_retrying
from sagas.definition import Purpose, ReplyKind
from sagas.doubts import DOUBTS, doubted
from sagas.forward import go_on
from sagas.instance import CallStatus, Phase, message_id
from sagas.names import step_name, timer_name
from sagas.recalling import why_failed
from sagas.scopes import given_up, must_succeed
from sagas.waits import backoff_wait, reply_wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sagas.definition import Call, Definition, Reply
    from sagas.instance import CallProgress, Instance
    from sagas.outcome import Arrived
    from sagas.turn import Turn


HEARD = "heard"
"""Below the timer of a command: which of several replies that are needed have come."""


@value
class Target:
    """The attempt of a command that a reply answers."""

    path: str
    purpose: Purpose
    generation: int
    attempt: int


def find_target(definition: Definition, instance: Instance, arrived: Arrived) -> Target | None:
    """The attempt that this reply answers.

    With `causation_id`, the attempt that has that id. Without it, the one command that awaits such a reply, if it is
    the only one.
    """
    asked = _asked(definition, instance, arrived.name)
    if arrived.causation_id is not None:
        saga = instance.saga_id
        for path, purpose, progress in asked:
            for generation, attempt in _attempts(progress):
                if message_id(saga, path, generation, attempt, purpose) == arrived.causation_id:
                    return Target(path=path, purpose=purpose, generation=generation, attempt=attempt)
        return None
    awaiting = [each for each in asked if each[2].status.open]
    if len(awaiting) != 1:
        return None
    [(path, purpose, progress)] = awaiting
    return Target(path=path, purpose=purpose, generation=progress.generation, attempt=progress.attempt)


def _asked(definition: Definition, instance: Instance, name: str) -> list[tuple[str, Purpose, CallProgress]]:
    """The commands that were sent and declare this reply, in the order of the steps."""
    declared = definition.answers.get(name, ())
    return [
        (path, purpose, progress)
        for path, sent in instance.steps.items()
        for step, purpose in declared
        if step == step_name(path) and (progress := sent.call(purpose)) is not None
    ]


def _attempts(progress: CallProgress) -> Iterator[tuple[int, int]]:
    """Every attempt ever made of a command, as generation and attempt, the latest first."""
    yield progress.generation, progress.attempt
    for attempt in range(progress.attempt - 1, 0, -1):
        yield progress.generation, attempt
    for generation in range(len(progress.earlier), 0, -1):
        for attempt in range(progress.earlier[generation - 1], 0, -1):
            yield generation, attempt


def apply_reply(turn: Turn, arrived: Arrived, target: Target) -> str | None:
    """Apply a reply to the command it answers. Returns why it was ignored, or None.

    Raises:
        MethodRaised: its hook raised; the turn must be thrown away.
    """
    call = turn.step(target.path).call(target.purpose)
    if call is None:
        return "unknown_command"
    reply = call.replies[arrived.name]
    if target.purpose is Purpose.DO:
        return _answer_do(turn, arrived, target, call, reply)
    return _answer_undo(turn, arrived, target, call, reply)


# -- the command that does a step


def _answer_do(turn: Turn, arrived: Arrived, target: Target, call: Call, reply: Reply) -> str | None:
    do = turn.steps[target.path].do
    if not do.status.open:
        return _answer_closed_do(turn, arrived, target, reply)
    match reply.kind:
        case ReplyKind.SUCCESS if call.needed and not _is_enough(turn, arrived, target, call):
            return _hear_part(turn, arrived, target, call, reply)
        case ReplyKind.SUCCESS:
            _succeed(turn, arrived, target.path, reply)
        case ReplyKind.HEARTBEAT:
            return _hear_heartbeat(turn, arrived, target, call, reply)
        case ReplyKind.FAILURE:
            _fail(turn, arrived, target.path, reply)
        case ReplyKind.TRANSIENT:
            if not _is_current(turn, target):
                return "superseded"
            _retry_do(turn, arrived, target.path, call, reply)
    return None


def _succeed(turn: Turn, arrived: Arrived, path: str, reply: Reply) -> None:
    turn.run_hook(reply.hook, arrived.event, path=path)
    turn.record("reply_received", path, message=arrived, body=arrived.body, reply=reply.kind.value)
    turn.close(path, Purpose.DO, CallStatus.SUCCEEDED, turn.record("step_completed", path))
    settled(turn, path)
    go_on(turn)


def _fail(turn: Turn, arrived: Arrived, path: str, reply: Reply, *, late: bool | None = None) -> None:
    turn.run_hook(reply.hook, arrived.event, path=path)
    turn.record("reply_received", path, message=arrived, body=arrived.body, reply=reply.kind.value, late=late)
    ended = turn.record("step_failed", path, reason=arrived.name)
    reason = why_failed(turn, path) if turn.definition.children else "failed"
    turn.close(path, Purpose.DO, CallStatus.FAILED, ended)
    settled(turn, path)
    _back(turn, path, reason)


def _retry_do(turn: Turn, arrived: Arrived, path: str, call: Call, reply: Reply) -> None:
    turn.run_hook(reply.hook, arrived.event, path=path)
    turn.record("reply_transient", path, message=arrived, body=arrived.body)
    do = turn.steps[path].do
    forward = turn.phase is Phase.RUNNING and path not in given_up(turn)
    if forward and (do.spent < call.retry.attempts or must_succeed(turn, path)):
        if do.spent >= call.retry.attempts:
            note_doubts(turn, [*doubted(turn), path])
        _pause(turn, path, call)
    else:
        stop_retrying(turn, path)
        settled(turn, path)
        _back(turn, path)


def _back(turn: Turn, path: str, reason: str = "failed") -> None:
    fail(turn, path, reason)
    go_on(turn)


def settled(turn: Turn, path: str) -> None:
    """A step that was in doubt and awaited is awaited no longer."""
    note_doubts(turn, [other for other in doubted(turn) if other != path])


def note_doubts(turn: Turn, paths: Iterable[str]) -> None:
    """Tell people of the steps that are sent until they are answered; none: the cause is gone."""
    _tell_of(turn, "in_doubt", DOUBTS, paths)


def _answer_closed_do(turn: Turn, arrived: Arrived, target: Target, reply: Reply) -> str | None:
    if reply.kind is ReplyKind.HEARTBEAT:
        return "superseded"
    step = turn.steps[target.path]
    undo_sent = step.undo is not None and step.undo.spent > 0
    if reply.kind is ReplyKind.SUCCESS and step.do.status is not CallStatus.SUCCEEDED:
        _late_success(turn, arrived, target.path, reply, undo_sent=undo_sent)
        return None
    if reply.kind is ReplyKind.FAILURE and step.do.status is CallStatus.IN_DOUBT and not undo_sent:
        turn.steps[target.path] = replace(step, undo=None)
        note_blocked(turn)
        _fail(turn, arrived, target.path, reply, late=True)
        return None
    if step.do.status is CallStatus.SKIPPED:
        return "skipped"
    return "already_answered" if reply.kind is _said(step.do.status) else "contradicts"


def _said(status: CallStatus) -> ReplyKind | None:
    return {CallStatus.SUCCEEDED: ReplyKind.SUCCESS, CallStatus.FAILED: ReplyKind.FAILURE}.get(status)


def _late_success(turn: Turn, arrived: Arrived, path: str, reply: Reply, *, undo_sent: bool) -> None:
    turn.run_hook(reply.hook, arrived.event, path=path)
    seq = turn.record("late_success", path, message=arrived, body=arrived.body)
    if undo_sent:
        return  # the participant's tombstone covers it
    skipped = turn.steps[path].do.status is CallStatus.SKIPPED
    if path in given_up(turn) and turn.step(path).undo is not None:
        turn.steps[path] = replace(turn.steps[path], undo=None)
        note_blocked(turn)
        turn.close(path, Purpose.DO, CallStatus.SUCCEEDED, seq)
        go_on(turn)
    elif skipped and turn.phase in (Phase.RUNNING, Phase.COMPLETED):
        turn.close(path, Purpose.DO, CallStatus.SUCCEEDED, seq)  # what the flow went on without has come after all
    else:
        orphans = [*orphaned(turn), path]
        note_orphans(turn, orphans)


# -- the command that undoes a step


def _answer_undo(turn: Turn, arrived: Arrived, target: Target, call: Call, reply: Reply) -> str | None:
    undo = turn.steps[target.path].undo
    if undo is None or not undo.status.open:
        if undo is not None and undo.status is CallStatus.SKIPPED:
            return "skipped"
        said = None if undo is None else _said(undo.status)
        return "already_answered" if reply.kind is said else "contradicts"
    if reply.kind is ReplyKind.TRANSIENT and not _is_current(turn, target):
        return "superseded"
    if reply.kind is ReplyKind.HEARTBEAT:
        return _hear_heartbeat(turn, arrived, target, call, reply)
    if reply.kind is ReplyKind.SUCCESS and call.needed and not _is_enough(turn, arrived, target, call):
        return _hear_part(turn, arrived, target, call, reply)
    turn.run_hook(reply.hook, arrived.event, path=target.path)
    kind = "reply_transient" if reply.kind is ReplyKind.TRANSIENT else "reply_received"
    turn.record(kind, target.path, message=arrived, body=arrived.body, reply=reply.kind.value)
    match reply.kind:
        case ReplyKind.SUCCESS:
            _undone(turn, target.path)
        case ReplyKind.FAILURE:
            _undo_failed(turn, target.path, call, arrived)
        case ReplyKind.TRANSIENT:
            _pause(turn, target.path, call)
            note_exhausted(turn)
    return None


def _undone(turn: Turn, path: str) -> None:
    turn.close(path, Purpose.UNDO, CallStatus.SUCCEEDED, turn.record("step_compensated", path))
    note_exhausted(turn)
    go_on(turn)


def _undo_failed(turn: Turn, path: str, call: Call, arrived: Arrived) -> None:
    ended = turn.record("compensation_failed", path, reason=arrived.name)
    turn.close(path, Purpose.UNDO, CallStatus.BLOCKED, ended)
    note_exhausted(turn)
    turn.park("compensation_failed", f"{turn.method_name(call.build)} of step {path} was answered {arrived.name}", path)


def note_exhausted(turn: Turn) -> None:
    """Tell people of the undos that go on although their attempts are used up; un-park when there is none left."""
    paths = [
        path
        for path, step in turn.steps.items()
        if step.undo is not None and (call := turn.step(path).undo) is not None and exhausted(step.undo, call.retry)
    ]
    if paths:
        turn.park("compensation_exhausted", f"no success yet from the compensation of {', '.join(paths)}", paths[0])
    else:
        turn.attention.pop("compensation_exhausted", None)


def note_blocked(turn: Turn) -> None:
    """Un-park when no undo is left that waits for the reply of its step, and none that has failed."""
    blocked = [
        step.undo for step in turn.steps.values() if step.undo is not None and step.undo.status is CallStatus.BLOCKED
    ]
    if all(undo.spent for undo in blocked):
        turn.attention.pop("undo_needs_reply", None)
    if not any(undo.spent for undo in blocked):
        turn.attention.pop("compensation_failed", None)


def orphaned(turn: Turn) -> list[str]:
    """The steps with an effect that nothing would take back."""
    detail = turn.attention.get("orphaned_effect", "")
    return detail.removeprefix(_ORPHANS).split(", ") if detail else []


def note_orphans(turn: Turn, paths: Iterable[str]) -> None:
    """Tell people of the steps that succeeded when nothing would undo them any more; none: the cause is gone."""
    _tell_of(turn, "orphaned_effect", _ORPHANS, paths)


_ORPHANS = "succeeded late, and nothing will undo it: "


# -- both


def _hear_heartbeat(turn: Turn, arrived: Arrived, target: Target, call: Call, reply: Reply) -> str | None:
    """Whoever has the command is at work: the timeout begins anew, and the marker of the one before is stale."""
    if not _is_current(turn, target):
        return "superseded"
    turn.run_hook(reply.hook, arrived.event, path=target.path)
    turn.record("heartbeat", target.path, message=arrived, body=arrived.body)
    _await_anew(turn, target, call)
    return None


def _hear_part(turn: Turn, arrived: Arrived, target: Target, call: Call, reply: Reply) -> str | None:
    """One of several replies that are needed has come."""
    heard = _heard(turn, target)
    if arrived.name in heard:
        return "already_answered"
    turn.run_hook(reply.hook, arrived.event, path=target.path)
    turn.record("reply_received", target.path, message=arrived, body=arrived.body, reply=reply.kind.value, part=True)
    turn.choices[f"{timer_name(target.path, target.purpose)}/{HEARD}"] = ",".join((*heard, arrived.name))
    if turn.progress(target.path, target.purpose).status is CallStatus.PENDING:
        _await_anew(turn, target, call)
    return None


def _is_enough(turn: Turn, arrived: Arrived, target: Target, call: Call) -> bool:
    return call.needed <= {arrived.name, *_heard(turn, target)}


def _heard(turn: Turn, target: Target) -> tuple[str, ...]:
    heard = turn.choices.get(f"{timer_name(target.path, target.purpose)}/{HEARD}", "")
    return tuple(heard.split(",")) if heard else ()


def _await_anew(turn: Turn, target: Target, call: Call) -> None:
    name = timer_name(target.path, target.purpose)
    turn.choices[name] = turn.now.isoformat()
    turn.set_timer(name, reply_wait(call, turn.progress(target.path, target.purpose).sends))


def _tell_of(turn: Turn, reason: str, text: str, paths: Iterable[str]) -> None:
    if named := list(dict.fromkeys(paths)):
        turn.attention[reason] = text + ", ".join(named)
    else:
        turn.attention.pop(reason, None)


def _is_current(turn: Turn, target: Target) -> bool:
    progress = turn.progress(target.path, target.purpose)
    latest = (target.generation, target.attempt) == (progress.generation, progress.attempt)
    return latest and progress.status is CallStatus.PENDING


def _pause(turn: Turn, path: str, call: Call) -> None:
    """Wait before the next attempt."""
    progress = replace(turn.progress(path, call.purpose), status=CallStatus.WAITING)
    turn.put(path, call.purpose, progress)
    upcoming = message_id(turn.before.saga_id, path, progress.generation, progress.attempt + 1, call.purpose)
    wait = call.retry.cap if exhausted(progress, call.retry) else backoff_wait(call.retry, progress.attempt, upcoming)
    turn.set_timer(timer_name(path, call.purpose), wait)
