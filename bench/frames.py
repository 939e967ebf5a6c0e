"""The few AMQP 0-9-1 frames that travel by the thousand, written and read by hand. Pure; the rest is pamqp's."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pamqp.encode import field_table

if TYPE_CHECKING:
    from collections.abc import Mapping

CHANNEL = 1
METHOD, HEADER, BODY = 1, 2, 3
BASIC = 60
PUBLISH, DELIVER, ACKNOWLEDGE, REJECT = (BASIC << 16 | method for method in (40, 60, 80, 120))
PREFIX = struct.Struct(">BHI")  # kind, channel, size of the payload; one closing byte follows the payload
CLOSING = b"\xce"
PERSISTENT = b"\x02"

CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE = 0x8000, 0x4000, 0x2000, 0x1000
PRIORITY, CORRELATION_ID, REPLY_TO, EXPIRATION = 0x0800, 0x0400, 0x0200, 0x0100
MESSAGE_ID, TYPE, APP_ID = 0x0080, 0x0020, 0x0008
IN_ORDER = (
    *(CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE, PRIORITY),
    *(CORRELATION_ID, REPLY_TO, EXPIRATION, MESSAGE_ID),
)
"""The properties as they follow each other, up to the last that is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One persistent JSON message."""

    exchange: str
    routing_key: str
    body: bytes
    name: str
    message_id: str
    app_id: str
    headers: Mapping[str, str | int]
    correlation_id: str = ""
    reply_to: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """What a content header says of a message, as far as a participant needs it."""

    size: int
    correlation_id: str
    reply_to: str
    message_id: str


def publish(message: Outgoing) -> bytes:
    """Method, header and body."""
    method = (struct.pack(">IH", PUBLISH, 0), _short(message.exchange), _short(message.routing_key), b"\x00")
    flags = CONTENT_TYPE | HEADERS | DELIVERY_MODE | MESSAGE_ID | TYPE | APP_ID
    if message.correlation_id:
        flags |= CORRELATION_ID
    if message.reply_to:
        flags |= REPLY_TO
    header = (
        struct.pack(">HHQH", BASIC, 0, len(message.body), flags),
        _short("application/json"),
        field_table(dict(message.headers)),
        PERSISTENT,
        _short(message.correlation_id) if message.correlation_id else b"",
        _short(message.reply_to) if message.reply_to else b"",
        _short(message.message_id),
        _short(message.name),
        _short(message.app_id),
    )
    return _frame(METHOD, b"".join(method)) + _frame(HEADER, b"".join(header)) + _frame(BODY, message.body)


def acknowledge_through(tag: int) -> bytes:
    """Everything up to and with this delivery."""
    return _frame(METHOD, struct.pack(">IQB", ACKNOWLEDGE, tag, 1))


def delivery_tag(payload: bytes) -> int:
    """Of the payload of a `Basic.Deliver`: it stands behind the consumer's tag."""
    at = 5 + payload[4]
    return int.from_bytes(payload[at : at + 8], "big")


def content(payload: bytes) -> Content:
    """Of the payload of a content header: three properties are read, the others before them stepped over."""
    _, _, size, flags = struct.unpack_from(">HHQH", payload)
    at = 14
    texts = {CORRELATION_ID: "", REPLY_TO: "", MESSAGE_ID: ""}
    for flag in IN_ORDER:
        if not flags & flag:
            continue
        if flag == HEADERS:
            at += 4 + int.from_bytes(payload[at : at + 4], "big")
        elif flag in (DELIVERY_MODE, PRIORITY):
            at += 1
        else:
            end = at + 1 + payload[at]
            if flag in texts:
                texts[flag] = payload[at + 1 : end].decode()
            at = end
    return Content(size, texts[CORRELATION_ID], texts[REPLY_TO], texts[MESSAGE_ID])


def _short(text: str) -> bytes:
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded


def _frame(kind: int, payload: bytes) -> bytes:
    return PREFIX.pack(kind, CHANNEL, len(payload)) + payload + CLOSING
