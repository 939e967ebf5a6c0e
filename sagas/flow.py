"""The author's flow values: what `reserve >> pay >> label` makes in a class body.

Nothing is judged here: a flow keeps whatever was put into it, so that all that is wrong with a class can be told at
once when it is compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from messages.errors import DefinitionError
from sagas.source import place_of_author

if TYPE_CHECKING:
    from collections.abc import Iterator


class Flow:
    """A part of a saga's flow: a step, or several joined by `>>`."""

    def __rshift__(self, after: Flow, /) -> Flow:
        """First this, then `after`."""
        return Sequence(self, after)

    if not TYPE_CHECKING:  # type checkers are to report `hook >> step`; the class error names it when it runs

        def __rrshift__(self, before: object, /) -> Flow:
            return Sequence(before, self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> NoReturn:
        text = "a flow is annotated; write `flow = reserve >> pay` without an annotation, it is no state field"
        raise DefinitionError(f"saga ({place_of_author()}): {text}")


class Sequence(Flow):
    """Its parts one after the other. `a >> (b >> c)` is the same as `a >> b >> c`."""

    def __init__(self, *parts: object) -> None:
        self._parts = tuple(leaf for part in parts for leaf in leaves(part))


def leaves(flow: object) -> Iterator[object]:
    """What a flow is made of, in order: steps, and whatever else an author put there by mistake."""
    if isinstance(flow, Sequence):
        yield from flow._parts
    else:
        yield flow
