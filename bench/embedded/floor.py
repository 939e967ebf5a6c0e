"""The floor: SQLite doing the same rows with the least code that can do it, in whole batches and without a thread.

Nobody could run this: it knows one process by heart and has no failure, timeout or duplicate. For every message it
keeps what Antiphon keeps (instance, history with the bytes, inbox, timer, outbox; a participant's memory of command and
effect, and a row of its own), and commits whatever is there, flushed.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

from bench import wire
from bench.embedded import pipe
from bench.floor import COMMANDS, FOLLOWS, IDENTITY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

SCHEMA = """
pragma journal_mode = wal; pragma synchronous = full; pragma temp_store = memory;
create table saga (order_id text primary key, status text, state blob, waiting_for text, started_at text,
                   updated_at text, deadline_at text);
create table saga_event (order_id text, seq integer, at text, kind text, message_id text, name text, detail text,
                         body blob, primary key (order_id, seq));
create table inbox (message_id text primary key, received_at text);
create table timer (order_id text, name text, due_at text, primary key (order_id, name));
create table outbox (outbox_id integer primary key, message_id text, order_id text, name text, body blob);
create table participant_message (participant text, message_id text, at text, reply blob,
                                  primary key (participant, message_id));
create table participant_effect (participant text, key text, reply blob, primary key (participant, key));
create table work (participant text, order_id text, made text, primary key (participant, order_id));
"""
NOW = "2026-01-01T00:00:00.000000Z"  # the same width as a time
PARTICIPANT = {command: name for name, command in wire.COMMAND_OF.items()}

Message = tuple[int, str, str, str, bytes]
"""A row of the outbox: its number, the message's id, the order, the name and the body."""


class Floor:
    """See `bench.embedded.pipe.Embedded`. One batch after the other, each of whatever was committed before."""

    versions: Mapping[str, str] = {"SQLite": sqlite3.sqlite_version}

    def __init__(self) -> None:
        self._placed: list[str] = []
        self._wake = asyncio.Event()
        self._number = self._statements = self._commits = 0
        self._ledgers: dict[str, Counter[str]] = {name: Counter() for name in wire.COMMAND_OF}

    async def start(self, file: Path, done: Callable[[Sequence[str]], None]) -> None:
        """See `Embedded.start`."""
        self._database = sqlite3.connect(file, isolation_level=None)
        self._database.executescript(SCHEMA)
        self._done = done
        self._working = asyncio.create_task(self._work())

    def place(self, orders: Sequence[str]) -> None:
        """See `Embedded.place`."""
        self._placed += orders
        self._wake.set()

    def counted(self) -> tuple[int, int]:
        """See `Embedded.counted`."""
        return self._statements, self._commits

    async def end(self) -> tuple[Sequence[str], Mapping[str, Mapping[str, int]]]:
        """See `Embedded.end`."""
        self._working.cancel()
        rows = self._database.execute("select order_id from saga where status = 'completed'").fetchall()
        self._database.close()
        return [order for (order,) in rows], self._ledgers

    async def _work(self) -> None:
        waiting: list[Message] = []
        while True:
            if not waiting and not self._placed:
                self._wake.clear()
                await self._wake.wait()
            await asyncio.sleep(0)  # new orders come in
            placed, self._placed = self._placed, []
            with self:
                begun = [self._sent(order, wire.ORDER_PLACED, wire.order_placed(order)) for order in placed]
                self._write("insert into outbox values (?, ?, ?, ?, ?)", begun)
            with self:
                waiting = self._answer([each for each in waiting if each[3] in PARTICIPANT]) + [
                    each for each in waiting if each[3] not in PARTICIPANT
                ]
            with self:
                waiting, completed = self._decide(waiting + begun)
            if completed:
                self._done(completed)

    def __enter__(self) -> None:
        self._database.execute("begin immediate")

    def __exit__(self, *_: object) -> None:
        self._database.execute("commit")
        self._commits += 1

    def _write(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            self._database.executemany(sql, rows)
            self._statements += 1

    def _sent(self, order: str, name: str, body: bytes) -> Message:
        self._number += 1
        return self._number, str(uuid.uuid5(IDENTITY, f"{order}/{name}")), order, name, body

    def _answer(self, commands: Sequence[Message]) -> list[Message]:
        replies, memory, effects, work = [], [], [], []
        for _, message_id, order, name, _body in commands:
            participant = PARTICIPANT[name]
            self._ledgers[participant][order] += 1
            reply, field = wire.REPLY_OF[participant]
            made = f"{participant}-{order}"
            replies.append(self._sent(order, reply, wire.encode({"order_id": order, field: made})))
            memory.append((participant, message_id, NOW, replies[-1][4]))
            effects.append((participant, f"{order}/{name}/1/do", replies[-1][4]))
            work.append((participant, order, made))
        self._write("insert into work values (?, ?, ?)", work)
        self._write("insert into participant_message values (?, ?, ?, ?)", memory)
        self._write("insert into participant_effect values (?, ?, ?)", effects)
        self._write("insert into outbox values (?, ?, ?, ?, ?)", replies)
        self._write("delete from outbox where outbox_id = ?", [each[:1] for each in commands])
        return replies

    def _decide(self, messages: Sequence[Message]) -> tuple[list[Message], list[str]]:
        told: list[tuple[object, ...]] = []
        started, moved, over, due, sent, completed = [], [], [], [], [], []
        for _, message_id, order, name, body in messages:
            done, step, following = FOLLOWS[name]
            seq, state = 1, json.loads(body)
            if done:
                (packed,) = self._database.execute("select state from saga where order_id = ?", (order,)).fetchone()
                self._statements += 1
                before = json.loads(packed)
                seq, state = before["seq"], {**before, **state}
            state["seq"] = seq + 3
            told.append((order, seq, NOW, "reply_received" if done else "started", message_id, name, "{}", body))
            if done:
                over.append((order, done))
            if step:
                command = self._sent(order, COMMANDS[step], wire.encode({"order_id": order, "lines": state["lines"]}))
                sent.append(command)
                due.append((order, step, NOW))
                told.append((order, seq + 1, NOW, "command_sent", command[1], command[3], "{}", command[4]))
            else:
                completed.append(order)
                told.append((order, seq + 1, NOW, "completed", None, None, "{}", None))
            packed = wire.encode(state)
            if done:
                moved.append(("running" if step else "completed", packed, following, NOW, order))
            else:
                started.append((order, "running", packed, following, NOW, NOW, NOW))
        self._write("insert into inbox values (?, ?)", [(each[1], NOW) for each in messages])
        self._write("insert into saga values (?, ?, ?, ?, ?, ?, ?)", started)
        self._write("update saga set status = ?, state = ?, waiting_for = ?, updated_at = ? where order_id = ?", moved)
        self._write("insert into saga_event values (?, ?, ?, ?, ?, ?, ?, ?)", told)
        self._write("delete from timer where order_id = ? and name = ?", over)
        self._write("insert into timer values (?, ?, ?)", due)
        self._write("insert into outbox values (?, ?, ?, ?, ?)", sent)
        self._write("delete from outbox where outbox_id = ?", [each[:1] for each in messages])
        return sent, completed


if __name__ == "__main__":
    pipe.run(Floor())
