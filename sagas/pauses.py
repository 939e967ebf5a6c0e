"""Rests, waits and states: where the flow stands still until a moment comes, or an event.

How far each is, is kept at its path in the choices of the instance; while a wait is under way the moment at which it
times out is kept below that, and how often each of its notices was sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagas.definition import Purpose
from sagas.instance import RESTED, RESTING, WAITING, idempotency_key, message_id
from sagas.names import moved_at, sleep_timer, step_name
from sagas.outcome import Send

if TYPE_CHECKING:
    from sagas.definition import LifecycleNode, Notice
    from sagas.turn import Turn

TIMEOUT = "timeout"

ENTRY, OPEN = "entry", "open"
"""Below the path of a lifecycle: the number of its entry into a state, and the same once events are taken in it."""


def begin_rest(turn: Turn, path: str) -> None:
    """The flow has come to a rest.

    Raises:
        MethodRaised: how long it is cannot be said.
    """
    until = turn.rest(turn.definition.sleeps[step_name(path)])
    if until <= turn.now:
        turn.choices[path] = RESTED
        turn.record("rested", path, until=until.isoformat())
    else:
        turn.choices[path] = RESTING
        turn.record("rest_began", path, timer=sleep_timer(path), until=until.isoformat())
        turn.set_timer(sleep_timer(path), until - turn.now)


def begin_wait(turn: Turn, path: str) -> None:
    """The flow has come to a wait."""
    wait = turn.definition.waits[step_name(path)]
    turn.choices[path] = WAITING
    until = None if wait.timeout is None else turn.now + wait.timeout
    turn.record("wait_began", path, until=None if until is None else until.isoformat())
    if wait.timeout is not None and until is not None:
        turn.choices[f"{path}/{TIMEOUT}"] = until.isoformat()
        turn.set_timer(f"{path}/{TIMEOUT}", wait.timeout)
    for name, notice in wait.notices.items():
        turn.set_timer(f"{path}/{name}", notice.after)


def wait_entry(turn: Turn, path: str) -> str:
    """What names the timeout of a wait that is under way, so that the marker of another one changes nothing."""
    return turn.choices.get(f"{path}/{TIMEOUT}", "")


def end_pause(turn: Turn, path: str, state: str) -> None:
    """End a rest or wait in that state: its timers go, and nobody is reminded any more."""
    turn.choices[path] = state
    for kept in (turn.timers, turn.choices):
        for name in [name for name in kept if name.rpartition("/")[0] == path]:
            del kept[name]


def open_state(turn: Turn, node: LifecycleNode) -> None:
    """What is done on entering a state is done: events are taken in it, and its time runs."""
    state = turn.choices[node.path]
    turn.choices[f"{node.path}/{OPEN}"] = turn.choices[f"{node.path}/{ENTRY}"]
    turn.record("state_opened", node.path, state=state)
    for way in turn.definition.ways.values():
        if way.after is not None and state in way.states:
            turn.set_timer(f"{node.path}/{way.name}", way.after)


def close_state(turn: Turn, node: LifecycleNode) -> None:
    """No event is taken any more, and no time runs."""
    turn.choices.pop(f"{node.path}/{OPEN}", None)
    for name in [name for name in turn.timers if name.rpartition("/")[0] == node.path]:
        del turn.timers[name]
        turn.choices.pop(moved_at(name), None)


def notify(turn: Turn, path: str, name: str) -> None:
    """Send the reminder or escalation of a wait that is due, and see to the next one.

    Raises:
        MethodRaised: the command cannot be built; the turn must be thrown away and the instance parked.
    """
    notice = turn.definition.waits[step_name(path)].notices[name]
    n = int(turn.choices.get(f"{path}/{name}", "0")) + 1
    due_at = turn.timers.pop(f"{path}/{name}").due_at
    turn.choices[f"{path}/{name}"] = str(n)
    _send(turn, path, notice, n)
    if notice.every is not None:
        late = (turn.now - due_at) % notice.every  # so that "every morning" stays in the morning
        turn.set_timer(f"{path}/{name}", notice.every - late)


def _send(turn: Turn, path: str, notice: Notice, n: int) -> None:
    """Send the n-th of the commands by which a wait makes itself heard.

    Raises:
        MethodRaised: the command cannot be built; nothing was changed.
    """
    call, saga, of = notice.call, turn.before.saga_id, f"{path}/{notice.call.name}"
    send = Send(
        message_id=message_id(saga, of, n, 1, Purpose.DO),
        name=call.command.message_name,
        schema_version=call.command.schema_version,
        path=of,
        body=turn.built(call.build, call.command),
        idempotency_key=idempotency_key(saga, of, n, Purpose.DO),
        causation_id=turn.causation_id,
    )
    turn.sends.append(send)
    kind = "reminded" if notice.kind == "reminder" else "escalated"
    turn.record(kind, path, message=send, body=send.body, notice=call.name, causation_id=send.causation_id)
