"""What a class statement and its methods say: where they stand, what they inherit, what their annotations mean."""

from __future__ import annotations

import sys
from types import CodeType, FrameType, FunctionType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from sagas.problems import Place

if TYPE_CHECKING:
    from collections.abc import Mapping

_MACHINERY = ("pydantic", "sagas.authoring", "sagas.compile", "sagas.source")


class Unresolved(Exception):  # noqa: N818 - never leaves the compiler
    """An annotation that means nothing where it stands."""


class Source:
    """A saga class as its author wrote it.

    `members` are the attributes of the class and its bases (those of `base` and above excepted) by name, in the order
    written, the base's first; the nearest definition of a name counts.
    """

    def __init__(self, cls: type, base: type) -> None:
        frame = _class_statement(cls.__name__)
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

    def owner(self, method: FunctionType) -> type | None:
        """The class of this hierarchy in whose body the method was written."""
        body, _, _ = method.__qualname__.rpartition(".")
        return next(
            (one for one in self.classes if (one.__qualname__, one.__module__) == (body, method.__module__)), None
        )

    def lost(self, method: FunctionType, value: object) -> bool:
        """Whether the name of what was made of a method came to mean something else in the same class body."""
        owner = self.owner(method)
        return owner is not None and vars(owner).get(method.__name__) is not value

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
        is_union = isinstance(annotation, UnionType) or _is_union(get_origin(annotation))
        return get_args(annotation) if is_union else (annotation,)


def _is_union(origin: object) -> bool:
    return origin is Union


def _class_statement(name: str) -> FrameType:
    """The frame that runs the class statement: it holds the code of a class body of that name."""
    frame: FrameType | None = sys._getframe(1)
    nearest: FrameType | None = None
    while frame:
        if nearest is None and not _is_machinery(frame):
            nearest = frame
        if any(isinstance(one, CodeType) and one.co_name == name for one in frame.f_code.co_consts):
            return frame
        frame = frame.f_back
    return nearest or sys._getframe(1)


def _is_machinery(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith(_MACHINERY)
