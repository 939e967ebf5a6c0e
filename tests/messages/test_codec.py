"""What arrives is checked before it is believed; what leaves can be read back."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import field_validator

from messages import (
    Command,
    Envelope,
    Event,
    Limits,
    Message,
    Raw,
    body_hash,
    encode,
    headers_of,
    open_envelope,
    parse,
)
from messages.catalog.ordering import OrderLine, OrderPlaced, ReserveStock
from messages.errors import MalformedMessage, MessageError, OversizeMessage
from messages.printable import MAX_TEXT

PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=255)
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


class Everything(Event, name="tests.Everything", version=2):
    """One field of every kind that messages are made of."""

    text: str
    number: int
    ratio: float
    amount: Decimal
    flag: bool
    data: bytes
    moment: datetime
    id: UUID
    note: str | None
    lines: list[OrderLine]
    labels: dict[str, int]
    anything: Any


EVERYTHING = st.builds(
    Everything,
    text=PLAIN,
    number=st.integers(min_value=-(2**63), max_value=2**63 - 1),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    amount=st.decimals(allow_nan=False, allow_infinity=False),
    flag=st.booleans(),
    data=st.binary(),
    moment=st.datetimes(timezones=st.just(UTC)),
    id=st.uuids(),
    note=st.none() | PLAIN,
    lines=st.lists(
        st.builds(
            OrderLine,
            sku=PLAIN,
            quantity=st.integers(min_value=1, max_value=2**63 - 1),
            unit_price=st.just(Decimal("1.50")),
        )
    ),
    labels=st.dictionaries(PLAIN, st.integers(min_value=0, max_value=9)),
    anything=st.one_of(
        st.none(), PLAIN, st.lists(st.integers(min_value=0, max_value=9)), st.dictionaries(PLAIN, st.none())
    ),
)


def envelope(body: bytes = b"{}", name: str = "tests.Everything") -> Envelope:
    return Envelope(message_id="m-1", name=name, body=body)


def raw(**changes: Any) -> Raw:  # noqa: ANN401 - a test of wrong types too
    return replace(Raw(body=b"{}", routing_key="stock.StockReserved", message_id="m-1"), **changes)


def refusal(arrived: Raw) -> str:
    with pytest.raises(MalformedMessage) as caught:
        open_envelope(arrived)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= MAX_TEXT
    return str(caught.value)


# encode and parse


@given(EVERYTHING)
def test_a_message_survives_the_wire(message: Everything) -> None:
    body = encode(message)
    assert parse(envelope(body), Everything) == message
    assert encode(parse(envelope(body), Everything)) == body


@given(EVERYTHING)
def test_a_message_survives_the_envelope_too(message: Everything) -> None:
    sent = Envelope(message_id="m-1", name=message.message_name, schema_version=2, body=encode(message))
    arrived = open_envelope(Raw(body=sent.body, routing_key=sent.name, message_id="m-1", headers=headers_of(sent)))
    assert arrived == sent


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_message_error(body: bytes) -> None:
    try:
        parse(envelope(body), Everything)
    except MessageError as error:
        assert str(error).isprintable()
        assert len(str(error)) <= MAX_TEXT
        assert error.message_id == "m-1"


def test_the_wrong_fields_are_named_and_not_their_values() -> None:
    line = b'{"sku": "a", "quantity": 0, "unit_price": 1}'
    body = b'{"order_id": 7, "customer_id": "c", "total": "secret", "lines": [' + line + b"]}"
    with pytest.raises(MalformedMessage) as caught:
        parse(envelope(body, "ordering.OrderPlaced"), OrderPlaced)
    text = str(caught.value)
    assert text.startswith("ordering.OrderPlaced: order_id: ")
    assert "lines.0.quantity: Input should be greater than or equal to 1" in text
    assert "secret" not in text


def test_a_hundred_wrong_fields_make_a_short_text() -> None:
    body = b'{"order_id": "1", "customer_id": "c", "total": 1, "lines": [' + b"0," * 99 + b"0]}"
    with pytest.raises(MalformedMessage, match="and 95 more") as caught:
        parse(envelope(body), OrderPlaced)
    assert len(str(caught.value)) <= MAX_TEXT


def test_half_a_million_wrong_values_are_counted_and_not_listed() -> None:
    body = b'{"order_id": "1", "customer_id": "c", "total": 1, "lines": [' + b"0," * 500_000 + b"0]}"
    with pytest.raises(MalformedMessage, match="500001 values do not fit the class"):
        parse(envelope(body), OrderPlaced)


def test_a_key_of_control_characters_in_a_wrong_field_is_escaped() -> None:
    class Labelled(Event, name="tests.Labelled"):
        labels: dict[str, int]

    body = b'{"labels": {"\\u001b[31m\\n": "x"}}'
    with pytest.raises(MalformedMessage, match=r"labels\.\\x1b\[31m\\n: ") as caught:
        parse(envelope(body), Labelled)
    assert str(caught.value).isprintable()


def test_a_validator_that_raises_makes_a_malformed_message() -> None:
    class Fragile(Event, name="tests.Fragile"):
        code: str

        @field_validator("code")
        @classmethod
        def looked_up(cls, code: str) -> str:
            return {"known": "code"}[code]

    with pytest.raises(MalformedMessage, match=r"a validator of .*Fragile raised KeyError: 'other'"):
        parse(envelope(b'{"code": "other"}'), Fragile)


class MuteError(ValueError):
    def __str__(self) -> str:
        raise LookupError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SystemExit(3), "raised SystemExit: 3"),
        (MuteError(), "raised LookupError"),
        (ValueError("no\ud800 such code"), "no"),
    ],
)
def test_whatever_a_validator_raises_the_message_is_malformed(error: BaseException, told: str) -> None:
    class Guarded(Event, name="codec.Guarded"):
        code: str

        @field_validator("code")
        @classmethod
        def known(cls, _: str) -> str:
            raise error

    with pytest.raises(MalformedMessage, match=told):
        parse(Envelope(message_id="m", name="codec.Guarded", body=b'{"code":"x"}'), Guarded)


def test_a_body_that_readers_would_disagree_on_is_refused_even_in_a_field_that_is_ignored() -> None:
    with pytest.raises(MalformedMessage, match="'ignored' stands twice") as caught:
        parse(envelope(b'{"code": "a", "ignored": 1, "ignored": 2}'), Everything)
    assert caught.value.message_id == "m-1"


class Loose(Command, name="tests.Loose"):
    value: Any


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "NaN is not JSON"),
        (float("inf"), "Infinity is not JSON"),
        (2**63, "does not fit into 64 bits"),
        (10**5000, "cannot be sent"),
        ("\0", "U+0000"),
        ("\ud800", "cannot be sent"),
        ({1: "a", "1": "b"}, "stands twice"),
        (object(), "cannot be sent"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_reader_would_take_is_not_sent(value: object, said: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        encode(Loose(value=value))
    assert str(caught.value).startswith("tests.Loose cannot be sent: ")
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_value_that_contains_itself_is_not_sent() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(MalformedMessage, match="cannot be sent"):
        encode(Loose.model_construct(value=endless))


def test_a_value_deeper_than_allowed_is_not_sent() -> None:
    value: object = None
    for _ in range(64):
        value = [value]
    with pytest.raises(MalformedMessage, match="deeper than 64"):
        encode(Loose(value=value))


def test_a_field_of_another_type_than_declared_is_not_sent() -> None:
    with pytest.raises(MalformedMessage, match="cannot be sent"):
        encode(ReserveStock(order_id="o-1", lines=[]).model_copy(update={"order_id": 7}))


def test_a_body_as_long_as_allowed_is_sent_and_a_longer_one_is_not() -> None:
    body = encode(Loose(value="x" * 100))
    assert encode(Loose(value="x" * 100), Limits(max_body=len(body))) == body
    with pytest.raises(OversizeMessage, match=f"{len(body)} bytes, {len(body) - 1} are allowed"):
        encode(Loose(value="x" * 100), Limits(max_body=len(body) - 1))


def test_the_hash_of_a_body_is_its_sha_256() -> None:
    assert body_hash(b"{}") == hashlib.sha256(b"{}").digest()


# open_envelope


def test_an_envelope_holds_what_the_properties_and_headers_say() -> None:
    arrived = Raw(
        body=b"{}",
        routing_key="elsewhere",
        message_id="m-1",
        type="stock.StockReserved",
        content_type="application/json; charset=utf-8",
        content_encoding="UTF-8",
        correlation_id="s-1",
        reply_to="antiphon.saga.PlaceOrder",
        app_id="stock",
        timestamp=datetime(2026, 1, 2, tzinfo=UTC),
        headers={
            "schema-version": 2,
            "idempotency-key": "s-1/reserve/1/do",
            "compensates": "s-1/reserve/1/do",
            "causation-id": "m-0",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "tracestate": "vendor=1",
            "x-death": [{"count": 7}],
        },
    )
    assert open_envelope(arrived) == Envelope(
        message_id="m-1",
        name="stock.StockReserved",
        body=b"{}",
        schema_version=2,
        source="stock",
        correlation_id="s-1",
        causation_id="m-0",
        reply_to="antiphon.saga.PlaceOrder",
        idempotency_key="s-1/reserve/1/do",
        compensates="s-1/reserve/1/do",
        timestamp=datetime(2026, 1, 2, tzinfo=UTC),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        tracestate="vendor=1",
    )


def test_the_headers_to_send_are_those_that_have_a_value() -> None:
    assert headers_of(envelope()) == {"schema-version": 1}
    full = replace(
        envelope(),
        schema_version=2,
        idempotency_key="k",
        compensates="c",
        causation_id="m",
        traceparent="t",
        tracestate="s",
    )
    assert headers_of(full) == {
        "schema-version": 2,
        "idempotency-key": "k",
        "compensates": "c",
        "causation-id": "m",
        "traceparent": "t",
        "tracestate": "s",
    }


def test_the_body_is_not_read_yet() -> None:
    assert open_envelope(raw(body=b"no JSON at all")).body == b"no JSON at all"


def test_a_message_without_an_id_is_malformed() -> None:
    assert "message_id is missing" in refusal(raw(message_id=None))
    assert "message_id is missing" in refusal(raw(message_id=""))


@pytest.mark.parametrize("message_id", ["a\r\nb", "a\0b", "\x1b[31m", "ä", "m" * 256, "a\u202eb"])
def test_an_id_is_at_most_255_printable_ascii_characters(message_id: str) -> None:
    assert refusal(raw(message_id=message_id)).startswith("message_id ")


def test_what_cannot_be_printed_is_escaped_once() -> None:
    assert refusal(raw(app_id="evil\x1b[31m")).startswith("app_id 'evil\\x1b[31m' is not")


@given(PRINTABLE)
def test_any_printable_id_is_taken_as_it_is(message_id: str) -> None:
    assert open_envelope(raw(message_id=message_id)).message_id == message_id


def test_the_type_names_the_message_and_the_routing_key_does_where_there_is_no_type() -> None:
    assert open_envelope(raw(type="stock.OutOfStock")).name == "stock.OutOfStock"
    assert open_envelope(raw(type="")).name == "stock.StockReserved"
    assert "routing key (there is no type)" in refusal(raw(routing_key="antiphon.saga.#"))
    assert refusal(raw(type="a\nb")).startswith("type ")
    assert refusal(raw(type="a" * 256)).startswith("type ")


@pytest.mark.parametrize(
    "content_type", [None, "", "application/json", "Application/JSON", 'application/json; charset="UTF-8"']
)
def test_json_is_taken_with_and_without_a_content_type(content_type: str | None) -> None:
    assert open_envelope(raw(content_type=content_type)).body == b"{}"


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/octet-stream", "application/json; charset=latin-1", "application/xml\n"]
)
def test_another_content_type_is_malformed(content_type: str) -> None:
    assert refusal(raw(content_type=content_type)).startswith("content_type is ")


def test_a_compressed_body_is_never_inflated() -> None:
    assert open_envelope(raw(content_encoding="identity")).body == b"{}"
    for encoding in ("gzip", "deflate", "utf-16"):
        assert refusal(raw(content_encoding=encoding)).startswith("content_encoding is ")


@pytest.mark.parametrize(
    ("value", "version"), [(None, 1), ("", 1), (3, 3), ("3", 3), ("003", 3), (b"12", 12), (2**31 - 1, 2**31 - 1)]
)
def test_a_schema_version_is_an_integer_or_digits(value: object, version: int) -> None:
    assert open_envelope(raw(headers={"schema-version": value})).schema_version == version


@pytest.mark.parametrize(
    "value", [0, -1, "0", "-1", "1.0", "v1", "\uff13", "9" * 5000, 2**31, 1.0, True, [1], {"a": 1}, b"\xff"], ids=ascii
)
def test_anything_else_is_no_schema_version(value: object) -> None:
    assert refusal(raw(headers={"schema-version": value})).startswith("schema-version ")


@pytest.mark.parametrize("header", ["causation-id", "idempotency-key", "compensates"])
@pytest.mark.parametrize("value", [7, True, ["m"], {"a": {"b": {}}}, b"\xff", "a\nb", "m" * 256, "\ud800"], ids=ascii)
def test_a_header_that_guards_an_effect_must_be_right(header: str, value: object) -> None:
    assert refusal(raw(headers={header: value})).startswith(header)


@pytest.mark.parametrize("value", [7, ["m"], b"\xff", "a\nb", "m" * 600, "ä"], ids=lambda value: ascii(value)[:20])
def test_a_property_that_only_decorates_is_dropped_when_it_is_wrong(value: object) -> None:
    arrived = raw(correlation_id=value, reply_to=value, headers={"traceparent": value, "tracestate": value})
    assert open_envelope(arrived) == envelope(name="stock.StockReserved")


def test_a_trace_that_is_not_of_the_w3c_form_is_dropped_with_its_state() -> None:
    arrived = raw(headers={"traceparent": "00-abc-def-01", "tracestate": "vendor=1"})
    assert (open_envelope(arrived).traceparent, open_envelope(arrived).tracestate) == (None, None)


@pytest.mark.parametrize(
    "name", ["correlation_id", "reply_to", "app_id", "user_id", "type", "content_type", "content_encoding"]
)
def test_an_empty_property_is_an_absent_one(name: str) -> None:
    assert open_envelope(raw(**{name: ""})) == open_envelope(raw())


def test_an_empty_header_is_an_absent_one() -> None:
    names = ("causation-id", "idempotency-key", "compensates", "traceparent", "tracestate", "schema-version")
    assert open_envelope(raw(headers=dict.fromkeys(names, ""))) == open_envelope(raw())


def test_a_text_header_may_come_as_bytes() -> None:
    assert open_envelope(raw(headers={"causation-id": b"m-0"})).causation_id == "m-0"


def test_the_source_is_the_user_the_broker_vouches_for_else_the_application() -> None:
    assert open_envelope(raw(user_id="stock", app_id="other")).source == "stock"
    assert open_envelope(raw(app_id="Lager Süd")).source == "Lager Süd"
    assert open_envelope(raw()).source == ""
    assert refusal(raw(app_id="a\0b")).startswith("app_id ")


def test_headers_of_the_broker_and_of_others_change_nothing() -> None:
    headers = {f"x-{number}": number for number in range(10_000)} | {"x-death": [{"count": 99}], "x-delivery-count": 99}
    assert open_envelope(raw(headers=headers)) == open_envelope(raw())


def test_a_moment_without_an_offset_is_taken_as_utc() -> None:
    assert open_envelope(raw(timestamp=datetime(2026, 1, 2))).timestamp == datetime(2026, 1, 2, tzinfo=UTC)  # noqa: DTZ001


def test_a_body_longer_than_allowed_is_oversize_and_says_whose_it_is() -> None:
    limits = Limits(max_body=10)
    assert open_envelope(raw(body=b"x" * 10), limits).body == b"x" * 10
    with pytest.raises(OversizeMessage, match="11 bytes, 10 are allowed") as caught:
        open_envelope(raw(body=b"x" * 11), limits)
    assert caught.value.message_id == "m-1"


HEADER_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters()),
        st.binary(),
        st.datetimes(),
        st.decimals(),
    ),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=5,
)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["schema-version", "idempotency-key", "compensates", "causation-id", "traceparent", "tracestate", "x-y"]
    ),
    HEADER_VALUES,
)
TEXTS = st.none() | st.text(st.characters(), max_size=300)


@given(
    st.builds(
        Raw,
        body=st.binary(max_size=20),
        routing_key=st.text(st.characters()) | st.just("a.B"),
        message_id=TEXTS | PRINTABLE,
        type=TEXTS,
        content_type=TEXTS,
        content_encoding=TEXTS,
        correlation_id=TEXTS,
        reply_to=TEXTS,
        app_id=TEXTS,
        user_id=TEXTS,
        headers=HEADERS,
    )
)
def test_whatever_a_broker_hands_over_is_an_envelope_or_a_message_error(arrived: Raw) -> None:
    try:
        opened = open_envelope(arrived)
    except MessageError as error:
        assert str(error).isprintable()
        assert len(str(error)) <= MAX_TEXT
        return
    sent_on = Raw(body=opened.body, routing_key=opened.name, message_id=opened.message_id, headers=headers_of(opened))
    assert headers_of(open_envelope(sent_on)) == headers_of(opened)


def test_parse_gives_the_class_it_was_asked_for() -> None:
    order = OrderPlaced(
        order_id="o-1",
        customer_id="c-1",
        lines=[OrderLine(sku="a", quantity=2, unit_price=Decimal("9.90"))],
        total=Decimal("19.80"),
    )
    read: Message = parse(envelope(encode(order)), OrderPlaced)
    assert read == order
