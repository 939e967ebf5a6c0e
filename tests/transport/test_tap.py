from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pamqp.frame
import pytest
from aiormq.exceptions import ProtocolSyntaxError
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from transport.rabbitmq.tap import MAX_DEPTH, UNDECODABLE_HEADER, Notice, Tap, mended


async def frames_through(data: bytes, *, careful: bool = False, notice: Notice | None = None) -> bytes:
    """Read like the client library does: a byte, six bytes, the rest."""
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    tap = Tap(reader, notice or Notice(lambda _reason: None), careful=careful)
    out = b""
    while not tap.at_eof():
        head = await tap.readexactly(1) + await tap.readexactly(6)
        size = int.from_bytes(head[3:], "big")
        out += head + await tap.readexactly(size + 1)
    return out


async def test_what_passes_is_what_came() -> None:
    properties = commands.Basic.Properties(message_id="m", headers={"n": 1}, timestamp=datetime.now(UTC))
    frames = [
        pamqp.frame.marshal(commands.Basic.Deliver("tag", 1, False, "e", "k"), 3),
        pamqp.frame.marshal(ContentHeader(body_size=2, properties=properties), 3),
        pamqp.frame.marshal(ContentBody(b"{}"), 3),
    ]

    assert await frames_through(b"".join(frames)) == b"".join(frames)
    assert await frames_through(b"".join(frames), careful=True) == b"".join(frames)


async def test_it_hears_why_the_broker_blocks_and_closes() -> None:
    heard: list[str | None] = []
    notice = Notice(heard.append)
    frames = [
        pamqp.frame.marshal(commands.Connection.Blocked("low on memory"), 0),
        pamqp.frame.marshal(commands.Connection.Unblocked(), 0),
        pamqp.frame.marshal(commands.Connection.Close(320, "CONNECTION_FORCED - bye", 0, 0), 0),
    ]

    await frames_through(b"".join(frames), notice=notice)

    assert heard == ["low on memory", None]
    assert notice.blocked is None
    assert notice.closed == (320, "CONNECTION_FORCED - bye")


async def test_what_is_no_frame_is_no_amqp() -> None:
    with pytest.raises(ProtocolSyntaxError, match="HTTP"):
        await frames_through(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize(
    "properties",
    [
        b"\x00\x08\x07M\xfcller!",  # app_id in Latin-1
        b"\x00\x40\xff\xff\xff\xff\xff\xff\xff\xff",  # a timestamp beyond the calendar
        b"\x20\x00\x00\x00\x00\x05\x01kZ\x00\x00",  # a header of a type that does not exist
        b"\x20\x00\x00\x00\xff\xff",  # a table longer than the frame
        b"",
    ],
)
async def test_properties_that_cannot_be_decoded_are_kept_in_one_header(properties: bytes) -> None:
    payload = b"\x00\x3c\x00\x00" + (2).to_bytes(8, "big") + properties
    frame = b"\x02\x00\x05" + len(payload).to_bytes(4, "big") + payload + b"\xce"

    out = await frames_through(frame, careful=True)

    _, channel, header = pamqp.frame.unmarshal(out)
    assert isinstance(header, ContentHeader)
    assert (channel, header.body_size) == (5, 2)
    assert header.properties.message_id is None
    kept = (header.properties.headers or {})[UNDECODABLE_HEADER]
    assert bytes(kept) == properties  # type: ignore[arg-type]


def nested(levels: int, *, lists: bool) -> bytes:
    """A header frame whose headers are that many tables or lists within one another, the headers included."""
    value = b"\x00\x00\x00\x00"
    for _ in range(levels - 2):
        value = b"A" + value if lists else b"\x01aF" + value
        value = len(value).to_bytes(4, "big") + value
    table = b"\x01a" + (b"A" if lists else b"F") + value
    payload = b"\x00\x3c\x00\x00" + (2).to_bytes(8, "big") + b"\x20\x00" + len(table).to_bytes(4, "big") + table
    return b"\x02\x00\x05" + len(payload).to_bytes(4, "big") + payload + b"\xce"


@pytest.mark.parametrize("lists", [False, True])
async def test_headers_that_are_nested_too_deeply_are_kept_in_one_header_asked_or_not(lists: bool) -> None:
    deepest, deeper, deepest_decodable = (nested(levels, lists=lists) for levels in (MAX_DEPTH, MAX_DEPTH + 1, 400))

    assert await frames_through(deepest) == deepest
    for frame in (deeper, deepest_decodable, nested(20_000, lists=lists)):
        _, _, header = pamqp.frame.unmarshal(await frames_through(frame))
        assert isinstance(header, ContentHeader)
        kept = (header.properties.headers or {})[UNDECODABLE_HEADER]
        assert bytes(kept) == frame[19:-1]  # type: ignore[arg-type]


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=60))
def test_whatever_the_properties_are_the_library_can_read_what_is_mended(properties: bytes) -> None:
    payload = b"\x00\x3c\x00\x00" + (7).to_bytes(8, "big") + properties
    head = b"\x02\x00\x01" + len(payload).to_bytes(4, "big")

    _, channel, header = pamqp.frame.unmarshal(mended(head, payload + b"\xce"))

    assert isinstance(header, ContentHeader)
    assert (channel, header.body_size) == (1, 7)
