"""The PostgreSQL parser names every event, however the bytes are split or glued."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crash.proxy.postgres import PostgresParser, first_word, statements
from tests.crash.proxy.wire import Direction, Unit, WireError

C2S, S2C = Direction.C2S, Direction.S2C


def message(kind: str, payload: bytes = b"") -> bytes:
    return kind.encode() + struct.pack("!I", len(payload) + 4) + payload


def untyped(code: int, payload: bytes = b"") -> bytes:
    return struct.pack("!II", len(payload) + 8, code) + payload


STARTUP = untyped(196608, b"user\0alice\0database\0shop\0\0")


def query(sql: str) -> bytes:
    return message("Q", sql.encode() + b"\0")


def parse(name: str, sql: str) -> bytes:
    return message("P", name.encode() + b"\0" + sql.encode() + b"\0\0\0")


def bind(portal: str, name: str) -> bytes:
    return message("B", portal.encode() + b"\0" + name.encode() + b"\0\0\0\0\0\0\0")


def execute(portal: str = "") -> bytes:
    return message("E", portal.encode() + b"\0\0\0\0\0")


def done(tag: str) -> bytes:
    return message("C", tag.encode() + b"\0")


SYNC, READY = message("S"), message("Z", b"I")


def names(units: list[Unit]) -> list[str]:
    return [event.name for unit in units for event in unit.events]


def started() -> PostgresParser:
    parser = PostgresParser()
    parser.feed(C2S, STARTUP)
    return parser


def words(units: list[Unit]) -> list[str]:
    """The events named after SQL."""
    return [name for name in names(units) if name.rpartition(".")[2].isupper()]


def test_the_startup_tells_who_connects_where() -> None:
    (unit,) = PostgresParser().feed(C2S, STARTUP)
    assert unit.data == STARTUP
    assert unit.events[0].name == "pg.c2s.startup"
    assert unit.events[0].details == {"user": "alice", "database": "shop"}


@pytest.mark.parametrize("code", [80877103, 80877104])
def test_encryption_is_refused_without_asking_the_server(code: int) -> None:
    parser = PostgresParser()
    (refusal,) = parser.feed(C2S, untyped(code))
    assert (refusal.data, refusal.answer) == (b"", b"N")
    assert names(list(parser.feed(C2S, STARTUP))) == ["pg.c2s.startup"]


def test_a_simple_query_is_named_after_each_of_its_statements() -> None:
    units = list(started().feed(C2S, query("BEGIN; INSERT INTO t VALUES ('a;b'); COMMIT;")))
    assert names(units) == ["pg.c2s.query", "pg.c2s.BEGIN", "pg.c2s.INSERT", "pg.c2s.COMMIT"]


def test_a_cached_statement_is_named_each_time_it_runs() -> None:
    parser = started()
    parser.feed(C2S, parse("s1", "insert into t values ($1)") + SYNC)
    parser.feed(S2C, message("1") + READY)
    again = [list(parser.feed(C2S, bind("", "s1") + execute() + SYNC)) for _ in range(2)]
    assert [words(units) for units in again] == [["pg.c2s.INSERT"]] * 2


def test_an_answer_knows_the_statement_it_answers() -> None:
    parser = started()
    parser.feed(C2S, parse("a", "INSERT INTO inbox") + parse("b", "UPDATE saga"))
    parser.feed(C2S, bind("", "a") + execute() + bind("", "b") + execute() + SYNC)
    units = list(parser.feed(S2C, done("INSERT 0 1") + done("UPDATE 1") + READY))
    answers = [(event.name, event.text("statement")) for unit in units for event in unit.events]
    assert answers == [
        ("pg.s2c.INSERT", "INSERT INTO inbox"),
        ("pg.s2c.UPDATE", "UPDATE saga"),
        ("pg.s2c.ready", ""),
    ]


def test_after_an_error_the_statements_up_to_the_sync_are_forgotten() -> None:
    parser = started()
    parser.feed(C2S, parse("", "INSERT 1") + bind("", "") + execute() + bind("", "") + execute() + SYNC)
    failed = list(parser.feed(S2C, message("E", b"SERROR\0C23505\0Mduplicate key\0\0") + READY))
    assert failed[0].events[0].details == {"sqlstate": "23505", "message": "duplicate key", "statement": "INSERT 1"}
    parser.feed(C2S, query("ROLLBACK"))
    (unit, _) = parser.feed(S2C, done("ROLLBACK") + READY)
    assert unit.events[0].name == "pg.s2c.ROLLBACK"
    assert unit.events[0].text("statement") == "ROLLBACK"


def test_a_closed_statement_is_forgotten() -> None:
    parser = started()
    parser.feed(C2S, parse("s1", "SELECT 1") + message("C", b"Ss1\0"))
    assert words(list(parser.feed(C2S, bind("", "s1") + execute()))) == []


def test_rows_and_other_traffic_pass_unnamed_and_unchanged() -> None:
    rows = message("T", b"\0\0") + message("D", b"\0\1\0\0\0\1x") + done("SELECT 1")
    parser = started()
    parser.feed(C2S, query("SELECT 1"))
    units = list(parser.feed(S2C, rows))
    assert b"".join(unit.data for unit in units) == rows
    assert names(units) == ["pg.s2c.SELECT"]


def test_what_is_not_postgresql_is_an_error_and_not_a_guess() -> None:
    with pytest.raises(WireError, match="startup message"):
        PostgresParser().feed(C2S, b"GET / HTTP/1.1\r\n")
    with pytest.raises(WireError, match="from s2c"):
        started().feed(S2C, b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("", []),
        (";", []),
        ("commit", ["commit"]),
        ("a; b;", ["a", "b"]),
        ("select $x$;$x$; b", ["select $x$;$x$", "b"]),
        ("select E'\\';'; b", ["select E'\\';'", "b"]),
        ('select ";"; -- c; d', ['select ";"']),
        ("/* one; */ begin", ["/* one; */ begin"]),
    ],
)
def test_a_semicolon_inside_a_text_or_comment_does_not_split(script: str, expected: list[str]) -> None:
    assert statements(script) == expected


def test_the_first_word_is_found_behind_comments_and_brackets() -> None:
    assert first_word("/* hint */ -- more\n (select 1)") == "SELECT"


CONVERSATION = STARTUP + query("BEGIN;") + parse("s", "INSERT INTO t") + bind("p", "s") + execute("p") + SYNC
CONVERSATION += query("COMMIT;") + message("X")


@settings(max_examples=60)
@given(st.lists(st.integers(0, len(CONVERSATION)), max_size=12))
def test_no_way_of_splitting_the_bytes_changes_what_is_seen(cuts: list[int]) -> None:
    parser, edges = PostgresParser(), [0, *sorted(cuts), len(CONVERSATION)]
    units = [u for a, b in itertools.pairwise(edges) for u in parser.feed(C2S, CONVERSATION[a:b])]
    assert b"".join(unit.data for unit in units) == CONVERSATION
    assert words(units) == ["pg.c2s.BEGIN", "pg.c2s.INSERT", "pg.c2s.COMMIT"]
