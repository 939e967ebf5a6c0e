"""What `@child` means in a class: which saga it starts, by what it hears of its end, and all that is wrong with it."""

from __future__ import annotations

from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any

from messages import Command, Event, NotStarted
from sagas.checks import check_signature, compensations_of
from sagas.children import ChildDefinition
from sagas.definition import Call, Purpose, Reply, ReplyKind, Retry
from sagas.keywords import CHILD_KEYWORDS, LONGEST, sound
from sagas.problems import listed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sagas.child import ChildStep
    from sagas.definition import Definition
    from sagas.message_types import MessageTypes
    from sagas.problems import Problems

END = {ReplyKind.SUCCESS: "completed", ReplyKind.FAILURE: "compensated"}
"""The moment of a child's end that each kind of reply tells of."""

_SAYS = {ReplyKind.SUCCESS: "has completed", ReplyKind.FAILURE: "was compensated"}

ONCE = Retry(attempts=1)
"""The outbox and the queue keep a start until it is read: it is sent once."""


def told_at(definition: Definition, kind: ReplyKind) -> dict[str, type[Event]]:
    """The events by which a saga tells of its good or bad end."""
    events = (each.event for each in definition.announcements.values() if END[kind] in each.moments)
    return {event.message_name: event for event in events}


def child_call(step: ChildStep, types: MessageTypes, replies: dict[str, Reply]) -> Call:
    """The start of a child; `replies` are those that are declared, and are completed."""
    method: FunctionType = step._method
    problems, definition = types.problems, step._saga._definition
    check_signature(method, "self", problems)
    good = sound(step._keywords, CHILD_KEYWORDS, lambda text: problems.of_method(method, text))
    start = types.event(method)
    if definition is None:
        problems.of_method(method, f"starts {step._saga.__name__}, which is abstract; name a class that extends it")
    else:
        _check_start(start, definition, method, types)
        _complete(replies, definition, step, types)
    _check_undo(step, types)
    timeout: Any = good.get("timeout")
    return Call(
        name=method.__name__,
        purpose=Purpose.DO,
        command=start,
        build=method,
        replies=MappingProxyType(replies),
        timeout=timeout or LONGEST,
        timed=timeout is not None,
        retry=ONCE,
        child=ChildDefinition(
            type="" if definition is None else definition.type,
            keys={} if definition is None else {name: definition.keys[name] for name in definition.starts},
            key_reuse=definition is not None and definition.key_reuse,
        ),
    )


def _check_start(start: type[Event], definition: Definition, method: FunctionType, types: MessageTypes) -> None:
    if start.message_name and start.message_name not in definition.starts:
        known = listed(each.event.__name__ for each in definition.starts.values())
        types.problems.of_method(
            method, f"returns {start.__name__}, which does not start {definition.type}; return {known}"
        )


def _complete(replies: dict[str, Reply], definition: Definition, step: ChildStep, types: MessageTypes) -> None:
    """What is not said counts: everything by which the child tells of its end, and that it was not started."""
    for kind in END:
        told = told_at(definition, kind)
        said = [reply.event for reply in replies.values() if reply.kind is kind and reply.event is not NotStarted]
        _check_told(definition, kind, said, step._method, types.problems)
        for name, event in told.items() if not said else ():
            if types.is_concrete(event, step._method):
                replies.setdefault(name, Reply(kind=kind, event=event))
    replies.setdefault(NotStarted.message_name, Reply(kind=ReplyKind.FAILURE, event=NotStarted))


def _check_told(
    definition: Definition, kind: ReplyKind, said: list[type[Event]], method: FunctionType, problems: Problems
) -> None:
    """The child tells of its end, of the good and the bad one apart, and by what is taken for it."""
    told, ends = told_at(definition, kind), _SAYS[kind]
    other = told_at(definition, ReplyKind.FAILURE if kind is ReplyKind.SUCCESS else ReplyKind.SUCCESS)
    if not told:
        text = f"starts {definition.type}, which tells nobody that it {ends}, so that nothing could follow from it"
        problems.of_method(method, f'{text}; write a method under @announce("{END[kind]}") in {definition.type}')
    if kind is ReplyKind.SUCCESS:
        for name in told.keys() & other.keys():
            text = f"starts {definition.type}, which announces {told[name].__name__} whether it has completed or was"
            problems.of_method(method, f"{text} compensated; let it announce an event of its own for each")
    if said and told and not any(event.message_name in told for event in said):
        text = f"takes {listed(event.__name__ for event in said)} for its {kind}, and {definition.type} announces"
        known = listed(each.__name__ for each in told.values())
        problems.of_method(method, f"{text} {known} when it {ends}; take that")


def _check_undo(step: ChildStep, types: MessageTypes) -> None:
    """What undoes the child once it has completed is said, and there is a method for it, or none."""
    method, problems, saga = step._method, types.problems, step._saga.__name__
    undos = compensations_of(step, types.source)
    said = step._keywords.get("undo", ...)
    if said is ...:
        text = f"does not say what undoes {saga} once it has completed, for what has ended is never opened again"
        problems.of_method(
            method,
            f"{text}; write undo=… with the command, and a method under @{method.__name__}.compensation that "
            f"builds it, or undo=None",
        )
    elif said is None and undos:
        problems.of_method(method, f"says undo=None and has the compensation {undos[0]._name!r}; remove one of them")
    elif isinstance(said, type) and issubclass(said, Command):
        if not undos:
            text = f"says undo={said.__name__}, and nothing builds it; write a method"
            problems.of_method(method, f"{text} under @{method.__name__}.compensation that returns it")
        elif (built := types.command(undos[0]._method)) is not said and built is not Command:
            text = f"says undo={said.__name__}, and its compensation builds {built.__name__}; make them the same"
            problems.of_method(method, text)


def told_by(steps: Iterable[ChildStep]) -> dict[str, type[Event]]:
    """Every event by which the children of a class tell of their ends, also those that do not count."""
    found: dict[str, type[Event]] = {}
    for step in steps:
        if (definition := step._saga._definition) is not None:
            found |= told_at(definition, ReplyKind.SUCCESS) | told_at(definition, ReplyKind.FAILURE)
    return found
