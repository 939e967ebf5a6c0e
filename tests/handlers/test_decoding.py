"""What one delivery turns out to be, and what is said of one that is none of this saga's."""

from __future__ import annotations

from typing import Self

import pytest
from pydantic import Field

from handlers.decoding import Decoded, decode
from messages import Command, Event
from messages.codec import Limits
from messages.envelope import Raw
from messages.errors import MethodRaised, MissingKey
from sagas import Saga, definition_of, start, step
from sagas.catalog.ordering import PlaceOrder


@pytest.mark.parametrize(
    ("type_", "said"),
    [
        ("ordering.Unheard", "consumes no ordering.Unheard; it knows "),
        (None, "consumes no shop.saga.PlaceOrder (its routing key: it has no type, which names a message that comes"),
        ("", "consumes no shop.saga.PlaceOrder (its routing key: it has no type, which names a message that comes"),
    ],
)
def test_a_message_that_is_not_known_is_told_where_its_name_was_taken_from(type_: str | None, said: str) -> None:
    raw = Raw(body=b"{}", routing_key="shop.saga.PlaceOrder", message_id="m-1", type=type_)
    assert said in str(decode(raw, definition_of(PlaceOrder), Limits()).error)


class Asked(Event, name="decoding.Asked"):
    loan: str = Field(alias="loanId")


class Check(Command, name="decoding.Check"):
    loan: str


class Checked(Event, name="decoding.Checked"):
    loan: str = Field(alias="loanId")


class Loan(Saga, key="loanId"):
    loan: str

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(loan=event.loan)

    @step(success=Checked)
    def check(self) -> Check:
        return Check(loan=self.loan)


class Refusing(Loan, key="loanId", keys={Asked: lambda event: [event.loan]}): ...


class Raising(Loan, key="loanId", keys={Asked: lambda event: {}[event.loan]}): ...


def _read(saga: type[Saga], name: str, body: bytes) -> Decoded:
    raw = Raw(body=body, routing_key=name, message_id="m-1", type=name)
    return decode(raw, definition_of(saga), Limits())


@pytest.mark.parametrize("name", ["decoding.Asked", "decoding.Checked"])
def test_a_key_is_found_under_the_name_that_it_has_in_the_body(name: str) -> None:
    message = _read(Loan, name, b'{"loanId": "7"}')
    assert (message.error, message.key, message.alias) == (None, "7", None)


def test_what_a_class_makes_of_an_event_that_is_no_key_is_told() -> None:
    [refused, raised] = [_read(saga, "decoding.Asked", b'{"loanId": "7"}').error for saga in (Refusing, Raising)]
    assert isinstance(refused, MissingKey)
    assert "keys= makes of decoding.Asked: no business key: list is no key" in str(refused)
    assert (isinstance(raised, MethodRaised), raised and raised.message_id) == (True, "m-1")
    assert "Raising.keys[Asked]: KeyError: '7' (test_decoding.py:" in str(raised)
