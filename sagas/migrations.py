"""What a class says of older versions of its saga, so that instances of these can go on under it.

How an instance is moved is in `sagas.moving`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sagas.checks import check_signature
from sagas.definition import SequenceNode, StepNode, children_of
from sagas.migrate import Migrate
from sagas.problems import listed, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from types import FunctionType

    from sagas.authoring import Saga
    from sagas.definition import Node
    from sagas.problems import Problems
    from sagas.source import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationDefinition:
    """How instances of an older `version` go on under this one.

    `build(saga_class, state)` makes the new state of the old; `steps` and `places` are names of then and of today.
    """

    name: str
    version: int
    build: Callable[[type[Saga], dict[str, Any]], Saga]
    steps: Mapping[str, str]
    places: Mapping[str, str]


def migrations_of(
    source: Source, problems: Problems, version: int, steps: Collection[str], flow: Node
) -> dict[int, MigrationDefinition]:
    """The migrations of a class, by the version that they begin from; what is wrong with one is told."""
    found: dict[int, MigrationDefinition] = {}
    places = set(_places_in(flow))
    for member in source.members.values():
        if not isinstance(member, Migrate):
            continue
        method = member.method
        check_signature(method, "cls, state", problems)
        since = member.version
        if isinstance(since, bool) or not isinstance(since, int) or since < 1:
            problems.of_method(method, f"@migrate({since!r}) names no version; write a whole number from 1")
            continue
        if since >= version:
            text = f"migrates from version {since}, and the class is version {version}"
            problems.of_method(method, f"{text}; name an older version, or raise version=")
        if since in found:
            text = f"migrates from version {since}, which {found[since].name!r} does already; keep one"
            problems.of_method(method, text)
        found[since] = MigrationDefinition(
            name=method.__name__,
            version=since,
            build=method,
            steps=_renamed(method, "steps", member.steps, steps, problems),
            places=_renamed(method, "places", member.places, places, problems),
        )
    return found


def _renamed(
    method: FunctionType, keyword: str, said: object, known: Collection[str], problems: Problems
) -> Mapping[str, str]:
    """The names of then and of today, where both are names and none of today stands for two."""
    if said is None:
        return {}
    if not isinstance(said, Mapping) or not all(isinstance(name, str) for pair in said.items() for name in pair):
        remedy = f'write {keyword}={{"old": "new"}}'
        problems.of_method(method, f"says {keyword}={said!r}, which are no names; {remedy}")
        return {}
    for name in said.values():
        if name not in known:
            hint = suggestion(name, known)
            problems.of_method(method, f"{keyword}= leads to {name!r}, which is not in this class{hint}; correct it")
    twice = sorted({name for name in said.values() if list(said.values()).count(name) > 1})
    if twice:
        problems.of_method(method, f"{keyword}= leads twice to {listed(twice)}; what was two cannot be one now")
    return said


def _places_in(node: Node) -> Iterator[str]:
    if not isinstance(node, (StepNode, SequenceNode)):
        yield node.path
    for child in children_of(node):
        yield from _places_in(child)
