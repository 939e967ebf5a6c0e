"""A message class of today reads bodies of its older versions, and says at its creation what keeps it from that."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from types import new_class
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from messages import Command, Envelope, Event, parse, upcast
from messages.errors import DefinitionError, MalformedMessage
from messages.upcasting import reads

if TYPE_CHECKING:
    from collections.abc import Callable

E = TypeVar("E", bound=Event)


class Placed(Event, name="tests.upcasting.Placed", version=3):
    order_id: str
    total: Decimal
    currency: str

    @upcast(1)
    @classmethod
    def with_total(cls, body: dict[str, Any]) -> dict[str, Any]:
        body["total"] = body.pop("amount")
        return body

    @upcast(2)
    @classmethod
    def with_currency(cls, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "currency": "EUR"}


def read(body: dict[str, Any], version: int, of: type[E]) -> E:
    envelope = Envelope(message_id="m-1", name=of.message_name, body=json.dumps(body).encode(), schema_version=version)
    return parse(envelope, of)


def refusal(body: dict[str, Any], version: int, of: type[Event]) -> str:
    with pytest.raises(MalformedMessage) as caught:
        read(body, version, of)
    assert caught.value.message_id == "m-1"
    return str(caught.value)


def test_a_body_goes_through_one_version_after_the_other() -> None:
    today = Placed(order_id="o-1", total=Decimal("9.90"), currency="EUR")
    assert read({"order_id": "o-1", "amount": "9.90"}, 1, Placed) == today
    assert read({"order_id": "o-1", "total": "9.90"}, 2, Placed) == today
    assert read({"order_id": "o-1", "total": "9.90", "currency": "EUR"}, 3, Placed) == today


def test_a_body_of_the_own_version_meets_no_upcast() -> None:
    assert read({"order_id": "o-1", "total": "1", "currency": "CHF"}, 3, Placed).currency == "CHF"


def test_a_class_without_upcasts_reads_older_bodies_as_they_are() -> None:
    class Grown(Event, name="tests.upcasting.Grown", version=3):
        order_id: str
        note: str = ""

    assert read({"order_id": "o-1", "gone": True}, 1, Grown).order_id == "o-1"


def test_a_version_before_the_first_upcast_is_read_as_it_is() -> None:
    class Late(Event, name="tests.upcasting.Late", version=3):
        order_id: str
        note: str = ""

        @upcast(2)
        @classmethod
        def noted(cls, body: dict[str, Any]) -> dict[str, Any]:
            return {**body, "note": "from 2"}

    assert [read({"order_id": "o-1"}, version, Late).note for version in (1, 2, 3)] == ["", "from 2", ""]
    assert [reads(Late, version) for version in (1, 2, 3, 4)] == [False, True, True, False]


def test_a_body_that_does_not_fit_is_told_with_both_versions() -> None:
    assert refusal({"order_id": 1, "total": "2"}, 2, Placed) == (
        "tests.upcasting.Placed version 2, read as version 3: order_id: Input should be a valid string"
    )


def test_an_upcast_that_raises_makes_a_malformed_message_that_names_it() -> None:
    text = refusal({"order_id": "o-1"}, 1, Placed)
    assert text.startswith(f"Placed.with_total ({__file__}:")
    assert text.endswith("), which makes version 2 of version 1, raised KeyError: 'amount'")


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (None, "returned NoneType, not a dict"),
        ({"note": float("nan")}, "made what cannot be a body: NaN"),
        ({"note": object()}, "made what cannot be a body: Unable to serialize"),
        ({"note": 2**70}, "made what cannot be a body: "),
    ],
)
def test_what_an_upcast_makes_is_checked_like_what_arrives(made: object, text: str) -> None:
    class Odd(Event, name="tests.upcasting.Odd", version=2):
        note: Any = None

        @upcast(1)
        @classmethod
        def made(cls, body: dict[str, Any]) -> dict[str, Any]:
            return made  # type: ignore[return-value]

    assert text in refusal({}, 1, Odd)


def test_an_upcast_that_ends_the_process_does_not() -> None:
    class Ending(Event, name="tests.upcasting.Ending", version=2):
        @upcast(1)
        @classmethod
        def ends(cls, body: dict[str, Any]) -> dict[str, Any]:
            sys.exit("no")

    assert "raised SystemExit: no" in refusal({}, 1, Ending)


def test_a_version_that_extends_the_one_before_has_its_upcasts_too() -> None:
    class First(Event, name="tests.upcasting.Extended", version=2):
        note: str

        @upcast(1)
        @classmethod
        def noted(cls, body: dict[str, Any]) -> dict[str, Any]:
            return {**body, "note": "from 1"}

    class Second(First, name="tests.upcasting.Extended", version=3):
        place: str

        @upcast(2)
        @classmethod
        def placed(cls, body: dict[str, Any]) -> dict[str, Any]:
            return {**body, "place": "here"}

    class Another(Second, name="tests.upcasting.Another", version=1):
        pass

    assert read({}, 1, Second) == Second(note="from 1", place="here")
    assert not reads(Another, 2)


def one(cls: type, body: dict[str, Any]) -> dict[str, Any]:
    return body


def three(cls: type, body: dict[str, Any], more: int) -> dict[str, Any]:
    return body


async def later(cls: type, body: dict[str, Any]) -> dict[str, Any]:
    return body


def declared(version: int, *methods: object, abstract: bool = False) -> str:
    """What the class statement with these upcasts says is wrong."""
    keywords = {"abstract": True} if abstract else {"name": "tests.upcasting.Declared", "version": version}
    body = {f"m{number}": method for number, method in enumerate(methods)}
    with pytest.raises(DefinitionError) as caught:
        new_class("Declared.<locals>.Made", (Command,), keywords, lambda namespace: namespace.update(body))
    return str(caught.value)


def over(version: object, method: Callable[..., object]) -> object:
    return upcast(version)(classmethod(method))  # type: ignore[type-var,arg-type]


@pytest.mark.parametrize(
    ("text", "version", "methods"),
    [
        ("a body of version 1 would become one of version 2 and no more; write @upcast(2)", 3, [over(1, one)]),
        ("names no schema version; write a whole number from 1", 2, [over("1", one)]),
        ("names no schema version; write a whole number from 1", 2, [over(True, one)]),
        ("reads version 2, and the class is version 2", 2, [over(1, one), over(2, one)]),
        ("version 1 has an upcast in one (", 2, [over(1, one), over(1, one)]),
        ("takes (cls, body, more); write def three(cls, body)", 2, [over(1, three)]),
        ("is async or a generator", 2, [over(1, later)]),
    ],
)
def test_what_is_wrong_with_an_upcast_is_told_when_the_class_is_created(
    text: str, version: int, methods: list[object]
) -> None:
    told = declared(version, *methods)
    assert text in told
    assert f"({__file__}:" in told


def test_an_abstract_class_has_no_upcasts() -> None:
    assert "stands in an abstract class" in declared(1, over(1, one), abstract=True)


def test_an_upcast_stands_over_a_class_method() -> None:
    with pytest.raises(
        DefinitionError, match=r"one \(.*\): @upcast\(1\) stands over a class method; write @classmethod"
    ):
        upcast(1)(one)
