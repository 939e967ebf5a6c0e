"""From the class an author wrote to the `Definition` the engine reads, or to an error that tells all that is wrong."""

from __future__ import annotations

from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from messages import Command, Event
from messages.errors import DefinitionError
from sagas.checks import (
    check_assignments,
    check_names,
    check_signature,
    check_state,
    check_twice,
    compensations_of,
    hooks_of,
    uses_of,
)
from sagas.definition import (
    Call,
    DecisionDefinition,
    Definition,
    Digests,
    Purpose,
    Reply,
    ReplyKind,
    SleepDefinition,
    Start,
    StepDefinition,
)
from sagas.digests import documented
from sagas.fingerprint import fingerprints
from sagas.keys import body_field, key_problem
from sagas.keywords import ClassKeywords, call_keywords, class_keywords, reply_types
from sagas.layout import answers_of, check_pivot, flow_of
from sagas.problems import Problems, listed
from sagas.source import Source, Unresolved
from sagas.steps import Compensation, Sleep, Step, Word, is_decision, is_start

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sagas.authoring import Saga
    from sagas.definition import Node

_NOT_YET = Digests(shape="", state="", policy="", code="")


def definition_of(saga_class: type[Saga]) -> Definition:
    """The compiled definition of a saga class.

    Raises:
        DefinitionError: the class is abstract.
    """
    definition = saga_class._definition
    if definition is None:
        message = f"{saga_class.__name__} is abstract and cannot run; use a class that extends it"
        raise DefinitionError(message)
    return definition


def compile_saga(cls: type[Saga], base: type[Saga], given: Mapping[str, object]) -> Definition | None:
    """What a class statement means. None for an abstract class.

    Args:
        cls: The class, its fields known.
        base: `Saga` itself, whose names are reserved.
        given: The keywords of the class statement.

    Raises:
        DefinitionError: with everything that is wrong with the class.
    """
    if cls.__pydantic_generic_metadata__["origin"] is not None:
        return None  # pydantic's own G[int], made to be extended
    source = Source(cls, base)
    problems = Problems(cls.__name__, source.place)
    keywords = class_keywords(cls.__name__, given, problems.of_class)
    if keywords.abstract:
        check_twice(source, problems)
        problems.raise_if_any()
        cls._local_names = source.local_names
        return None
    for each in source.classes:
        source.inherit_names(vars(each).get("_local_names", {}))
    reserved = {*dir(base), "flow"}
    check_names(source, reserved, problems)
    check_state(source, reserved, problems)
    check_assignments(source, problems)
    definition = _Reading(source, problems).definition(keywords)
    problems.raise_if_any()
    return documented(definition, fingerprints(source.members))


class _Reading:
    """One class being read. What cannot be read is told to `problems` and left out."""

    def __init__(self, source: Source, problems: Problems) -> None:
        self.source, self.problems = source, problems
        self.messages: dict[str, type[Command | Event]] = {}

    def definition(self, keywords: ClassKeywords) -> Definition:
        """The definition, but for its document."""
        starts, decisions, sleeps = self.starts(), self.decisions(), self.sleeps()
        steps = {name: self.step(step) for name, step in self.steps().items()}
        calls = [call for step in steps.values() for call in (step.do, step.undo) if call]
        answers = _answers(steps)
        self.check_roles(starts, answers)
        replies = {name: reply.event for call in calls for name, reply in call.replies.items()}
        return Definition(
            type=keywords.name,
            version=keywords.version,
            saga_class=cast("type[Saga]", self.source.cls),
            key=keywords.key or "",
            key_fields=MappingProxyType(self.key_fields(starts, keywords)),
            key_reuse=keywords.key_reuse,
            deadline=keywords.deadline,
            starts=MappingProxyType(starts),
            steps=MappingProxyType(steps),
            decisions=MappingProxyType(decisions),
            sleeps=MappingProxyType(sleeps),
            flow=self.flow(steps, decisions),
            answers=MappingProxyType(answers),
            events=MappingProxyType({name: start.event for name, start in starts.items()} | replies),
            commands=MappingProxyType({call.command.message_name: call.command for call in calls}),
            document=MappingProxyType({}),
            digests=_NOT_YET,
        )

    # -- starts

    def starts(self) -> dict[str, Start]:
        """The start events by message name."""
        starts: dict[str, Start] = {}
        for member in self.source.members.values():
            if not is_start(member):
                continue
            method: FunctionType = member.__func__  # type: ignore[attr-defined]
            check_signature(method, "cls, event", self.problems)
            for event in self.events(method, "the event that starts the saga"):
                if event.message_name in starts:
                    other = starts[event.message_name].name
                    self.problems.of_method(method, f"{event.__name__} already starts the saga in {other!r}; keep one")
                starts[event.message_name] = Start(name=method.__name__, event=event, build=method)
        if not any(is_start(member) for member in self.source.members.values()):
            self.problems.of_class(
                "no @start; write a method that makes the saga of an event: "
                "@start / def placed(cls, event: OrderPlaced) -> Self"
            )
        return starts

    def key_fields(self, starts: Mapping[str, Start], keywords: ClassKeywords) -> dict[str, str]:
        """The field of each start event's body that holds the business key."""
        elsewhere = {event.message_name: name for event, name in keywords.keys.items()}
        for event in keywords.keys:
            if event.message_name not in starts:
                self.problems.of_class(f"keys= names {event.__name__}, which does not start this saga; remove it")
        fields = {}
        for name, start in starts.items():
            key = elsewhere.get(name, keywords.key)
            problem = key_problem(start.event, key) if key else None
            if problem:
                self.problems.of_class(problem)
            elif key:
                fields[name] = body_field(start.event, key) or key
        return fields

    # -- steps

    def steps(self) -> dict[str, Step[Any]]:
        """The steps of the class by name, in the order written. A second name for a step (`_tail = pay`) is none."""
        members = self.source.members.items()
        found = {name: one for name, one in members if isinstance(one, Step) and one._name == name}
        if not found:
            self.problems.of_class("no steps; write at least one: @step / def reserve(self) -> ReserveStock")
        return found

    def step(self, step: Step[Any]) -> StepDefinition:
        """A step with what undoes it."""
        undo = next(iter(compensations_of(step, self.source)), None)
        keywords = call_keywords(Purpose.DO, step._keywords, lambda text: None)
        return StepDefinition(
            name=step._name,
            do=self.call(step, Purpose.DO),
            undo=self.call(undo, Purpose.UNDO) if undo else None,
            in_doubt=keywords.in_doubt,
            on_silence=keywords.on_silence,
            pivot=keywords.pivot,
            undo_reads=self.undo_reads(step, undo) if undo else frozenset(),
        )

    def call(self, word: Word, purpose: Purpose) -> Call:
        """One command of a step, its replies and its patience."""
        method = word._method
        check_signature(method, "self", self.problems)
        keywords = call_keywords(purpose, word._keywords, lambda text: self.problems.of_method(method, text))
        replies = self.replies(word)
        self.check_replies(word, replies, awaited=keywords.reply)
        return Call(
            name=method.__name__,
            purpose=purpose,
            command=self.command(method),
            build=method,
            replies=MappingProxyType(replies),
            timeout=keywords.timeout,
            retry=keywords.retry,
        )

    def undo_reads(self, step: Step[Any], undo: Compensation[Any]) -> frozenset[str]:
        """The fields that the undo reads and that, before the undo is answered, only the step's own replies set."""
        elsewhere = set[str]()
        for each in self.steps().values():
            if each is not step:
                elsewhere |= self.kept_by(each).union(*map(self.kept_by, compensations_of(each, self.source)))
        return frozenset(uses_of(undo._method, self.source).reads & (self.kept_by(step) - elsewhere))

    def kept_by(self, word: Word) -> set[str]:
        """The fields that the hooks of a step or compensation set."""
        hooks = [self.effective(hook.method) for hook in hooks_of(word, self.source)]
        return set[str]().union(*(uses_of(hook, self.source).writes for hook in hooks))

    # -- messages

    def replies(self, word: Word) -> dict[str, Reply]:
        """The declared replies of a command, by keyword and by hook, by message name."""
        replies: dict[str, Reply] = {}
        for kind in ReplyKind:
            for event in reply_types(word._keywords, kind):
                if self.is_concrete(event, word._method):
                    self.add_reply(replies, Reply(kind=kind, event=event), word._method)
        for hook in hooks_of(word, self.source):
            method = self.effective(hook.method)
            check_signature(method, "self, reply", self.problems)
            for event in self.events(method, f"the reply of {word._name!r} that it takes"):
                self.add_reply(replies, Reply(kind=hook.kind, event=event, hook=method), method)
        return replies

    def add_reply(self, replies: dict[str, Reply], reply: Reply, method: FunctionType) -> None:
        """Add a reply unless the command has it already."""
        name = reply.event.message_name
        if name in replies:
            kinds = " and as ".join(dict.fromkeys((replies[name].kind, reply.kind)))
            self.problems.of_method(
                method,
                f"{reply.event.__name__} is declared twice, as {kinds}; "
                f"each reply once per command, by a keyword or by a hook",
            )
        else:
            replies[name] = reply

    def check_replies(self, word: Word, replies: Mapping[str, Reply], *, awaited: bool) -> None:
        """A command that is awaited has a success; one that is not has no reply at all."""
        method = word._method
        if not awaited and replies:
            names = listed(reply.event.__name__ for reply in replies.values())
            self.problems.of_method(method, f"says reply=False and takes {names}; remove one or the other")
        hooked = any(hook.kind is ReplyKind.SUCCESS for hook in word._hooks)
        said = "success" in word._keywords
        if awaited and not said and not hooked:
            self.problems.of_method(
                method,
                f"has no success reply, so it could never be done; write success=…, "
                f"a hook @{method.__name__}.on_success, or reply=False when nobody answers",
            )

    def command(self, method: FunctionType) -> type[Command]:
        """The command class that a step's or compensation's return annotation names."""
        wanted = f"annotate the command it builds, e.g. def {method.__name__}(self) -> ReserveStock"
        found = self.annotation(method, "return", wanted)
        problem = None
        if len(found) > 1:
            problem = f"returns {_names(found)}; a step sends one command, make a step of each"
        elif found and not _is(found[0], Command):
            problem = f"returns {_names(found)}, which is no Command; {wanted}"
        elif found and self.is_concrete(cast("type[Command]", found[0]), method):
            return cast("type[Command]", found[0])
        if problem:
            self.problems.of_method(method, problem)
        return Command

    def events(self, method: FunctionType, meaning: str) -> list[type[Event]]:
        """The event classes that the second parameter is annotated with."""
        code = method.__code__
        if code.co_argcount < 2:
            return []
        name = code.co_varnames[1]
        found = self.annotation(method, name, f"annotate {name!r} with {meaning}")
        for one in found:
            if not _is(one, Event):
                self.problems.of_method(method, f"{name!r} is {_names([one])}, which is no Event; annotate {meaning}")
        events = [cast("type[Event]", one) for one in found if _is(one, Event)]
        return [event for event in events if self.is_concrete(event, method)]

    def annotation(self, method: FunctionType, name: str, wanted: str) -> tuple[object, ...]:
        """What an annotation names; nothing when it is absent or means nothing, which is told."""
        try:
            found = self.source.annotation(method, name)
        except Unresolved as error:
            self.problems.of_method(
                method, f"{error}; define it above the class and import it at run time, not under TYPE_CHECKING"
            )
            return ()
        if not found:
            self.problems.of_method(method, f"lacks an annotation; {wanted}")
        return found

    def is_concrete(self, message: type[Command | Event], method: FunctionType) -> bool:
        """Whether the class can travel and is the only one of its name in this saga."""
        name = message.message_name
        if not name:
            self.problems.of_method(method, f"{message.__name__} is abstract and cannot travel; name a class that can")
            return False
        other = self.messages.setdefault(name, message)
        if other is not message:
            self.problems.of_method(
                method,
                f"{message.__name__} and {other.__name__} are both {name!r}; a saga uses one class per message name",
            )
        return other is message

    def check_roles(self, starts: Mapping[str, Start], answers: Mapping[str, object]) -> None:
        """No event both starts the saga and answers one of its commands: it would be routed as the one or the other."""
        for name in starts.keys() & answers.keys():
            self.problems.of_method(
                cast("FunctionType", starts[name].build),
                f"{starts[name].event.__name__} starts the saga and is also a reply to one of its commands; "
                f"use an event of its own for one of them",
            )

    def effective(self, method: FunctionType) -> FunctionType:
        """The method that a subclass put under the same name, else the method itself."""
        found = self.source.members.get(method.__name__)
        return found if isinstance(found, FunctionType) else method

    def sleeps(self) -> dict[str, SleepDefinition]:
        """The rests of the class by name."""
        members = self.source.members.items()
        found = {name: one for name, one in members if isinstance(one, Sleep) and one._name == name}
        for one in found.values():
            check_signature(one._method, "self", self.problems)
        return {name: SleepDefinition(name=name, ask=one._method) for name, one in found.items()}

    def flow(self, steps: Mapping[str, StepDefinition], decisions: Mapping[str, DecisionDefinition]) -> Node:
        """The tree of the flow, and nothing behind a pivot that would have to be taken back."""
        node = flow_of(self.source, self.problems, self.steps(), decisions)
        check_pivot(node, steps, self.problems)
        return node

    def decisions(self) -> dict[str, DecisionDefinition]:
        """The decisions of the class by name."""
        found = {}
        for name, member in self.source.members.items():
            if is_decision(member):
                method = cast("FunctionType", member)
                check_signature(method, "self", self.problems)
                annotated = self.annotation(method, "return", f"annotate its answer, e.g. def {name}(self) -> bool")
                found[name] = DecisionDefinition(name=name, ask=method, answers=answers_of(annotated))
        return found


def _answers(steps: Mapping[str, StepDefinition]) -> dict[str, tuple[tuple[str, Purpose], ...]]:
    """Which commands each reply may answer, by its message name."""
    answers: dict[str, tuple[tuple[str, Purpose], ...]] = {}
    for step in steps.values():
        for call in filter(None, (step.do, step.undo)):
            for name in call.replies:
                answers[name] = (*answers.get(name, ()), (step.name, call.purpose))
    return answers


def _is(value: object, kind: type) -> bool:
    return isinstance(value, type) and issubclass(value, kind)


def _names(values: object) -> str:
    return listed(getattr(value, "__name__", str(value)) for value in cast("list[object]", values))
