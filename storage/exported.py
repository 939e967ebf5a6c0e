"""A dead letter as one JSON object, complete and without loss: what `antiphon dead export` writes.

The message's properties are written as the table keeps them; its body is text where it is UTF-8, else base64.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from storage.properties import TEXTS, packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from messages.envelope import Raw
    from storage.answers import DeadLetterDetail


def exported(letter: DeadLetterDetail) -> dict[str, object]:
    """Everything that is known of a letter; times and ids are left as they are."""
    return {
        **asdict(letter.summary),
        "source": letter.source,
        "message": message_of(letter.raw),
        "events": [asdict(event) for event in letter.events],
    }


def message_of(raw: Raw) -> dict[str, object]:
    """A message as a JSON object."""
    try:
        body: object = raw.body.decode("utf-8")
    except UnicodeDecodeError:
        body = {"$bytes": base64.b64encode(raw.body).decode("ascii")}
    return {**json.loads(packed(raw)), "body": body}


def raw_of(message: Mapping[str, Any]) -> Raw:
    """The message that an object of `message_of` holds.

    For people who edit it, the body may also be the JSON value itself, and the headers an object.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it holds none.
    """
    properties = dict(message)
    body, headers = properties.pop("body"), properties.get("headers", [])
    if wrong := sorted(name for name in TEXTS if not isinstance(properties.get(name, ""), str)):
        raise ValueError(f"{', '.join(wrong)}: a text is needed")
    if properties.get("priority", 0) not in range(256):
        raise ValueError("priority: a whole number from 0 to 255 is needed")
    if isinstance(headers, dict):
        properties["headers"] = [[name, value] for name, value in headers.items()]
    return unpacked(_bytes(body), json.dumps({"headers": [], **properties}))


def _bytes(body: object) -> bytes:
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, dict) and body.keys() == {"$bytes"}:
        return base64.b64decode(body["$bytes"], validate=True)
    return json.dumps(body, ensure_ascii=False).encode()
