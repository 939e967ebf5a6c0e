"""The AMQP frames of a message, read and written directly: what the bulk path consists of.

The client library builds an object per field and passes each frame through two queues, which costs several times what
the message itself costs. Here a delivery becomes a `Raw` and a publication becomes bytes in one step. No I/O; the
client library's own codec is the reference that the tests compare with.

Properties that cannot be decoded (a publisher in another language that sends Latin-1, a timestamp of the year 30000) or
that are nested so deeply that whoever walks through them would run out of stack are kept as bytes in a single header:
the message then arrives without an id and becomes a dead letter like any malformed one.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

from pamqp import decode, encode

from messages.codec import headers_of
from messages.envelope import UNDECODABLE_HEADER, Raw

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from messages.envelope import Envelope

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME = struct.Struct(">BHI")  # kind, channel, size of the payload; after which comes one byte more
FRAME_END = b"\xce"
ALIVE = FRAME.pack(HEARTBEAT, 0, 0) + FRAME_END

DELIVER, RETURN = b"\x00\x3c\x00\x3c", b"\x00\x3c\x00\x32"
ACK, NACK = b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x78"

MAX_DEPTH = 64  # tables and lists within one another in the headers; what a body may have

_PUBLISH = b"\x00\x3c\x00\x28\x00\x00"
_MANDATORY = b"\x01"
_CONTENT = struct.Struct(">HHQ")  # class, weight, size of the body
_BASIC = 60
_TAG_AND_FLAG = struct.Struct(">QB")
_ACKNOWLEDGEMENT = struct.Struct(">BHI4sQBB")
_SIZE = struct.Struct(">I")
_MOMENT = struct.Struct(">Q")
_DOUBLE = struct.Struct(">d")
_MILLISECONDS_FROM = 0xFFFFFFFF  # as seconds that would be beyond the year 2106
_FLAG = {
    "content_type": 0x8000,
    "content_encoding": 0x4000,
    "headers": 0x2000,
    "delivery_mode": 0x1000,
    "priority": 0x0800,
    "correlation_id": 0x0400,
    "reply_to": 0x0200,
    "expiration": 0x0100,
    "message_id": 0x0080,
    "timestamp": 0x0040,
    "type": 0x0020,
    "user_id": 0x0010,
    "app_id": 0x0008,
    "cluster_id": 0x0004,
}
_TEXTS = frozenset(
    {"content_type", "content_encoding", "correlation_id", "reply_to", "message_id", "type", "user_id", "app_id"}
)
_NOT_OURS = frozenset({"expiration", "cluster_id"})


# -- reading


def short_text(data: bytes, at: int) -> tuple[str, int]:
    """A short string and where it ends.

    Raises:
        ValueError: it is longer than the data, or no UTF-8.
    """
    end = at + 1 + data[at]
    if end > len(data):
        raise ValueError("a short string is longer than its frame")
    return data[at + 1 : end].decode(), end


def tag_and_flags(method: bytes) -> tuple[int, int]:
    """The delivery tag of an `ACK` or `NACK`, and its flags: 1 means all up to it."""
    tag, flags = _TAG_AND_FLAG.unpack_from(method, 4)
    return tag, flags


def delivered(method: bytes) -> tuple[int, bool, str]:
    """Of a `DELIVER`: delivery tag, whether it was delivered before, routing key, which may have been any bytes."""
    at = 5 + method[4]  # behind the consumer's tag
    tag, redelivered = _TAG_AND_FLAG.unpack_from(method, at)
    at += 9
    at += 1 + method[at]  # behind the exchange
    routing_key = method[at + 1 : at + 1 + method[at]]
    return tag, bool(redelivered), routing_key.decode(errors="backslashreplace")


def returned(method: bytes) -> tuple[str, str, str]:
    """Of a `RETURN`: the broker's words, exchange, routing key."""
    words, at = short_text(method, 6)
    exchange, at = short_text(method, at)
    routing_key, _ = short_text(method, at)
    return words, exchange, routing_key


def body_size(header: bytes) -> int:
    """How long the body is that follows this content header."""
    size: int = _CONTENT.unpack_from(header)[2]
    return size


def raw(header: bytes, body: bytes, routing_key: str) -> Raw:
    """The message of a content header and a body, as it arrived, nothing believed."""
    try:
        properties = _properties(header)
    except Exception:  # whatever cannot be read becomes a dead letter and must not end the connection
        properties = {"headers": {UNDECODABLE_HEADER: bytearray(header[12:])}}
    return Raw(body=body, routing_key=routing_key, **properties)


def _properties(header: bytes) -> dict[str, Any]:
    flags, at = header[12] << 8 | header[13], 14
    if flags & 1:
        raise ValueError("more flags than there are properties")
    found: dict[str, Any] = {}
    for name, flag in _FLAG.items():
        if not flags & flag:
            continue
        if name in _TEXTS:
            text, at = short_text(header, at)
            found[name] = text or None
        elif name == "headers":
            found[name], at = _table(header, at)
        elif name == "timestamp":
            found[name], at = _moment(header, at)
        elif name in _NOT_OURS:
            _, at = short_text(header, at)
        else:
            octet, at = header[at], at + 1
            if name == "priority":
                found[name] = octet
    if at > len(header):
        raise ValueError("the properties are longer than their frame")
    return found


def _table(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    """A table and where it ends. Texts are read here, everything else by the client library."""
    begin, end = at + 4, at + 4 + _SIZE.unpack_from(data, at)[0]
    if end > len(data):
        raise ValueError("a table is longer than its frame")
    found: dict[str, Any] = {}
    at = begin
    while at < end:
        name, at = short_text(data, at)
        if data[at] != 0x53:  # no "S"
            return _any_table(data[begin - 4 : end]), end
        start = at + 5
        at = start + _SIZE.unpack_from(data, at + 1)[0]
        found[name] = _text(data[start:at])
    if at > end:
        raise ValueError("a text is longer than its table")
    return found, end


def _any_table(table: bytes) -> dict[str, Any]:
    found: dict[str, Any] = decode.field_table(table)[1]
    if table.count(b"F") + table.count(b"A") >= MAX_DEPTH and _is_too_deep(found):
        raise ValueError("the headers are nested too deeply")
    return found


def _text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _moment(data: bytes, at: int) -> tuple[datetime, int]:
    seconds: float = _MOMENT.unpack_from(data, at)[0]
    if seconds > _MILLISECONDS_FROM:  # some clients send those
        seconds /= 1000.0
    return datetime.fromtimestamp(seconds, tz=UTC), at + 8


def _is_too_deep(headers: Mapping[str, object]) -> bool:
    level: list[object] = [headers]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
    return bool(level)


def _inside(outer: object) -> Iterable[object]:
    """The tables and lists directly in a table or list."""
    items = outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ()
    return [item for item in items if isinstance(item, dict | list)]


# -- writing


def acknowledgements(channel: int, tags: Iterable[tuple[int, bool]]) -> bytes:
    """The frames that acknowledge (tag, multiple) pairs."""
    return b"".join(_ACKNOWLEDGEMENT.pack(METHOD, channel, 13, ACK, tag, multiple, 0xCE) for tag, multiple in tags)


def publication(
    channel: int, message: Envelope | Raw, *, app_id: str, exchange: str, routing_key: str, max_frame: int
) -> bytes:
    """The frames of one mandatory, persistent publication. The same message gives the same bytes every time.

    Raises:
        ValueError, TypeError: a property does not fit into AMQP; the text says which.
    """
    method = _PUBLISH + _short("exchange", exchange) + _short("routing key", routing_key) + _MANDATORY
    header = _as_it_is(message) if isinstance(message, Raw) else _content_header(message, app_id)
    if len(header) + 8 > max_frame:
        raise ValueError(f"its properties take {len(header)} bytes, a frame holds {max_frame - 8}")
    size = max_frame - 8
    parts = (message.body[start : start + size] for start in range(0, len(message.body), size))
    frames = chain(((METHOD, method), (HEADER, header)), ((BODY, part) for part in parts))
    return b"".join(FRAME.pack(kind, channel, len(payload)) + payload + FRAME_END for kind, payload in frames)


def _content_header(envelope: Envelope, app_id: str) -> bytes:
    flags = _FLAG["content_type"] | _FLAG["headers"] | _FLAG["delivery_mode"]
    parts = [b"\x10application/json", _headers(headers_of(envelope)), b"\x02"]
    for name in ("correlation_id", "reply_to", "message_id"):
        text = getattr(envelope, name)
        if text is not None:
            flags |= _FLAG[name]
            parts.append(_short(name, text))
    if envelope.timestamp is not None:
        flags |= _FLAG["timestamp"]
        parts.append(_MOMENT.pack(int(envelope.timestamp.timestamp())))
    flags |= _FLAG["type"] | _FLAG["app_id"]
    parts += [_short("type", envelope.name), _short("app_id", app_id)]
    return b"".join((_CONTENT.pack(_BASIC, 0, len(envelope.body)), flags.to_bytes(2, "big"), *parts))


def _as_it_is(message: Raw) -> bytes:
    """Every property that the message has, and that it shall survive the broker."""
    flags, parts = 0, []
    for name, flag in _FLAG.items():
        found = 2 if name == "delivery_mode" else getattr(message, name, None)
        if found is not None:
            flags |= flag
            parts.append(_property(name, found))
    return b"".join((_CONTENT.pack(_BASIC, 0, len(message.body)), flags.to_bytes(2, "big"), *parts))


def _property(name: str, found: Any) -> bytes:  # noqa: ANN401 - what a message has under that name
    if name == "headers":
        return _headers(found)
    if name == "timestamp":
        return _MOMENT.pack(int(found.timestamp()))
    return _short(name, found) if name in _TEXTS else bytes((found,))


def _headers(headers: Mapping[str, object]) -> bytes:
    return _sized(b"".join(_short("header name", name) + _field(value) for name, value in headers.items()))


def _field(value: object) -> bytes:
    """A value as it was read: the client library would make a short float of a long one."""
    if isinstance(value, str):
        return b"S" + _sized(value.encode())
    if isinstance(value, bytes | bytearray):
        return b"x" + _sized(value)
    if isinstance(value, float):
        return b"d" + _DOUBLE.pack(value)
    if isinstance(value, dict):
        return b"F" + _headers(value)
    if isinstance(value, list | tuple):
        return b"A" + _sized(b"".join(map(_field, value)))
    field: bytes = encode.encode_table_value(value)  # type: ignore[arg-type]
    return field


def _sized(data: bytes | bytearray) -> bytes:
    return _SIZE.pack(len(data)) + data


def _short(name: str, text: str) -> bytes:
    data = text.encode()
    if len(data) > 255:
        raise ValueError(f"{name} takes {len(data)} bytes, 255 are allowed")
    return bytes((len(data),)) + data
