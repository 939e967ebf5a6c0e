"""Whether the states of a lifecycle are all reached, can all be left, and say what becomes of every event."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, cast

from sagas.definition import LifecycleNode, children_of, label, lifecycle_in
from sagas.flow import Lifecycle, leaves
from sagas.problems import listed, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FunctionType

    from sagas.definition import Node
    from sagas.listening import Listening
    from sagas.problems import Problems
    from sagas.source import Source


def check_lifecycle(flow: Node, source: Source, listening: Listening, problems: Problems) -> None:
    """Where there are ways between states, one lifecycle stands on the main line of the flow; and it is whole."""
    node = lifecycle_in(flow)
    if node is None or sum(isinstance(each, LifecycleNode) for each in _nodes(flow)) > 1:
        for way in listening.ways.values():
            text = "leads from a state, and no lifecycle() stands on the main line of the flow; write it there"
            problems.of_method(cast("FunctionType", way.take), text)
        if node is None and any(isinstance(each, LifecycleNode) for each in _nodes(flow)):
            problems.of_class("lifecycle() stands in a branch; put it on the main line of the flow")
        return
    _Whole(node, _states(node, source, listening), listening, problems).check()


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in children_of(node):
        yield from _nodes(child)


def _states(node: LifecycleNode, source: Source, listening: Listening) -> frozenset[str]:
    """All states: the members of the Enum where the first is one, else all that are named."""
    [written] = [each for each in leaves(source.members.get("flow")) if isinstance(each, Lifecycle)]
    if isinstance(written._begins, Enum):
        return frozenset(name for member in type(written._begins) if (name := label(member)) is not None)
    named = {node.begins, *node.final, *(state for state, _ in node.entering)}
    return frozenset(named.union(*(way.states | way.targets for way in listening.ways.values())))


class _Whole:
    """One lifecycle being checked."""

    def __init__(self, node: LifecycleNode, states: frozenset[str], listening: Listening, problems: Problems) -> None:
        self._node, self._states, self._listening, self._problems = node, states, listening, problems

    def check(self) -> None:
        """Tell all that is wrong with it."""
        self._check_names()
        reached = self._reached()
        for state in sorted(self._states - reached):
            self._problems.of_class(f"the state {state!r} is never reached; lead to it, or remove it")
        left = frozenset().union(*(way.states for way in self._listening.ways.values()))
        for state in sorted(reached - self._node.final - left):
            text = f"the state {state!r} is never left; write an @on for it, or name it in final="
            self._problems.of_class(text)
        self._check_events(reached - self._node.final)

    def _check_names(self) -> None:
        for way in self._listening.ways.values():
            method = cast("FunctionType", way.take)
            for state in sorted((way.states | way.targets) - self._states):
                known = suggestion(state, self._states)
                self._problems.of_method(method, f"names {state!r}, which is no state{known}; there are {self._all()}")
            for state in sorted(way.states & self._node.final):
                self._problems.of_method(method, f"leads out of {state!r}, which is final; remove one or the other")
        for state in sorted({self._node.begins, *self._node.final, *dict(self._node.entering)} - self._states):
            self._problems.of_class(f"lifecycle() names {state!r}, which is no state; there are {self._all()}")

    def _all(self) -> str:
        return listed(sorted(self._states))

    def _reached(self) -> frozenset[str]:
        reached, news = set[str](), {self._node.begins}
        while news:
            reached |= news
            news = {
                target for way in self._listening.ways.values() if way.states & reached for target in way.targets
            } - reached
        return frozenset(reached) & self._states

    def _check_events(self, states: frozenset[str]) -> None:
        """It is said what becomes of every event in every state that takes events."""
        for name, heard in self._listening.heard.items():
            silent = states - heard.ways.keys()
            if heard.role == "on" and silent and name not in self._listening.elsewhere:
                method = cast("FunctionType", self._listening.ways[heard.name].take)
                text = f"does not say what becomes of {heard.reply.event.__name__} in {listed(sorted(silent))}"
                self._problems.of_method(method, f'{text}; add an @on, or elsewhere="ignore", "keep" or "dead_letter"')
