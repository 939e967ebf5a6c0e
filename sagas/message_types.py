"""The message classes that an author's annotations name, and all that is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from messages import Command, Event
from sagas.problems import listed
from sagas.source import Unresolved

if TYPE_CHECKING:
    from types import FunctionType

    from sagas.problems import Problems
    from sagas.source import Source


M = TypeVar("M", Command, Event)


class MessageTypes:
    """Those of one saga class. What cannot be read is told to `problems` and left out."""

    def __init__(self, source: Source, problems: Problems) -> None:
        self.source, self.problems = source, problems
        self._messages: dict[str, type[Command | Event]] = {}

    def command(self, method: FunctionType) -> type[Command]:
        """The command class that a step's or compensation's return annotation names."""
        wanted = f"annotate the command it builds, e.g. def {method.__name__}(self) -> ReserveStock"
        return self._built(method, Command, wanted, "a step sends one command, make a step of each")

    def event(self, method: FunctionType) -> type[Event]:
        """The event class that an announcement's return annotation names."""
        wanted = f"annotate the event it builds, e.g. def {method.__name__}(self) -> OrderConfirmed"
        return self._built(method, Event, wanted, "an announcement is one event, write a method for each")

    def _built(self, method: FunctionType, kind: type[M], wanted: str, one: str) -> type[M]:
        found = self.annotation(method, "return", wanted)
        problem = None
        if len(found) > 1:
            problem = f"returns {_names(found)}; {one}"
        elif found and not _is(found[0], kind):
            problem = f"returns {_names(found)}, which is no {kind.__name__}; {wanted}"
        elif found and self.is_concrete(cast("type[M]", found[0]), method):
            return cast("type[M]", found[0])
        if problem:
            self.problems.of_method(method, problem)
        return kind

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
        other = self._messages.setdefault(name, message)
        if other is not message:
            self.problems.of_method(
                method,
                f"{message.__name__} and {other.__name__} are both {name!r}; a saga uses one class per message name",
            )
        return other is message


def _is(value: object, kind: type) -> bool:
    return isinstance(value, type) and issubclass(value, kind)


def _names(values: object) -> str:
    return listed(getattr(value, "__name__", str(value)) for value in cast("list[object]", values))
