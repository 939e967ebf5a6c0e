"""A participant's own book: every arrival, every effect, every reply, in a SQLite file that survives `kill -9`.

`Book` is the participant's side and keeps the participant's promises of the wire contract: an idempotency key is
applied at most once; a repeated command id gets its stored reply; a new id with an applied key gets the stored success;
an undo finds its effect by `compensates`; an undo whose do was never seen leaves a tombstone, and the do is dropped if
it comes.
`Ledger` is the reader for tests: all books of a folder, in the order in which things really happened.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tests.crash.script import EVERY_TRADE, TRADES, Behaviour, Word

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.crash.script import Purpose

SCHEMA = """
create table if not exists arrival (
    at integer not null, message_id text not null, name text not null, purpose text not null, order_id text not null,
    idempotency_key text not null, compensates text not null, correlation_id text not null, body_hash text not null,
    redelivered integer not null, disposition text not null);
create index if not exists arrival_message on arrival (message_id);
create index if not exists arrival_order on arrival (order_id);
create table if not exists effect (
    idempotency_key text primary key, at integer not null, purpose text not null, order_id text not null,
    compensates text not null, message_id text not null);
create index if not exists effect_order on effect (order_id);
create table if not exists tombstone (idempotency_key text primary key, undone_by text not null);
create table if not exists reply (
    message_id text primary key, idempotency_key text not null, kind text not null, reply_id text not null,
    name text not null, body blob not null, reply_to text not null, correlation_id text not null,
    due_at real, from_arrival integer not null, word text not null, number real not null,
    sent integer not null default 0);
create index if not exists reply_key on reply (idempotency_key);
create index if not exists reply_unsent on reply (sent) where sent = 0;
"""
NEVER = None
PLAINLY, SILENTLY = Behaviour(), Behaviour(word=Word.SILENT)
OWED = """
    select message_id, reply_id, name, body, reply_to, correlation_id, due_at, word, number from reply
    where sent = 0 and due_at is not null and from_arrival = 1 order by rowid"""
ANSWER = """
    select message_id, reply_id, name, body, reply_to, correlation_id, due_at, word, number from reply
    where message_id = ? and due_at is not null and from_arrival <= ?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command as it arrived."""

    message_id: str
    name: str
    body: bytes
    body_hash: str
    idempotency_key: str
    compensates: str
    correlation_id: str
    reply_to: str
    redelivered: bool

    @property
    def order_id(self) -> str:
        """The order it is about, or the piece of an order: books are kept of either alike."""
        return str(self._told.get("piece") or self.whole_order_id)

    @property
    def whole_order_id(self) -> str:
        """The order it is about."""
        return str(self._told["order_id"])

    @property
    def _told(self) -> dict[str, str]:
        told: dict[str, str] = json.loads(self.body)
        return told


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to the command `message_id`; `due_at` in seconds of the epoch, None: never sent.

    `word` and `number` say in which way it is sent; see `script`.
    """

    message_id: str
    reply_id: str
    name: str
    body: bytes
    reply_to: str
    correlation_id: str
    due_at: float | None
    word: str
    number: float


class Book:
    """One participant's book, open for writing."""

    def __init__(self, participant: str, file: Path) -> None:
        self.participant, self._trade = participant, EVERY_TRADE[participant]
        self._db = sqlite3.connect(file, isolation_level=None, timeout=30)
        self._db.execute("pragma journal_mode=wal")
        self._db.execute("pragma synchronous=normal")  # outlives the process; the machine is not what we kill
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def take(self, command: Command, behaviour: Behaviour) -> Reply | None:
        """Record an arrival and do what is to be done, in one durable transaction; return the answer, if any."""
        purpose = self._trade.purpose(command.name)
        self._db.execute("begin immediate")
        try:
            disposition = self._settle(command, purpose, behaviour)
            self._record(command, purpose, disposition)
            reply = self._reply_due(command.message_id)
            self._db.execute("commit")
        except BaseException:
            self._db.execute("rollback")
            raise
        return reply

    def note(self, command: Command, purpose: Purpose) -> None:
        """Record an arrival and nothing else: for a participant that keeps its promises by other means."""
        self._record(command, purpose, "handed over")

    def sent(self, reply: Reply) -> None:
        """Note that a reply is with the broker."""
        self._db.execute("update reply set sent = 1 where message_id = ?", (reply.message_id,))

    def unsent(self) -> list[Reply]:
        """Replies that were decided but not sent: what a killed participant owes."""
        return [Reply(*row) for row in self._db.execute(OWED)]

    def _settle(self, command: Command, purpose: Purpose, behaviour: Behaviour) -> str:
        """Apply a command as the contract says; the word returned is kept with the arrival."""
        if self._has("select 1 from reply where message_id = ?", command.message_id):
            return "repeated"
        if behaviour.word is Word.DEAF:
            return "unheard"
        if purpose == "undo":
            return self._undo(command, behaviour)
        return self._do(command, behaviour)

    def _do(self, command: Command, behaviour: Behaviour) -> str:
        key = command.idempotency_key
        if self._has("select 1 from tombstone where idempotency_key = ?", key):
            return "dropped"
        if self._has("select 1 from effect where idempotency_key = ?", key):
            return self._answer_again(command)
        if behaviour.word is Word.FAIL:
            self._store(command, "failure", self._trade.failures[int(behaviour.number)], behaviour)
            return "refused"
        if behaviour.word is Word.TRANSIENT and self._count_transient(key) < behaviour.number:
            self._store(command, "transient", self._trade.transient or "", behaviour)
            return "busy"
        self._apply(command, "do")
        self._store(command, "success", self._trade.done, behaviour, {self._trade.receipt: f"{self.participant}-{key}"})
        return "applied"

    def _undo(self, command: Command, behaviour: Behaviour) -> str:
        key, target = command.idempotency_key, command.compensates
        if self._has("select 1 from reply where kind = 'success' and idempotency_key = ?", key):
            return self._answer_again(command)
        self._store(command, "success", self._trade.undone, behaviour)
        self._db.execute("insert or ignore into tombstone values (?, ?)", (target, key))
        if not self._has("select 1 from effect where purpose = 'do' and idempotency_key = ?", target):
            return "tombstone"
        self._apply(command, "undo")
        return "applied"

    def _apply(self, command: Command, purpose: Purpose) -> None:
        self._db.execute(
            "insert into effect values (?, ?, ?, ?, ?, ?)",
            (
                command.idempotency_key,
                time.monotonic_ns(),
                purpose,
                command.order_id,
                command.compensates,
                command.message_id,
            ),
        )

    def _record(self, command: Command, purpose: Purpose, disposition: str) -> None:
        row = (
            time.monotonic_ns(),
            command.message_id,
            command.name,
            purpose,
            command.order_id,
            command.idempotency_key,
            command.compensates,
            command.correlation_id,
            command.body_hash,
            command.redelivered,
            disposition,
        )
        self._db.execute("insert into arrival values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def _store(
        self, command: Command, kind: str, name: str, behaviour: Behaviour, more: Mapping[str, str] | None = None
    ) -> None:
        body = json.dumps({"order_id": command.whole_order_id, **(more or {})}).encode()
        self._keep(command, kind, name, body, behaviour)

    def _keep(self, command: Command, kind: str, name: str, body: bytes, behaviour: Behaviour) -> None:
        late = behaviour.number if behaviour.word is Word.LATE else 0
        row = (
            command.message_id,
            command.idempotency_key,
            kind,
            str(uuid.uuid5(uuid.NAMESPACE_URL, f"reply/{self.participant}/{command.message_id}")),
            name,
            body,
            command.reply_to,
            command.correlation_id,
            NEVER if behaviour.word is Word.SILENT else time.time() + late,
            int(behaviour.number) + 1 if behaviour.word is Word.MUTE else 1,
            behaviour.word.value,
            behaviour.number,
        )
        self._db.execute("insert into reply values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)", row)

    def _answer_again(self, command: Command) -> str:
        """A new id with an applied key: the stored success, under the new id."""
        stored = "select name, body, due_at from reply where kind = 'success' and idempotency_key = ? order by rowid"
        name, body, due_at = self._db.execute(stored, (command.idempotency_key,)).fetchone()
        behaviour = SILENTLY if due_at is NEVER else PLAINLY
        self._keep(command, "success", name, body, behaviour)
        return "answered again"

    def _reply_due(self, message_id: str) -> Reply | None:
        arrived = self._db.execute("select count(*) from arrival where message_id = ?", (message_id,)).fetchone()[0]
        found = self._db.execute(ANSWER, (message_id, arrived)).fetchone()
        return Reply(*found) if found else None

    def _count_transient(self, key: str) -> int:
        given = "select count(*) from reply where kind = 'transient' and idempotency_key = ?"
        return int(self._db.execute(given, (key,)).fetchone()[0])

    def _has(self, query: str, value: str) -> bool:
        return self._db.execute(query, (value,)).fetchone() is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A command that reached a participant; `at` in nanoseconds of the machine's monotonic clock."""

    participant: str
    at: int
    message_id: str
    name: str
    purpose: str
    order_id: str
    idempotency_key: str
    compensates: str
    correlation_id: str
    body_hash: str
    redelivered: int  # 1 when the broker said so
    disposition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Something a participant really did; `at` in nanoseconds of the machine's monotonic clock."""

    participant: str
    at: int
    purpose: str
    order_id: str
    idempotency_key: str
    compensates: str
    message_id: str


Timed = TypeVar("Timed", Arrival, Effect)


class Ledger:
    """All books of a folder, read as they are now, in the order of time. Books may be written meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def arrivals(self, *orders: str) -> Sequence[Arrival]:
        """Every command that reached a participant, copies included; with `orders`, only theirs."""
        return self._rows(Arrival, "arrival", orders)

    def effects(self, *orders: str) -> Sequence[Effect]:
        """What was done and undone; with `orders`, only theirs."""
        return self._rows(Effect, "effect", orders)

    def sequence(self, order_id: str) -> Sequence[str]:
        """The effects on an order in words: `["do stock", "do payment", "undo payment", "undo stock"]`."""
        return [f"{effect.purpose} {effect.participant}" for effect in self.effects(order_id)]

    def net(self, order_id: str) -> Mapping[str, int]:
        """What is left of an order's effects at each participant: 1 done, 0 nothing or undone."""
        left = dict.fromkeys(TRADES, 0)
        for effect in self.effects(order_id):
            left[effect.participant] += 1 if effect.purpose == "do" else -1
        return left

    def owed(self) -> int:
        """How many replies are decided and still to be sent."""
        return sum(len(_read(file, OWED)) for file in self._files())

    def malformed(self) -> int:
        """How many answers went out that nobody can read: each is a dead letter, however often it was sent."""
        return self._count("select count(*) from reply where word = 'malformed' and due_at is not null")

    def repeated(self) -> int:
        """How many commands reached a participant more than once, each further time counted."""
        return self._count("select count(*) - count(distinct message_id) from arrival")

    def arrived(self) -> int:
        """How many commands reached a participant, copies included."""
        return self._count("select count(*) from arrival")

    def done(self) -> int:
        """How many effects there are, of doing and of undoing."""
        return self._count("select count(*) from effect")

    def _count(self, query: str) -> int:
        return sum(int(_read(file, query)[0][0]) for file in self._files())

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.ledger"))

    def _rows(self, made: type[Timed], table: str, orders: Sequence[str]) -> list[Timed]:
        query = f"select * from {table}"  # noqa: S608 - our own names
        parameters = []
        if orders:
            query += " where order_id in (select value from json_each(?))"
            parameters = [json.dumps(orders)]
        found = [
            made(participant=file.stem, **dict(row)) for file in self._files() for row in _read(file, query, parameters)
        ]
        return sorted(found, key=lambda each: each.at)


def _read(file: Path, query: str, parameters: Sequence[str] = ()) -> list[sqlite3.Row]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as db:
        db.row_factory = sqlite3.Row
        return db.execute(query, parameters).fetchall()
