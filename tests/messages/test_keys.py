"""A business key is the same text wherever it is computed, and what is no key is refused."""

from __future__ import annotations

from decimal import Decimal
from enum import Enum, StrEnum
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import business_key
from messages.errors import MissingKey


class Shop(StrEnum):
    BERLIN = "berlin"


class OldShop(str, Enum):  # noqa: UP042 - authors still write it so
    BERLIN = "berlin"


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("o-1", "o-1"),
        (" o 1 ", " o 1 "),
        ("Straße 7 🎼", "Straße 7 🎼"),
        ("k" * 255, "k" * 255),
        (7, "7"),
        (-(2**63), "-9223372036854775808"),
        (UUID("0C0C0C0C-0C0C-4C0C-8C0C-0C0C0C0C0C0C"), "0c0c0c0c-0c0c-4c0c-8c0c-0c0c0c0c0c0c"),
        ("0C0C0C0C-0C0C-4C0C-8C0C-0C0C0C0C0C0C", "0C0C0C0C-0C0C-4C0C-8C0C-0C0C0C0C0C0C"),
        (Shop.BERLIN, "berlin"),
        (OldShop.BERLIN, "berlin"),
    ],
)
def test_texts_stay_and_integers_and_uuids_are_canonical(value: object, key: str) -> None:
    assert business_key(value) == key


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "k" * 256,
        "k" * 2**20,
        "a\nb",
        "a\x00b",
        "\x7f",
        "\x85",
        "\ud800",
        True,
        1.0,
        Decimal(1),
        2**63,
        b"a",
        [],
        {},
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_what_is_no_key_is_refused(value: object) -> None:
    with pytest.raises(MissingKey) as caught:
        business_key(value)
    assert str(caught.value).isprintable()


@given(st.one_of(st.text(st.characters()), st.integers(), st.uuids(), st.none(), st.floats(), st.booleans()))
def test_a_key_can_be_stored_and_is_its_own_key(value: object) -> None:
    try:
        key = business_key(value)
    except MissingKey:
        return
    assert 1 <= len(key.encode("utf-8")) <= 4 * 255
    assert business_key(key) == key
