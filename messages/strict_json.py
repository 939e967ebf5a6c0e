"""What JSON may cross the wire: one reading for everybody, whatever language or parser reads it.

Parsers disagree on duplicate keys, NaN, numbers beyond 64 bits, lone surrogates, byte order marks and deep nesting.
Bodies that hold any of these are refused, so that no two readers see different messages. Knows no message class.

Every accepted body costs a fraction of what parsing it costs, and every refused one is refused in bounded time.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING, NoReturn

from messages.errors import MalformedMessage
from messages.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
MAX_EXPONENT_DIGITS = 3
"""What 64-bit floats need. A longer exponent makes a few bytes a number that fills the memory of exact readers."""

_ENCODING_MARKS = (b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe")
_ESCAPED_BYTE = re.compile(rb"\\.", re.DOTALL)
_SUSPECT_ESCAPES = ("\\u0000", "\\ud", "\\uD")
# Consumes escapes from left to right, as a parser does: a backslash that is itself escaped begins none. The group is
# what may not stand in a text: NUL, and a surrogate that is not the first or second half of a pair.
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u0000|u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def check_json_object(body: bytes, *, max_depth: int) -> None:
    """Make sure that the body is a JSON object which every reader understands alike.

    Raises:
        MalformedMessage: it is not UTF-8 without byte order mark, not JSON, not an object, nested deeper than
            `max_depth`, or holds a duplicate key, NaN or Infinity, an integer beyond 64 bits, a number beyond 64-bit
            floats, U+0000 or half a surrogate pair. The text names what it was and, where known, the position.
    """
    text = _decoded(body)
    if body.count(b"{") + body.count(b"[") > max_depth:  # else it cannot be too deep
        _check_depth(body, max_depth)
    top = _scan(text)
    if not isinstance(top, dict):
        raise MalformedMessage("the body is not a JSON object; wrap the value in an object")
    if "\\" in text and any(escape in text for escape in _SUSPECT_ESCAPES):
        _check_escapes(text)


def _decoded(body: bytes) -> str:
    if body.startswith(_ENCODING_MARKS) or b"\0" in body[:4]:
        raise MalformedMessage("the body is UTF-16 or begins with a byte order mark; send UTF-8 without one")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedMessage(f"the body is not UTF-8: {error.reason} at byte {error.start}; send UTF-8") from None


def _check_depth(body: bytes, max_depth: int) -> None:
    plain = _ESCAPED_BYTE.sub(b"", body) if b"\\" in body else body
    brackets = b"".join(plain.split(b'"')[::2]).translate(None, _NOT_BRACKETS)
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > max_depth:
        raise MalformedMessage(f"the body is nested deeper than {max_depth} levels; send it flatter")


def _scan(text: str) -> object:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise MalformedMessage(f"the body is not JSON: {where}: {error.msg}") from None


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedMessage(printable(f"key {_first_repeated(pairs)!r} stands twice in one object; send it once"))
    return found


def _first_repeated(pairs: Sequence[tuple[str, object]]) -> str:
    return Counter(key for key, _ in pairs).most_common(1)[0][0]


def _integer(digits: str) -> int:
    """Only the range matters here: the fields are read by the message class."""
    if len(digits) > 18 and not (len(digits) < 21 and INT64_MIN <= int(digits) <= INT64_MAX):
        raise MalformedMessage(f"the integer {printable(digits, 40)} does not fit into 64 bits; send it as a string")
    return 0


def _fraction(digits: str) -> float:
    exponent = digits.lower().partition("e")[2].lstrip("+-0")
    if len(exponent) > MAX_EXPONENT_DIGITS or math.isinf(float(digits)):
        raise MalformedMessage(f"the number {printable(digits, 40)} is out of range; send it as a string")
    return 0.0


def _not_a_number(constant: str) -> NoReturn:
    raise MalformedMessage(f"{constant} is not JSON; leave the field out or send null")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_fraction, parse_constant=_not_a_number
)


def _check_escapes(text: str) -> None:
    bad = next((match for match in _ESCAPE.finditer(text) if match[1]), None)
    if bad:
        what = "U+0000" if bad[1] == "u0000" else "half a surrogate pair"
        raise MalformedMessage(f"the escape \\{bad[1]} at character {bad.start()} is {what}; leave it out")
