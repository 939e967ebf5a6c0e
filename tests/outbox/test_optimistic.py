"""A batch without locks: one look, one statement, and nothing at all when anything has changed in between."""

from __future__ import annotations

import asyncio
import random
from collections import Counter as Tally
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from messages.envelope import Raw
from messages.errors import DatabaseBusy
from outbox.holding import Held
from outbox.interface import Changes, Claimed, KeyOwner, Locked
from outbox.optimistic import Optimistic
from outbox.unit import SqlStorage
from outbox.unlocked import NeedsTransaction, Unlocked, Wanted
from running import AsyncioRunner
from storage import Database
from tests.outbox.building import (
    LEASE,
    changed,
    command,
    dead_letter,
    entry,
    history,
    insert,
    key_claim,
    new_instance,
    put,
    timer,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence

    from outbox.interface import InboxEntry, KeyClaim, Unit
    from sagas.instance import Instance
    from tests.storage.databases import Counter

TYPE = "PlaceOrder"
TABLES = ("saga_key", "saga", "saga_event", "inbox", "timer", "outbox", "dead_letter", "attention")


@pytest.fixture
def storage(postgresql: Database) -> SqlStorage:
    return SqlStorage(postgresql, Optimistic(postgresql))


@pytest.fixture
def database(postgresql: Database) -> Database:
    """What the counter of statements counts."""
    return postgresql


@pytest.fixture
def unlocked(storage: SqlStorage) -> Unlocked:
    assert storage.unlocked is not None
    return storage.unlocked


def wanted(
    *instances: Instance,
    claims: Sequence[KeyClaim] = (),
    entries: Sequence[InboxEntry] = (),
    also: Collection[UUID] = (),
) -> Wanted:
    ids = {*(instance.saga_id for instance in instances), *(claim.saga_id for claim in claims), *also}
    return Wanted(saga_type=TYPE, claims=claims, saga_ids=ids, entries=entries)


async def everything(storage: SqlStorage) -> dict[str, list[str]]:
    """Every row of the tables of the message path, as it is."""
    async with storage.database.read() as session:
        return {
            table: sorted(map(str, await session.connection.execute(text(f"select * from {table}"))))  # noqa: S608
            for table in TABLES
        }


async def claim(storage: SqlStorage, *claims: KeyClaim) -> None:
    async with storage.transaction() as unit:
        await unit.claim_keys(claims)


async def note(storage: SqlStorage, entry: InboxEntry, disposition: str = "applied") -> UUID:
    """Have a message in the inbox; returns the token of its batch."""
    token = uuid4()
    async with storage.transaction() as unit:
        await unit.claim_inbox(TYPE, token, [entry])
        await unit.save(Changes(consumer=TYPE, dispositions={(entry.source, entry.message_id): disposition}))
    return token


async def test_one_look_answers_what_a_transaction_would_ask_for(storage: SqlStorage, unlocked: Unlocked) -> None:
    known, missing = new_instance(), uuid4()
    await insert(storage, known)
    taken, free = key_claim("order-1"), key_claim("order-2")
    await claim(storage, taken)
    token = await note(storage, entry("seen"))
    await note(storage, entry("dead"), "dead_lettered")
    entries = [entry("seen"), entry("dead"), entry("new")]
    later = key_claim("order-1", start_id="later")
    async with unlocked.unit(wanted(known, claims=[later, free], entries=entries, also=[missing])) as unit:
        owners = await unit.claim_keys([later, free])
        locked = await unit.lock([known.saga_id, missing])
        claimed = await unit.claim_inbox(TYPE, uuid4(), entries)
    assert [(owner.saga_id, owner.start_id, owner.mine) for owner in owners] == [
        (taken.saga_id, "start-1", False),
        (free.saga_id, free.start_id, True),
    ]
    assert (dict(locked.instances), locked.busy) == ({known.saga_id: known}, frozenset())
    assert {key: (row.token, row.disposition) for key, row in claimed.known.items()} == {
        ("ordering", "seen"): (token, "applied")
    }
    assert locked.now == claimed.now


async def test_what_is_held_for_an_instance_that_is_about_to_be_born_is_seen(
    storage: SqlStorage, unlocked: Unlocked
) -> None:
    start, other = key_claim("order-1"), key_claim("order-2")
    await hold(storage, start.saga_id)
    async with unlocked.unit(wanted(claims=[start, other])) as unit:
        owners = await unit.claim_keys([start, other])
    assert [owner.awaited for owner in owners] == [True, False]


async def hold(storage: SqlStorage, saga_id: UUID) -> None:
    held = Held(
        saga_type=TYPE,
        source="stock",
        message_id="early",
        body_hash=b"hash",
        name="stock.StockReserved",
        schema_version=1,
        raw=Raw(body=b"{}", routing_key="", message_id="early", headers={}),
        reason="early",
        saga_id=saga_id,
    )
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=TYPE, held=[held]))


async def test_a_batch_takes_two_statements_and_no_transaction_around_them(
    storage: SqlStorage, unlocked: Unlocked, counter: Counter
) -> None:
    before = new_instance()
    await insert(storage, before)
    counter.reset()
    await Batch(before, start=key_claim("order-2")).run(unlocked)
    assert len(counter.statements) == 2
    assert not [each for each in counter.statements if each.lstrip().lower().startswith(("begin", "commit"))]


class Batch:
    """A message for an instance and a start, decided as the message path does it, with everything that can be saved."""

    def __init__(self, before: Instance, start: KeyClaim) -> None:
        self.before = before
        self.after = changed(before, seq=2, timers={"reserve": timer(60)})
        self.start = start
        self.born = new_instance(start.key, saga_id=start.saga_id)
        self.entries = [entry("reply"), entry("start"), entry("bad")]
        self.token = uuid4()
        self.command = command(before.saga_id)

    def changes(self) -> Changes:
        return Changes(
            consumer=TYPE,
            inserted=[self.born],
            updated=[(self.before, self.after)],
            history=[history(self.after.saga_id, 2), history(self.born.saga_id, 1)],
            dispositions={("ordering", "bad"): "dead_lettered"},
            dead_letters=[dead_letter("bad")],
            outgoing=[self.command],
            claim=(self.token, LEASE),
            claim_limit=10,
        )

    async def run(
        self, unlocked: Unlocked, meanwhile: Callable[[], Awaitable[object]] | None = None
    ) -> Sequence[object]:
        async with unlocked.unit(wanted(self.before, claims=[self.start], entries=self.entries)) as unit:
            await unit.claim_keys([self.start])
            await unit.lock([self.before.saga_id])
            await unit.claim_inbox(TYPE, self.token, self.entries)
            if meanwhile is not None:
                await meanwhile()
            return await unit.save(self.changes())


async def test_what_is_saved_is_what_a_transaction_would_have_saved(storage: SqlStorage, unlocked: Unlocked) -> None:
    before, start = new_instance(), key_claim("order-2")
    await insert(storage, before)
    batch = Batch(before, start)
    [row] = await batch.run(unlocked)
    assert (row.outgoing, row.token) == (batch.command, batch.token)  # type: ignore[attr-defined]
    async with storage.transaction() as unit:
        locked = await unit.lock([before.saga_id, start.saga_id])
        claimed = await unit.claim_inbox(TYPE, uuid4(), batch.entries)
        [owner] = await unit.claim_keys([key_claim("order-2", start_id="later")])
    assert locked.instances == {before.saga_id: batch.after, start.saga_id: batch.born}
    assert set(claimed.known) == {("ordering", "reply"), ("ordering", "start")}
    assert {known.token for known in claimed.known.values()} == {batch.token}
    assert owner == KeyOwner(
        saga_id=start.saga_id, n=1, start_id=start.start_id, start_hash=start.start_hash, mine=False
    )
    found = await everything(storage)
    assert [len(found[table]) for table in ("saga_event", "outbox", "dead_letter")] == [2, 1, 1]


def somebody_else(storage: SqlStorage, batch: Batch) -> dict[str, Callable[[], Awaitable[object]]]:
    """What others may do between the look and the save."""

    async def change() -> None:
        async with storage.transaction() as unit:
            await unit.lock([batch.before.saga_id])
            await unit.save(Changes(consumer=TYPE, updated=[(batch.before, changed(batch.before))]))

    async def remove() -> None:
        async with storage.database.write() as session:
            await session.connection.execute(text("delete from saga"))

    return {
        "changed": change,
        "removed": remove,
        "applied": lambda: note(storage, batch.entries[0]),
        "started": lambda: claim(storage, key_claim("order-2", start_id="another")),
    }


@pytest.mark.parametrize("what", ["changed", "removed", "applied", "started"])
async def test_nothing_is_saved_when_somebody_else_was_first(
    storage: SqlStorage, unlocked: Unlocked, what: str
) -> None:
    before = new_instance()
    await insert(storage, before)
    batch = Batch(before, key_claim("order-2"))
    seen: list[dict[str, list[str]]] = []

    async def meanwhile() -> None:
        await somebody_else(storage, batch)[what]()
        seen.append(await everything(storage))

    with pytest.raises(DatabaseBusy, match="changed meanwhile"):
        await batch.run(unlocked, meanwhile)
    assert await everything(storage) == seen[0]


async def test_an_instance_that_was_only_looked_at_has_to_stand_still_too(
    storage: SqlStorage, unlocked: Unlocked
) -> None:
    before = new_instance()
    await insert(storage, before)
    with pytest.raises(DatabaseBusy):
        async with unlocked.unit(wanted(before, entries=[entry("a")])) as unit:
            await unit.lock([before.saga_id])
            await unit.claim_inbox(TYPE, uuid4(), [entry("a")])
            async with storage.transaction() as other:
                await other.lock([before.saga_id])
                await other.save(Changes(consumer=TYPE, updated=[(before, changed(before))]))
            await unit.save(Changes(consumer=TYPE, dispositions={("ordering", "a"): "ignored"}))


async def test_an_instance_that_somebody_holds_is_not_waited_for(storage: SqlStorage, unlocked: Unlocked) -> None:
    before = new_instance()
    await insert(storage, before)
    async with storage.transaction() as other:
        await other.lock([before.saga_id])
        with pytest.raises(DatabaseBusy, match="changed meanwhile"):
            await Batch(before, key_claim("order-2")).run(unlocked)


async def test_a_start_that_was_not_used_leaves_its_key_and_one_that_was_changed_has_it(
    storage: SqlStorage, unlocked: Unlocked
) -> None:
    unused, used = key_claim("order-1"), key_claim("order-2")
    better = key_claim("order-2", used.saga_id, start_id="better")
    async with unlocked.unit(wanted(claims=[unused, used], entries=[entry("a")])) as unit:
        await unit.claim_keys([unused, used])
        await unit.claim_inbox(TYPE, uuid4(), [entry("a")])
        await unit.save(Changes(consumer=TYPE, released=[unused.saga_id], reassigned=[better]))
    async with storage.transaction() as check:
        free, taken = await check.claim_keys([key_claim("order-1"), key_claim("order-2")])
    assert (free.mine, taken.mine, taken.start_id, taken.saga_id) == (True, False, "better", used.saga_id)


async def test_a_batch_of_copies_writes_nothing(storage: SqlStorage, unlocked: Unlocked) -> None:
    await note(storage, entry("a"))
    before = await everything(storage)
    async with unlocked.unit(wanted(entries=[entry("a")])) as unit:
        await unit.claim_inbox(TYPE, uuid4(), [entry("a")])
        assert await unit.save(Changes(consumer=TYPE)) == ()
    assert await everything(storage) == before


QUESTIONS: dict[str, Callable[[Unit], Awaitable[object]]] = {
    "latest_keys": lambda unit: unit.latest_keys(TYPE, ["order-1"]),
    "wait": lambda unit: unit.lock([uuid4()], wait=True),
    "look": lambda unit: unit.look([uuid4()]),
    "awaited": lambda unit: unit.awaited(TYPE, [uuid4()]),
    "held_for": lambda unit: unit.held_for(TYPE, [uuid4()]),
    "lock_held": lambda unit: unit.lock_held([1]),
    "withdraw": lambda unit: unit.withdraw(["a"]),
    "unsent": lambda unit: unit.unsent([uuid4()]),
}


@pytest.mark.parametrize("question", QUESTIONS)
async def test_what_cannot_be_kept_true_without_a_lock_is_not_answered(unlocked: Unlocked, question: str) -> None:
    async with unlocked.unit(wanted()) as unit:
        with pytest.raises(NeedsTransaction):
            await QUESTIONS[question](unit)


async def test_what_never_changes_is_answered(storage: SqlStorage, unlocked: Unlocked) -> None:
    instance = new_instance()
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=TYPE, inserted=[instance], history=[history(instance.saga_id, 1)]))
    async with unlocked.unit(wanted(instance)) as unit:
        send = (instance.saga_id, "message-1")
        assert (await unit.sent([send]))[send].entry.body == b"{}"
        assert await unit.consumes(TYPE, "nothing.Known") is False


async def test_what_was_claimed_can_be_told_when_the_answer_was_lost(storage: SqlStorage, unlocked: Unlocked) -> None:
    before = new_instance()
    await insert(storage, before)
    batch = Batch(before, key_claim("order-2"))
    rows = await batch.run(unlocked)
    await put(storage, command(before.saga_id), lease=LEASE)  # somebody else's
    assert await unlocked.claimed(batch.token, [batch.command, command(before.saga_id)]) == rows
    assert await unlocked.claimed(uuid4(), [batch.command]) == []
    assert await unlocked.claimed(batch.token, []) == []


async def test_many_who_share_everything_never_deadlock_and_lose_nothing(
    storage: SqlStorage, unlocked: Unlocked
) -> None:
    """Every effect is counted by those who had it: revisions, ids and keys tell whether one was lost or doubled."""
    database = storage.database
    other = Database(
        database.engine.url.render_as_string(hide_password=False), AsyncioRunner(), namespace=database.namespace
    )
    try:
        instances = [new_instance(f"order-{number}") for number in range(8)]
        await insert(storage, *instances)
        known = [instance.saga_id for instance in instances]
        chance = random.Random(11)
        ways = [unlocked, Optimistic(other), None]
        rivals = [Rival(storage, ways[number % 3], random.Random(chance.random())) for number in range(90)]
        await asyncio.gather(*(rival.run(known) for rival in rivals))
        bumped = sum((rival.bumped for rival in rivals), Tally[UUID]())
        async with storage.transaction() as unit:
            locked = await unit.lock(known)
        assert {each: locked.instances[each].revision for each in known} == {
            instance.saga_id: instance.revision + bumped[instance.saga_id] for instance in instances
        }
        applied = sum((rival.applied for rival in rivals), Tally[str]())
        assert set(applied.values()) == {1}
        born = sum((rival.born for rival in rivals), Tally[str]())
        assert set(born.values()) == {1}
        assert sum(rival.overtaken for rival in rivals) > 0
        assert sum(rival.saved for rival in rivals) > 0
    finally:
        await other.close()


class Rival:
    """One batch of many, in random order, without locks or (one in three) with them."""

    def __init__(self, storage: SqlStorage, way: Unlocked | None, chance: random.Random) -> None:
        self._storage = storage
        self._way = way
        self._chance = chance
        self.bumped: Tally[UUID] = Tally()
        self.applied: Tally[str] = Tally()
        self.born: Tally[str] = Tally()
        self.saved = self.overtaken = 0

    async def run(self, known: Sequence[UUID]) -> None:
        chance = self._chance
        claims = [key_claim(f"new-{n}", start_id=str(uuid4())) for n in chance.sample(range(40), 3)]
        entries = [entry(f"m-{n}") for n in chance.sample(range(200), 4)]
        ids = chance.sample(list(known), 2)
        try:
            async with self._open(Wanted(saga_type=TYPE, claims=claims, saga_ids=ids, entries=entries)) as unit:
                owners = await unit.claim_keys(claims)
                locked = await unit.lock(ids)
                token = uuid4()
                claimed = await unit.claim_inbox(TYPE, token, entries)
                await unit.save(self._changes(claims, owners, locked, claimed, token))
        except DatabaseBusy:
            self.overtaken += 1
            return
        self.saved += 1
        self.bumped.update(list(locked.instances))
        self.applied.update(e.message_id for e in entries if ("ordering", e.message_id) not in claimed.known)
        self.born.update(c.key for c, owner in zip(claims, owners, strict=True) if owner.mine)

    @asynccontextmanager
    async def _open(self, wanted: Wanted) -> AsyncIterator[Unit]:
        way = self._storage.transaction() if self._way is None else self._way.unit(wanted)
        async with way as unit:
            yield unit

    def _changes(
        self,
        claims: Sequence[KeyClaim],
        owners: Sequence[KeyOwner],
        locked: Locked,
        claimed: Claimed,
        token: UUID,
    ) -> Changes:
        updated = [
            (instance, changed(instance, seq=instance.seq + 1, timers={"reserve": timer(self._chance.random() * 60)}))
            for instance in locked.instances.values()
        ]
        self._chance.shuffle(updated)
        pairs = zip(claims, owners, strict=True)
        return Changes(
            consumer=TYPE,
            inserted=[new_instance(claim.key, saga_id=claim.saga_id) for claim, owner in pairs if owner.mine],
            updated=updated,
            history=[history(after.saga_id, after.seq) for _, after in updated],
            outgoing=[command(after.saga_id, message_id=f"c-{self._chance.randrange(12)}") for _, after in updated],
            claim=(token, LEASE),
            claim_limit=3,
        )
