"""The door and the codec judge alike: what one takes, the other takes. A refusal says what is wrong and what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, cast
from uuid import uuid4

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import migrations
from messages import Event, Raw, codec
from messages.errors import MessageError
from sagas.names import MARKER
from tests.messages.test_strict_json import FINE, NASTY, OBJECTS, nested

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from messages.envelope import Envelope

ROUNDED_TO_INFINITY = 2**1024 - 2**970
"""The smallest number too large for a 64-bit float: half a step above the largest."""

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Anything(Event, abstract=True):
    """An event that has no fields: what the codec refuses here, it refuses in every event."""


@pytest.fixture(scope="module")
def door(postgres_url: str) -> Iterator[psycopg.Connection]:
    """A connection to a namespace of this module's own."""
    namespace = f"n{uuid4().hex[:12]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(migrations.sql(namespace).encode())
        connection.execute(f"set search_path = {namespace}".encode())
        yield connection
        connection.execute(f"drop schema {namespace} cascade".encode())


def refusal(
    door: psycopg.Connection, body: str, name: str = "a", message_id: str = "m", headers: str = "{}"
) -> psycopg.errors.Diagnostic | None:
    """Why the door does not take it, or None."""
    try:
        with door.transaction(force_rollback=True):
            door.execute("select publish(%s, %s, %s, cast(%s as jsonb))", (name, body, message_id, headers))
    except psycopg.errors.InvalidParameterValue as error:
        return error.diag
    return None


def read(
    body: str, name: str = "a", message_id: str = "m", headers: Mapping[str, object] | None = None
) -> Envelope | None:
    """What a reader makes of it, or None."""
    given = dict(headers or {})
    correlation_id = cast("str | None", given.pop("correlation-id", None))
    raw = Raw(body=body.encode(), routing_key=name, message_id=message_id, correlation_id=correlation_id, headers=given)
    try:
        envelope = codec.open_envelope(raw)
        codec.parse(envelope, Anything)
    except MessageError:
        return None
    return envelope


def agreed(door: psycopg.Connection, body: str) -> bool:
    """Whether both take it."""
    refused = refusal(door, body)
    assert (refused is None) == (read(body) is not None), refused and refused.message_primary
    return refused is None


def often(usual: st.SearchStrategy[str], rare: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Mostly the usual: a body of any size holds many parts, and one that is wrong is enough."""
    return st.integers(0, 29).flatmap(lambda dice: rare if dice == 29 else usual)


def pointed(number: int, places: int, zeros: str) -> str:
    """A number, written with its point that many places further left."""
    digits = str(number).rjust(places + 1, "0")
    return f"{digits[:-places]}.{digits[-places:]}E+{zeros}{places}"


def containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(st.lists(inner, max_size=4).map(lambda parts: f"[{','.join(parts)}]"), objects(inner))


def objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.lists(st.tuples(KEYS, SPACE, inner), max_size=5)
    return members.map(lambda found: "{" + ",".join(f"{key}{space}:{value}" for key, space, value in found) + "}")


CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")  # no text in SQL has others
SPACE = often(st.sampled_from(("", " ", "\r\n\t")), st.sampled_from(("\x0b", "\xa0", "\ufeff", "//")))
PLAIN = ("a", "b", "ö", "🎼", " ", ":", ",", "[", "{", "1e400", "9" * 19, "u0000", "\x7f", "\u2028")
ESCAPES = (r"\n", r"\\", r"\"", r"\/", r"\u0061", r"\u00f6", r"\u005c", r"\ud83d\ude00", r"\uD83D\uDE00")
NO_ESCAPES = (r"\u0000", r"\ud83d", r"\uDE00", r"\x", r"\u12", "\x01", '"', "\\", "\n")
PIECES = often(st.sampled_from(PLAIN + ESCAPES), st.sampled_from(NO_ESCAPES))
STRINGS = st.lists(PIECES, max_size=4).map(lambda pieces: f'"{"".join(pieces)}"')
KEYS = often(st.integers(0, 99).map('"k{}"'.format), st.one_of(STRINGS, st.integers(0, 9).map(r'"\u006b{}"'.format)))
NUMBER = r"-?(?:0|[1-9][0-9]{0,20})(?:\.[0-9]{1,24})?(?:[eE][-+]?0{0,3}[0-9]{1,3})?"
NO_NUMBERS = ("01", "+1", ".5", "1.", "1e", "-", "0x1", "NaN", "Infinity", "-Infinity", "٣", "1e1000", "0e-1000")
NEAR = st.integers(-2, 2)
EDGES = st.one_of(
    st.builds(lambda edge, near: str(edge + near), st.sampled_from((-(2**63), 2**63, 10**18, 2**64)), NEAR),
    st.builds(
        pointed, NEAR.map(lambda near: ROUNDED_TO_INFINITY + near), st.integers(1, 400), st.sampled_from(("", "000"))
    ),
)
NUMBERS = often(st.from_regex(NUMBER, fullmatch=True), st.one_of(EDGES, st.sampled_from(NO_NUMBERS)))
SCALARS = st.one_of(STRINGS, NUMBERS, st.sampled_from(("true", "false", "null")))
VALUES = st.recursive(SCALARS, containers, max_leaves=12)
DEEP = st.builds(lambda levels, inner: "[" * levels + inner + "]" * levels, st.integers(58, 66), VALUES)
BODIES = st.tuples(SPACE, often(objects(often(VALUES, DEEP)), VALUES), SPACE).map("".join)


@settings(max_examples=250)
@given(body=BODIES)
@example(body='{"a": 1, "\\u0061": 2}')
@example(body='{"a": {"b": 1, "c": [{}, {"d": 1, "d": 1}]}}')
@example(body='{"a": 1e-400, "b": -0.0, "c": 0e999, "d": 1e+00308}')
@example(body='{"a": ["\\ud83d\\ude00", "\\\\ud83d", "\\\\\\ud83d"]}')
@example(body='{"a": 0e1000}')
@example(body=f'{{"a": {ROUNDED_TO_INFINITY}.0}}')
@example(body=f'{{"a": {pointed(ROUNDED_TO_INFINITY, 308, "")}}}')
@example(body=f'{{"a": {pointed(ROUNDED_TO_INFINITY - 1, 308, "")}}}')
@example(body=f'{{"a": {ROUNDED_TO_INFINITY - 1}.{"9" * 3000}}}')
@example(body=f'{{"a": {"9" * 200_000}.5, "b": 0.{"0" * 200_000}1}}')
@example(body=f'{{"a": {"9" * 1200}e-999, "b": 0.{"0" * 1200}1e999}}')
def test_the_door_takes_the_bodies_that_the_codec_takes(door: psycopg.Connection, body: str) -> None:
    agreed(door, body)


@given(value=OBJECTS, ascii_only=st.booleans(), data=st.data())
def test_what_json_can_say_is_taken_and_judged_alike_once_damaged(
    door: psycopg.Connection, value: dict[str, object], ascii_only: bool, data: st.DataObject
) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only)
    assert agreed(door, body)
    at = data.draw(st.integers(0, len(body) - 1))
    agreed(door, body[:at] + data.draw(st.text(CHARACTERS, max_size=3)) + body[at + 1 :])


def as_text(body: bytes) -> str | None:
    """The body as a text in SQL, where it can be one."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


GALLERY = FINE | {name: body for name, (body, _) in NASTY.items()}
SENDABLE = {name: text for name, body in GALLERY.items() if (text := as_text(body)) is not None}


@pytest.mark.parametrize(("name", "body"), SENDABLE.items(), ids=SENDABLE)
def test_the_gallery_of_the_codec_is_judged_alike(door: psycopg.Connection, name: str, body: str) -> None:
    assert agreed(door, body) == (name in FINE)


@pytest.mark.parametrize(("size", "taken"), [(2**20, True), (2**20 + 1, False)])
def test_a_body_may_have_a_mebibyte_and_no_byte_more(door: psycopg.Connection, size: int, taken: bool) -> None:
    assert agreed(door, '{"a": "ö%s"}' % ("a" * (size - len('{"a": "ö"}'.encode())))) == taken


FLATTER = "Publish it flatter."
AS_A_STRING = "Give it as a string."
OBJECT = "Give one JSON object as text."
ONCE = "Give it once; readers disagree on which one counts."
READABLE = r"Give one JSON object as text, without \u0000 and halves of surrogate pairs."

REFUSED = {
    "no JSON": ('{"a": x}', 'is not JSON: Token "x" is invalid. (JSON data, line 1: {"a": x...)', READABLE),
    "NaN": ('{\n"a": NaN}', 'is not JSON: Token "NaN" is invalid. (JSON data, line 2: "a": NaN...)', READABLE),
    "Infinity": ('{"a": -Infinity}', 'Token "-Infinity" is invalid. (JSON data, line 1: {"a": -Infinity...)', READABLE),
    "U+0000": (
        r'{"a": "\u0000"}',
        r'is not JSON: \u0000 cannot be converted to text. (JSON data, line 1: {"a": "\u0000...)',
        READABLE,
    ),
    "half a pair": (
        r'{"a": {"b": "\ud83d"}}',
        'must follow a high surrogate. (JSON data, line 1: {"a": {"b": "\\ud83d"...)',
        READABLE,
    ),
    "a list": ("[{}]", "is a JSON array, not an object", OBJECT),
    "too deep": (nested(65).decode(), "is nested deeper than 64 levels", FLATTER),
    "far too deep": ('{"a": ' * 100_000, "is nested deeper than 64 levels", FLATTER),
    "a key twice": ('{"a": [{"b": 1, "c": 2, "\\u0062": 3}]}', 'has the key "b" twice in one object', ONCE),
    "a strange key twice": (r'{"\n": 1, "\n": 2}', r'has the key "\n" twice in one object', ONCE),
    "a large integer": (
        '{"id": "9223372036854775808", "total": 9223372036854775808}',
        'has the number 9223372036854775808 after "total", which does not fit into 64 bits',
        AS_A_STRING,
    ),
    "a large number": (
        '{"a": [1, -2.5E+308]}',
        "has the number -2.5E+308 after 1, which is out of the range of 64-bit floats",
        AS_A_STRING,
    ),
}


@pytest.mark.parametrize(("body", "said", "remedy"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_of_a_body_says_what_and_where_and_what_to_do(
    door: psycopg.Connection, body: str, said: str, remedy: str
) -> None:
    refused = refusal(door, body, name="ordering.OrderPlaced")
    assert refused is not None
    assert said in f"{refused.message_primary}"
    assert f"{refused.message_primary}".startswith("publish: the body of ordering.OrderPlaced ")
    assert refused.message_hint == remedy


def test_the_page_about_the_door_shows_a_refusal_as_it_reads(door: psycopg.Connection) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sql-door.md").read_text(encoding="utf-8")
    refused = refusal(door, '{"total": 9223372036854775808}', name="ordering.OrderPlaced")
    assert refused is not None
    assert re.findall(r"ERROR:  (.*)\n *HINT:  (.*)", page) == [(refused.message_primary, refused.message_hint)]


NAMES = st.one_of(
    st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]*\n?", fullmatch=True),
    st.text(CHARACTERS, max_size=5),
    st.integers(250, 260).map("a".__mul__),
    st.just(MARKER),
)
WORDS = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126)),
    st.text(CHARACTERS, max_size=5),
    st.builds(str.__mul__, st.sampled_from(("a", "~", "ö", "\x7f")), st.sampled_from((1, 255, 256, 512, 513))),
)


@settings(max_examples=300)
@given(name=NAMES, message_id=WORDS)
def test_the_door_takes_the_names_and_ids_that_the_codec_takes_but_the_engines_own(
    door: psycopg.Connection, name: str, message_id: str
) -> None:
    taken = refusal(door, "{}", name=name, message_id=message_id) is None
    assert taken == (read("{}", name=name, message_id=message_id) is not None and name != MARKER)


NO_WORDS = st.one_of(st.none(), st.booleans(), st.integers(), st.just([]), st.just({"a": "b"}), st.floats(-9, 9))
LABELS = st.one_of(WORDS, NO_WORDS)
VERSIONS = st.one_of(
    st.integers(-1, 2**31 + 1),
    st.sampled_from((2**31 - 1, 2**31)),
    st.integers(0, 2**31).map(str),
    st.from_regex(r"[0-9]{1,11}\n?", fullmatch=True),
    LABELS,
)
HEADERS = st.fixed_dictionaries(
    {"traceparent": st.just(TRACEPARENT)},
    optional={"schema-version": VERSIONS, "causation-id": LABELS, "correlation-id": LABELS, "tracestate": LABELS},
)


@settings(max_examples=250)
@given(headers=HEADERS)
@example(headers={"schema-version": "0000000007"})
@example(headers={"traceparent": TRACEPARENT, "tracestate": "a" * 512})
@example(headers={"traceparent": TRACEPARENT, "tracestate": "a" * 513})
def test_the_door_takes_the_headers_that_a_reader_keeps(
    door: psycopg.Connection, headers: Mapping[str, object]
) -> None:
    """Stricter than the codec: what a reader would drop, or take for absent, is a mistake of the caller's."""
    envelope = read("{}", headers=headers)
    kept = envelope is not None and all(
        headers[name] not in (None, "") and getattr(envelope, name.replace("-", "_")) is not None for name in headers
    )
    assert (refusal(door, "{}", headers=json.dumps(headers)) is None) == kept


def test_a_traceparent_that_is_none_hinders_no_event(door: psycopg.Connection) -> None:
    headers = {"traceparent": "none"}
    assert refusal(door, "{}", headers=json.dumps(headers)) is None
    envelope = read("{}", headers=headers)
    assert envelope is not None
    assert envelope.traceparent is None
