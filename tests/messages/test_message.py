"""A message class says its name and version, is immutable, and is refused when it could not travel."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from types import new_class
from typing import Any, Generic, TypeVar

import pytest
from pydantic import Field, SecretStr, ValidationError

from messages import REGISTRY, Command, Event, Message
from messages.errors import DefinitionError

T = TypeVar("T")


class PackParcel(Command, name="tests.PackParcel", version=3):
    order_id: str
    weight: Decimal = Decimal("0.5")
    photo: bytes = b""
    ready_at: datetime | None = None


def declare(kind: type[Message], /, **keywords: object) -> type[Message]:
    """A class statement with these keywords, some of which no type checker would let pass."""
    return new_class("Local.<locals>.Made", (kind,), keywords)


def refusal(kind: type[Message], /, **keywords: object) -> str:
    with pytest.raises(DefinitionError) as caught:
        declare(kind, **keywords)
    return str(caught.value)


def test_a_class_has_the_name_and_version_it_declares() -> None:
    assert (PackParcel.message_name, PackParcel.schema_version) == ("tests.PackParcel", 3)
    assert PackParcel.message_kind == "command"
    assert declare(Event, name="tests.Made").schema_version == 1
    assert declare(Event, name="tests.Made").message_kind == "event"


def test_a_message_cannot_be_changed() -> None:
    message = PackParcel(order_id="o-1")
    with pytest.raises(ValidationError, match="frozen"):
        setattr(message, "order_id", "o-2")  # noqa: B010 - the type checker refuses the plain assignment


def test_unknown_fields_are_ignored_on_the_way_in() -> None:
    assert PackParcel.model_validate_json('{"order_id": "o-1", "colour": "red"}') == PackParcel(order_id="o-1")


def test_decimals_travel_as_strings_and_bytes_as_base64() -> None:
    message = PackParcel(order_id="o-1", weight=Decimal("1.10"), photo=b"\xff\xfe\x00")
    body = message.model_dump_json()
    assert '"weight":"1.10"' in body
    assert '"photo":"__4A"' in body
    assert PackParcel.model_validate_json(body) == message


def test_bytes_are_read_in_either_alphabet_of_base64() -> None:
    for written in ("__4A", "//4A"):
        assert PackParcel.model_validate_json(f'{{"order_id": "1", "photo": "{written}"}}').photo == b"\xff\xfe\x00"


def test_a_moment_keeps_its_offset() -> None:
    message = PackParcel(order_id="o-1", ready_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert '"ready_at":"2026-01-02T03:04:05Z"' in message.model_dump_json()


def test_a_field_may_have_another_name_on_the_wire() -> None:
    class Renamed(Event, name="tests.Renamed"):
        order_id: str = Field(alias="orderId")

    assert Renamed(order_id="o-1").model_dump_json() == '{"orderId":"o-1"}'
    assert Renamed.model_validate_json('{"orderId": "o-1"}') == Renamed.model_validate_json('{"order_id": "o-1"}')


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_no_field_value(value: float) -> None:
    class Measured(Event, name="tests.Measured"):
        degrees: float

    with pytest.raises(ValidationError, match="finite"):
        Measured(degrees=value)


def test_an_abstract_class_holds_fields_for_others_and_has_no_name() -> None:
    class OfOrder(Event, abstract=True):
        order_id: str

    class Shipped(OfOrder, name="tests.Shipped"):
        pass

    assert OfOrder.message_name == ""
    assert Shipped.message_name == "tests.Shipped"
    assert Shipped(order_id="o-1").order_id == "o-1"


def test_a_class_does_not_inherit_the_name_of_a_named_class() -> None:
    assert "no name=" in refusal(PackParcel)


def test_a_generic_base_is_abstract_and_its_parametrisations_need_no_name() -> None:
    class Listed(Event, Generic[T], abstract=True):
        items: list[T]

    class Numbers(Listed[int], name="tests.Numbers"):
        pass

    assert Numbers.model_validate_json('{"items": [1]}').items == [1]


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({}, 'no name=; write name="<service>.<Message>"'),
        ({"nam": "a.B"}, "unknown keyword nam= (did you mean name=?)"),
        ({"name": "a.B", "verson": 1}, "unknown keyword verson= (did you mean version=?)"),
        ({"name": "a.B", "colour": 1}, "unknown keyword colour=; remove it"),
        ({"name": "9.B"}, "'9.B' is not a message name"),
        ({"name": ""}, "'' is not a message name"),
        ({"name": "a B"}, "'a B' is not a message name"),
        ({"name": "a.B\n"}, "is not a message name"),
        ({"name": "größe"}, "is not a message name"),
        ({"name": "a" * 256}, "is not a message name"),
        ({"name": 7}, "name=7 is not a message name"),
        ({"name": "a.B", "version": 0}, "version=0 is not a schema version"),
        ({"name": "a.B", "version": "1"}, "version='1' is not a schema version"),
        ({"name": "a.B", "version": True}, "version=True is not a schema version"),
        ({"name": "a.B", "version": 2**31}, "is not a schema version"),
        ({"name": "a.B", "abstract": True}, "an abstract class has no name"),
        ({"abstract": "yes"}, "abstract='yes' is not True or False"),
    ],
)
def test_a_wrong_keyword_is_an_error_that_says_what_to_write(keywords: dict[str, Any], said: str) -> None:
    assert said in refusal(Command, **keywords)


@pytest.mark.parametrize("name", ["A", "stock.ReserveStock", "a-b_c.D9", "a" * 255])
def test_a_name_of_the_wire_form_is_taken(name: str) -> None:
    assert declare(Command, name=name).message_name == name


def test_all_problems_of_a_class_are_told_together_with_the_place() -> None:
    text = refusal(Command, nme="a.B", version=0)
    assert len(text.splitlines()) == 3
    assert all("Made (" in line and "test_message.py:" in line for line in text.splitlines())


def test_a_secret_is_refused_since_it_would_travel_as_asterisks() -> None:
    with pytest.raises(DefinitionError, match="field password holds a secret"):

        class Login(Command, name="tests.Login"):
            password: SecretStr | None


def test_a_private_attribute_is_refused_since_it_would_not_travel() -> None:
    with pytest.raises(DefinitionError, match="private attribute _seen would not travel"):

        class Peek(Command, name="tests.Peek"):
            _seen: bool = False


@pytest.mark.filterwarnings("ignore:Field name:UserWarning")
def test_a_field_may_not_hide_what_the_engine_reads() -> None:
    with pytest.raises(DefinitionError, match="field schema_version hides the engine's"):
        new_class(
            "Hiding",
            (Event,),
            {"name": "tests.Hiding"},
            lambda body: body.update(__annotations__={"schema_version": int}),
        )


def test_a_class_at_the_top_of_a_module_is_known_and_one_inside_a_function_is_not() -> None:
    class Inner(Command, name="tests.Inner"):
        pass

    assert REGISTRY.find("tests.PackParcel", 3) is PackParcel
    assert Inner.message_name not in REGISTRY
