"""Parts of a flow that may fail while the rest goes on: `alternative`, and `parallel` where the first so many count.

Such a part is given up branch by branch: what was done of a branch is undone as if the whole turned back, in the same
order, and everything else runs on. What was given up is kept in the instance's choices: how many branches of an
alternative, which branches of a parallel were lost, and which were the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagas.definition import (
    NOTHING,
    AlternativeNode,
    ChoiceNode,
    LifecycleNode,
    LoopNode,
    ParallelNode,
    SequenceNode,
    StepNode,
    children_of,
    iteration,
)
from sagas.instance import DONE, PAUSED, WOKEN, CallStatus, Phase
from sagas.names import step_name
from sagas.pauses import ENTRY, close_state, end_pause
from sagas.tally import whole_of, wholes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sagas.definition import Node
    from sagas.turn import Turn


def given_up(turn: Turn) -> Collection[str]:
    """The steps of which everything that was done is to be undone."""
    if turn.phase is Phase.COMPENSATING:
        return {*turn.steps, *wholes(turn)} if turn.definition.eaches else turn.steps
    if turn.phase is not Phase.RUNNING or not turn.choices:
        return ()
    branches = _branches_given_up(turn, turn.definition.flow)
    found = frozenset(path for branch in branches for path in steps_within(turn, branch))
    return found | _items_given_up(turn, found) if turn.definition.eaches else found


def _items_given_up(turn: Turn, found: Collection[str]) -> frozenset[str]:
    """The items of wholes that are given up, and those in doubt that a whole goes on without."""
    items = [(path, whole) for path in turn.steps if (whole := whole_of(turn, path)) != path]
    return frozenset(
        path for path, whole in items if whole in found or turn.steps[path].do.status is CallStatus.IN_DOUBT
    )


def pauses(turn: Turn) -> list[str]:
    """The rests and waits under way."""
    known = turn.definition.sleeps.keys() | turn.definition.waits.keys()
    return [path for path, state in turn.choices.items() if state in PAUSED and step_name(path) in known]


def wake_given_up(turn: Turn) -> None:
    """End the rests and waits under way in what is given up."""
    paused = pauses(turn)
    if paused and turn.phase is not Phase.COMPENSATING:
        branches = _branches_given_up(turn, turn.definition.flow)
        gone = {path for branch in branches for path in places_within(turn, branch)}
        paused = [path for path in paused if path in gone]
    for path in paused:
        end_pause(turn, path, WOKEN)
    if (node := turn.definition.lifecycle) is not None and turn.phase is Phase.COMPENSATING:
        close_state(turn, node)


def steps_within(turn: Turn, node: Node) -> Iterator[str]:
    """The steps of a part of the flow, those of every time that a loop has come to."""
    if isinstance(node, StepNode):
        yield node.step
    for child in parts(turn, node):
        yield from steps_within(turn, child)


def places_within(turn: Turn, node: Node) -> Iterator[str]:
    """The same, and every other place at which something is kept."""
    if isinstance(node, StepNode):
        yield node.step
    elif not isinstance(node, SequenceNode):
        yield node.path
    for child in parts(turn, node):
        yield from places_within(turn, child)


def parts(turn: Turn, node: Node) -> tuple[Node, ...]:
    """The parts of a part of the flow; of a loop its body, once for each time that it has come to.

    Of a lifecycle what is done on entering the state it is in: what it has left is no part of it any more.
    """
    if isinstance(node, LifecycleNode):
        entering = dict(node.entering).get(turn.choices.get(node.path, ""), NOTHING)
        return (iteration(entering, int(turn.choices.get(f"{node.path}/{ENTRY}", "0"))),)
    if isinstance(node, LoopNode):
        return tuple(iteration(node.body, number) for number in range(times_in_vain(turn, node) + 1))
    return children_of(node)


def times_in_vain(turn: Turn, node: LoopNode) -> int:
    """How often the body of a loop was done, and it was not enough."""
    return int(turn.choices.get(node.path, "0"))


def forget(turn: Turn, body: Node) -> None:
    """Keep no record of what will never be looked at again, so that what goes on for long does not make large rows."""
    places = frozenset(places_within(turn, body))
    for kept in (turn.steps, turn.choices):
        for path in [path for path in kept if path.partition("/")[0] in places]:
            del kept[path]


def lost_branches(turn: Turn, node: ParallelNode) -> frozenset[int]:
    """The branches of a parallel that have failed."""
    return _numbers(turn.choices.get(_lost(node), ""))


def first_branches(turn: Turn, node: ParallelNode) -> frozenset[int] | None:
    """The branches of a parallel that were done first, as many as it wants; None while it wants more."""
    chosen = turn.choices.get(node.path)
    return None if chosen is None else _numbers(chosen)


def failed_branches(turn: Turn, node: AlternativeNode) -> int:
    """How many branches of an alternative have failed."""
    return int(turn.choices.get(node.path, "0"))


def current_branches(turn: Turn, node: Node) -> Iterator[Node]:
    """The parts of a part of the flow that were not given up, nor left aside by a choice."""
    match node:
        case AlternativeNode(children=children):
            yield children[failed_branches(turn, node)]
        case ParallelNode(children=children) if node.first is not None:
            first, lost = first_branches(turn, node), lost_branches(turn, node)
            for number, child in enumerate(children):
                if number not in lost and (first is None or number in first):
                    yield child
        case ChoiceNode():
            branch = node.branch(turn.choices[node.path]) if node.path in turn.choices else None
            if branch is not None:
                yield branch
        case _:
            yield from parts(turn, node)


def spare(turn: Turn, path: str) -> bool:
    """Give up the branch of a failed step or wait in the innermost part of the flow that can do without it, if any.

    Of an alternative the next branch is tried; of a parallel enough may be left.
    """
    found = _sparing(turn, path)
    if found is None:
        return False
    node, branch = found
    if isinstance(node, AlternativeNode):
        turn.choices[node.path] = str(branch + 1)
        turn.record("alternative_failed", path, of=node.path, branch=branch + 1)
    else:
        turn.choices[_lost(node)] = _listed(lost_branches(turn, node) | {branch})
        turn.record("branch_lost", path, of=node.path, branch=branch + 1)
    return True


def pivot_of(turn: Turn) -> str | None:
    """The pivot that was sent, or done without: from there on nothing is undone, unless it fails."""
    for path, step in turn.steps.items():
        if turn.step(path).pivot and (step.do.status.open or step.do.status in DONE):
            return path
    return None


def must_succeed(turn: Turn, path: str) -> bool:
    """Whether a step is sent until it succeeds, however often: the pivot, and what comes after it and must be done."""
    if turn.phase is not Phase.RUNNING or path in given_up(turn):
        return False
    return pivot_of(turn) is not None and _sparing(turn, whole_of(turn, path)) is None


def settle(turn: Turn, node: ParallelNode, done: Collection[int]) -> None:
    """So many branches are done as a parallel wants: the others are given up."""
    turn.choices[node.path] = _listed(done)
    numbers = ", ".join(str(number + 1) for number in sorted(done))
    turn.record("branches_done", of=node.path, branches=numbers)


def _branches_given_up(turn: Turn, node: Node) -> Iterator[Node]:
    current = list(current_branches(turn, node))
    if isinstance(node, AlternativeNode):
        yield from node.children[: failed_branches(turn, node)]
    elif isinstance(node, ParallelNode) and node.first is not None:
        yield from (child for child in node.children if not any(child is each for each in current))
    for child in current:
        yield from _branches_given_up(turn, child)


def _sparing(turn: Turn, path: str) -> tuple[AlternativeNode | ParallelNode, int] | None:
    """The innermost part of the flow that can do without the branch in which a step or wait stands, and that branch."""
    for node, branch in reversed(list(_around(turn, turn.definition.flow, path))):
        if isinstance(node, AlternativeNode):
            spares = branch + 1 < len(node.children)
        else:
            spares = len(node.children) - len(lost_branches(turn, node) | {branch}) >= (node.first or 0)
        if spares:
            return node, branch
    return None


def _around(turn: Turn, node: Node, path: str) -> Iterator[tuple[AlternativeNode | ParallelNode, int]]:
    """The parts of the flow around a step or wait, outermost first, that may give up a branch, and which branch.

    Nothing of a parallel that has enough: the branches that count have done their work.
    """
    for child in current_branches(turn, node):
        if path in places_within(turn, child):
            number = next((index for index, each in enumerate(children_of(node)) if each is child), 0)
            if isinstance(node, AlternativeNode) or (
                isinstance(node, ParallelNode) and node.first is not None and first_branches(turn, node) is None
            ):
                yield node, number
            yield from _around(turn, child, path)
            return


def _lost(node: ParallelNode) -> str:
    return f"{node.path}/lost"


def _listed(numbers: Collection[int]) -> str:
    return ",".join(map(str, sorted(numbers)))


def _numbers(text: str) -> frozenset[int]:
    return frozenset(map(int, text.split(","))) if text else frozenset()
