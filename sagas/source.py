"""What a class statement and its methods say: where they stand, what they inherit, what their annotations mean."""

from __future__ import annotations

import sys
from types import CodeType, FrameType, FunctionType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args

from sagas.problems import Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sagas.written import Body

_WORDS = (
    "sagas.announcements",
    "sagas.flow",
    "sagas.listeners",
    "sagas.migrate",
    "sagas.steps",
    "sagas.written",
)
_MACHINERY = ("pydantic", "typing", "sagas.authoring", "sagas.compile", "sagas.source", *_WORDS)


def place_of_author() -> Place:
    """Where the author's code is that is being run."""
    frame = sys._getframe(1)
    while frame.f_back and _is_machinery(frame):
        frame = frame.f_back
    return Place(frame.f_code.co_filename, frame.f_lineno)


class Unresolved(Exception):  # noqa: N818 - never leaves the compiler
    """An annotation that means nothing where it stands."""


class Source:
    """A saga class as its author wrote it.

    `members` are the attributes of the class and its bases (those of `base` and above excepted) by name, in the order
    written, the base's first; the nearest definition of a name counts. `body` is the code of the class body, where it
    can be found.
    """

    def __init__(self, cls: type, base: type) -> None:
        frame, self.body = _class_statement(cls.__name__)
        self.cls = cls
        self.place = Place(frame.f_code.co_filename, frame.f_lineno)
        self.classes = [each for each in cls.__mro__ if each not in base.__mro__]
        self.members: dict[str, object] = {}
        for each in reversed(self.classes):
            self.members |= vars(each)
        self._names: dict[str, Any] = dict(frame.f_locals) if frame.f_locals is not frame.f_globals else {}
        self._names[cls.__name__] = cls

    def inherit_names(self, names: Mapping[str, Any]) -> None:
        """Let annotations of inherited methods see what was local where their class was written."""
        self._names = {**names, **self._names}

    @property
    def local_names(self) -> dict[str, Any]:
        """What annotations see beyond the module."""
        return self._names

    def wrote(self, body: Body | None) -> bool:
        """Whether this is the body of the class or of one of its bases."""
        return body in {(each.__module__, each.__qualname__) for each in self.classes}

    def is_own(self, body: Body | None) -> bool:
        """Whether this is the body of the class itself."""
        return body == (self.cls.__module__, self.cls.__qualname__)

    def effective(self, method: FunctionType) -> FunctionType:
        """The method that a subclass put under the same name, else the method itself."""
        found = self.members.get(method.__name__)
        return found if isinstance(found, FunctionType) else method

    def annotation(self, method: FunctionType, name: str) -> tuple[object, ...]:
        """The types that a parameter (or "return") is annotated with: several for a union, none without annotation.

        Raises:
            Unresolved: the annotation cannot be evaluated.
        """
        try:
            annotation = method.__annotations__[name]
            if isinstance(annotation, str):
                annotation = eval(annotation, method.__globals__, self._names)  # noqa: S307 - the author's own code
        except KeyError:
            return ()
        except Exception as error:
            raise Unresolved(f"annotation {method.__annotations__.get(name)!r}: {error}") from error
        return tuple(_alternatives(annotation))


def _alternatives(annotation: object) -> Iterator[object]:
    """The types of a union, or the one type; aliases and `Annotated` are seen through."""
    if hasattr(annotation, "__value__"):  # `type Refusal = PaymentDeclined | CardExpired`
        yield from _alternatives(annotation.__value__)
    elif hasattr(annotation, "__metadata__"):  # Annotated
        yield from _alternatives(get_args(annotation)[0])
    elif isinstance(annotation, UnionType) or getattr(annotation, "__origin__", None) is Union:
        for each in get_args(annotation):
            yield from _alternatives(each)
    else:
        yield annotation


def _class_statement(name: str) -> tuple[FrameType, CodeType | None]:
    """The frame that runs the class statement, and the code of the class body, which that frame holds."""
    nearest = sys._getframe(1)
    while nearest.f_back and _is_machinery(nearest):
        nearest = nearest.f_back
    frame: FrameType | None = nearest
    while frame:
        bodies = [one for one in frame.f_code.co_consts if isinstance(one, CodeType) and one.co_name == name]
        above = [body for body in bodies if body.co_firstlineno <= frame.f_lineno]
        if above:
            return frame, max(above, key=lambda body: body.co_firstlineno)
        frame = frame.f_back
    return nearest, None


def _is_machinery(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    return module in _MACHINERY or module.startswith("pydantic.")
