"""What the public views of an orchestrator show at one moment, read from PostgreSQL or SQLite, and nothing else."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.crash.ledger import Arrival, Effect, Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaRow:
    """`v_saga`, as far as a checker needs it."""

    saga_id: str
    saga_type: str
    business_key: str
    status: str
    phase: str
    attention: str | None = None
    paused: bool = False
    end_reason: str | None = None
    skipped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRow:
    """`v_saga_event`."""

    saga_id: str
    seq: int
    kind: str
    step: str | None = None
    message_id: str | None = None
    message_name: str | None = None
    at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """`v_outbox`: what the broker has not confirmed."""

    message_id: str
    saga_id: str | None
    name: str
    state: str
    attempts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerRow:
    """`v_timer`."""

    saga_id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRow:
    """`v_held`."""

    message_id: str
    name: str
    reason: str
    saga_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxRow:
    """`v_inbox`."""

    consumer: str
    source: str
    message_id: str
    disposition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadRow:
    """`v_dead_letter`."""

    consumer: str
    message_id: str | None
    name: str | None
    reason: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """All the views at one moment, and what the participants' ledgers say.

    `stalled` are the ids of the instances that the published statement finds.
    """

    sagas: Sequence[SagaRow] = ()
    history: Sequence[HistoryRow] = ()
    outbox: Sequence[OutboxRow] = ()
    timers: Sequence[TimerRow] = ()
    held: Sequence[HeldRow] = ()
    inbox: Sequence[InboxRow] = ()
    dead: Sequence[DeadRow] = ()
    stalled: Sequence[str] = ()
    arrivals: Sequence[Arrival] = ()
    effects: Sequence[Effect] = ()


VIEWS: Mapping[str, tuple[str, type]] = {
    "sagas": ("v_saga", SagaRow),
    "history": ("v_saga_event", HistoryRow),
    "outbox": ("v_outbox", OutboxRow),
    "timers": ("v_timer", TimerRow),
    "held": ("v_held", HeldRow),
    "inbox": ("v_inbox", InboxRow),
    "dead": ("v_dead_letter", DeadRow),
}

Row = TypeVar("Row")


def queries(schema: str = "") -> Mapping[str, str]:
    """One statement for each view, in the order of `VIEWS`; columns by name, for columns may be added."""
    prefix = f"{schema}." if schema else ""
    return {
        part: f"select {', '.join(field.name for field in fields(row))} from {prefix}{view}"  # noqa: S608 - our own names
        for part, (view, row) in VIEWS.items()
    }


@cache
def published_statement(database: str) -> str:
    """The statement that finds who stalls, as the operator's page has it for PostgreSQL or SQLite."""
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    found = re.search(rf"^On {database}:\n\n```sql\n(.+?)^```$", page, re.MULTILINE | re.DOTALL)
    if found is None:
        raise LookupError(f"docs/operations.md has no statement for {database}")
    return found[1]


async def read_postgres(url: str, ledger: Ledger, *, namespace: str = "antiphon") -> Picture:
    """Read all views in one snapshot, and the ledgers after them."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", namespace):
        raise ValueError(f"{namespace!r} is not a namespace")
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            rows = {part: await connection.fetch(query) for part, query in queries(namespace).items()}
            await connection.execute(f"set local search_path = {namespace}")
            stalled = await connection.fetch(published_statement("PostgreSQL"))
    finally:
        await connection.close()
    return _picture(
        {part: [dict(row) for row in found] for part, found in rows.items()}, [dict(row) for row in stalled], ledger
    )


async def read_orders(
    connection: asyncpg.Connection, ledger: Ledger, namespace: str, starts: Mapping[str, str]
) -> Picture:
    """The part of it that is about some orders, given with the ids of their events: for a run of very many."""
    texts = queries(namespace)
    rows: dict[str, list[asyncpg.Record]] = {}
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        rows["sagas"] = await connection.fetch(f"{texts['sagas']} where business_key = any($1)", list(starts))
        sagas = [row["saga_id"] for row in rows["sagas"]]
        for part in ("history", "outbox", "timers", "held"):
            rows[part] = await connection.fetch(f"{texts[part]} where saga_id = any($1)", sagas)
        messages = {*starts.values(), *(row["message_id"] for row in rows["history"])}
        for part in ("inbox", "dead"):
            rows[part] = await connection.fetch(f"{texts[part]} where message_id = any($1)", list(messages))
    return _picture({part: [dict(row) for row in found] for part, found in rows.items()}, (), ledger, *starts)


def read_sqlite(file: Path, ledger: Ledger) -> Picture:
    """Read all views in one snapshot, and the ledgers after them."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30, isolation_level=None)) as db:
        db.row_factory = sqlite3.Row
        db.execute("begin")
        rows = {part: [dict(row) for row in db.execute(query)] for part, query in queries().items()}
        stalled = db.execute(published_statement("SQLite")).fetchall()
    return _picture(rows, stalled, ledger)


def _picture(
    rows: Mapping[str, Iterable[Mapping[str, object]]],
    stalled: Iterable[Mapping[str, object]],
    ledger: Ledger,
    *orders: str,
) -> Picture:
    parts = {part: [row(**_plain(each)) for each in rows[part]] for part, (_, row) in VIEWS.items()}
    return Picture(
        **parts,
        stalled=[str(row["saga_id"]) for row in stalled],
        arrivals=ledger.arrivals(*orders),
        effects=ledger.effects(*orders),
    )


def _plain(row: Mapping[str, object]) -> dict[str, object]:
    """Ids and times as text on both databases."""
    return {name: _plain_value(value) for name, value in row.items()}


def _plain_value(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return value if value is None or isinstance(value, int | str) else str(value)
