"""What one delivery turns out to be, and what is said of one that is none of this saga's."""

from __future__ import annotations

import pytest

from handlers.decoding import decode
from messages.codec import Limits
from messages.envelope import Raw
from sagas import definition_of
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
