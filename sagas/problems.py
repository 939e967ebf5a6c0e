"""What is wrong with what an author wrote: all problems of a saga class at once, and where a method raised."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePath
from typing import TYPE_CHECKING

from messages.errors import DefinitionError
from messages.printable import in_words, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FunctionType
    from typing import Any


MAX_RAISED = 2_000
"""Longest text of what an author's method raised, in characters."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something stands in the source."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Problems:
    """The problems of one class. `str()` shows each as `Class.method (file:line): problem; remedy`, by line."""

    def __init__(self, name: str, place: Place) -> None:
        self._name, self._place = name, place
        self._found: list[tuple[Place, str]] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def __str__(self) -> str:
        lines = [text for _, text in sorted(self._found, key=lambda found: found[0])]
        return "\n".join(dict.fromkeys(lines))

    def of_class(self, text: str) -> None:
        """Something about the class as a whole."""
        self._found.append((self._place, f"{self._name} ({self._place}): {text}"))

    def of_method(self, method: FunctionType, text: str) -> None:
        """Something about one of its methods."""
        place = Place(method.__code__.co_filename, method.__code__.co_firstlineno)
        self._found.append((place, f"{self._name}.{method.__name__} ({place}): {text}"))

    def raise_if_any(self) -> None:
        """End the class creation if anything was found.

        Raises:
            DefinitionError: with all of it.
        """
        if self._found:
            raise DefinitionError(str(self), saga_type=self._name)


def raised_at(file: str, error: BaseException) -> tuple[Place | None, str]:
    """The deepest line of an author's file that an exception came through, and `, from module:line` if it came from
    deeper down.

    None where it never was there; for one that was made of another, as a timeout is, that one counts.
    """
    for each in (error, error.__cause__):
        trace = each.__traceback__ if each is not None else None
        own, origin = None, ""
        while trace is not None:
            frame = trace.tb_frame
            if frame.f_code.co_filename == file:
                own, origin = Place(file, trace.tb_lineno), ""
            else:
                origin = f", from {frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"
            trace = trace.tb_next
        if own is not None:
            return own, origin
    return None, ""


def told(name: str, method: Callable[..., Any], error: BaseException) -> str:
    """What happened in a method, in one line: `PlaceOrder.reserve: KeyError: 'x' (ordering.py:42)`.

    The line is the deepest of the method's own file; where it was raised below that stands behind it.
    """
    code = getattr(method, "__code__", None)
    place, origin = raised_at(code.co_filename, error) if code is not None else (None, "")
    line = "" if place is None else printable(f" ({PurePath(place.file).name}:{place.line}{origin})")
    return printable(f"{name}: {in_words(error, MAX_RAISED)}", MAX_RAISED - len(line)) + line


def suggestion(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or nothing."""
    close = get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def listed(names: Iterable[str]) -> str:
    """Names for a sentence: `a, b and c`."""
    *most, last = list(names) or ["nothing"]
    return f"{', '.join(most)} and {last}" if most else last
