"""From the class an author wrote to the `Definition` the engine reads, or to an error that tells all that is wrong."""

from __future__ import annotations

from dataclasses import replace
from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from messages.errors import DefinitionError
from sagas.announcing import announcements_of
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
from sagas.child import ChildStep
from sagas.completeness import check_lifecycle
from sagas.correlation import check_aliases, keys_of
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
    lifecycle_in,
)
from sagas.digests import documented
from sagas.fingerprint import fingerprints, fingerprints_of_keys
from sagas.itemised import each_of, readers_of
from sagas.keywords import AllOf, ClassKeywords, call_keywords, class_keywords, reply_types
from sagas.layout import answers_of, check_pivot, flow_of
from sagas.listed import EachStep
from sagas.listening import Listening
from sagas.message_types import MessageTypes
from sagas.migrations import migrations_of
from sagas.parenting import child_call, told_by
from sagas.problems import Problems, listed
from sagas.source import Source
from sagas.steps import Compensation, Sleep, Step, Word, is_decision, is_start

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from messages import Command, Event
    from sagas.authoring import Saga
    from sagas.definition import Node
    from sagas.keys import EventKey

_SEVERAL = 2
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
    methods = fingerprints(source.members) | fingerprints_of_keys(definition.keys)
    return documented(definition, methods)


class _Reading:
    """One class being read. What cannot be read is told to `problems` and left out."""

    def __init__(self, source: Source, problems: Problems) -> None:
        self.source, self.problems = source, problems
        self.types = MessageTypes(source, problems)

    def definition(self, keywords: ClassKeywords) -> Definition:
        """The definition, but for its document."""
        starts, decisions, sleeps = self.starts(), self.decisions(), self.sleeps()
        steps = {name: self.step(step) for name, step in self.steps().items()}
        calls = [call for step in steps.values() for call in (step.do, step.undo) if call]
        told = told_by(step for step in self.steps().values() if isinstance(step, ChildStep))
        listening = Listening(self.types)
        notices = [notice.call for wait in listening.waits.values() for notice in wait.notices.values()]
        answers = _answers(steps)
        lists = frozenset(step.each.list_field for step in steps.values() if step.each is not None)
        heard = {name: each.reply.event for name, each in listening.heard.items()}
        self.check_roles(starts, heard, answers)
        keyed = {name: start.event for name, start in starts.items()} | heard
        replies = {name: reply.event for call in calls for name, reply in call.replies.items()}
        flow = self.flow(steps, decisions, listening)
        return Definition(
            type=keywords.name,
            version=keywords.version,
            saga_class=cast("type[Saga]", self.source.cls),
            key=keywords.key or "",
            keys=MappingProxyType(self.keys(keyed, starts, keywords)),
            aliases=keywords.aliases,
            key_reuse=keywords.key_reuse,
            deadline=keywords.deadline,
            starts=MappingProxyType(starts),
            steps=MappingProxyType(steps),
            decisions=MappingProxyType(decisions),
            sleeps=MappingProxyType(sleeps),
            waits=MappingProxyType(listening.waits),
            heard=MappingProxyType(listening.heard),
            ways=MappingProxyType(listening.ways),
            queries=MappingProxyType(listening.queries),
            eaches=frozenset(name for name, step in steps.items() if step.each is not None),
            lists=lists,
            readers=MappingProxyType(readers_of(self.source, lists, self.problems)),
            announcements=MappingProxyType(announcements_of(self.types, keyed | replies)),
            children=frozenset(name for name, step in steps.items() if step.do.child is not None),
            told_by_children=_of_children(calls, told),
            flow=flow,
            lifecycle=lifecycle_in(flow),
            migrations=MappingProxyType(
                migrations_of(self.source, self.problems, keywords.version, steps, flow),
            ),
            answers=MappingProxyType(answers),
            events=MappingProxyType(told | keyed | replies),
            commands=MappingProxyType(
                {
                    call.command.message_name: cast("type[Command]", call.command)
                    for call in (*calls, *notices)
                    if call.child is None
                }
            ),
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
            for event in self.types.events(method, "the event that starts the saga"):
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

    def keys(
        self, events: Mapping[str, type[Event]], starts: Mapping[str, Start], keywords: ClassKeywords
    ) -> dict[str, EventKey]:
        """Where each event that is found by a key carries it."""
        check_aliases(self.source, self.problems, keywords.key, keywords.aliases)
        return keys_of(
            self.source,
            self.problems,
            keywords.key or "",
            keywords.keys,
            keywords.aliases,
            events=events,
            starts=starts.keys(),
        )

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
            do=self.child(step) if isinstance(step, ChildStep) else self.call(step, Purpose.DO),
            undo=self.call(undo, Purpose.UNDO) if undo else None,
            in_doubt=keywords.in_doubt,
            on_silence=keywords.on_silence,
            pivot=keywords.pivot,
            each=each_of(step, self.source, self.problems) if isinstance(step, EachStep) else None,
            undo_reads=self.undo_reads(step, undo) if undo else frozenset(),
        )

    def call(self, word: Word, purpose: Purpose) -> Call:
        """One command of a step, its replies and its patience."""
        method = word._method
        check_signature(method, "self, item" if _is_of_items(word) else "self", self.problems)
        keywords = call_keywords(purpose, word._keywords, lambda text: self.problems.of_method(method, text))
        replies = self.replies(word)
        self.check_replies(word, replies, awaited=keywords.reply)
        return Call(
            name=method.__name__,
            purpose=purpose,
            command=self.types.command(method),
            build=method,
            replies=MappingProxyType(replies),
            timeout=keywords.timeout,
            retry=keywords.retry,
            needed=self.needed(word, replies),
            heartbeats=frozenset(name for name, reply in replies.items() if reply.kind is ReplyKind.HEARTBEAT),
        )

    def child(self, step: ChildStep) -> Call:
        """The start of a child, and by what it tells of its end."""
        replies = self.replies(step)
        return replace(child_call(step, self.types, replies), needed=self.needed(step, replies))

    def undo_reads(self, step: Step[Any], undo: Compensation[Any]) -> frozenset[str]:
        """The fields that the undo reads and that, before the undo is answered, only the step's own replies set."""
        elsewhere = set[str]()
        for each in self.steps().values():
            if each is not step:
                elsewhere |= self.kept_by(each).union(*map(self.kept_by, compensations_of(each, self.source)))
        return frozenset(uses_of(undo._method, self.source).reads & (self.kept_by(step) - elsewhere))

    def kept_by(self, word: Word) -> set[str]:
        """The fields that the hooks of a step or compensation set."""
        hooks = [self.source.effective(hook.method) for hook in hooks_of(word, self.source)]
        return set[str]().union(*(uses_of(hook, self.source).writes for hook in hooks))

    # -- messages

    def replies(self, word: Word) -> dict[str, Reply]:
        """The declared replies of a command, by keyword and by hook, by message name."""
        replies: dict[str, Reply] = {}
        for kind in ReplyKind:
            for event in reply_types(word._keywords, kind):
                if self.types.is_concrete(event, word._method):
                    self.add_reply(replies, Reply(kind=kind, event=event), word._method)
        for hook in hooks_of(word, self.source):
            method = self.source.effective(hook.method)
            check_signature(method, "self, reply, item" if _is_of_items(word) else "self, reply", self.problems)
            for event in self.types.events(method, f"the reply of {word._name!r} that it takes"):
                if hook.kind is not None:
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

    def needed(self, word: Word, replies: Mapping[str, Reply]) -> frozenset[str]:
        """The successes that are needed together; none where one is enough."""
        said = word._keywords.get("success")
        if not isinstance(said, AllOf):
            return frozenset()
        if len(set(said.events)) < _SEVERAL:
            text = f"needs all_of {listed(event.__name__ for event in said.events)}; name several, or leave out all_of"
            self.problems.of_method(word._method, text)
        return frozenset(name for name, reply in replies.items() if reply.kind is ReplyKind.SUCCESS)

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

    def check_roles(
        self, starts: Mapping[str, Start], heard: Mapping[str, type[Event]], answers: Mapping[str, object]
    ) -> None:
        """No event that is found by its key answers a command, too: it would be routed as the one or the other."""
        for name in heard.keys() & answers.keys():
            text = f"{heard[name].__name__} is waited for or a signal, and a reply to a command, too"
            self.problems.of_class(f"{text}; use an event of its own for one of them")
        for name in starts.keys() & answers.keys():
            self.problems.of_method(
                cast("FunctionType", starts[name].build),
                f"{starts[name].event.__name__} starts the saga and is also a reply to one of its commands; "
                f"use an event of its own for one of them",
            )

    def sleeps(self) -> dict[str, SleepDefinition]:
        """The rests of the class by name."""
        members = self.source.members.items()
        found = {name: one for name, one in members if isinstance(one, Sleep) and one._name == name}
        for one in found.values():
            check_signature(one._method, "self", self.problems)
        return {name: SleepDefinition(name=name, ask=one._method) for name, one in found.items()}

    def flow(
        self, steps: Mapping[str, StepDefinition], decisions: Mapping[str, DecisionDefinition], listening: Listening
    ) -> Node:
        """The tree of the flow, and nothing behind a pivot that would have to be taken back."""
        node = flow_of(self.source, self.problems, self.steps(), decisions)
        check_pivot(node, steps, listening.may_fail(), self.problems)
        check_lifecycle(node, self.source, listening, self.problems)
        return node

    def decisions(self) -> dict[str, DecisionDefinition]:
        """The decisions of the class by name."""
        found = {}
        for name, member in self.source.members.items():
            if is_decision(member):
                method = cast("FunctionType", member)
                check_signature(method, "self", self.problems)
                annotated = self.types.annotation(
                    method, "return", f"annotate its answer, e.g. def {name}(self) -> bool"
                )
                found[name] = DecisionDefinition(name=name, ask=method, answers=answers_of(annotated))
        return found


def _of_children(calls: Iterable[Call], told: Mapping[str, object]) -> frozenset[str]:
    """Of what children answer with, whether or not it counts, that which answers nothing else."""
    others, theirs = set[str](), set(told)
    for call in calls:
        (others if call.child is None else theirs).update(call.replies)
    return frozenset(theirs - others)


def _is_of_items(word: Word) -> bool:
    return isinstance(getattr(word, "_of", word), EachStep)


def _answers(steps: Mapping[str, StepDefinition]) -> dict[str, tuple[tuple[str, Purpose], ...]]:
    """Which commands each reply may answer, by its message name."""
    answers: dict[str, tuple[tuple[str, Purpose], ...]] = {}
    for step in steps.values():
        for call in filter(None, (step.do, step.undo)):
            for name in call.replies:
                answers[name] = (*answers.get(name, ()), (step.name, call.purpose))
    return answers
