"""From the flow an author wrote to the tree of nodes that the engine walks, and all that is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum
from types import FunctionType, NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from sagas.definition import (
    NOTHING,
    AlternativeNode,
    ChoiceNode,
    LifecycleNode,
    LoopNode,
    Node,
    ParallelNode,
    ReplyKind,
    SequenceNode,
    SleepNode,
    StepNode,
    WaitNode,
    children_of,
    label,
)
from sagas.flow import Alternative, Choice, Flow, Lifecycle, Loop, Parallel, Sequence
from sagas.listeners import Wait
from sagas.problems import listed
from sagas.steps import Compensation, Sleep, Step, is_decision
from sagas.written import hook_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sagas.definition import DecisionDefinition, StepDefinition
    from sagas.problems import Problems
    from sagas.source import Source

_YES_NO = frozenset(("true", "false"))
_MOST_TIMES = 1000
_FEWEST = 2  # branches that can be side by side


def flow_of(
    source: Source, problems: Problems, steps: Mapping[str, Step[Any]], decisions: Mapping[str, DecisionDefinition]
) -> Node:
    """The tree of a class; without `flow`, its steps in the order written."""
    written = source.members.get("flow")
    layout = _Layout(source, problems, steps, decisions)
    if written is None:
        layout.check_used()
        return SequenceNode(tuple(StepNode(name) for name in steps))
    if not isinstance(written, Flow):
        problems.of_class(f"flow is {_shown(written)}; write flow = reserve >> pay, of steps joined by >>")
        return NOTHING
    node = layout.node(written)
    layout.check_steps()
    layout.check_used()
    return node if isinstance(node, SequenceNode) else SequenceNode((node,))


def answers_of(annotated: tuple[object, ...]) -> frozenset[str] | None:
    """The labels that a return annotation lists; None where it lists none, or not all."""
    found = set[str]()
    for kind in annotated:
        if kind is bool:
            found |= _YES_NO
        elif isinstance(kind, type) and issubclass(kind, Enum):
            found |= {name for member in kind if (name := label(member)) is not None}
        elif get_origin(kind) is Literal:
            found |= {name for value in get_args(kind) if (name := label(value)) is not None}
        else:
            return None
    return frozenset(found) or None


def check_pivot(
    flow: Node, steps: Mapping[str, StepDefinition], may_fail: Mapping[str, FunctionType], problems: Problems
) -> None:
    """There is one point of no return at most, on the main line, and nothing behind it would have to be taken back."""
    pivots = [step for step in steps.values() if step.pivot]
    for surplus in pivots[1:]:
        _tell(problems, surplus, f"is a second pivot beside {pivots[0].name!r}; there is one point of no return")
    for pivot in pivots[:1]:
        line = flow.children if isinstance(flow, SequenceNode) else (flow,)
        if pivot.undo is not None:
            _tell(problems, pivot, "is the pivot and is never undone; remove its compensation")
        if StepNode(pivot.name) not in line:
            _tell(problems, pivot, "is the pivot and stands in a branch; put it on the main line of the flow")
            continue
        for name, lone in bound(SequenceNode(line[line.index(StepNode(pivot.name)) + 1 :])):
            if name in may_fail:
                text = f"comes after the pivot {pivot.name!r} and may fail, but nothing is undone there; move it before"
                problems.of_method(may_fail[name], f"{text}, give it an on_timeout and no failure, or an alternative()")
            if name.partition("#")[0] == "repeat" and name not in steps:
                text = f"flow holds a repeat() behind the pivot {pivot.name!r} that may be done in vain"
                problems.of_class(f"{text}, but nothing is undone there; move it before, or give it an alternative()")
            if name not in steps:
                continue
            step = steps[name]
            if any(reply.kind is ReplyKind.FAILURE for reply in step.do.replies.values()):
                text = f"comes after the pivot {pivot.name!r} and may fail, but nothing is undone there; move it before"
                _tell(problems, step, f"{text}, or give it an alternative()")
            if step.undo is not None and lone:
                text = f"comes after the pivot {pivot.name!r}, where nothing is undone; remove its compensation"
                _tell(problems, step, text)


def bound(node: Node, *, lone: bool = True) -> Iterator[tuple[str, bool]]:
    """The steps, waits and loops whose failure nothing replaces; and whether each is lone: that nothing gives it up."""
    match node:
        case StepNode(step=path) | WaitNode(path=path):
            yield path, lone
        case LoopNode(path=path, body=body):
            yield path, lone
            yield from bound(body, lone=lone)
        case AlternativeNode(children=children):
            yield from bound(children[-1], lone=lone)
        case _:
            first = isinstance(node, ParallelNode) and node.first is not None
            for child in children_of(node):
                yield from bound(child, lone=lone and not first)


def _tell(problems: Problems, step: StepDefinition, text: str) -> None:
    problems.of_method(step.do.build, text)  # type: ignore[arg-type]


class _Layout:
    """One flow being read. What cannot be read is told to `problems` and left out."""

    def __init__(
        self,
        source: Source,
        problems: Problems,
        steps: Mapping[str, Step[Any]],
        decisions: Mapping[str, DecisionDefinition],
    ) -> None:
        self._source, self._problems = source, problems
        self._steps, self._decisions = steps, decisions
        self._entered = Counter[str]()
        self._asked = Counter[str]()

    def node(self, flow: object) -> Node:
        """What an author's flow value means."""
        match flow:
            case Sequence():
                return SequenceNode(tuple(self._several(flow._parts)))
            case Parallel():
                return self._parallel(flow)
            case Alternative():
                if len(flow._branches) < _FEWEST:
                    text = "alternative() holds fewer than two branches; write alternative(by_air, by_sea)"
                    self._problems.of_class(text)
                path = self._path("alternative")
                return AlternativeNode(tuple(self._several(flow._branches)), path=path)
            case Choice():
                return self._choice(flow)
            case Loop():
                return self._loop(flow)
            case Lifecycle():
                return self._lifecycle(flow)
            case Sleep() | Wait():
                return self._pause(flow)
            case _:
                return self._step(flow)

    def check_steps(self) -> None:
        """Each step stands in the flow, once."""
        for name in (name for name, times in self._entered.items() if times > 1):
            self._problems.of_class(f"flow holds the step {name!r} twice; write a second step with a name of its own")
        for name in self._steps.keys() - self._entered.keys():
            text = "is not in the flow and would never run; add it or remove it"
            self._problems.of_method(self._steps[name]._method, text)

    def check_used(self) -> None:
        """Each decision is asked, each rest taken, and each wait waited."""
        for name in self._decisions.keys() - self._asked.keys():
            text = f"is asked nowhere in the flow; write when({name}, …), or remove @decision"
            self._problems.of_method(self._source.members[name], text)  # type: ignore[arg-type]
        for name, member in self._source.members.items():
            if isinstance(member, (Sleep, Wait)) and member._name == name and name not in self._asked:
                self._problems.of_method(member._method, "is not in the flow and would never be; add it or remove it")

    def _parallel(self, flow: Parallel) -> Node:
        branches, first = len(flow._branches), flow._first
        if branches < _FEWEST:
            self._problems.of_class("parallel() holds fewer than two branches; write parallel(label, invoice)")
        if first is None:
            return ParallelNode(tuple(self._several(flow._branches)), path=self._path("parallel"))
        if isinstance(first, bool) or not isinstance(first, int) or not 0 < first < max(branches, _FEWEST):
            text = f"parallel(first={first!r}) of {branches} branches; write a whole number from 1 to {branches - 1}"
            self._problems.of_class(text)
            first = 1
        return ParallelNode(tuple(self._several(flow._branches)), first=first, path=self._path("parallel"))

    def _loop(self, loop: Loop) -> Node:
        path, body, most = self._path("repeat"), self.node(loop._body), loop._most
        if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= _MOST_TIMES:
            text = f"repeat(most={most!r}) will not do; write a whole number from 1 to {_MOST_TIMES}"
            self._problems.of_class(text)
            most = 1
        decision = self._decision(loop._until, "repeat", "until= names")
        if decision is None or body == NOTHING:
            return NOTHING
        self._asked[decision.name] += 0
        self._check_yes_no(decision, "repeat")
        return LoopNode(path=path, body=body, until=decision.name, most=most)

    def _lifecycle(self, written: Lifecycle) -> Node:
        begins, entering = label(written._begins), written._entering
        final = [label(state) for state in written._final] if isinstance(written._final, Iterable) else [None]
        if begins is None or None in final or not isinstance(entering, (Mapping, NoneType)):
            text = "lifecycle() names what is no state; a state is a string or a member of an Enum"
            self._problems.of_class(f"{text}, lifecycle(Standing.ACTIVE, entering={{…}}, final=[Standing.ENDED])")
            return NOTHING
        if self._path("lifecycle") != "lifecycle":
            self._problems.of_class("flow holds two lifecycles; write one, with the states of both")
            return NOTHING
        nodes = {label(state): self.node(flow) for state, flow in (entering or {}).items()}
        if None in nodes:
            self._problems.of_class(
                "lifecycle(entering=) names what is no state; write a string or a member of an Enum"
            )
            del nodes[None]
        return LifecycleNode(
            begins=begins,
            entering=tuple((str(state), node) for state, node in nodes.items()),
            final=frozenset(map(str, final)),
        )

    def _path(self, word: str) -> str:
        """Where is kept what becomes of a part of the flow without a name: its word, and its number from the second."""
        self._asked[word] += 1
        return word if self._asked[word] == 1 else f"{word}#{self._asked[word]}"

    def _several(self, flows: tuple[object, ...]) -> list[Node]:
        return [node for flow in flows if (node := self.node(flow)) != NOTHING]

    def _step(self, leaf: object) -> Node:
        if not isinstance(leaf, Step):
            self._problems.of_class(f"flow holds {_shown(leaf)}; only steps stand in a flow")
            return NOTHING
        name, own = leaf._name, self._steps.get(leaf._name) is leaf
        source = self._source
        if own or (name in self._steps and source.wrote(leaf._body) and not source.is_own(leaf._body)):
            self._entered[name] += 1
            return StepNode(name)
        if source.wrote(leaf._body):
            replaced = f"flow holds a step {name!r} that a later {name!r} has replaced"
            self._problems.of_class(f"{replaced}; rename one of them")
        else:
            self._problems.of_class(f"flow holds the step {name!r} of another class; write or inherit it here")
        return NOTHING

    def _pause(self, pause: Sleep | Wait[Any]) -> Node:
        name, word = pause._name, pause._SAYS.removeprefix("@")
        if not (isinstance(self._source.members.get(name), type(pause)) and self._source.wrote(pause._body)):
            text = f"flow holds the {word} {name!r} of another class; write or inherit it here"
            self._problems.of_class(text)
            return NOTHING
        if self._path(name) != name:
            text = f"flow holds the {word} {name!r} twice; write a second one with a name of its own"
            self._problems.of_class(text)
        return SleepNode(name) if isinstance(pause, Sleep) else WaitNode(name)

    # -- choices

    def _choice(self, choice: Choice) -> Node:
        decision = self._decision(choice._decision, choice._word, "its first argument is")
        cases = self._cases(choice)
        if decision is None:
            return NOTHING
        path = self._path(decision.name)
        otherwise = None if choice._otherwise is None else self.node(choice._otherwise)
        self._check_cases(choice, decision, cases, complete=otherwise is not None)
        return ChoiceNode(
            path=path,
            decision=decision.name,
            cases=tuple(cases.items()),
            otherwise=otherwise,
        )

    def _decision(self, asked: object, word: str, place: str) -> DecisionDefinition | None:
        name = getattr(asked, "__name__", "")
        found = self._decisions.get(name)
        if found is not None and is_decision(asked):
            return found
        if isinstance(asked, FunctionType) and not is_decision(asked):
            self._problems.of_method(asked, f"stands in {word}() and lacks @decision; write it over the method")
        else:
            text = f"{word}() asks {_shown(asked)}; {place} a method of this class with @decision"
            self._problems.of_class(text)
        return None

    def _cases(self, choice: Choice) -> dict[str, Node]:
        if not isinstance(choice._cases, Mapping):
            text = f"match() has {_shown(choice._cases)} for its cases; write match(route, {{Route.AIR: fly}})"
            self._problems.of_class(text)
            return {}
        cases: dict[str, Node] = {}
        for answer, flow in choice._cases.items():
            name = label(answer)
            if name is None:
                text = f"match() has a case {answer!r}; an answer is a string, a whole number, True, False or an Enum's"
                self._problems.of_class(text)
            elif name in cases:
                self._problems.of_class(f"match() has two cases that are both kept as {name!r}; keep one")
            else:
                cases[name] = NOTHING if flow is None else self.node(flow)
        return cases

    def _check_yes_no(self, decision: DecisionDefinition, word: str) -> None:
        if decision.answers != _YES_NO:
            method = self._source.members[decision.name]
            text = f"is asked by {word}() and does not return bool; annotate it -> bool"
            self._problems.of_method(method, text)  # type: ignore[arg-type]

    def _check_cases(
        self, choice: Choice, decision: DecisionDefinition, cases: Mapping[str, Node], *, complete: bool
    ) -> None:
        method = self._source.members[decision.name]
        assert isinstance(method, FunctionType)  # noqa: S101 - a decision is one
        if choice._word == "when":
            self._check_yes_no(decision, "when")
        elif decision.answers is None:
            if not complete and "return" in method.__annotations__:
                text = "may give any answer, and match() has no otherwise=; add it, or annotate an Enum or a Literal"
                self._problems.of_method(method, text)
        else:
            missing, surplus = decision.answers - cases.keys(), cases.keys() - decision.answers
            if missing and not complete:
                self._problems.of_method(
                    method, f"may answer {listed(sorted(missing))}, for which match() has no case; add it or otherwise="
                )
            if surplus:
                text = f"never answers {listed(sorted(surplus))}, for which match() has a case; remove it"
                self._problems.of_method(method, text)


def _shown(value: object) -> str:
    """What a wrong part of a flow is, in an author's words."""
    if isinstance(value, Compensation):
        return f"the compensation {value._name!r}"
    if isinstance(value, Step):
        return f"the step {value._name!r}"
    if hook_of(value):
        return f"the hook {getattr(value, '__name__', '')!r}"
    if is_decision(value):
        return f"the decision {getattr(value, '__name__', '')!r}"
    if isinstance(value, FunctionType):
        return f"the method {value.__name__!r}, which lacks @step"
    return repr(value)
