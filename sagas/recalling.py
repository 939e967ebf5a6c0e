"""What a saga sends to its children: the start, and when it turns back or has waited long enough, the cancel.

A child that is under way then undoes itself, and answers as it ends. Of one that has completed nothing is known here
but its answer: the step is undone like any other. A start that never left the outbox needs no cancel.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from messages import CancelSaga, codec
from messages.errors import MissingKey
from sagas.definition import Purpose
from sagas.instance import CallStatus, idempotency_key, message_id, saga_id
from sagas.names import CHILD, RECALLED, step_name, timer_name
from sagas.outcome import Send
from sagas.scopes import given_up

if TYPE_CHECKING:
    from sagas.definition import Call, Definition
    from sagas.outcome import Decision, HistoryEntry
    from sagas.turn import Turn


def note_child(turn: Turn, path: str, call: Call, body: bytes) -> None:
    """Keep the key of the child that is about to be started: by that it is found when it is to be cancelled.

    Raises:
        MethodRaised: the event has no business key; nothing was changed.
    """
    if call.child is None:
        raise LookupError(f"{path} starts no child")
    try:
        start = call.command.model_validate_json(body)
        key = call.child.keys[start.message_name].of(call.child.type, start)
    except (MissingKey, ValueError) as error:
        raise turn.raised(call.build, error) from error
    turn.choices[f"{timer_name(path, Purpose.DO)}/{CHILD}"] = key


def told_of_child(turn: Turn, child: str, path: str) -> dict[str, str]:
    """What the history tells of a child that is started."""
    return {"child": child, "key": turn.choices[f"{timer_name(path, Purpose.DO)}/{CHILD}"]}


def forget_child(turn: Turn, path: str) -> None:
    """The step has ended: what was kept to cancel its child is needed no more."""
    for kept in (CHILD, RECALLED):
        turn.choices.pop(f"{timer_name(path, Purpose.DO)}/{kept}", None)


def recall_given_up(turn: Turn) -> None:
    """Cancel every child that is under way for what is given up; what may still be in the outbox is withdrawn first."""
    for path in [path for path in given_up(turn) if path in turn.steps]:
        step = turn.steps[path]
        under_way = step.do.status is CallStatus.PENDING and turn.step(path).do.child is not None
        if under_way and not is_recalled(turn, path) and turn.current_id(path, Purpose.DO) not in turn.withdraw:
            recall(turn, path, "turned_back")


def is_recalled(turn: Turn, path: str) -> bool:
    """Whether the child of a step was cancelled."""
    return _recalled(path) in turn.choices


def why_failed(turn: Turn, path: str) -> str:
    """Why a step has failed whose child was compensated."""
    return "timed_out" if turn.choices.get(_recalled(path)) == "timed_out" else "failed"


def recall(turn: Turn, path: str, reason: Literal["turned_back", "timed_out"]) -> None:
    """Cancel the child of a step, and await how it ends."""
    call, generation, timer = turn.step(path).do, turn.steps[path].do.generation, timer_name(path, Purpose.DO)
    if call.child is None:
        raise LookupError(f"{path} starts no child")
    saga = turn.before.saga_id
    started = idempotency_key(saga, path, generation, Purpose.DO)
    cancel = CancelSaga(key=turn.choices[f"{timer}/{CHILD}"], start=started)
    send = Send(
        message_id=message_id(saga, path, generation, turn.seq + 1, "cancel"),
        name=cancel.message_name,
        schema_version=cancel.schema_version,
        path=path,
        body=codec.encode(cancel),
        compensates=started,
        causation_id=turn.causation_id,
        child=call.child.type,
    )
    turn.sends.append(send)
    turn.record("child_cancelled", path, message=send, body=send.body, reason=reason, child=call.child.type)
    turn.timers.pop(timer, None)
    turn.choices.setdefault(_recalled(path), reason)


def _recalled(path: str) -> str:
    return f"{timer_name(path, Purpose.DO)}/{RECALLED}"


def naming_children(definition: Definition, decision: Decision, namespace: str) -> Decision:
    """The same, with the ids of the children that it starts in the history, where they are known beforehand."""
    history = tuple(_naming_child(definition, row, namespace) for row in decision.history)
    return replace(decision, history=history)


def _naming_child(definition: Definition, row: HistoryEntry, namespace: str) -> HistoryEntry:
    child = definition.steps[step_name(row.step)].do.child if "key" in row.detail and row.step else None
    if child is None or child.key_reuse or row.kind not in STARTING:
        return row
    return replace(row, detail={**row.detail, "child_id": str(saga_id(namespace, child.type, row.detail["key"]))})


STARTING = ("command_sent", "command_resent")
"""The kinds of history rows that tell of the start of a child."""
