"""What an event changes that answers no command: it ends a wait, is a signal, or turns the instance back.

It may come before the instance has come to it, or too late. What becomes of it then the class has said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages.value import value
from sagas.backward import fail, turn_back
from sagas.definition import (
    AlternativeNode,
    ChoiceNode,
    LifecycleNode,
    LoopNode,
    ReplyKind,
    Unfit,
    WaitNode,
    children_of,
    pauses_in,
)
from sagas.forward import enter_state, finished, go_on
from sagas.instance import ANSWERED, EXPIRED, REFUSED, TIMED_OUT, WAITING, Phase
from sagas.names import step_name
from sagas.pauses import OPEN, end_pause
from sagas.scopes import current_branches, failed_branches, pivot_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sagas.definition import Heard, Node
    from sagas.instance import Instance
    from sagas.outcome import Arrived
    from sagas.turn import Turn

KEPT = "kept/early"
"""Where an instance notes how many events are kept for it, because they came before it had come to them."""

MOST_KEPT = 100
"""So many are kept for an instance at most."""


@value
class Misfit:
    """Why an event does not fit, and what becomes of it."""

    reason: str
    policy: Unfit


def hear(turn: Turn, arrived: Arrived, heard: Heard) -> Misfit | None:
    """Apply an event. Returns why it does not fit, or None.

    Raises:
        MethodRaised: its hook raised; the turn must be thrown away.
    """
    if arrived.kept:
        turn.choices = with_one_kept_less(turn.choices)
    misfit = {"wait": _end_wait, "signal": _take_signal, "cancel": _take_cancel, "on": _take_way}[heard.role](
        turn, arrived, heard
    )
    too_many = misfit is not None and misfit.policy is Unfit.KEEP and int(turn.choices.get(KEPT, "0")) >= MOST_KEPT
    return Misfit(reason="too_many_kept", policy=Unfit.DEAD_LETTER) if too_many else misfit


def with_another_kept(choices: Mapping[str, str]) -> Mapping[str, str]:
    """The choices of an instance for which one more event is kept."""
    return {**choices, KEPT: str(int(choices.get(KEPT, "0")) + 1)}


def with_one_kept_less(choices: Mapping[str, str]) -> dict[str, str]:
    """The choices of an instance when an event that was kept for it is met, or is kept no longer."""
    left = int(choices.get(KEPT, "0")) - 1
    others = {path: choice for path, choice in choices.items() if path != KEPT}
    return {**others, KEPT: str(left)} if left > 0 else others


def newly_awaited(before: Instance | None, after: Instance) -> bool:
    """Whether events are kept for an instance, and it has come to a wait that may be for them, or to none any more."""
    if KEPT not in after.choices:
        return False
    if after.phase is not Phase.RUNNING and (before is None or before.phase is Phase.RUNNING):
        return True
    old = before.choices if before is not None else {}
    return any(
        (state == WAITING or path.endswith(f"/{OPEN}")) and old.get(path) != state
        for path, state in after.choices.items()
    )


def _end_wait(turn: Turn, arrived: Arrived, heard: Heard) -> Misfit | None:
    path = _open(turn, heard.name)
    if path is None:
        return _too_early_or_late(turn, heard)
    turn.run_hook(heard.reply.hook, arrived.event)
    refused = heard.reply.kind is ReplyKind.FAILURE
    end_pause(turn, path, REFUSED if refused else ANSWERED)
    turn.record(
        "event_received",
        path,
        message=arrived,
        body=arrived.body,
        reply=heard.reply.kind.value,
        decided_by=_said(arrived, heard.by),
        because=_said(arrived, heard.because),
    )
    if refused:
        fail(turn, path, "failed")
    go_on(turn)
    return None


def _open(turn: Turn, name: str) -> str | None:
    for path, state in turn.choices.items():
        if state == WAITING and step_name(path) == name:
            return path
    return None


def _too_early_or_late(turn: Turn, heard: Heard) -> Misfit:
    if turn.phase is not Phase.RUNNING:
        return Misfit(reason="turned_back" if turn.phase is Phase.COMPENSATING else "ended", policy=Unfit.IGNORE)
    if _may_come_to(turn, turn.definition.flow, heard.name):
        return Misfit(reason="not_awaited_yet", policy=heard.unexpected)
    states = {state for path, state in turn.choices.items() if step_name(path) == heard.name}
    if states & {ANSWERED, REFUSED}:
        return Misfit(reason="already_answered", policy=Unfit.IGNORE)
    return Misfit(reason="too_late" if states & {EXPIRED, TIMED_OUT} else "not_awaited", policy=Unfit.IGNORE)


def _may_come_to(turn: Turn, node: Node, name: str) -> bool:
    """Whether the flow may still come to a wait."""
    match node:
        case WaitNode(path=path):
            return step_name(path) == name and path not in turn.choices
        case ChoiceNode() if node.path not in turn.choices:
            return any(_holds(child, name) for child in children_of(node))
        case AlternativeNode(children=children):
            current, *later = children[failed_branches(turn, node) :]
            return _may_come_to(turn, current, name) or any(_holds(child, name) for child in later)
        case LoopNode() | LifecycleNode() if not finished(turn, node):
            return _holds(node, name)
    return any(_may_come_to(turn, child, name) for child in current_branches(turn, node))


def _holds(node: Node, name: str) -> bool:
    return any(step_name(pause.path) == name for pause in pauses_in(node))


def _take_way(turn: Turn, arrived: Arrived, heard: Heard) -> Misfit | None:
    node = turn.definition.lifecycle
    if turn.phase is not Phase.RUNNING or node is None or finished(turn, node):
        return Misfit(reason="turned_back" if turn.phase is Phase.COMPENSATING else "ended", policy=Unfit.IGNORE)
    if f"{node.path}/{OPEN}" not in turn.choices:
        return Misfit(reason="not_awaited_yet", policy=Unfit.KEEP)
    state = turn.choices[node.path]
    if state not in heard.ways:
        return Misfit(reason=f"not_in_state_{state}", policy=heard.unexpected)
    way = turn.definition.ways[heard.ways[state]]
    target = turn.run_hook(way.take, arrived.event, way=way)
    turn.record("event_received", node.path, message=arrived, body=arrived.body, state=state, way=way.name)
    lead(turn, node, target)
    return None


def lead(turn: Turn, node: LifecycleNode, target: str | None) -> None:
    """Go where a way leads to; None: stay."""
    if target is not None:
        enter_state(turn, node, target)
    go_on(turn)


def _said(arrived: Arrived, field: str | None) -> str | None:
    said = None if field is None else getattr(arrived.event, field)
    return None if said is None else str(said)


def _take_signal(turn: Turn, arrived: Arrived, heard: Heard) -> Misfit | None:
    if turn.phase is not Phase.RUNNING:
        return Misfit(reason="ended" if turn.phase.ended else "turned_back", policy=heard.unexpected)
    turn.run_hook(heard.reply.hook, arrived.event)
    turn.record("signal_received", message=arrived, body=arrived.body, signal=heard.name)
    return None


def _take_cancel(turn: Turn, arrived: Arrived, heard: Heard) -> Misfit | None:
    if turn.phase is not Phase.RUNNING:
        return Misfit(reason="ended" if turn.phase.ended else "turned_back", policy=heard.unexpected)
    if pivot_of(turn) is not None:
        return Misfit(reason="behind_the_pivot", policy=heard.unexpected)
    turn.run_hook(heard.reply.hook, arrived.event)
    turn.attention.pop("method_raised", None)
    turn.record("cancelled", message=arrived, body=arrived.body, signal=heard.name)
    turn_back(turn, "cancelled")
    return None


_TAKEN = {"wait": _end_wait, "signal": _take_signal, "cancel": _take_cancel, "on": _take_way}
