"""A body has one reading, or it is refused: quickly, whatever it holds, with words that say what and where."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic_core import from_json

from messages.errors import MalformedMessage
from messages.strict_json import check_json_object

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 2**20
DEPTH = 64

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(2**63), max_value=2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
)
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
OBJECTS = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
        max_leaves=8,
    ),
)


def nested(levels: int) -> bytes:
    """An object that is `levels` deep, itself included."""
    return b'{"a":' + b"[" * (levels - 1) + b"0" + b"]" * (levels - 1) + b"}"


def refusal(body: bytes) -> str:
    with pytest.raises(MalformedMessage) as caught:
        check_json_object(body, max_depth=DEPTH)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) <= 500
    return text


NASTY = {
    "empty": (b"", "not JSON"),
    "not JSON": (b"order 7", "line 1 column 1"),
    "cut off": (b'{"a": [1, 2', "not JSON"),
    "two values": (b"{} {}", "line 1 column 4: Extra data"),
    "a trailing comma": (b'{"a": 1,}', "not JSON"),
    "a comment": (b'{"a": 1} // one', "Extra data"),
    "single quotes": (b"{'a': 1}", "not JSON"),
    "a list": (b"[1]", "not a JSON object"),
    "a text": (b'"a"', "not a JSON object"),
    "a number": (b"7", "not a JSON object"),
    "null": (b"null", "not a JSON object"),
    "a raw control character": (b'{"a": "\x01"}', "line 1 column 8: Invalid control character"),
    "a raw NUL": (b'{"a": "\x00"}', "Invalid control character"),
    "an open bracket, 100 000 times": (b"[" * 100_000, "deeper than 64"),
    "an object in an object, 100 000 times": (b'{"a":' * 100_000, "deeper than 64"),
    "one level too many": (nested(DEPTH + 1), "deeper than 64"),
    "deep behind a text of brackets": (b'{"t": "]]]]\\"]]]]", "a":' + b"[" * 64 + b"]" * 64 + b"}", "deeper than 64"),
    "an integer of 4301 digits": (b'{"a": ' + b"9" * 4301 + b"}", "does not fit into 64 bits"),
    "an integer of a megabyte": (b'{"a": ' + b"9" * MIB + b"}", "does not fit into 64 bits"),
    "2 to the 64": (b'{"a": 18446744073709551616}', "18446744073709551616 does not fit into 64 bits"),
    "2 to the 63": (b'{"a": 9223372036854775808}', "does not fit into 64 bits"),
    "below -2 to the 63": (b'{"a": [-9223372036854775809]}', "does not fit into 64 bits"),
    "NaN": (b'{"a": NaN}', "NaN is not JSON"),
    "Infinity": (b'{"a": Infinity}', "Infinity is not JSON"),
    "-Infinity": (b'{"a": [-Infinity]}', "-Infinity is not JSON"),
    "1e400": (b'{"a": 1e400}', "1e400 is out of range"),
    "1e131071": (b'{"a": [' + b",".join([b"1e131071"] * 100) + b"]}", "1e131071 is out of range"),
    "1E-131071": (b'{"a": 1E-131071}', "1E-131071 is out of range"),
    "1e309": (b'{"a": 1e309}', "out of range"),
    "an exponent of 5000 digits": (b'{"a": 1e' + b"9" * 5000 + b"}", "out of range"),
    "a fraction beyond every float": (b'{"a": ' + b"9" * 400 + b".5}", "out of range"),
    "U+0000": (rb'{"a": "\u0000"}', r"\u0000 at character 7 is U+0000"),
    "U+0000 in a key": (rb'{"\u0000": 1}', "U+0000"),
    "U+0000 behind an escaped backslash": (rb'{"a": "\\\u0000"}', "U+0000"),
    "a high surrogate alone": (rb'{"a": "\ud800"}', r"\ud800 at character 7 is half a surrogate pair"),
    "a high surrogate and text": (rb'{"a": "\uD800x"}', "half a surrogate pair"),
    "a low surrogate alone": (rb'{"a": "\udc00"}', "half a surrogate pair"),
    "a pair the wrong way round": (rb'{"a": "\udc00\ud800"}', "half a surrogate pair"),
    "a high surrogate before an escaped backslash": (rb'{"a": "\ud83d\\ude00"}', "half a surrogate pair"),
    "a surrogate in the bytes": (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
    "a duplicate key": (b'{"a": 1, "b": 2, "a": 3}', "'a' stands twice"),
    "a duplicate key deep inside": (b'{"x": [{"y": {"a": 1, "a": 1}}]}', "'a' stands twice"),
    "a duplicate key written differently": (rb'{"a": 1, "\u0061": 2}', "'a' stands twice"),
    "a duplicate key of control characters": (rb'{"\u001b[1m\n": 1, "\u001b[1m\n": 2}', "stands twice"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "byte order mark"),
    "UTF-16 with a mark": ('{"a": 1}'.encode("utf-16"), "UTF-16"),
    "UTF-16 without a mark": ('{"a": 1}'.encode("utf-16-le"), "UTF-16"),
    "UTF-32": ('{"a": 1}'.encode("utf-32-be"), "UTF-16"),
    "invalid UTF-8": (b'{"a": "\xff"}', "invalid start byte at byte 7"),
    "overlong UTF-8": (b'{"a": "\xc0\x80"}', "not UTF-8"),
    "Latin-1": ('{"a": "Straße"}'.encode("latin-1"), "not UTF-8"),
    "gzip": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "byte order mark"),
    "quotes only": (b'"' * MIB, "not JSON"),
    "an opening bracket and a quote": (b'{"a":' + b'"[' * (MIB // 2), "deeper than 64"),
}


@pytest.mark.parametrize(("body", "said"), NASTY.values(), ids=NASTY.keys())
def test_what_readers_would_disagree_on_is_refused(body: bytes, said: str) -> None:
    assert said in refusal(body)


FINE = {
    "an empty object": b"{}",
    "space around": b' \r\n\t{"a": 1} \n',
    "the widest integers": b'{"a": [9223372036854775807, -9223372036854775808, -0]}',
    "wide numbers": b'{"a": [1e308, 1E-308, 0.1e+0000000308, 5e-324, 1.7976931348623157e308, 1234567890123456789.5]}',
    "escaped backslashes before u0000": rb'{"a": "\\u0000 \\\\u0000 \\ud800"}',
    "a surrogate pair": rb'{"a": "\ud83d\uDE00"}',
    "bare characters of every length": '{"ä": "Ω 🎼"}'.encode(),
    "as deep as allowed": nested(DEPTH),
    "brackets in a text": b'{"a": "' + b"[{" * 1000 + b'"}',
    "brackets and quotes in a text": b'{"a": "' + b'\\"[' * 1000 + b'"}',
    "one key in two objects": b'{"a": {"a": 1}, "b": [{"a": 1}, {"a": 1}]}',
    "many shallow lists": b'{"a": [' + b"[]," * 1000 + b"[]]}",
    "100 000 keys": b"{" + b",".join(b'"%d":0' % number for number in range(100_000)) + b"}",
}


@pytest.mark.parametrize("body", FINE.values(), ids=FINE.keys())
def test_what_has_one_reading_is_taken(body: bytes) -> None:
    check_json_object(body, max_depth=DEPTH)


@given(OBJECTS)
def test_whatever_json_can_say_is_taken_and_read_alike_by_two_parsers(value: dict[str, object]) -> None:
    for body in (json.dumps(value).encode(), json.dumps(value, ensure_ascii=False, indent=1).encode()):
        check_json_object(body, max_depth=DEPTH)
        assert json.loads(body) == from_json(body)


@given(st.binary(max_size=200))
@example(b'{"a":"\\')
@example(b'{"a":\\u0000}')
def test_any_bytes_are_taken_or_refused(body: bytes) -> None:
    try:
        check_json_object(body, max_depth=DEPTH)
    except MalformedMessage as error:
        assert str(error).isprintable()
    else:
        assert isinstance(json.loads(body.decode()), dict)


@given(OBJECTS, st.data())
def test_a_damaged_body_is_taken_or_refused(value: dict[str, object], data: st.DataObject) -> None:
    body = bytearray(json.dumps(value).encode())
    at = data.draw(st.integers(min_value=0, max_value=len(body) - 1))
    body[at : at + 1] = data.draw(st.binary(max_size=3))
    try:
        check_json_object(bytes(body), max_depth=DEPTH)
    except MalformedMessage as error:
        assert str(error).isprintable()
    else:
        assert json.loads(body) == from_json(bytes(body))


@given(st.integers(min_value=1, max_value=200), st.integers(min_value=1, max_value=100))
def test_the_depth_is_counted_in_objects_and_lists_the_body_included(levels: int, limit: int) -> None:
    def check() -> None:
        check_json_object(nested(levels), max_depth=limit)

    _expect(check, refused=levels > limit)


def _expect(check: Callable[[], None], *, refused: bool) -> None:
    if not refused:
        check()
        return
    with pytest.raises(MalformedMessage, match="deeper than"):
        check()


def test_a_deep_body_is_refused_from_a_deep_stack_too() -> None:
    def descend(frames: int) -> str:
        return descend(frames - 1) if frames else refusal(b"[" * 100_000)

    assert "deeper than" in descend(sys.getrecursionlimit() // 2)
