"""PostgreSQL's protocol, version 3, both directions, as units and named events.

From the client (`pg.c2s.…`):

- `startup`, `cancel`, and every other protocol message under its own lower-case name: `query parse bind execute sync`…
- the first word of each statement that is *run*, in capitals: `pg.c2s.COMMIT`, `pg.c2s.INSERT`. A prepared statement
  counts each time it is executed, whether its text came along or was sent long ago under a name. Its detail `simple`
  says whether it came as a simple query.

From the server (`pg.s2c.…`):

- the first word of each command tag: `pg.s2c.COMMIT`, `pg.s2c.INSERT`; with the statement it answers;
- `error` (with `sqlstate`), `ready` (with `status` I, T or E), and the other messages that matter by name.

A request for TLS or GSS encryption is answered "no" right here and never reaches the server, for what is encrypted
cannot be read.

The protocol is described in chapter "Frontend/Backend Protocol" of the PostgreSQL manual.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from typing import TYPE_CHECKING

from tests.crash.proxy.wire import Detail, Direction, Event, Unit, WireError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SYNC = b"S\0\0\0\x04"
LONGEST = 1 << 30  # the server refuses anything longer; so a larger length means that we lost the thread
SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102

CLIENT_MESSAGES = {
    b"B": "bind",
    b"C": "close",
    b"D": "describe",
    b"E": "execute",
    b"F": "function_call",
    b"H": "flush",
    b"P": "parse",
    b"Q": "query",
    b"S": "sync",
    b"X": "terminate",
    b"c": "copy_done",
    b"d": "copy_data",
    b"f": "copy_fail",
    b"p": "password",
}
SERVER_MESSAGES = {
    b"A": "notification",
    b"E": "error",
    b"G": "copy_in",
    b"H": "copy_out",
    b"I": "empty_query",
    b"N": "notice",
    b"R": "authentication",
    b"Z": "ready",
    b"s": "portal_suspended",
}
STATEMENT_PIECES = re.compile(
    r"""
      --[^\n]*                              # a comment to the end of the line
    | /\*.*?\*/                             # a comment in between
    | [eE]'(?:[^'\\]|\\.|'')*'              # a text with backslashes
    | '(?:[^']|'')*'                        # a text
    | "(?:[^"]|"")*"                        # a name
    | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$       # a text in dollars
    | ;                                     # the end of a statement
    """,
    re.VERBOSE | re.DOTALL,
)


def statements(script: str) -> list[str]:
    """Split a simple query into its statements; a semicolon in a text, a name or a comment does not count."""
    found, begin = [], 0
    for piece in STATEMENT_PIECES.finditer(script):
        if piece.group() == ";":
            found.append(script[begin : piece.start()])
            begin = piece.end()
    return [text.strip() for text in (*found, script[begin:]) if first_word(text)]


def first_word(statement: str) -> str:
    """The statement's first word in capitals: `SELECT`, `WITH`, `COMMIT`; empty for a comment."""
    bare = re.sub(r"--[^\n]*|/\*.*?\*/", " ", statement, flags=re.DOTALL)
    word = re.search(r"[A-Za-z]+", bare)
    return word.group().upper() if word else ""


def error_message(sqlstate: str, text: str) -> bytes:
    """What the server says when a statement fails."""
    fields = f"SERROR\0VERROR\0C{sqlstate}\0M{text}\0\0".encode()
    return b"E" + struct.pack("!I", len(fields) + 4) + fields


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _split_names(payload: bytes, count: int) -> list[str]:
    """The first `count` zero-terminated texts of a payload."""
    return [_text(piece) for piece in payload.split(b"\0", count)[:count]]


class PostgresParser:
    """One connection to PostgreSQL."""

    def __init__(self) -> None:
        self._buffers = {direction: bytearray() for direction in Direction}
        self._started = False
        self._statements: dict[str, str] = {}
        self._portals: dict[str, str] = {}
        self._running: deque[str | None] = deque()  # what the server has yet to answer; None stands for a sync

    def feed(self, direction: Direction, data: bytes) -> Sequence[Unit]:
        """See `Parser.feed`."""
        self._buffers[direction] += data
        return list(self._client_units() if direction is Direction.C2S else self._server_units())

    # From the client.

    def _client_units(self) -> Iterator[Unit]:
        while not self._started:
            unit = self._startup_unit()
            if unit is None:
                return
            yield unit
        for kind, payload, raw in self._messages(Direction.C2S):
            yield Unit(data=raw, events=list(self._client_events(kind, payload)))

    def _startup_unit(self) -> Unit | None:
        """The untyped messages at the beginning: encryption requests, a cancel, the startup itself."""
        buffer = self._buffers[Direction.C2S]
        if len(buffer) < 8:
            return None
        length, code = struct.unpack_from("!II", buffer)
        if not 8 <= length <= 10_000:
            raise WireError(f"a startup message of {length} bytes")
        if len(buffer) < length:
            return None
        raw = bytes(buffer[:length])
        del buffer[:length]
        if code in (SSL_REQUEST, GSS_REQUEST):
            return Unit(data=b"", answer=b"N")
        self._started = True
        if code == CANCEL_REQUEST:
            return Unit(data=raw, events=[Event(name="pg.c2s.cancel")])
        return Unit(data=raw, events=[Event(name="pg.c2s.startup", details=_startup_details(raw[8:]))])

    def _client_events(self, kind: bytes, payload: bytes) -> Iterator[Event]:
        match kind:
            case b"P":
                name, sql = _split_names(payload, 2)
                self._statements[name] = sql
                yield Event(name="pg.c2s.parse", details={"statement": sql})
            case b"B":
                portal, name = _split_names(payload, 2)
                self._portals[portal] = self._statements.get(name, "")
                yield Event(name="pg.c2s.bind", details={"statement": self._portals[portal]})
            case b"C":
                yield Event(name="pg.c2s.close")
                self._forget(payload)
            case b"E":
                sql = self._portals.get(_split_names(payload, 1)[0], "")
                yield Event(name="pg.c2s.execute", details={"statement": sql})
                yield from self._runs([sql], simple=False)
            case b"Q":
                script = _text(payload.rstrip(b"\0"))
                yield Event(name="pg.c2s.query", details={"statement": script})
                yield from self._runs(statements(script), simple=True)
                self._running.append(None)
            case b"S":
                yield Event(name="pg.c2s.sync")
                self._running.append(None)
            case _:
                yield Event(name=f"pg.c2s.{CLIENT_MESSAGES.get(kind, 'other')}")

    def _runs(self, texts: Sequence[str], *, simple: bool) -> Iterator[Event]:
        for sql in texts:
            self._running.append(sql)
            if word := first_word(sql):
                yield Event(name=f"pg.c2s.{word}", details={"statement": sql, "simple": simple})

    def _forget(self, payload: bytes) -> None:
        kept = self._statements if payload[:1] == b"S" else self._portals
        kept.pop(_split_names(payload[1:], 1)[0], None)

    # From the server.

    def _server_units(self) -> Iterator[Unit]:
        for kind, payload, raw in self._messages(Direction.S2C):
            yield Unit(data=raw, events=list(self._server_events(kind, payload)))

    def _server_events(self, kind: bytes, payload: bytes) -> Iterator[Event]:
        match kind:
            case b"C":
                tag = _text(payload.rstrip(b"\0"))
                yield Event(name=f"pg.s2c.{tag.split(' ')[0]}", details={"tag": tag, "statement": self._answered()})
            case b"E":
                yield Event(name="pg.s2c.error", details=_error_details(payload) | {"statement": self._answered()})
            case b"I" | b"s":
                yield Event(name=f"pg.s2c.{SERVER_MESSAGES[kind]}", details={"statement": self._answered()})
            case b"Z":
                self._synced()
                yield Event(name="pg.s2c.ready", details={"status": _text(payload)})
            case _ if kind in SERVER_MESSAGES:
                yield Event(name=f"pg.s2c.{SERVER_MESSAGES[kind]}")

    def _answered(self) -> str:
        """The statement this answer belongs to: answers come in the order of the statements."""
        if self._running and self._running[0] is not None:
            return self._running.popleft() or ""
        return ""

    def _synced(self) -> None:
        """After an error the server skips to the next sync, and so do we."""
        while self._running and self._running.popleft() is not None:
            pass

    def _messages(self, direction: Direction) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Each complete message as (type, payload, all its bytes)."""
        buffer = self._buffers[direction]
        while len(buffer) >= 5:
            length = int.from_bytes(buffer[1:5])
            if not 4 <= length <= LONGEST:
                raise WireError(f"a message {bytes(buffer[:1])!r} of {length} bytes from {direction}")
            if len(buffer) < length + 1:
                return
            raw = bytes(buffer[: length + 1])
            del buffer[: length + 1]
            yield raw[:1], raw[5:], raw


def _startup_details(payload: bytes) -> dict[str, Detail]:
    words = [_text(word) for word in payload.rstrip(b"\0").split(b"\0")]
    settings = dict(zip(words[::2], words[1::2], strict=False))
    return {name: settings[name] for name in ("user", "database", "application_name") if name in settings}


def _error_details(payload: bytes) -> dict[str, Detail]:
    fields = {piece[:1]: _text(piece[1:]) for piece in payload.split(b"\0") if piece}
    return {"sqlstate": fields.get(b"C", ""), "message": fields.get(b"M", "")}
