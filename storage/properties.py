"""The properties of a raw message as JSON text, without loss: AMQP tables hold values that JSON has no words for.

A value JSON lacks is an object with one key that begins with `$`; an object of the sender's that might be mistaken for
one is written as a list of pairs.
"""

from __future__ import annotations

import base64
import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from messages.envelope import Raw

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXTS = (
    "routing_key",
    "message_id",
    "type",
    "content_type",
    "content_encoding",
    "correlation_id",
    "reply_to",
    "app_id",
    "user_id",
)


def packed(raw: Raw) -> str:
    """Everything of the message but its body, as ASCII JSON."""
    properties: dict[str, object] = {
        name: value for name in (*TEXTS, "priority") if (value := getattr(raw, name)) is not None
    }
    if raw.timestamp is not None:
        properties["timestamp"] = _packed(raw.timestamp)
    properties["headers"] = [[name, _packed(value)] for name, value in raw.headers.items()]
    return json.dumps(properties, separators=(",", ":"))


def unpacked(body: bytes, properties: str) -> Raw:
    """The message as it arrived."""
    data: dict[str, Any] = json.loads(properties)
    timestamp = data.pop("timestamp", None)
    headers = {name: _unpacked(value) for name, value in data.pop("headers")}
    return Raw(
        body=body,
        timestamp=_unpacked(timestamp) if timestamp is not None else None,  # type: ignore[arg-type]
        headers=headers,
        **data,
    )


def _packed(value: object) -> object:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$bytes": base64.b64encode(bytes(value)).decode("ascii")}
    if isinstance(value, Decimal):
        return {"$decimal": str(value)}
    if isinstance(value, datetime):
        return {"$time": value.isoformat()}
    if isinstance(value, (list, tuple)):
        return [_packed(item) for item in value]
    if isinstance(value, dict):
        return _packed_table(value)
    return {"$text": repr(value)}


def _packed_table(table: Mapping[Any, object]) -> object:
    if all(isinstance(name, str) and not name.startswith("$") for name in table):
        return {name: _packed(value) for name, value in table.items()}
    return {"$table": [[_packed(name), _packed(value)] for name, value in table.items()]}


def _unpacked(value: object) -> object:
    if isinstance(value, list):
        return [_unpacked(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        [(word, content)] = value.items()
        if isinstance(word, str) and word.startswith("$"):
            return _special(word, content)
    return {name: _unpacked(item) for name, item in value.items()}


def _special(word: str, content: Any) -> object:  # noqa: ANN401 - what JSON gave
    if word == "$bytes":
        return base64.b64decode(content)
    if word == "$table":
        return {_unpacked(name): _unpacked(item) for name, item in content}
    if word == "$time":
        moment = datetime.fromisoformat(content)
        return moment.astimezone(UTC) if moment.tzinfo else moment
    if word == "$float":
        return float(content)
    return Decimal(content) if word == "$decimal" else content
