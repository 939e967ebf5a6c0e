"""What is removed and what stays, on each database, and that a removal waits for nobody."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from outbox.interface import Accused, Changes
from outbox.unit import SqlStorage
from sagas.instance import Phase
from storage import retention
from storage.retention import Expiry, Oldest
from storage.statements import Statement, as_uuid
from storage.tables import metadata
from tests.outbox.building import (
    CONSUMER,
    command,
    dead_letter,
    entry,
    history,
    insert,
    key_claim,
    new_instance,
    timer,
)
from tests.storage.plans import explained

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from sagas.instance import Instance
    from storage import Database
    from storage.retention import Place, Step

DAY = 86_400.0
EARLY = datetime(2000, 1, 1, tzinfo=UTC)
HELD = """
    insert into held (saga_type, source, message_id, body_hash, saga_id, name, schema_version, reason, body, properties,
                      received_at)
    values (:consumer, 'ordering', :message_id, :body, :saga_id, 'shop.Later', 1, 'paused', :body, '{}', :at)
"""
REMEMBERED = """
    insert into participant_message (participant, message_id, source, body_hash, idempotency_key, received_at)
    values (:participant, :id, '', :body, :key, :at)
"""
APPLIED = """
    insert into participant_effect (participant, idempotency_key, status, at)
    values (:participant, :key, 'applied', :at)
"""
RESOLVE = "update dead_letter set status = :status, resolved_at = :at where message_id = :message_id"
RECORD = """
    insert into dead_letter_event (dead_letter_id, at, kind, actor, why, detail)
    select dead_letter_id, :at, 'replayed', 'me', 'mended', '{}' from dead_letter where message_id = :message_id
"""


async def run(storage: SqlStorage, sql: str, **values: object) -> Sequence[Any]:
    async with storage.database.write() as session:
        return await session.fetch(Statement.both(sql), values)


async def ids(storage: SqlStorage, table: str) -> set[UUID]:
    return {as_uuid(row.saga_id) for row in await run(storage, f"select saga_id from {table}")}  # noqa: S608


async def all_steps(step: Callable[[float, Place | None], Awaitable[Step]], age: float) -> int:
    """Step until nothing is left, and say how many were removed."""
    removed, place = 0, None
    while True:
        done = await step(age, place)
        removed += done.removed
        if done.following is None:
            return removed
        place = done.following


def ago(storage: SqlStorage, days: float) -> datetime:
    return storage.database.runner.now() - timedelta(days=days)


# -- instances


@dataclass(frozen=True)
class Life:
    """One instance with what hangs on it; `ended` is how many days ago, None: it lives."""

    instance: Instance
    ended: int | None
    reason: str | None
    settled_letter: bool
    rows: int

    @property
    def goes(self) -> bool:
        return self.ended is not None and self.ended > 10 and self.reason is None


def lives(storage: SqlStorage, chance: random.Random) -> list[Life]:
    """Random instances, those whose end lies far back among them, and with every reason to stay."""
    found = []
    for number in range(40):
        ended = chance.choice([None, *range(1, 21)])
        reason = chance.choice([None, None, None, *retention.REASONS_TO_STAY])
        instance = new_instance(
            f"order-{number}",
            saga_id=UUID(int=chance.getrandbits(128)),
            timers={"deadline": timer(3600)} if ended is None or reason == "timer" else {},
            attention={"orphaned_effect": "pay"} if reason == "attention" else {},
        )
        if ended is not None:
            phase = chance.choice([Phase.COMPLETED, Phase.COMPENSATED])
            # Several end in the same moment, as those of one batch do.
            moment = ago(storage, ended).replace(minute=0, second=0, microsecond=0)
            instance = replace(instance, phase=phase, ended_at=moment)
        found.append(Life(instance, ended, reason, chance.random() < 0.3, chance.randint(1, 5)))
    return found


async def give_birth(storage: SqlStorage, life: Life) -> None:
    instance = life.instance
    letters = [dead_letter(f"letter-{instance.key}", saga_id=instance.saga_id)]
    settled = [dead_letter(f"settled-{instance.key}", saga_id=instance.saga_id)]
    async with storage.transaction() as unit:
        await unit.claim_keys([key_claim(instance.key, instance.saga_id)])
        await unit.save(
            Changes(
                consumer=CONSUMER,
                inserted=[instance],
                history=[history(instance.saga_id, seq) for seq in range(1, life.rows + 1)],
                outgoing=[command(instance.saga_id)] if life.reason == "outbox" else [],
                dead_letters=(letters if life.reason == "dead_letter" else [])
                + (settled if life.settled_letter else []),
            )
        )
    if life.settled_letter:
        await run(storage, RESOLVE, status="replayed", at=ago(storage, 1), message_id=settled[0].message_id)
    if life.reason == "held":
        values: Mapping[str, object] = {"consumer": CONSUMER, "message_id": instance.key, "body": b"{}"}
        await run(storage, HELD, saga_id=instance.saga_id, at=ago(storage, 1), **values)


@pytest.mark.parametrize("seed", range(4))
async def test_exactly_those_go_that_ended_before_and_have_nothing_left_to_do(storage: SqlStorage, seed: int) -> None:
    chance = random.Random(seed)
    everyone = lives(storage, chance)
    for life in everyone:
        await give_birth(storage, life)
    gone = {life.instance.saga_id for life in everyone if life.goes}
    stay = {life.instance.saga_id for life in everyone} - gone
    expiry = Expiry(storage.database, instances=chance.randint(1, 7))
    assert await all_steps(expiry.sagas, 10.5 * DAY) == len(gone)
    assert await ids(storage, "saga") == stay
    for child in ("saga_event",):  # the others hold what few instances have
        assert await ids(storage, child) == stay
    assert await ids(storage, "saga_key") == gone | stay
    for reason in ("attention", "timer", "outbox", "held"):
        assert await ids(storage, reason) == {
            life.instance.saga_id
            for life in everyone
            if life.reason == reason or (reason == "timer" and life.ended is None)
        }
    counts = await run(storage, "select saga_id, count(*) as amount from saga_event group by saga_id")
    assert {as_uuid(row.saga_id): row.amount for row in counts} == {
        life.instance.saga_id: life.rows for life in everyone if life.instance.saga_id in stay
    }
    assert await all_steps(expiry.sagas, 10.5 * DAY) == 0


async def test_those_that_must_stay_do_not_stand_before_the_others(storage: SqlStorage) -> None:
    wanting = [
        new_instance(f"order-{number}", timers={}, phase=Phase.COMPLETED, ended_at=ago(storage, 30 - number))
        for number in range(4)
    ]
    wanting[:3] = [replace(instance, attention={"orphaned_effect": "pay"}) for instance in wanting[:3]]
    await insert(storage, *wanting)
    assert await all_steps(Expiry(storage.database, instances=2).sagas, DAY) == 1
    assert await ids(storage, "saga") == {instance.saga_id for instance in wanting[:3]}


async def test_no_step_takes_more_history_than_one_transaction_bears(storage: SqlStorage) -> None:
    lengths = [3, 9, 2, 2, 2]  # the second has more than a step takes, and goes alone
    for number, length in enumerate(lengths):
        instance = new_instance(
            f"order-{number}", timers={}, phase=Phase.COMPLETED, ended_at=ago(storage, 30 - number), seq=length
        )
        await insert(storage, instance)
    expiry, place, removed = Expiry(storage.database, history=5), None, list[int]()
    while not removed or place is not None:
        step = await expiry.sagas(DAY, place)
        removed, place = [*removed, step.removed], step.following
    assert removed == [1, 1, 2, 1]


def test_every_table_that_names_an_instance_goes_stays_or_holds_it_back() -> None:
    outlive = {"saga_key", "dead_letter_event"}  # the key for ever, what was done with a letter as long as that
    naming = {table.name for table in metadata.tables.values() if "saga_id" in table.columns}
    assert naming == {"saga", *retention.CHILDREN, *retention.REASONS_TO_STAY, *outlive}


async def test_an_instance_that_somebody_works_on_is_not_waited_for(postgresql: Database) -> None:
    storage = SqlStorage(postgresql)
    busy, free = (
        new_instance(key, timers={}, phase=Phase.COMPLETED, ended_at=ago(storage, 30)) for key in ("busy", "free")
    )
    await insert(storage, busy, free)
    async with storage.transaction() as unit:
        await unit.lock([busy.saga_id])
        assert (await Expiry(postgresql).sagas(DAY)).removed == 1
    assert await ids(storage, "saga") == {busy.saga_id}
    assert (await Expiry(postgresql).sagas(DAY)).removed == 1


# -- suspects


async def test_a_note_of_a_message_that_has_not_come_for_long_goes(storage: SqlStorage) -> None:
    for name, days in (("old", 9), ("older", 20), ("young", 7)):
        suspect = Accused(consumer=CONSUMER, source="", message_id=name, body_hash=b"1")
        await storage.note_accused(suspect, uuid4())
        sql = "update suspect set noted_at = :at where message_id = :name"
        await run(storage, sql, at=ago(storage, days), name=name)
    assert (await Expiry(storage.database, rows=1).suspects(8 * DAY)).removed == 1
    assert await all_steps(Expiry(storage.database).suspects, 8 * DAY) == 1
    assert [row.message_id for row in await run(storage, "select message_id from suspect")] == ["young"]


# -- the inbox


async def handled(storage: SqlStorage, *message_ids: str, days: float) -> None:
    async with storage.transaction() as unit:
        await unit.claim_inbox(CONSUMER, uuid4(), [entry(message_id) for message_id in message_ids])
        await unit.save(Changes(consumer=CONSUMER))
    for message_id in message_ids:
        sql = "update inbox set received_at = :at where message_id = :message_id"
        await run(storage, sql, at=ago(storage, days), message_id=message_id)


async def known(storage: SqlStorage) -> set[str]:
    return {row.message_id for row in await run(storage, "select message_id from inbox")}


async def test_ids_older_than_the_window_go_in_small_steps(storage: SqlStorage) -> None:
    await handled(storage, *(f"old-{number}" for number in range(7)), days=9)
    await handled(storage, "young", days=7)
    expiry = Expiry(storage.database, rows=3)
    assert (await expiry.inbox(8 * DAY)).removed == 3
    assert await all_steps(expiry.inbox, 8 * DAY) == 4
    assert await known(storage) == {"young"}


async def test_the_id_of_a_held_message_stays_as_long_as_that(storage: SqlStorage) -> None:
    await handled(storage, "held", "done", days=9)
    await run(storage, HELD, consumer=CONSUMER, message_id="held", body=b"{}", saga_id=uuid4(), at=ago(storage, 9))
    assert await all_steps(Expiry(storage.database, rows=1).inbox, 8 * DAY) == 1
    assert await known(storage) == {"held"}


async def test_an_id_that_somebody_works_on_is_not_waited_for(postgresql: Database) -> None:
    storage = SqlStorage(postgresql)
    await handled(storage, "busy", "free", days=9)
    async with storage.transaction() as unit:
        await unit.claim_inbox(CONSUMER, uuid4(), [entry("busy")])  # a copy: its row is locked
        assert (await Expiry(postgresql).inbox(8 * DAY)).removed == 1
    assert await known(storage) == {"busy"}


async def test_the_oldest_that_could_go_are_known(storage: SqlStorage) -> None:
    expiry = Expiry(storage.database)
    assert await expiry.oldest() == Oldest(ended=None, handled=None)
    await insert(storage, new_instance(timers={}, phase=Phase.COMPLETED, ended_at=ago(storage, 30)))
    await insert(storage, new_instance("order-2", timers={}, phase=Phase.COMPLETED, ended_at=ago(storage, 3)))
    await handled(storage, "held", days=20)
    await handled(storage, "done", days=9)
    await run(storage, HELD, consumer=CONSUMER, message_id="held", body=b"{}", saga_id=uuid4(), at=ago(storage, 9))
    oldest = await expiry.oldest()
    assert (round((oldest.ended or 0) / DAY), round((oldest.handled or 0) / DAY)) == (30, 9)


# -- dead letters


async def letter(storage: SqlStorage, message_id: str, *, days: float, status: str = "open") -> None:
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER, dead_letters=[dead_letter(message_id)]))
    sql = "update dead_letter set first_seen_at = :at, last_seen_at = :at where message_id = :message_id"
    await run(storage, sql, at=ago(storage, 300), message_id=message_id)
    if status != "open":
        await run(storage, RESOLVE, status=status, at=ago(storage, days), message_id=message_id)
    await run(storage, RECORD, at=ago(storage, days), message_id=message_id)


async def test_a_letter_goes_so_long_after_it_was_settled_with_its_record_and_an_open_one_never(
    storage: SqlStorage,
) -> None:
    await letter(storage, "replayed long ago", days=91, status="replayed")
    await letter(storage, "discarded long ago", days=91, status="discarded")
    await letter(storage, "replayed lately", days=89, status="replayed")
    await letter(storage, "open", days=300)
    assert await all_steps(Expiry(storage.database, rows=1).dead_letters, 90 * DAY) == 2
    left = await run(storage, "select dead_letter_id, message_id from dead_letter")
    assert {row.message_id for row in left} == {"replayed lately", "open"}
    records = await run(storage, "select dead_letter_id from dead_letter_event")
    assert {row.dead_letter_id for row in records} == {row.dead_letter_id for row in left}


async def test_a_replay_of_many_goes_with_its_verdicts_so_long_after_its_end(storage: SqlStorage) -> None:
    insert_job = """
        insert into dead_letter_job (actor, why, wanted, created_at, state, ended_at)
        values ('me', :why, '{}', :at, :state, :ended)
    """
    insert_item = """
        insert into dead_letter_job_item (job_id, position, dead_letter_id, at)
        select max(job_id), :position, 1, :at from dead_letter_job
    """
    for why, state, begun, judged, ended in (
        ("old", "done", 100, ago(storage, 95), ago(storage, 91)),
        ("young", "done", 100, ago(storage, 95), ago(storage, 89)),
        ("given up", "stopped", 99, ago(storage, 91), None),
        ("stopped lately", "stopped", 99, ago(storage, 89), None),
        ("at work", "running", 99, ago(storage, 89), None),
        ("died in its first letter", "running", 91, None, None),
    ):
        await run(storage, insert_job, why=why, at=ago(storage, begun), state=state, ended=ended)
        for position in range(5):
            await run(storage, insert_item, position=position, at=judged if position < 2 else None)
    assert await all_steps(Expiry(storage.database, rows=2).jobs, 90 * DAY) == 15
    jobs = await run(storage, "select job_id, why from dead_letter_job order by job_id")
    items = await run(storage, "select job_id from dead_letter_job_item order by job_id")
    assert [job.why for job in jobs] == ["young", "stopped lately", "at work"]
    assert [row.job_id for row in items] == [job.job_id for job in jobs for _ in range(5)]


# -- what participants remember


async def remember(storage: SqlStorage, participant: str, key: str, days: float) -> None:
    """A command with its effect."""
    common = {"participant": participant, "key": key, "at": ago(storage, days)}
    await run(storage, REMEMBERED, id=f"m-{key}", body=b"", **common)
    await run(storage, APPLIED, **common)


async def test_participants_forget_what_is_old_but_for_instances_that_are_still_there(storage: SqlStorage) -> None:
    there = new_instance()
    await insert(storage, there)
    for number in range(5):
        for participant in ("payment", "stock"):
            await remember(storage, participant, f"{uuid4()}/old/{number}/do", 401)
            await remember(storage, participant, f"{there.saga_id}/living/{number}/do", 401)
            await remember(storage, participant, f"{uuid4()}/young/{number}/do", 399)
            await remember(storage, participant, f"somebody-elses-old-{number}", 401)
    expiry = Expiry(storage.database, rows=3)
    assert [await all_steps(step, 400 * DAY) for step in (expiry.commands, expiry.effects)] == [20, 20]
    for table in ("participant_message", "participant_effect"):
        left = [row.idempotency_key for row in await run(storage, f"select idempotency_key from {table}")]  # noqa: S608
        assert sorted(key.split("/")[1] for key in left) == ["living"] * 10 + ["young"] * 10


# -- how


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        (retention._LOCK_ENDED, "saga_ended"),
        (retention._DELETE_INBOX, "inbox_by_time"),
        (retention._DELETE_LETTERS, "dead_letter_resolved"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_old_is_found_by_an_index(database: Database, sql: Statement, index: str) -> None:
    values = {"age": 1.0, "limit": 1, "at": EARLY, "id": uuid4(), "before": EARLY}
    async with database.write() as session:
        if database.postgresql:
            await session.connection.execute(text("set local enable_seqscan = off"))
            await session.connection.execute(text("set local enable_sort = off"))
        assert index in await explained(session, sql, values)
