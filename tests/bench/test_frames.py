"""The frames written by hand, read by pamqp, and the other way round."""

from __future__ import annotations

from copy import copy

import pytest
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from bench import frames
from bench.frames import Content, Outgoing

Properties = commands.Basic.Properties

MESSAGE = Outgoing(
    exchange="shop.events",
    routing_key="ordering.OrderPlaced",
    body='{"order_id":"ä"}'.encode(),
    name="ordering.OrderPlaced",
    message_id="m-1",
    app_id="shop",
    headers={"schema-version": 1, "causation-id": "m-0"},
    correlation_id="c-1",
)


def read(data: bytes) -> list[object]:
    found: list[object] = []
    while data:
        size, channel, one = frame.unmarshal(data)
        assert channel == frames.CHANNEL
        found.append(one)
        data = data[size:]
    return found


def payload(data: bytes) -> bytes:
    return data[frames.PREFIX.size : -1]


def test_a_published_message_is_what_pamqp_reads() -> None:
    method, header, body = read(frames.publish(MESSAGE))
    assert isinstance(method, commands.Basic.Publish)
    assert (method.exchange, method.routing_key, method.mandatory) == ("shop.events", "ordering.OrderPlaced", False)
    assert isinstance(header, ContentHeader)
    assert header.body_size == len(MESSAGE.body)
    assert {name: value for name, value in dict(header.properties).items() if value} == {
        "content_type": "application/json",
        "delivery_mode": 2,
        "headers": {"schema-version": 1, "causation-id": "m-0"},
        "correlation_id": "c-1",
        "message_id": "m-1",
        "message_type": "ordering.OrderPlaced",
        "app_id": "shop",
    }
    assert isinstance(body, ContentBody)
    assert body.value == MESSAGE.body


def test_an_acknowledgement_is_of_everything_up_to_the_tag() -> None:
    (method,) = read(frames.acknowledge_through(7_000_000_000))
    assert isinstance(method, commands.Basic.Ack)
    assert (method.delivery_tag, method.multiple) == (7_000_000_000, True)


def test_the_tag_of_a_delivery_is_found_behind_the_consumers_tag() -> None:
    written = commands.Basic.Deliver("ctag1.abcdef", 41, False, "shop.commands", "stock.ReserveStock")
    assert frames.delivery_tag(payload(frame.marshal(written, frames.CHANNEL))) == 41


@pytest.mark.parametrize(
    "others",
    [
        Properties(),
        Properties(content_type="application/json", content_encoding="utf-8", priority=4, expiration="60000"),
        Properties(headers={"idempotency-key": "k" * 200, "n": 1}, delivery_mode=2, message_type="x", app_id="y"),
    ],
)
def test_what_a_participant_needs_is_read_among_any_other_properties(others: Properties) -> None:
    properties = copy(others)
    properties.correlation_id, properties.reply_to, properties.message_id = "saga", "shop.saga.PlaceOrder", "m-1"
    header = frame.marshal(ContentHeader(body_size=12, properties=properties), frames.CHANNEL)
    assert frames.content(payload(header)) == Content(12, "saga", "shop.saga.PlaceOrder", "m-1")


def test_absent_properties_are_empty() -> None:
    header = frame.marshal(ContentHeader(body_size=3, properties=commands.Basic.Properties()), frames.CHANNEL)
    assert frames.content(payload(header)) == Content(3, "", "", "")
