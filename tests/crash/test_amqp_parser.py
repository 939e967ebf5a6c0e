"""The AMQP parser names every event, however the bytes are split or glued."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import body, commands, frame, header, heartbeat

from tests.crash.proxy.amqp import AmqpParser
from tests.crash.proxy.wire import Direction, Unit, WireError

C2S, S2C = Direction.C2S, Direction.S2C
GREETING = b"AMQP\x00\x00\x09\x01"
PROPERTIES = commands.Basic.Properties(
    content_type="application/json",
    headers={"schema-version": 1, "idempotency-key": "k"},
    delivery_mode=2,
    correlation_id="saga",
    reply_to="antiphon.saga.PlaceOrder",
    message_id="m-1",
    message_type="stock.ReserveStock",
    app_id="antiphon",
)


def content(method: frame.FrameTypes, text: bytes, *, channel: int = 1, size: int = 1000) -> bytes:
    """A method with its header and as many body frames as `size` asks for."""
    raw = frame.marshal(method, channel)
    raw += frame.marshal(header.ContentHeader(0, len(text), PROPERTIES), channel)
    for begin in range(0, len(text), size):
        raw += frame.marshal(body.ContentBody(text[begin : begin + size]), channel)
    return raw


def publish(text: bytes = b"{}", *, channel: int = 1, size: int = 1000) -> bytes:
    method = commands.Basic.Publish(exchange="antiphon.commands", routing_key="stock.ReserveStock", mandatory=True)
    return content(method, text, channel=channel, size=size)


def deliver(text: bytes = b"{}") -> bytes:
    method = commands.Basic.Deliver(
        consumer_tag="c", delivery_tag=7, redelivered=True, exchange="", routing_key="antiphon.saga.PlaceOrder"
    )
    return content(method, text)


def names(units: list[Unit]) -> list[str]:
    return [event.name for unit in units for event in unit.events]


def greeted() -> AmqpParser:
    parser = AmqpParser()
    parser.feed(C2S, GREETING)
    parser.feed(S2C, frame.marshal(commands.Connection.Start(), 0))
    return parser


def test_a_publication_has_an_event_at_its_first_and_at_its_last_byte() -> None:
    units = list(greeted().feed(C2S, publish(b"x" * 25, size=10)))
    assert names(units) == ["amqp.c2s.publish", "amqp.c2s.publish_done"]
    assert b"".join(unit.data for unit in units) == publish(b"x" * 25, size=10)
    assert len({unit.group for unit in units}) == 1


def test_a_publication_knows_where_it_goes_and_what_it_is() -> None:
    first, *_ = greeted().feed(C2S, publish())
    assert first.events[0].details == {
        "channel": 1,
        "exchange": "antiphon.commands",
        "routing_key": "stock.ReserveStock",
        "mandatory": True,
        "content_type": "application/json",
        "delivery_mode": 2,
        "correlation_id": "saga",
        "reply_to": "antiphon.saga.PlaceOrder",
        "message_id": "m-1",
        "type": "stock.ReserveStock",
        "app_id": "antiphon",
    }


def test_a_delivery_knows_its_tag_and_whether_it_comes_again() -> None:
    units = list(greeted().feed(S2C, deliver()))
    assert names(units) == ["amqp.s2c.deliver", "amqp.s2c.deliver_done"]
    assert units[0].events[0].details["tag"] == 7
    assert units[0].events[0].details["redelivered"] is True
    assert units[-1].events[0].text("message_id") == "m-1"


def test_a_message_without_body_is_done_with_its_header() -> None:
    assert names(list(greeted().feed(C2S, publish(b"")))) == ["amqp.c2s.publish", "amqp.c2s.publish_done"]


def test_nothing_of_a_message_travels_before_all_of_it_is_there() -> None:
    parser, raw = greeted(), publish(b"x" * 25, size=10)
    assert parser.feed(C2S, raw[:-1]) == []
    assert names(list(parser.feed(C2S, raw[-1:]))) == ["amqp.c2s.publish", "amqp.c2s.publish_done"]


def test_messages_of_two_channels_may_interleave() -> None:
    one, two = publish(b"one", channel=1), publish(b"two", channel=2)
    edge = len(frame.marshal(commands.Basic.Publish(exchange="antiphon.commands", routing_key="stock.ReserveStock"), 1))
    units = list(greeted().feed(C2S, one[:edge] + two + one[edge:]))
    assert [event.details["channel"] for unit in units for event in unit.events] == [2, 2, 1, 1]
    assert sorted(b"".join(u.data for u in units)) == sorted(one + two)


@pytest.mark.parametrize(
    ("method", "direction", "name", "details"),
    [
        (commands.Basic.Ack(9, True), S2C, "amqp.s2c.ack", {"tag": 9, "multiple": True}),
        (commands.Basic.Ack(3, False), C2S, "amqp.c2s.ack", {"tag": 3, "multiple": False}),
        (commands.Basic.Nack(4, False, True), S2C, "amqp.s2c.nack", {"tag": 4, "multiple": False, "requeue": True}),
        (commands.Basic.Reject(5, True), C2S, "amqp.c2s.reject", {"tag": 5, "requeue": True}),
        (
            commands.Channel.Close(406, "PRECONDITION_FAILED", 60, 80),
            S2C,
            "amqp.s2c.channel.close",
            {"code": 406, "reason": "PRECONDITION_FAILED"},
        ),
        (commands.Basic.Cancel("c"), S2C, "amqp.s2c.cancel", {}),
        (commands.Confirm.Select(), C2S, "amqp.c2s.confirm.select", {}),
        (commands.Connection.Blocked("low on memory"), S2C, "amqp.s2c.connection.blocked", {}),
    ],
)
def test_methods_without_content_are_named_with_what_matters(
    method: frame.FrameTypes, direction: Direction, name: str, details: dict[str, object]
) -> None:
    (unit,) = greeted().feed(direction, frame.marshal(method, 2))
    assert unit.events[0].name == name
    assert unit.events[0].details == {"channel": 2, **details}


def test_a_returned_message_says_why() -> None:
    method = commands.Basic.Return(312, "NO_ROUTE", "antiphon.commands", "stock.ReserveStock")
    units = list(greeted().feed(S2C, content(method, b"{}")))
    assert names(units) == ["amqp.s2c.return", "amqp.s2c.return_done"]
    assert units[0].events[0].details["code"] == 312


def test_heartbeats_pass_by_name() -> None:
    assert names(list(greeted().feed(S2C, frame.marshal(heartbeat.Heartbeat(), 0)))) == ["amqp.s2c.heartbeat"]


def test_what_is_not_amqp_is_an_error_and_not_a_guess() -> None:
    with pytest.raises(WireError, match="begins with"):
        AmqpParser().feed(C2S, b"GET / HTTP/1.1\r\n")
    with pytest.raises(WireError, match="ends with"):
        greeted().feed(S2C, b"\x01\x00\x01\x00\x00\x00\x01\x00\x00")


CONVERSATION = (
    GREETING + publish(b"a" * 50, size=20) + frame.marshal(commands.Basic.Ack(1), 1) + publish(b"", channel=2)
)


@settings(max_examples=60)
@given(st.lists(st.integers(0, len(CONVERSATION)), max_size=12))
def test_no_way_of_splitting_the_bytes_changes_what_is_seen(cuts: list[int]) -> None:
    parser, edges = AmqpParser(), [0, *sorted(cuts), len(CONVERSATION)]
    units = [u for a, b in itertools.pairwise(edges) for u in parser.feed(C2S, CONVERSATION[a:b])]
    assert b"".join(unit.data for unit in units) == CONVERSATION
    assert names(units) == [
        "amqp.c2s.protocol-header",
        "amqp.c2s.publish",
        "amqp.c2s.publish_done",
        "amqp.c2s.ack",
        "amqp.c2s.publish",
        "amqp.c2s.publish_done",
    ]
