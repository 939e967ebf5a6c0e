"""Between bytes and messages: what arrives is checked before it is believed, what leaves could be read back.

The rules are those of the wire contract (`docs/wire-contract.md`). Of a message's properties, those that identify it or
guard an effect must be right, or the message is malformed: `message_id`, the name, `schema-version`, the sender,
`causation-id`, `idempotency-key`, `compensates`. Those that only decorate it are dropped when they are not:
`correlation_id` (foreign middleware sets its own), `reply_to`, `traceparent`, `tracestate`. An empty property counts as
an absent one, since several client libraries cannot send none.
"""

from __future__ import annotations

import re
from datetime import UTC
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

from pydantic_core import PydanticSerializationError, ValidationError

from messages.envelope import Envelope
from messages.errors import MalformedMessage, OversizeMessage
from messages.message import MAX_VERSION, Message, is_message_name
from messages.printable import in_words, printable
from messages.strict_json import check_json_object
from messages.upcasting import brought_up
from messages.value import value

if TYPE_CHECKING:
    from datetime import datetime

    from messages.envelope import Raw

M = TypeVar("M", bound=Message)

MAX_PROPERTY = 255
"""Longest id, name or key in a property or header, in characters: what AMQP gives its short strings."""

MAX_TRACESTATE = 512

_SHOWN_ERRORS = 5
_COUNTABLE_ERRORS = 1000
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_JSON_TYPE = re.compile(r'application/json(?:\s*;\s*charset\s*=\s*"?utf-?8"?)?', re.IGNORECASE)
_PLAIN_ENCODINGS = ("identity", "utf-8", "utf8")


@value
class Limits:
    """How large and how deep a body may be.

    Args:
        max_body: Bytes of the body, both ways.
        max_depth: Objects and lists within one another, the body itself being the first.
    """

    max_body: int = 1024 * 1024
    max_depth: int = 64


DEFAULT_LIMITS = Limits()


def encode(message: Message, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The body of a message as it goes on the wire. What this returns is accepted by every reader of the contract.

    Raises:
        MalformedMessage: a field holds what may not travel: a number beyond 64 bits, NaN, U+0000, half a surrogate pair
            or a value of another type than declared.
        OversizeMessage: the body would be longer than `max_body`.
    """
    name = message.message_name or type(message).__qualname__
    try:
        body = message.model_dump_json(warnings="error").encode()
    except (PydanticSerializationError, ValueError) as error:
        raise MalformedMessage(printable(f"{name} cannot be sent: {error}")) from error
    try:
        check_size(body, limits)
        check_json_object(body, max_depth=limits.max_depth)
    except (MalformedMessage, OversizeMessage) as error:
        raise type(error)(printable(f"{name} cannot be sent: {error}")) from None
    return body


def parse(envelope: Envelope, message_class: type[M], limits: Limits = DEFAULT_LIMITS) -> M:
    """The message in an envelope. A body of an older schema version goes through the upcasts of the class first.

    Raises:
        MalformedMessage: the body is not JSON that everybody reads alike, its fields are not those of the class, or an
            upcast fails; the text names the position, the fields or the upcast.
    """
    try:
        body = envelope.body
        check_json_object(body, max_depth=limits.max_depth)
        if envelope.schema_version < message_class.schema_version:
            body = brought_up(body, envelope.schema_version, message_class, max_depth=limits.max_depth)
        return message_class.model_validate_json(body)
    except MalformedMessage as error:
        error.message_id = envelope.message_id
        raise
    except ValidationError as error:
        text = printable(f"{_read_as(envelope, message_class)}: {_wrong_fields(error)}")
        raise MalformedMessage(text, message_id=envelope.message_id) from None
    except MemoryError:
        raise
    except BaseException as error:  # a validator of the class raised something that pydantic does not expect
        text = printable(f"{envelope.name}: a validator of {message_class.__qualname__} raised {in_words(error)}")
        raise MalformedMessage(text, message_id=envelope.message_id) from error


def open_envelope(raw: Raw, limits: Limits = DEFAULT_LIMITS) -> Envelope:
    """Check everything about a message that can be known before its body is read.

    Raises:
        MalformedMessage: a property or header breaks the wire contract; the text names it.
        OversizeMessage: the body is longer than `max_body`.
    """
    message_id = _identifier("message_id", raw.message_id)
    if message_id is None:
        raise MalformedMessage("message_id is missing; every message needs one, the same on every copy")
    try:
        return _opened(raw, message_id, limits)
    except (MalformedMessage, OversizeMessage) as error:
        error.message_id = message_id
        raise


def _opened(raw: Raw, message_id: str, limits: Limits) -> Envelope:
    check_size(raw.body, limits)
    _check_content(raw)
    headers = raw.headers
    traceparent = _decoration(headers.get("traceparent"))
    traced = traceparent is not None and _TRACEPARENT.fullmatch(traceparent) is not None
    return Envelope(
        message_id=message_id,
        name=_name(raw),
        body=raw.body,
        schema_version=_schema_version(headers.get("schema-version")),
        source=_label("user_id", raw.user_id) or _label("app_id", raw.app_id) or "",
        correlation_id=_decoration(raw.correlation_id),
        causation_id=_identifier("causation-id", headers.get("causation-id")),
        reply_to=_decoration(raw.reply_to),
        idempotency_key=_label("idempotency-key", headers.get("idempotency-key")),
        compensates=_label("compensates", headers.get("compensates")),
        timestamp=_aware(raw.timestamp),
        traceparent=traceparent if traced else None,
        tracestate=_decoration(headers.get("tracestate"), MAX_TRACESTATE) if traced else None,
    )


def headers_of(envelope: Envelope) -> dict[str, str | int]:
    """The headers to send with an envelope: what AMQP has no property for, and nothing that is absent."""
    optional = {
        "idempotency-key": envelope.idempotency_key,
        "compensates": envelope.compensates,
        "causation-id": envelope.causation_id,
        "traceparent": envelope.traceparent,
        "tracestate": envelope.tracestate,
    }
    present = {name: value for name, value in optional.items() if value is not None}
    return {"schema-version": envelope.schema_version, **present}


def body_hash(body: bytes) -> bytes:
    """SHA-256 of a body: tells a copy of a message from another message under the same id."""
    return sha256(body).digest()


def check_size(body: bytes, limits: Limits) -> None:
    """Make sure that a body is not too long.

    Raises:
        OversizeMessage: it is.
    """
    if len(body) > limits.max_body:
        raise OversizeMessage(
            f"the body has {len(body)} bytes, {limits.max_body} are allowed; send a reference instead of the data"
        )


def _check_content(raw: Raw) -> None:
    if (
        raw.content_type
        and raw.content_type != "application/json"
        and not _JSON_TYPE.fullmatch(raw.content_type.strip())
    ):
        raise MalformedMessage(
            f"content_type is {printable(repr(raw.content_type), 100)}; send application/json in UTF-8"
        )
    if raw.content_encoding and raw.content_encoding.strip().lower() not in _PLAIN_ENCODINGS:
        raise MalformedMessage(
            f"content_encoding is {printable(repr(raw.content_encoding), 100)}; send the body uncompressed"
        )


def _name(raw: Raw) -> str:
    name, where = (raw.type, "type") if raw.type else (raw.routing_key, "routing key (there is no type)")
    if not is_message_name(name):
        raise MalformedMessage(
            f"{where} {printable(repr(name), 100)} is not a message name; send one such as stock.Reserved"
        )
    return name


def _schema_version(value: object) -> int:
    if value is None or value == "":
        return 1
    text = _text(value)
    if text is not None and text.isascii() and text.isdigit() and len(text) < 11:
        value = int(text)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_VERSION:
        return value
    raise MalformedMessage(f"schema-version {printable(repr(value), 60)} is not a whole number from 1")


def _identifier(name: str, value: object) -> str | None:
    """Printable ASCII: it is compared bytewise, by every language."""
    text = _label(name, value)
    if text is not None and not text.isascii():
        raise MalformedMessage(
            f"{name} {printable(repr(text), 60)} is not ASCII; send at most {MAX_PROPERTY} ASCII characters"
        )
    return text


def _label(name: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    text = _text(value)
    if text is None:
        raise MalformedMessage(f"{name} is of type {type(value).__name__}; send a string")
    if len(text) > MAX_PROPERTY or not text.isprintable():
        raise MalformedMessage(f"{name} {printable(repr(text), 60)} is not at most {MAX_PROPERTY} printable characters")
    return text


def _decoration(value: object, limit: int = MAX_PROPERTY) -> str | None:
    if value is None:
        return None
    text = _text(value)
    fits = text and len(text) <= limit and text.isascii() and text.isprintable()
    return text if fits else None


def _text(value: object) -> str | None:
    """A header's text. Some clients send theirs as byte arrays."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)) and value.isascii():
        return value.decode("ascii")
    return None


def _aware(timestamp: datetime | None) -> datetime | None:
    return timestamp.replace(tzinfo=UTC) if timestamp is not None and timestamp.tzinfo is None else timestamp


def _read_as(envelope: Envelope, message_class: type[Message]) -> str:
    """What was read, and as which version where that is another than it came in."""
    version, known = envelope.schema_version, message_class.schema_version
    return envelope.name if version == known else f"{envelope.name} version {version}, read as version {known}"


def _wrong_fields(error: ValidationError) -> str:
    count = error.error_count()
    if count > _COUNTABLE_ERRORS:  # listing them would cost more than reading the message
        return f"{count} values do not fit the class"
    details = error.errors(include_url=False, include_context=False, include_input=False)
    shown = "; ".join(f"{_path(detail['loc'])}: {detail['msg']}" for detail in details[:_SHOWN_ERRORS])
    return shown if count <= _SHOWN_ERRORS else f"{shown}; and {count - _SHOWN_ERRORS} more"


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(printable(str(part), 60) for part in location) or "the message"
