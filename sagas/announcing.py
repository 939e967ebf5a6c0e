"""What a class announces of itself, and all that is wrong with it."""

from __future__ import annotations

from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any

from sagas.announcements import MOMENTS
from sagas.announcements import Announcement as Word
from sagas.checks import check_signature
from sagas.definition import Announcement
from sagas.problems import listed, suggestion
from sagas.steps import Compensation, Step

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from sagas.message_types import MessageTypes


def announcements_of(types: MessageTypes, consumed: Container[str]) -> dict[str, Announcement]:
    """The announcements of a class by the names of their methods. None is `consumed` by the saga itself."""
    source, problems = types.source, types.problems
    found = {}
    for name, member in source.members.items():
        if isinstance(member, Word) and member._name == name:
            method = member._method
            check_signature(method, "self", problems)
            event = types.event(method)
            if event.message_name in consumed:
                text = f"announces {event.__name__}, which this saga takes itself; that would go round in a circle"
                problems.of_method(method, f"{text}, announce an event of its own")
            moments = MappingProxyType(_moments(member, types))
            of = _step_of(member)
            found[name] = Announcement(name=name, event=event, build=method, moments=moments, of=of)
        elif isinstance(member, FunctionType) and name == member.__name__ and _replaces_one(name, types):
            text = f"replaces the announcement {name!r} and would not be announced; write the same @….announce over it"
            problems.of_method(member, text)
    return found


def _moments(word: Word[Any], types: MessageTypes) -> Mapping[str, str]:
    """The kinds of history rows that it follows, with what the author calls them."""
    if isinstance(word._of, Compensation):
        return {"step_compensated": word._of._name}
    if word._of is not None:
        return {"step_completed": word._of._name}
    moments = {}
    for said in word._moments:
        kind = MOMENTS.get(said) if isinstance(said, str) else None
        if kind is None:
            hint = suggestion(str(said), MOMENTS)
            types.problems.of_method(word._method, f"announces {said!r}{hint}; there are {listed(MOMENTS)}")
        elif kind in moments:
            types.problems.of_method(word._method, f"announces {said!r} twice; say it once")
        else:
            moments[kind] = str(said)
    return moments


def _step_of(word: Word[Any]) -> str | None:
    of = word._of._of if isinstance(word._of, Compensation) else word._of
    return of._name if isinstance(of, Step) else None


def _replaces_one(name: str, types: MessageTypes) -> bool:
    return any(isinstance(vars(each).get(name), Word) for each in types.source.classes)
