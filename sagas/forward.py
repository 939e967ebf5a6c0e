"""The way forward: which steps of the flow may be entered now, and when the flow is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages.errors import MethodRaised
from sagas.definition import Purpose, SequenceNode
from sagas.instance import CallProgress, CallStatus, Phase
from sagas.waits import reply_wait

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sagas.definition import Node
    from sagas.instance import StepProgress
    from sagas.turn import Turn


_DONE = (CallStatus.SUCCEEDED, CallStatus.SKIPPED)


def advance(turn: Turn) -> None:
    """Enter every step that may be entered, until the flow waits for a reply or is done.

    A command that cannot be built parks the instance at its step; what was decided before stands.
    """
    if turn.halted or turn.phase is not Phase.RUNNING:
        return
    try:
        while paths := list(ready(turn.definition.flow, turn.steps)):
            for path in paths:
                _enter(turn, path)
    except MethodRaised as error:
        turn.park("method_raised", str(error))
    else:
        if finished(turn.definition.flow, turn.steps):
            turn.end(Phase.COMPLETED, "completed")


def ready(node: Node, steps: Mapping[str, StepProgress]) -> Iterator[str]:
    """The paths of the flow that may be entered and have not been."""
    if isinstance(node, SequenceNode):
        for child in node.children:
            if not finished(child, steps):
                yield from ready(child, steps)
                return
    elif node.step not in steps:
        yield node.step


def finished(node: Node, steps: Mapping[str, StepProgress]) -> bool:
    """Whether everything in this part of the flow has succeeded, or was skipped by an operator."""
    if isinstance(node, SequenceNode):
        return all(finished(child, steps) for child in node.children)
    entered = steps.get(node.step)
    return entered is not None and entered.do.status in _DONE


def _enter(turn: Turn, path: str) -> None:
    call = turn.step(path).do
    progress = CallProgress(status=CallStatus.PENDING)
    turn.send(path, call, progress, reply_wait(call, 1))
    if not call.replies:
        turn.close(path, Purpose.DO, CallStatus.SUCCEEDED, turn.record("step_completed", path))
