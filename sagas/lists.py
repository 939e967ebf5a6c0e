"""The lists of a state that are kept item by item: taken out of it at birth, put back for methods that read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from pydantic_core import from_json, to_json, to_jsonable_python

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sagas.authoring import Saga


class NotHere:
    """Stands for a list that a method was given without: whatever is done with it says so."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _say(self, *_: object) -> NoReturn:
        message = (
            f"self.{self._name} is worked off item by item and is not here; the methods of an @each get their item, "
            f"any other that reads self.{self._name} by that name gets the list"
        )
        raise RuntimeError(message)

    __iter__ = __len__ = __getitem__ = __contains__ = __bool__ = __eq__ = __add__ = _say
    __hash__ = None  # type: ignore[assignment]


def apart(state: bytes, lists: Collection[str]) -> tuple[bytes, dict[str, list[bytes]]]:
    """A state without its lists, and the items of each as JSON."""
    fields = from_json(state)
    taken = {name: [to_json(item) for item in fields.pop(name)] for name in lists}
    return to_json(fields), taken


def with_lists(state: bytes, names: Collection[str], lists: Mapping[str, Sequence[bytes]]) -> bytes:
    """A state with its lists, those that are not given empty."""
    parts = [b'"%b":[%b]' % (name.encode(), b",".join(lists.get(name, ()))) for name in names]
    rest = state[1:].lstrip()
    return b"{" + b",".join(parts) + (b"," if rest != b"}" else b"") + rest


def as_json(saga: Saga, names: Iterable[str]) -> dict[str, object]:
    """What the lists hold that are here."""
    return {name: to_jsonable_python(saga.__dict__[name]) for name in names}


def check_unchanged(saga: Saga, given: Mapping[str, object]) -> None:
    """See that a method left the lists alone that it was given: what it made of them would be lost.

    Raises:
        ValueError: it changed one.
    """
    now = as_json(saga, given)
    for name in given:
        if now[name] != given[name]:
            message = f"changed self.{name}, which is worked off item by item; it is made in @start only"
            raise ValueError(message)
