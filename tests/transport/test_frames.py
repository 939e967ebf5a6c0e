"""The client library's codec is the reference: what it writes we read alike, what we write it reads alike."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pamqp.frame
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from messages.codec import headers_of
from messages.envelope import UNDECODABLE_HEADER, Envelope, Raw
from transport.rabbitmq import frames

MAX_FRAME = 4096

short_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
moments = st.integers(86_400, 2**32 - 1).map(lambda seconds: datetime.fromtimestamp(seconds, tz=UTC))
header_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**31), 2**31)
    | short_texts
    | st.floats(width=32, allow_nan=False, allow_infinity=False)
    | st.binary(max_size=20).map(bytearray)
    | moments,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
some_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
written_values = st.recursive(
    header_values
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=20)
    | st.builds(
        lambda digits, point: Decimal(digits).scaleb(-point), st.integers(-(2**31), 2**31 - 1), st.integers(0, 9)
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
properties = st.builds(
    commands.Basic.Properties,
    content_type=st.none() | short_texts,
    content_encoding=st.none() | short_texts,
    headers=st.none() | st.dictionaries(names, header_values | short_texts, max_size=5),
    delivery_mode=st.none() | st.sampled_from([1, 2]),
    priority=st.none() | st.integers(0, 255),
    correlation_id=st.none() | short_texts,
    reply_to=st.none() | short_texts,
    expiration=st.none() | short_texts,
    message_id=st.none() | short_texts,
    timestamp=st.none() | moments,
    message_type=st.none() | short_texts,
    user_id=st.none() | short_texts,
    app_id=st.none() | short_texts,
)


raws = st.builds(
    Raw,
    body=st.binary(max_size=30),
    routing_key=short_texts,
    **dict.fromkeys(("content_type", "content_encoding", "correlation_id", "reply_to"), st.none() | some_texts),
    **dict.fromkeys(("message_id", "type", "app_id", "user_id"), st.none() | some_texts),
    priority=st.none() | st.integers(0, 255),
    timestamp=st.none() | moments,
    headers=st.dictionaries(names, written_values, max_size=5),
)


def payload(frame: bytes) -> bytes:
    return frame[frames.FRAME.size : -1]


@given(properties, st.binary(max_size=30), short_texts)
def test_what_the_library_writes_is_read_as_the_library_reads_it(
    given_properties: commands.Basic.Properties, body: bytes, routing_key: str
) -> None:
    frame = pamqp.frame.marshal(ContentHeader(body_size=len(body), properties=given_properties), 1)
    _, _, reference = pamqp.frame.unmarshal(frame)
    assert isinstance(reference, ContentHeader)
    read = reference.properties

    raw = frames.raw(payload(frame), body, routing_key)

    assert frames.body_size(payload(frame)) == len(body)
    assert (raw.body, raw.routing_key) == (body, routing_key)
    assert raw.headers == (read.headers or {})
    assert raw.timestamp == read.timestamp
    for ours, theirs in (
        (raw.message_id, read.message_id),
        (raw.type, read.message_type),
        (raw.content_type, read.content_type),
        (raw.content_encoding, read.content_encoding),
        (raw.correlation_id, read.correlation_id),
        (raw.reply_to, read.reply_to),
        (raw.user_id, read.user_id),
        (raw.app_id, read.app_id),
    ):
        assert ours == (theirs or None)
    assert raw.priority == read.priority


@given(
    st.builds(
        Envelope,
        message_id=short_texts,
        name=short_texts,
        body=st.binary(max_size=2 * MAX_FRAME),
        schema_version=st.integers(1, 2**31 - 1),
        correlation_id=st.none() | short_texts,
        causation_id=st.none() | short_texts,
        reply_to=st.none() | short_texts,
        idempotency_key=st.none() | short_texts,
        compensates=st.none() | short_texts,
        timestamp=st.none() | moments,
        traceparent=st.none() | short_texts,
        tracestate=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=500),
    ),
    short_texts,
    short_texts,
)
def test_what_is_written_the_library_reads(envelope: Envelope, exchange: str, routing_key: str) -> None:
    data = frames.publication(
        5, envelope, app_id="antiphon", exchange=exchange, routing_key=routing_key, max_frame=MAX_FRAME
    )

    read = []
    while data:
        size, channel, frame = pamqp.frame.unmarshal(data)
        assert channel == 5
        assert size <= MAX_FRAME
        read.append(frame)
        data = data[size:]
    publish, header, *parts = read
    assert isinstance(publish, commands.Basic.Publish)
    assert (publish.exchange, publish.routing_key, publish.mandatory, publish.immediate) == (
        exchange,
        routing_key,
        True,
        False,
    )
    assert isinstance(header, ContentHeader)
    assert header.body_size == len(envelope.body)
    assert b"".join(part.value for part in parts if isinstance(part, ContentBody)) == envelope.body
    assert dict(header.properties) == dict(
        commands.Basic.Properties(
            content_type="application/json",
            headers=dict(headers_of(envelope)),
            delivery_mode=2,
            correlation_id=envelope.correlation_id,
            reply_to=envelope.reply_to,
            message_id=envelope.message_id,
            timestamp=envelope.timestamp,
            message_type=envelope.name,
            app_id="antiphon",
        )
    )


@given(raws)
@example(Raw(body=b"", routing_key="q", headers={"d": Decimal("-12.34"), "none": None, "deep": [[{}]]}))
def test_a_message_that_is_published_as_it_is_is_read_as_it_was(message: Raw) -> None:
    data = frames.publication(5, message, app_id="nobody", exchange="", routing_key="q", max_frame=2**20)

    size, _, _ = pamqp.frame.unmarshal(data)
    length, _, header = pamqp.frame.unmarshal(data[size:])
    assert isinstance(header, ContentHeader)
    assert header.properties.delivery_mode == 2
    read = frames.raw(payload(data[size : size + length]), message.body, message.routing_key)

    assert read == message


LONG = "x" * 256


@pytest.mark.parametrize(
    "envelope",
    [
        Envelope(message_id=LONG, name="n", body=b""),
        Envelope(message_id="m", name=LONG, body=b""),
        Envelope(message_id="m", name="n", body=b"", reply_to=LONG),
        Envelope(message_id="m", name="n", body=b"", correlation_id=LONG),
    ],
)
def test_a_property_that_is_too_long_is_refused(envelope: Envelope) -> None:
    with pytest.raises(ValueError, match="256 bytes, 255 are allowed"):
        frames.publication(1, envelope, app_id="a", exchange="", routing_key="q", max_frame=MAX_FRAME)


def test_properties_that_do_not_fit_into_a_frame_are_refused() -> None:
    envelope = Envelope(message_id="m", name="n", body=b"", tracestate="x" * MAX_FRAME)

    with pytest.raises(ValueError, match="a frame holds 4088"):
        frames.publication(1, envelope, app_id="a", exchange="", routing_key="q", max_frame=MAX_FRAME)


def test_acknowledgements_are_what_the_library_would_write() -> None:
    tags = [(7, True), (2**40, False)]

    assert frames.acknowledgements(3, tags) == b"".join(
        pamqp.frame.marshal(commands.Basic.Ack(tag, multiple), 3) for tag, multiple in tags
    )


@pytest.mark.parametrize(
    "undecodable",
    [
        b"\x00\x08\x07M\xfcller!",  # app_id in Latin-1
        b"\x00\x40\xff\xff\xff\xff\xff\xff\xff\xff",  # a timestamp beyond the calendar
        b"\x20\x00\x00\x00\x00\x05\x01kZ\x00\x00",  # a header of a type that does not exist
        b"\x20\x00\x00\x00\xff\xff",  # a table longer than the frame
        b"\x20\x00\x00\x00\x00\x0b\x01kS\x00\x00\x00\xff\x00\x00\x00\x00",  # a text longer than its table
        b"\x80\x00\x20text",  # a short string longer than the frame
        b"\x10\x00",  # a delivery mode that is not there
        b"\x00\x01\x00\x00",  # more flags
        b"",
    ],
)
def test_properties_that_cannot_be_decoded_are_kept_in_one_header(undecodable: bytes) -> None:
    raw = frames.raw(b"\x00\x3c\x00\x00" + (2).to_bytes(8, "big") + undecodable, b"{}", "k")

    assert (raw.message_id, raw.body, raw.routing_key) == (None, b"{}", "k")
    assert raw.headers == {UNDECODABLE_HEADER: undecodable}


def test_a_routing_key_may_be_any_bytes() -> None:
    method = frames.DELIVER + b"\x03tag" + (7).to_bytes(8, "big") + b"\x01" + b"\x05M\xfcll." + b"\x05caf\xe9."

    assert frames.delivered(method) == (7, True, r"caf\xe9.")


@given(st.binary(max_size=60))
def test_whatever_the_properties_are_they_are_read(properties_read: bytes) -> None:
    frames.raw(b"\x00\x3c\x00\x00" + (7).to_bytes(8, "big") + properties_read, b"", "")


def nested(levels: int, *, lists: bool) -> bytes:
    """A content header whose headers are that many tables or lists within one another, the headers included."""
    value = b"\x00\x00\x00\x00"
    for _ in range(levels - 2):
        value = b"A" + value if lists else b"\x01aF" + value
        value = len(value).to_bytes(4, "big") + value
    table = b"\x01a" + (b"A" if lists else b"F") + value
    return b"\x00\x3c\x00\x00" + (2).to_bytes(8, "big") + b"\x20\x00" + len(table).to_bytes(4, "big") + table


@pytest.mark.parametrize("lists", [False, True])
def test_headers_that_are_nested_too_deeply_are_kept_in_one_header(lists: bool) -> None:
    assert UNDECODABLE_HEADER not in frames.raw(nested(frames.MAX_DEPTH, lists=lists), b"", "").headers
    for levels in (frames.MAX_DEPTH + 1, 400, 20_000):
        header = nested(levels, lists=lists)
        assert frames.raw(header, b"", "").headers == {UNDECODABLE_HEADER: header[12:]}


def test_values_of_every_kind_the_broker_sends_are_read() -> None:
    headers: dict[str, object] = {"x-death": [{"count": 2, "queue": "q"}], "x-delivery-count": 3, "d": Decimal("1.5")}
    frame = pamqp.frame.marshal(
        ContentHeader(body_size=0, properties=commands.Basic.Properties(headers=headers)),  # type: ignore[arg-type]
        1,
    )

    assert frames.raw(payload(frame), b"", "").headers == headers
