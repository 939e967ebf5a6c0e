from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pamqp.frame
import pytest
from aiormq.exceptions import ProtocolSyntaxError
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from transport.rabbitmq.frames import ALIVE
from transport.rabbitmq.inlet import Inlet
from transport.rabbitmq.tap import Notice, Tap

if TYPE_CHECKING:
    from messages.envelope import Raw

OURS = 3


class Ear:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def delivered(self, raw: Raw, tag: int, *, redelivered: bool) -> None:
        self.heard.append(("delivered", raw.message_id, raw.routing_key, raw.body, tag, redelivered))

    def returned(self, raw: Raw, exchange: str, reason: str) -> None:
        self.heard.append(("returned", raw.message_id, exchange, raw.routing_key, reason))

    def confirmed(self, tag: int, *, multiple: bool, taken: bool) -> None:
        self.heard.append(("confirmed", tag, multiple, taken))


class Pipe:
    """What comes through a tap, read like the client library does: a byte, six bytes, the rest."""

    def __init__(self, notice: Notice | None = None) -> None:
        self.ear = Ear()
        self.reader = asyncio.StreamReader()
        self.inlet = Inlet(self.ear)
        self.tap = Tap(self.reader, notice or Notice(lambda _reason: None), {OURS: self.inlet})

    async def one(self) -> bytes:
        head = await self.tap.readexactly(1) + await self.tap.readexactly(6)
        return head + await self.tap.readexactly(int.from_bytes(head[3:], "big") + 1)

    async def rest(self) -> list[bytes]:
        out = []
        self.reader.feed_eof()
        while not self.tap.at_eof():
            try:
                out.append(await self.one())
            except asyncio.IncompleteReadError:
                break
        return out


def message(channel: int, body: bytes, *, chunk: int = 4096, message_id: str = "m") -> list[bytes]:
    properties = commands.Basic.Properties(message_id=message_id, headers={"n": 1}, timestamp=datetime.now(UTC))
    return [
        pamqp.frame.marshal(commands.Basic.Deliver("tag", 7, True, "e", "k"), channel),
        pamqp.frame.marshal(ContentHeader(body_size=len(body), properties=properties), channel),
        *(
            pamqp.frame.marshal(ContentBody(body[start : start + chunk]), channel)
            for start in range(0, len(body), chunk)
        ),
    ]


async def test_what_is_for_the_library_passes_as_it_came() -> None:
    pipe = Pipe()
    frames = [
        *message(OURS + 1, b"{}"),
        pamqp.frame.marshal(commands.Basic.Ack(1, False), OURS + 1),
        pamqp.frame.marshal(commands.Basic.ConsumeOk("tag"), OURS),
        pamqp.frame.marshal(commands.Channel.Close(404, "NOT_FOUND", 60, 40), OURS),
        pamqp.frame.marshal(commands.Basic.Cancel("tag", True), OURS),
    ]

    pipe.reader.feed_data(b"".join(frames))

    assert await pipe.rest() == frames
    assert pipe.ear.heard == []


async def test_messages_and_confirms_of_our_channel_go_to_its_inlet_in_order() -> None:
    pipe = Pipe()
    properties = commands.Basic.Properties(message_id="back")
    frames = [
        pamqp.frame.marshal(commands.Basic.Ack(5, True), OURS),
        *message(OURS, b"{}", message_id="one"),
        *message(OURS, b"x" * 10_000, message_id="long"),
        *message(OURS, b"", message_id="empty"),
        pamqp.frame.marshal(commands.Basic.Return(312, "NO_ROUTE", "exchange", "nowhere"), OURS),
        pamqp.frame.marshal(ContentHeader(body_size=0, properties=properties), OURS),
        pamqp.frame.marshal(commands.Basic.Nack(6, False, False), OURS),
    ]

    pipe.reader.feed_data(b"".join(frames))
    passed = await pipe.rest()

    assert pipe.ear.heard == [
        ("confirmed", 5, True, True),
        ("delivered", "one", "k", b"{}", 7, True),
        ("delivered", "long", "k", b"x" * 10_000, 7, True),
        ("delivered", "empty", "k", b"", 7, True),
        ("returned", "back", "exchange", "nowhere", "NO_ROUTE"),
        ("confirmed", 6, False, False),
    ]
    assert passed == [ALIVE]  # so that the library does not take a busy connection for a dead one


async def test_what_comes_on_a_channel_that_was_given_up_is_nobodys_and_not_the_librarys() -> None:
    pipe = Pipe()
    frames = message(OURS, b"{}")
    ok = pamqp.frame.marshal(commands.Channel.CloseOk(), OURS)

    pipe.reader.feed_data(frames[0])
    assert await pipe.one() == ALIVE
    pipe.inlet.mute()
    pipe.reader.feed_data(b"".join([*frames[1:], *frames, ok]))

    assert await pipe.rest() == [ok]
    assert pipe.ear.heard == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_frames_may_arrive_in_any_pieces(sizes: list[int]) -> None:
    async def run() -> None:
        pipe = Pipe()
        other = pamqp.frame.marshal(commands.Basic.QosOk(), OURS)
        data = b"".join([*message(OURS, b"{}"), other, *message(OURS, b"[]"), other])
        reading = asyncio.ensure_future(pipe.one())
        at = 0
        for size in [*sizes, len(data)]:
            pipe.reader.feed_data(data[at : at + size])
            at += size
            await asyncio.sleep(0)
        passed = [await reading, *await pipe.rest()]

        assert [frame for frame in passed if frame != ALIVE] == [other, other]
        assert [heard[3] for heard in pipe.ear.heard if isinstance(heard, tuple)] == [b"{}", b"[]"]

    asyncio.run(run())


async def test_it_hears_why_the_broker_blocks_and_closes() -> None:
    heard: list[str | None] = []
    notice = Notice(heard.append)
    pipe = Pipe(notice)
    frames = [
        pamqp.frame.marshal(commands.Connection.Blocked("low on memory"), 0),
        pamqp.frame.marshal(commands.Connection.Unblocked(), 0),
        pamqp.frame.marshal(commands.Connection.Close(320, "CONNECTION_FORCED - bye", 0, 0), 0),
    ]
    pipe.reader.feed_data(b"".join(frames))

    assert await pipe.rest() == frames
    assert heard == ["low on memory", None]
    assert notice.blocked is None
    assert notice.closed == (320, "CONNECTION_FORCED - bye")


async def test_what_is_no_frame_is_no_amqp() -> None:
    pipe = Pipe()
    pipe.reader.feed_data(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with pytest.raises(ProtocolSyntaxError, match="HTTP"):
        await pipe.rest()


async def test_a_connection_that_ends_within_a_frame_is_cut_off() -> None:
    pipe = Pipe()
    pipe.reader.feed_data(message(OURS, b"{}")[0][:-3])
    pipe.reader.feed_eof()

    with pytest.raises(asyncio.IncompleteReadError):
        await pipe.tap.readexactly(1)
    assert pipe.ear.heard == []
