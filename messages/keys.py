"""The business key: the text that names one business process, the same in every process and language."""

from __future__ import annotations

import re
from uuid import UUID

from messages.errors import MissingKey
from messages.printable import printable
from messages.strict_json import INT64_MAX, INT64_MIN

MAX_KEY = 255
"""Longest business key, in characters."""

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def business_key(value: object) -> str:
    """The canonical text of a business key: text as it is, integers in decimal, UUIDs in lower case with hyphens.

    Raises:
        MissingKey: the value is no key: absent, of another type, empty, longer than 255 characters, or with control
            characters in it.
    """
    if isinstance(value, str):
        return _checked(str.__str__(value))
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and INT64_MIN <= value <= INT64_MAX:
        return str(int(value))
    what = "it is absent" if value is None else f"{type(value).__name__} is no key"
    raise MissingKey(f"no business key: {what}; send a text, an integer of 64 bits or a UUID")


def _checked(key: str) -> str:
    if not 1 <= len(key) <= MAX_KEY:
        raise MissingKey(f"a business key has 1 to {MAX_KEY} characters, this one has {len(key)}")
    if _FORBIDDEN.search(key):
        raise MissingKey(f"the business key {printable(repr(key), 100)} holds control characters; remove them")
    return key
