from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from messages.envelope import Raw
from storage.properties import packed, unpacked

_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.datetimes(timezones=st.just(UTC))
)
_VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("$bytes"), inner), max_leaves=12
)


@settings(max_examples=60)
@given(headers=st.dictionaries(st.text(), _VALUES), body=st.binary(), message_id=st.none() | st.text())
def test_a_message_comes_back_as_it_arrived(headers: dict[str, object], body: bytes, message_id: str | None) -> None:
    raw = Raw(body=body, routing_key="a.b", message_id=message_id, headers=headers)
    text = packed(raw)
    assert text.isascii()
    assert unpacked(body, text) == raw


def test_every_property_is_kept() -> None:
    raw = Raw(
        body=b"\xff",
        routing_key="r",
        message_id="m\x00",
        type="t",
        content_type="text/plain",
        content_encoding="gzip",
        correlation_id="c",
        reply_to="q",
        app_id="a",
        user_id="u",
        timestamp=datetime(2026, 1, 2, tzinfo=UTC),
        headers={"x-death": [{"count": 3, "time": datetime(2026, 1, 2, tzinfo=UTC)}], "price": Decimal("1.10")},
    )
    assert unpacked(raw.body, packed(raw)) == raw


def test_a_number_that_is_none_and_a_naive_time_survive() -> None:
    raw = Raw(body=b"", routing_key="", headers={"nan": float("nan"), "at": datetime(2026, 1, 2), 1: "odd"})  # type: ignore[dict-item]  # noqa: DTZ001
    headers = unpacked(b"", packed(raw)).headers
    assert str(headers["nan"]) == "nan"
    assert headers["at"] == datetime(2026, 1, 2)  # noqa: DTZ001


def test_a_value_of_an_unknown_kind_is_at_least_described() -> None:
    raw = Raw(body=b"", routing_key="", headers={"odd": {1, 2}})
    assert unpacked(b"", packed(raw)).headers == {"odd": "{1, 2}"}
