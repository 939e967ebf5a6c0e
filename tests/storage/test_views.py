"""The views as dashboards and outside tests read them: columns, types and computed words."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from outbox.interface import Changes, RowOutcome, Storage
from outbox.unit import SqlStorage
from sagas.instance import Phase
from tests.outbox.building import (
    CONSUMER,
    LEASE,
    NOW,
    OVER,
    changed,
    command,
    dead_letter,
    entry,
    history,
    insert,
    new_instance,
    put,
)

if TYPE_CHECKING:
    from storage import Database

COLUMNS = {
    "v_saga": "saga_id, saga_type, business_key, version, status, phase, paused, attention, waiting_for, started_at, "
    "updated_at, deadline_at, ended_at, end_reason, skipped, revision, parent_id",
    "v_saga_event": "saga_id, seq, at, kind, step, message_id, message_name, detail",
    "v_outbox": "message_id, saga_id, name, state, created_at, attempts, next_attempt_at, stuck, error",
    "v_timer": "saga_id, name, generation, due_at",
    "v_held": "saga_id, saga_type, business_key, message_id, name, reason, received_at, expires_at",
    "v_inbox": "consumer, source, message_id, received_at, disposition",
    "v_dead_letter": "dead_letter_id, consumer, message_id, name, reason, error, saga_id, first_seen_at, copies, "
    "status, error_class, queue, replaces, last_seen_at, resolved_at, resolved_by, resolved_why, replayed_seq",
}


async def rows(database: Database, view: str, where: str = "true") -> list[dict[str, Any]]:
    async with database.read() as session:
        found = await session.connection.execute(text(f"select * from {view} where {where}"))  # noqa: S608
        return [dict(row) for row in found.mappings()]


async def write(storage: Storage, **changes: Any) -> None:  # noqa: ANN401
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER, **changes))


@pytest.mark.parametrize("view", COLUMNS)
async def test_a_view_has_exactly_the_columns_of_the_contract(database: Database, view: str) -> None:
    async with database.read() as session:
        found = await session.connection.execute(text(f"select * from {view}"))  # noqa: S608
        assert ", ".join(found.keys()) == COLUMNS[view]


async def test_types_on_sqlite_are_text_and_numbers_that_compare(sqlite: Database) -> None:
    storage = SqlStorage(sqlite)
    instance = new_instance(attention={"orphaned_effect": "pay"}, paused=False)
    await insert(storage, instance)
    await write(storage, history=[history(instance.saga_id, 1)], outgoing=[command(instance.saga_id)])
    [saga] = await rows(sqlite, "v_saga")
    assert saga["saga_id"] == str(instance.saga_id)
    assert saga["started_at"] == "2026-11-21T12:30:15.123456Z"
    assert saga["paused"] == 0
    [event] = await rows(sqlite, "v_saga_event")
    assert json.loads(event["detail"])["causation_id"] == "start-1"
    [pending] = await rows(sqlite, "v_outbox")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", pending["created_at"])
    assert pending["stuck"] == 0


async def test_types_on_postgresql_are_its_own(postgresql: Database) -> None:
    storage = SqlStorage(postgresql)
    instance = new_instance()
    await insert(storage, instance)
    row = history(instance.saga_id, 1)
    odd = replace(row.entry, detail={**row.entry.detail, "said": ["caf\u00e9 \x00 \ud800"]})
    await write(storage, history=[replace(row, entry=odd)])
    [saga] = await rows(postgresql, "v_saga")
    assert isinstance(saga["saga_id"], UUID)
    assert saga["started_at"] == NOW
    assert saga["paused"] is False
    found = await rows(postgresql, "v_saga_event", "detail ->> 'causation_id' = 'start-1'")
    assert found[0]["detail"]["said"] == ["caf\u00e9 \\x00 \\ud800"]


async def test_status_is_the_phase_unless_a_reason_parks_and_the_gravest_reason_is_shown(
    database: Database,
) -> None:
    storage = SqlStorage(database)
    cases: list[tuple[dict[str, str], Phase, str, str | None]] = [
        ({}, Phase.RUNNING, "running", None),
        ({"orphaned_effect": "", "zzz": ""}, Phase.COMPLETED, "completed", "orphaned_effect"),
        ({"compensation_exhausted": "", "orphaned_effect": ""}, Phase.COMPENSATING, "parked", "compensation_exhausted"),
        (
            {"compensation_exhausted": "", "compensation_failed": ""},
            Phase.COMPENSATING,
            "parked",
            "compensation_failed",
        ),
        ({"method_raised": "", "undo_needs_reply": "", "zzz": ""}, Phase.RUNNING, "parked", "method_raised"),
        ({"unheard_of": ""}, Phase.RUNNING, "running", "unheard_of"),
    ]
    for attention, phase, status, shown in cases:
        instance = new_instance(attention=attention, phase=phase)
        assert instance.status == status
        await insert(storage, instance)
        [row] = await rows(database, "v_saga", f"saga_id = '{instance.saga_id}'")
        assert (row["status"], row["phase"], row["attention"]) == (status, phase.value, shown)


async def test_a_reason_that_is_healed_leaves_the_others(database: Database) -> None:
    storage = SqlStorage(database)
    before = new_instance(attention={"method_raised": "reserved\x00", "orphaned_effect": "pay"})
    await insert(storage, before)
    after = changed(before, attention={"orphaned_effect": "pay and ship"})
    await write(storage, updated=[(before, after)])
    [row] = await rows(database, "v_saga")
    assert (row["status"], row["attention"]) == ("running", "orphaned_effect")
    assert [row["detail"] for row in await rows(database, "attention")] == ["pay and ship"]


async def test_the_outbox_shows_what_is_stuck_and_a_lease_that_ended_as_unknown(database: Database) -> None:
    storage = SqlStorage(database)
    names = ("new", "claimed", "expired", "returned", "refused")
    messages = {name: command(uuid4(), message_id=name) for name in names}
    await put(storage, messages["new"])
    await put(storage, messages["expired"], lease=OVER)
    _, leased = await put(storage, *(messages[name] for name in ("claimed", "returned", "refused")), lease=LEASE)
    await storage.settle_outbox(
        failed=[
            RowOutcome(outbox_id=row.outbox_id, token=row.token, state=row.outgoing.envelope.message_id, retry_in=9)
            for row in leased[1:]
        ]
    )
    found = {row["message_id"]: (row["state"], bool(row["stuck"])) for row in await rows(database, "v_outbox")}
    assert found == {
        "new": ("new", False),
        "claimed": ("claimed", False),
        "expired": ("unknown", False),
        "returned": ("returned", True),
        "refused": ("refused", True),
    }
    old = datetime.now(UTC) - timedelta(hours=1)
    async with database.write() as session:
        moment = old if database.postgresql else old.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        await session.connection.execute(text("update outbox set created_at = :at"), {"at": moment})
    assert all(row["stuck"] for row in await rows(database, "v_outbox"))


async def test_copies_of_a_dead_letter_are_one_row_that_is_open_again(database: Database) -> None:
    storage = SqlStorage(database)
    saga_id = uuid4()
    await write(storage, dead_letters=[dead_letter("a\x00b", saga_id=saga_id), dead_letter("a\x00b"), dead_letter("c")])
    [first, other] = sorted(await rows(database, "v_dead_letter"), key=lambda row: str(row["message_id"]))
    assert (first["message_id"], first["copies"], other["copies"]) == ("a\\x00b", 2, 1)
    async with database.write() as session:
        await session.connection.execute(text("update dead_letter set status = 'replayed'"))
    await write(storage, dead_letters=[dead_letter("a\x00b", error="again\ud800"), dead_letter("c", b"other body")])
    found = {
        (row["message_id"], row["copies"], row["status"], row["error"]) for row in await rows(database, "v_dead_letter")
    }
    assert found == {
        ("a\\x00b", 3, "open", "again\\ud800"),
        ("c", 1, "replayed", "not JSON"),
        ("c", 1, "open", "not JSON"),
    }
    [again] = await rows(database, "v_dead_letter", "copies = 3")
    assert str(again["saga_id"]) == str(saga_id)


async def test_timers_and_inbox_are_shown(database: Database) -> None:
    storage = SqlStorage(database)
    instance = new_instance()
    await insert(storage, instance)
    async with storage.transaction() as unit:
        await unit.claim_inbox(CONSUMER, uuid4(), [entry("a")])
    assert {(row["name"], row["generation"]) for row in await rows(database, "v_timer")} == {
        ("reserve", 1),
        ("deadline", 1),
    }
    [row] = await rows(database, "v_inbox")
    assert (row["consumer"], row["source"], row["message_id"], row["disposition"]) == (
        CONSUMER,
        "ordering",
        "a",
        "applied",
    )
