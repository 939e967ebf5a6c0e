"""Whether sagas that start each other fit together: no child is its own ancestor, and every answer is understood."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagas.definition import ReplyKind
from sagas.parenting import END, told_at
from sagas.problems import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sagas.definition import Call, Definition


def kinship_problems(known: Mapping[str, Mapping[int, Definition]]) -> Iterator[str]:
    """What is wrong between the saga types of a process, each thing once."""
    for saga_type in sorted(known):
        line = _line_back(known, saga_type)
        if line and saga_type == min(line):
            text = f"{saga_type} starts itself: {' starts '.join((*line, saga_type))}, and so on without end"
            yield f"{text}; let one of them do without the next, or start it with an event that it announces"
        for version in sorted(known[saga_type]):
            for call in _starts(known[saga_type][version]):
                yield from _misunderstood(known, known[saga_type][version], call)


def _starts(definition: Definition) -> Iterator[Call]:
    return (definition.steps[name].do for name in definition.steps if name in definition.children)


def _line_back(known: Mapping[str, Mapping[int, Definition]], saga_type: str) -> tuple[str, ...]:
    """The types from this one on, each started by the one before, of which the last starts this one."""
    seen = {saga_type}
    lines: list[tuple[str, ...]] = [(saga_type,)]
    for line in lines:
        versions = known.get(line[-1], {})
        started = [call.child.type for call in _starts(versions[max(versions)]) if call.child] if versions else []
        if saga_type in started:
            return line
        lines += [(*line, each) for each in started if each not in seen]
        seen.update(started)
    return ()


def _misunderstood(known: Mapping[str, Mapping[int, Definition]], parent: Definition, call: Call) -> Iterator[str]:
    """Versions of a child that tell of their end by events that the parent does not take for it."""
    for version, child in known.get(call.child.type, {}).items() if call.child else ():
        for kind in END:
            told = told_at(child, kind)
            if not any(name in call.replies and call.replies[name].kind is kind for name in told):
                events = listed(event.__name__ for event in told.values())
                word = "success" if kind is ReplyKind.SUCCESS else "failure"
                text = f"{child.type} version {version} announces {events} when it is {END[kind]}, which"
                yield (
                    f"{parent.saga_class.__name__}.{call.name}: {text} {parent.type} version {parent.version} does not "
                    f"take; add it to {word}="
                )
