"""The way forward: what the flow has come to, which steps may be entered, and when all of it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages.errors import MethodRaised
from sagas.backward import undo_given_up, undo_next, unresolved
from sagas.definition import (
    AlternativeNode,
    ChoiceNode,
    ParallelNode,
    Purpose,
    SequenceNode,
    SleepNode,
    StepNode,
    WaitNode,
    steps_in,
)
from sagas.instance import DONE, PASSED, CallProgress, CallStatus, Phase
from sagas.pauses import begin_rest, begin_wait
from sagas.scopes import current_branches, failed_branches, first_branches, given_up, settle
from sagas.waits import reply_wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sagas.definition import Node
    from sagas.turn import Turn


def go_on(turn: Turn) -> None:
    """Send whatever may be sent now: undo what was given up, then go forward where the flow does."""
    undo_next(turn)
    _advance(turn)


def _advance(turn: Turn) -> None:
    """Enter every step that may be entered and make every choice come to, until the flow waits or is done.

    A command that cannot be built, or a choice that cannot be made, parks the instance there; what was decided before
    stands.
    """
    if turn.halted or turn.phase is not Phase.RUNNING:
        return
    try:
        while found := list(_frontier(turn, turn.definition.flow)):
            turns = [node for node in found if not isinstance(node, StepNode)]
            for node in turns or found:  # first it is decided where the flow goes, so that steps begin in its order
                match node:
                    case StepNode(step=path):
                        _enter(turn, path)
                    case ChoiceNode():
                        _choose(turn, node)
                    case SleepNode(path=path):
                        begin_rest(turn, path)
                    case WaitNode(path=path):
                        begin_wait(turn, path)
                    case ParallelNode():
                        settle(turn, node, [number for number, _ in _done(turn, node)][: node.first])
                        undo_given_up(turn)
    except MethodRaised as error:
        turn.park("method_raised", str(error))
    else:
        if finished(turn, turn.definition.flow) and not any(unresolved(turn, path) for path in given_up(turn)):
            turn.end(Phase.COMPLETED, "completed")


def ready(turn: Turn) -> Iterator[str]:
    """The paths of the steps that may be entered and have not been."""
    return (node.step for node in _frontier(turn, turn.definition.flow) if isinstance(node, StepNode))


def finished(turn: Turn, node: Node) -> bool:
    """Whether everything in this part of the flow has succeeded, or was skipped by an operator."""
    match node:
        case StepNode(step=path):
            entered = turn.steps.get(path)
            return entered is not None and entered.do.status in DONE
        case SleepNode(path=path) | WaitNode(path=path):
            return turn.choices.get(path) in PASSED
        case SequenceNode(children=children):
            return _first_unfinished(turn, children) is None
        case ChoiceNode() if node.path not in turn.choices:
            return False
        case ParallelNode() if node.first is not None and first_branches(turn, node) is None:
            return False
    return _first_unfinished(turn, current_branches(turn, node)) is None


def _first_unfinished(turn: Turn, nodes: Iterable[Node]) -> Node | None:
    for node in nodes:
        if not finished(turn, node):
            return node
    return None


def _frontier(turn: Turn, node: Node) -> Iterator[StepNode | SleepNode | WaitNode | ChoiceNode | ParallelNode]:
    """What the flow has come to: steps that may be entered, rests, waits, choices, enough that is done."""
    match node:
        case StepNode(step=path):
            if path not in turn.steps:
                yield node
            return
        case SleepNode(path=path) | WaitNode(path=path) | ChoiceNode(path=path):
            due = path not in turn.choices
        case ParallelNode(first=first) if first is not None:
            due = first_branches(turn, node) is None and len(_done(turn, node)) >= first
        case _:
            due = False
    if due:
        yield node  # type: ignore[misc]
    for child in _come_to(turn, node):
        yield from _frontier(turn, child)


def _come_to(turn: Turn, node: Node) -> Iterator[Node]:
    """The parts of a part of the flow in which something may begin."""
    match node:
        case SequenceNode(children=children):
            first = _first_unfinished(turn, children)
            if first is not None:
                yield first
        case AlternativeNode(children=children):
            before = children[: failed_branches(turn, node)]
            if not any(unresolved(turn, path) for child in before for path in steps_in(child)):
                yield from current_branches(turn, node)  # the next one begins when this one is undone
        case _:
            yield from current_branches(turn, node)


def _done(turn: Turn, node: ParallelNode) -> list[tuple[int, Node]]:
    """The branches of a parallel that are done, by number."""
    current = list(current_branches(turn, node))
    return [
        (number, child)
        for number, child in enumerate(node.children)
        if any(child is each for each in current) and finished(turn, child)
    ]


def _choose(turn: Turn, node: ChoiceNode) -> None:
    answer = turn.ask(turn.definition.decisions[node.decision])
    turn.choices[node.path] = answer
    turn.record("decision_made", node.path, answer=answer)


def _enter(turn: Turn, path: str) -> None:
    call = turn.step(path).do
    progress = CallProgress(status=CallStatus.PENDING)
    turn.send(path, call, progress, reply_wait(call, 1))
    if not call.replies:
        turn.close(path, Purpose.DO, CallStatus.SUCCEEDED, turn.record("step_completed", path))
