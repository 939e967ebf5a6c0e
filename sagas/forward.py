"""The way forward: what the flow has come to, which steps may be entered, and when all of it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages.errors import MethodRaised
from sagas.backward import fail, undo_given_up, undo_next, unresolved
from sagas.definition import (
    AlternativeNode,
    ChoiceNode,
    LifecycleNode,
    LoopNode,
    ParallelNode,
    Purpose,
    SequenceNode,
    SleepNode,
    StepNode,
    WaitNode,
    label,
)
from sagas.instance import DONE, PASSED, CallProgress, CallStatus, Phase
from sagas.pauses import ENTRY, OPEN, begin_rest, begin_wait, close_state, open_state
from sagas.scopes import (
    current_branches,
    failed_branches,
    first_branches,
    forget,
    given_up,
    parts,
    settle,
    steps_within,
    times_in_vain,
)
from sagas.tally import SUCCEEDED, items_at_hand, tally, wholes
from sagas.waits import reply_wait
from sagas.working_off import begin, tend

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sagas.definition import Node
    from sagas.turn import Turn


ENOUGH = "enough"
"""Below the path of a loop: how often its body was done, once that is enough."""


def go_on(turn: Turn) -> None:
    """Send whatever may be sent now: undo what was given up, then go forward where the flow does."""
    undo_next(turn)
    _advance(turn)


def _advance(turn: Turn) -> None:
    """Enter every step that may be entered and make every choice come to, until the flow waits or is done.

    A command that cannot be built, or a choice that cannot be made, parks the instance there; what was decided before
    stands. So it is with an undo or an announcement on the way that cannot be built.
    """
    if turn.halted or turn.phase is not Phase.RUNNING:
        return
    try:
        if turn.definition.eaches:
            _tend(turn)
        while turn.phase is Phase.RUNNING and (found := list(_frontier(turn, turn.definition.flow))):
            turns = [node for node in found if not isinstance(node, StepNode)]
            for node in turns or found:  # first it is decided where the flow goes, so that steps begin in its order
                _arrive(turn, node)
    except MethodRaised as error:
        turn.park("method_raised", str(error))
    else:
        over = turn.phase is Phase.RUNNING and finished(turn, turn.definition.flow)
        if over and not any(unresolved(turn, path) for path in given_up(turn)):
            turn.end(Phase.COMPLETED, "completed")


def _arrive(turn: Turn, node: Node) -> None:
    """Do what is to be done where the flow has come to.

    Raises:
        MethodRaised: it cannot be done, and nothing was.
    """
    match node:
        case StepNode(step=path):
            _enter(turn, path)
        case ChoiceNode():
            _choose(turn, node)
        case SleepNode(path=path):
            begin_rest(turn, path)
        case WaitNode(path=path):
            begin_wait(turn, path)
        case LoopNode():
            _repeat(turn, node)
        case LifecycleNode() if node.path in turn.choices:
            open_state(turn, node)
        case LifecycleNode():
            enter_state(turn, node, node.begins)
        case ParallelNode():
            settle(turn, node, [number for number, _ in _done(turn, node)][: node.first])
            undo_given_up(turn)
            _stop_if_parked(turn)


def ready(turn: Turn) -> Iterator[str]:
    """The paths of the steps that may be entered and have not been."""
    return (node.step for node in _frontier(turn, turn.definition.flow) if isinstance(node, StepNode))


def finished(turn: Turn, node: Node) -> bool:
    """Whether everything in this part of the flow has succeeded, or was skipped by an operator."""
    match node:
        case StepNode(step=path):
            entered = turn.steps.get(path)
            if entered is None and path in turn.choices:
                return tally(turn, path).state == SUCCEEDED
            return entered is not None and entered.do.status in DONE
        case SleepNode(path=path) | WaitNode(path=path):
            return turn.choices.get(path) in PASSED
        case SequenceNode(children=children):
            return _first_unfinished(turn, children) is None
        case ChoiceNode() if node.path not in turn.choices:
            return False
        case ParallelNode() if node.first is not None and first_branches(turn, node) is None:
            return False
        case LoopNode():
            return f"{node.path}/{ENOUGH}" in turn.choices
        case LifecycleNode() if turn.choices.get(node.path) not in node.final:
            return False
    return _first_unfinished(turn, current_branches(turn, node)) is None


def _first_unfinished(turn: Turn, nodes: Iterable[Node]) -> Node | None:
    for node in nodes:
        if not finished(turn, node):
            return node
    return None


def _frontier(turn: Turn, node: Node) -> Iterator[Node]:
    """What the flow has come to: steps that may be entered, rests, waits, choices, what has been done enough."""
    match node:
        case StepNode(step=path):
            if path not in turn.steps and path not in turn.choices:
                yield node
            return
        case SleepNode(path=path) | WaitNode(path=path) | ChoiceNode(path=path):
            due = path not in turn.choices
        case ParallelNode(first=first) if first is not None:
            due = first_branches(turn, node) is None and len(_done(turn, node)) >= first
        case LifecycleNode():
            due = node.path not in turn.choices or _is_entered(turn, node)
        case LoopNode():
            due = finished(turn, parts(turn, node)[-1]) and not finished(turn, node)
        case _:
            due = False
    if due:
        yield node
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
            if not any(unresolved(turn, path) for child in before for path in steps_within(turn, child)):
                yield from current_branches(turn, node)  # the next one begins when this one is undone
        case LoopNode():
            if not finished(turn, node):
                yield parts(turn, node)[-1]
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


def _repeat(turn: Turn, node: LoopNode) -> None:
    """The body of a loop is done once more: that is enough, or it begins again, or it has failed."""
    answer, times = turn.ask(turn.definition.decisions[node.until]), times_in_vain(turn, node) + 1
    turn.record("decision_made", node.path, answer=answer, decision=node.until, times=times)
    if answer == label(True):
        turn.choices[f"{node.path}/{ENOUGH}"] = str(times)
    elif times < node.most:
        done = parts(turn, node)[-1]
        if all(_is_past(turn, path) for path in steps_within(turn, done)):
            forget(turn, done)
        turn.choices[node.path] = str(times)
    else:
        turn.record("loop_exhausted", node.path, times=times)
        fail(turn, node.path, "failed")
        _stop_if_parked(turn)


def enter_state(turn: Turn, node: LifecycleNode, state: str) -> None:
    """The lifecycle is in another state now: what was done in the one before stays done, and is looked at no more."""
    entered = turn.choices.get(f"{node.path}/{ENTRY}")
    forget(turn, parts(turn, node)[0])
    close_state(turn, node)
    turn.choices[node.path] = state
    turn.choices[f"{node.path}/{ENTRY}"] = "0" if entered is None else str(int(entered) + 1)
    turn.record("state_entered", node.path, state=state)


def _is_entered(turn: Turn, node: LifecycleNode) -> bool:
    """Whether what is done on entering the state is done, and events are to be taken in it, and are not yet."""
    [entering] = parts(turn, node)
    awaited = turn.choices[node.path] not in node.final and f"{node.path}/{OPEN}" not in turn.choices
    return awaited and finished(turn, entering) and not any(unresolved(turn, path) for path in given_up(turn))


def _is_past(turn: Turn, path: str) -> bool:
    """Whether nothing of a step will be asked for again, because there is none of it, or it needs no undo."""
    if path not in turn.steps:
        return not (path in wholes(turn) and (tally(turn, path).owed or items_at_hand(turn, path)))
    return turn.steps[path].do.status is CallStatus.SUCCEEDED and turn.step(path).undo is None


def _tend(turn: Turn) -> None:
    """Go on with every step that works off a list and is not given up."""
    among = given_up(turn)
    for path in [path for path in wholes(turn) if path not in among]:
        tend(turn, path)
        _stop_if_parked(turn)


def _enter(turn: Turn, path: str) -> None:
    if turn.step(path).each is not None:
        begin(turn, path)
        _stop_if_parked(turn)
        return
    call = turn.step(path).do
    progress = CallProgress(status=CallStatus.PENDING)
    turn.send(path, call, progress, reply_wait(call, 1))
    if not call.replies:
        turn.close(path, Purpose.DO, CallStatus.SUCCEEDED, turn.record("step_completed", path))
        _stop_if_parked(turn)


def _stop_if_parked(turn: Turn) -> None:
    """Go no further where what was just done could not be announced, or what it gives up not be undone.

    Raises:
        MethodRaised: what the instance is parked for already.
    """
    if turn.halted:
        raise MethodRaised(turn.attention["method_raised"])
