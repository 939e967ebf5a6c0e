"""AMQP 0-9-1, both directions, as units and named events.

An event is named after its method: `amqp.c2s.publish`, `amqp.s2c.deliver`, `amqp.s2c.ack` (a confirm), `amqp.c2s.ack`
for the class basic, and with the class in front for all others: `amqp.s2c.channel.close`. A method that brings content
(`publish`, `deliver`, `return`, `get-ok`) has a second event when its last byte is there: `publish_done`. Both know the
message's id and type, for a message's frames are held together until the last has come: whoever wants half a message
on the wire acts *after* `publish`. Heartbeats are `amqp.c2s.heartbeat`.

The frames are described in the specification of AMQP 0-9-1, section 4.2.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.crash.proxy.wire import Detail, Direction, Event, Unit, WireError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = 0xCE
LONGEST = 1 << 27  # far above any negotiated frame size

CLASSES = {10: "connection", 20: "channel", 40: "exchange", 50: "queue", 60: "basic", 85: "confirm", 90: "tx"}
METHODS = {
    10: "10 start 11 start-ok 20 secure 21 secure-ok 30 tune 31 tune-ok 40 open 41 open-ok 50 close 51 close-ok"
    " 60 blocked 61 unblocked 70 update-secret 71 update-secret-ok",
    20: "10 open 11 open-ok 20 flow 21 flow-ok 40 close 41 close-ok",
    40: "10 declare 11 declare-ok 20 delete 21 delete-ok 30 bind 31 bind-ok 40 unbind 51 unbind-ok",
    50: "10 declare 11 declare-ok 20 bind 21 bind-ok 30 purge 31 purge-ok 40 delete 41 delete-ok 50 unbind"
    " 51 unbind-ok",
    60: "10 qos 11 qos-ok 20 consume 21 consume-ok 30 cancel 31 cancel-ok 40 publish 50 return 60 deliver 70 get"
    " 71 get-ok 72 get-empty 80 ack 90 reject 100 recover-async 110 recover 111 recover-ok 120 nack",
    85: "10 select 11 select-ok",
    90: "10 select 11 select-ok 20 commit 21 commit-ok 30 rollback 31 rollback-ok",
}
WITH_CONTENT = {"publish", "return", "deliver", "get-ok"}


def _name_table() -> dict[tuple[int, int], str]:
    """Names by (class, method): bare for the class basic, `class.method` for the others."""
    table = {}
    for class_id, listed in METHODS.items():
        words = listed.split()
        for number, word in zip(words[::2], words[1::2], strict=True):
            table[class_id, int(number)] = word if class_id == 60 else f"{CLASSES[class_id]}.{word}"
    return table


NAMES = _name_table()


class _Reader:
    """Takes values off the front of a payload."""

    def __init__(self, payload: bytes, at: int = 0) -> None:
        self._payload, self._at = payload, at

    def number(self, size: int) -> int:
        self._at += size
        return int.from_bytes(self._payload[self._at - size : self._at])

    def short_text(self) -> str:
        size = self.number(1)
        self._at += size
        return self._payload[self._at - size : self._at].decode(errors="replace")

    def skip_table(self) -> None:
        size = self.number(4)  # before `_at` is read: taking the number moves it
        self._at += size


def method_details(name: str, arguments: bytes) -> dict[str, Detail]:
    """What a rule may want to know about a method."""
    read = _Reader(arguments)
    match name:
        case "publish":
            read.number(2)
            return {
                "exchange": read.short_text(),
                "routing_key": read.short_text(),
                "mandatory": bool(read.number(1) & 1),
            }
        case "deliver":
            return {
                "consumer": read.short_text(),
                "tag": read.number(8),
                "redelivered": bool(read.number(1)),
                "exchange": read.short_text(),
                "routing_key": read.short_text(),
            }
        case "return" | "connection.close" | "channel.close":
            return {"code": read.number(2), "reason": read.short_text()}
        case "ack":
            return {"tag": read.number(8), "multiple": bool(read.number(1))}
        case "nack":
            return {"tag": read.number(8), **_nack_bits(read.number(1))}
        case "reject":
            return {"tag": read.number(8), "requeue": bool(read.number(1))}
        case _:
            return {}


def forced_close(text: str = "CONNECTION_FORCED - said by the proxy") -> bytes:
    """What the broker says when an operator, or its shutdown, closes a connection."""
    words = text.encode()
    payload = struct.pack("!HHHB", 10, 50, 320, len(words)) + words + struct.pack("!HH", 0, 0)
    return struct.pack("!BHI", METHOD, 0, len(payload)) + payload + bytes([FRAME_END])


def _nack_bits(bits: int) -> dict[str, Detail]:
    return {"multiple": bool(bits & 1), "requeue": bool(bits & 2)}


# The properties in the order of their flags, from bit 15 down, with how long each is (0: a short text, -1: a table).
PROPERTIES = (
    ("content_type", 0),
    ("content_encoding", 0),
    ("headers", -1),
    ("delivery_mode", 1),
    ("priority", 1),
    ("correlation_id", 0),
    ("reply_to", 0),
    ("expiration", 0),
    ("message_id", 0),
    ("timestamp", 8),
    ("type", 0),
    ("user_id", 0),
    ("app_id", 0),
)


def property_details(header: bytes) -> dict[str, Detail]:
    """The properties of a content header, the table of headers left out."""
    (flags,) = struct.unpack_from("!H", header, 12)
    read = _Reader(header, 14)
    found: dict[str, Detail] = {}
    for bit, (name, size) in enumerate(PROPERTIES):
        if not flags & (1 << (15 - bit)):
            continue
        if size < 0:
            read.skip_table()
        else:
            found[name] = read.number(size) if size else read.short_text()
    return found


@dataclass(slots=True, kw_only=True)
class _Content:
    """A message whose frames are still coming in."""

    name: str
    details: dict[str, Detail]
    frames: list[bytes]
    missing: int | None = None  # bytes of body still to come; unknown until the header is here
    group: int = field(default=0)


class AmqpParser:
    """One connection to RabbitMQ."""

    def __init__(self) -> None:
        self._buffers = {direction: bytearray() for direction in Direction}
        self._greeted = dict.fromkeys(Direction, False)
        self._contents: dict[tuple[Direction, int], _Content] = {}
        self._groups = itertools.count(1)

    def feed(self, direction: Direction, data: bytes) -> Sequence[Unit]:
        """See `Parser.feed`."""
        self._buffers[direction] += data
        return list(self._units(direction))

    def _units(self, direction: Direction) -> Iterator[Unit]:
        if not self._greeted[direction]:
            if len(self._buffers[direction]) < 8:
                return
            yield from self._greeting(direction)
        for kind, channel, payload, raw in self._frames(direction):
            yield from self._frame_units(direction, kind, channel, payload, raw)

    def _greeting(self, direction: Direction) -> Iterator[Unit]:
        """The client opens with the protocol's name; the server does so only to refuse the client's version."""
        buffer = self._buffers[direction]
        self._greeted[direction] = True
        if buffer.startswith(b"AMQP"):
            yield Unit(data=bytes(buffer[:8]), events=[Event(name=f"amqp.{direction}.protocol-header")])
            del buffer[:8]
        elif direction is Direction.C2S:
            raise WireError(f"a connection that begins with {bytes(buffer[:8])!r}")

    def _frames(self, direction: Direction) -> Iterator[tuple[int, int, bytes, bytes]]:
        """Each complete frame as (type, channel, payload, all its bytes)."""
        buffer = self._buffers[direction]
        while len(buffer) >= 7:
            kind, channel, size = struct.unpack_from("!BHI", buffer)
            if size > LONGEST:
                raise WireError(f"a frame of {size} bytes from {direction}")
            if len(buffer) < size + 8:
                return
            raw = bytes(buffer[: size + 8])
            if raw[-1] != FRAME_END:
                raise WireError(f"a frame from {direction} that ends with {raw[-1]:#x}")
            del buffer[: size + 8]
            yield kind, channel, raw[7:-1], raw

    def _frame_units(self, direction: Direction, kind: int, channel: int, payload: bytes, raw: bytes) -> Iterator[Unit]:
        match kind:
            case 1:
                yield from self._method(direction, channel, payload, raw)
            case 2 | 3:
                yield from self._content_frame(direction, channel, kind, payload, raw)
            case 8:
                yield Unit(data=raw, events=[Event(name=f"amqp.{direction}.heartbeat")])
            case _:
                raise WireError(f"a frame of type {kind} from {direction}")

    def _method(self, direction: Direction, channel: int, payload: bytes, raw: bytes) -> Iterator[Unit]:
        class_id, method_id = struct.unpack_from("!HH", payload)
        name = NAMES.get((class_id, method_id), f"method-{class_id}-{method_id}")
        details = {"channel": channel, **method_details(name, payload[4:])}
        if name in WITH_CONTENT:
            self._contents[direction, channel] = _Content(name=name, details=details, frames=[raw])
            return
        if name == "channel.close":  # a message cut short by it will never be completed
            self._contents.pop((direction, channel), None)
        yield Unit(data=raw, events=[Event(name=f"amqp.{direction}.{name}", details=details)])

    def _content_frame(
        self, direction: Direction, channel: int, kind: int, payload: bytes, raw: bytes
    ) -> Iterator[Unit]:
        content = self._contents.get((direction, channel))
        if content is None:
            raise WireError(f"content without a method on channel {channel} from {direction}")
        content.frames.append(raw)
        if kind == HEADER:
            (content.missing,) = struct.unpack_from("!Q", payload, 4)
            content.details.update(property_details(payload))
        elif content.missing is not None:
            content.missing -= len(payload)
        if content.missing == 0:
            del self._contents[direction, channel]
            yield from self._content_units(direction, content)

    def _content_units(self, direction: Direction, content: _Content) -> Iterator[Unit]:
        group = next(self._groups)
        name = f"amqp.{direction}.{content.name}"
        first, *between, last = content.frames
        yield Unit(data=first, events=[Event(name=name, details=content.details)], group=group)
        if between:
            yield Unit(data=b"".join(between), group=group)
        yield Unit(data=last, events=[Event(name=f"{name}_done", details=content.details)], group=group)
