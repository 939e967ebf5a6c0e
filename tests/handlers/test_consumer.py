"""The loop of a saga's queue: it outlives outages of any length and instances that others hold."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from handlers.consumer import SagaConsumer
from handlers.facts import MessageHeld, MessageIgnored, SagaMoved
from messages.catalog.ordering import PaymentCompleted, ShippingLabelCreated, StockReserved
from messages.codec import open_envelope
from messages.errors import CommitUnknown, DatabaseAway, DatabaseBusy, MessageError
from outbox.facts import LoopTroubled
from outbox.unit import SqlStorage
from running import AsyncioRunner
from tests.handlers.house import LIMITS, NAMESPACE, House, dead, kinds, placed
from tests.handlers.wrapped import Wrapped
from tests.storage.databases import storage_on
from transport.interface import Publication
from transport.topology import saga_queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from uuid import UUID

    from messages.envelope import Raw
    from outbox.interface import Changes, Claimed, ClaimedRow, InboxEntry
    from outbox.unit import SqlUnit
    from storage import Database

BOUND = 30.0


class HastyRunner(AsyncioRunner):
    """Pauses take no time."""

    async def sleep(self, seconds: float) -> None:
        assert 0 <= seconds < 3600
        await asyncio.sleep(0)


class Outage(Wrapped):
    """Everything of the storage it wraps, which cannot be reached for the next so many transactions."""

    def __init__(self, storage: SqlStorage, transactions: int) -> None:
        super().__init__(storage)
        self.left = transactions

    @asynccontextmanager
    async def around(self, opening: AbstractAsyncContextManager[SqlUnit], *, at_once: bool) -> AsyncIterator[SqlUnit]:
        """A unit, if it can be reached."""
        if self.left:
            self.left -= 1
            raise DatabaseAway("the database cannot be reached")
        async with opening as unit:
            yield unit


class Gated(Wrapped):
    """Everything of the storage it wraps; `save` waits for the gate.

    The first so many saves of o-1 fail behind it, and so often the inbox refuses the message `refused`.
    """

    def __init__(self, storage: SqlStorage, failures: int = 0, refusals: int = 0) -> None:
        super().__init__(storage)
        self._failures = failures
        self._refusals = refusals
        self.gate = asyncio.Event()
        self.log: list[str] = []

    @asynccontextmanager
    async def around(self, opening: AbstractAsyncContextManager[SqlUnit], *, at_once: bool) -> AsyncIterator[SqlUnit]:
        """A unit that tells what it does."""
        async with opening as unit:
            save, claim = unit.save, unit.claim_inbox

            async def claim_inbox(consumer: str, token: UUID, entries: Sequence[InboxEntry]) -> Claimed:
                if self._refusals and any(entry.message_id == "refused" for entry in entries):
                    self._refusals -= 1
                    self.log.append("refusing")
                    raise MessageError("the database cannot store that")
                self.log.append("deciding")
                return await claim(consumer, token, entries)

            async def gated(changes: Changes) -> Sequence[ClaimedRow]:
                self.log.append("saving")
                await self.gate.wait()
                if self._failures and any(instance.key == "o-1" for instance in changes.inserted):
                    self._failures -= 1
                    raise DatabaseAway("the connection was lost")
                self.log.append(f"saved {', '.join(sorted(instance.key for instance in changes.inserted))}")
                return await save(changes)

            unit.save, unit.claim_inbox = gated, claim_inbox  # type: ignore[method-assign, assignment]
            yield unit

    async def logged(self, *lines: str) -> None:
        """Wait until the log ends with these."""
        async with asyncio.timeout(BOUND):
            while self.log[-len(lines) :] != list(lines):  # noqa: ASYNC110 - the log has no event
                await asyncio.sleep(0.01)


class Moody(Wrapped):
    """Everything of the storage it wraps, whose units fail by chance, at every stage at which they can.

    It is busy `busy` times as often as it fails in any other way.
    """

    def __init__(self, storage: SqlStorage, seed: int, busy: int = 1) -> None:
        super().__init__(storage)
        self._moods = ["begin", "lock", "save", "answer", *["commit"] * busy, *["fine"] * 5]
        self._random = random.Random(seed)
        self.failures = 0

    @asynccontextmanager
    async def around(self, opening: AbstractAsyncContextManager[SqlUnit], *, at_once: bool) -> AsyncIterator[SqlUnit]:
        """A unit in some mood."""
        mood = self._random.choice(self._moods)
        self.failures += mood != "fine"
        if mood == "begin":
            raise DatabaseAway("the database cannot be reached")
        async with opening as unit:
            if mood in ("lock", "save"):
                setattr(unit, mood, self._broken)
            elif at_once:
                unit.save = partial(self._at_once, mood, unit.save)  # type: ignore[method-assign]
            yield unit
            if mood == "commit":
                raise DatabaseBusy("it was rolled back")
        if mood == "answer":
            raise CommitUnknown("the connection was lost while COMMIT was under way")

    async def _at_once(
        self, mood: str, save: Callable[[Changes], Awaitable[Sequence[ClaimedRow]]], changes: Changes
    ) -> Sequence[ClaimedRow]:
        """Fail where a transaction would when it commits."""
        if mood == "commit":
            raise DatabaseBusy("somebody else was first")
        rows = await save(changes)
        if mood == "answer":
            raise CommitUnknown("the connection was lost while a save was under way")
        return rows

    async def _broken(self, *_arguments: object, **_keywords: object) -> Any:  # noqa: ANN401
        raise DatabaseAway("the connection was lost")


class Hall(House):
    """A house whose queue is consumed."""

    async def send(self, *raws: Raw) -> None:
        """Put messages into the saga's queue."""
        queue = saga_queue(NAMESPACE, self.definition.type)
        await self.transport.publisher.publish(
            [
                Publication(ticket=ticket, exchange="", routing_key=queue, envelope=open_envelope(raw))
                for ticket, raw in enumerate(raws)
            ]
        )

    async def told(self, text: str) -> None:
        """Wait until a fact that says this was reported."""
        async with asyncio.timeout(BOUND):
            while not any(text in repr(fact) for fact in self.facts):  # noqa: ASYNC110 - facts have no event
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def consuming(self, batch: int) -> AsyncIterator[None]:
        """The loop runs for the length of the block, and never ends in between."""
        consumer = SagaConsumer(
            self.handler,
            self.transport,
            HastyRunner(),
            self.facts.append,
            queue=saga_queue(NAMESPACE, self.definition.type),
            limits=LIMITS,
            batch=batch,
        )
        loop = asyncio.create_task(consumer.run())
        try:
            yield
            assert not loop.done()
        finally:
            await consumer.stop()
            await asyncio.wait_for(loop, BOUND)


async def test_an_outage_of_any_length_ends_no_loop(sqlite: Database) -> None:
    house = await Hall(Outage(SqlStorage(sqlite), transactions=1_200)).open()
    async with house.consuming(batch=10):
        await house.send(house.message(placed()))
        await house.told("SagaMoved")
    assert {fact.key for fact in house.facts if isinstance(fact, SagaMoved)} == {"o-1"}
    assert sum(isinstance(fact, LoopTroubled) for fact in house.facts) == 1_200


@pytest.fixture(params=[SqlStorage, storage_on], ids=["locking", "optimistic"])
def storage(request: pytest.FixtureRequest, postgresql: Database) -> SqlStorage:
    """PostgreSQL in both ways."""
    made: SqlStorage = request.param(postgresql)
    return made


async def test_a_whole_batch_for_an_instance_that_another_holds_leaves_the_loop_alive(storage: SqlStorage) -> None:
    house = await Hall(storage).open()
    await house.take(house.message(placed()))
    async with house.consuming(batch=1):
        async with storage.transaction() as unit:
            await unit.lock([house.id_of("o-1")])
            await house.send(house.answer("o-1", StockReserved(order_id="o-1", reservation_id="r-1"), "reserve"))
            await house.told("deferred=1")
        await house.told("step_completed")
        await house.send(house.message(placed("o-2")))
        await house.told("key='o-2'")
    assert (await house.instance("o-1")).steps.keys() == {"reserve", "pay"}
    assert (await house.instance("o-2")).status == "running"


async def decided_behind_o_1(house: Hall, storage: Gated, raw: Raw) -> None:
    """Bring it about that the start of o-1 is being saved, and a batch of this message has been decided behind it."""
    await house.send(house.message(placed("o-1")))
    await storage.logged("deciding", "saving")
    await house.send(raw)
    await storage.logged("deciding", "saving", "deciding")


async def test_a_batch_is_decided_while_the_one_before_is_saved_and_saved_behind_it(storage: SqlStorage) -> None:
    gated = Gated(storage)
    house = await Hall(gated).open()
    async with house.consuming(batch=10):
        await decided_behind_o_1(house, gated, house.message(placed("o-2")))
        gated.gate.set()
        await house.told("key='o-2'")
    assert gated.log == ["deciding", "saving", "deciding", "saved o-1", "saving", "saved o-2"]


async def test_a_batch_begins_beside_another_only_when_it_is_worth_a_transaction(storage: SqlStorage) -> None:
    gated = Gated(storage)
    house = await Hall(gated).open()
    await house.send(*(house.message(placed(f"first-{number}")) for number in range(4)))
    async with house.consuming(batch=4):
        await gated.logged("deciding", "saving")
        await house.send(house.message(placed("second-0")))
        await asyncio.sleep(0.2)  # long enough for it to begin, if it did
        assert gated.log == ["deciding", "saving"]
        await house.send(house.message(placed("second-1")))
        await gated.logged("deciding", "saving", "deciding")
        gated.gate.set()
        await house.told("key='second-1'")
    assert gated.log[-1] == "saved second-0, second-1"


async def test_a_batch_that_was_decided_behind_one_that_failed_is_decided_again_behind_it(
    storage: SqlStorage,
) -> None:
    gated = Gated(storage, failures=1)
    house = await Hall(gated).open()
    async with house.consuming(batch=10):
        await decided_behind_o_1(house, gated, house.message(placed("o-2")))
        gated.gate.set()
        await house.told("key='o-2'")
    assert [line for line in gated.log if line.startswith("saved")] == ["saved o-1", "saved o-2"]
    for key in ("o-1", "o-2"):
        assert await kinds(storage, house.id_of(key)) == ["started", "command_sent"]


async def test_a_message_finds_the_instance_that_the_batch_before_gives_birth_to(storage: SqlStorage) -> None:
    gated = Gated(storage)
    house = await Hall(gated).open()
    async with house.consuming(batch=10):
        await decided_behind_o_1(
            house, gated, house.answer("o-1", StockReserved(order_id="o-1", reservation_id="r-1"), "reserve")
        )
        gated.gate.set()
        await house.told("BatchCommitted(consumer='PlaceOrder', messages=1, deferred=0)")
        await gated.logged("saved ")
    assert "step_completed" in await kinds(storage, house.id_of("o-1"))


async def test_a_batch_that_is_refused_before_the_one_ahead_is_saved_waits_for_its_turn(storage: SqlStorage) -> None:
    gated = Gated(storage, refusals=2)
    house = await Hall(gated).open()
    async with house.consuming(batch=10):
        await house.send(house.message(placed("o-1")))
        await gated.logged("deciding", "saving")
        await house.send(house.message(placed("o-2")), house.message(placed("o-3"), message_id="refused"))
        await gated.logged("refusing")
        gated.gate.set()
        await house.told("MessageDeadLettered")
    expected = ["deciding", "saving", "refusing", "saved o-1", "deciding", "saving", "saved o-2"]
    assert gated.log[: len(expected)] == expected
    assert [message_id for message_id, _ in await dead(storage)] == ["refused"]


async def test_what_the_end_leaves_undone_is_not_overtaken(storage: SqlStorage) -> None:
    gated = Gated(storage, failures=1_000_000)
    house = await Hall(gated).open()
    async with house.consuming(batch=10):
        await decided_behind_o_1(house, gated, house.message(placed("o-2")))
        gated.gate.set()
        await house.told("LoopTroubled")
    assert not [line for line in gated.log if line.startswith("saved")]


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_fails_what_came_first_counts_first(storage: SqlStorage, seed: int) -> None:
    moody = Moody(storage, seed)
    await all_in_order(await Hall(moody).open(), batch=1 + seed % 4)
    assert moody.failures >= 3


async def all_in_order(house: Hall, batch: int) -> None:
    """Every reply is queued before its command was sent: whichever overtakes the message before it answers nothing."""
    keys = [f"o-{number}" for number in range(8)]
    async with house.consuming(batch=batch):
        for key in keys:
            await house.send(
                house.message(placed(key)),
                house.answer(key, StockReserved(order_id=key, reservation_id="r"), "reserve"),
                house.answer(key, PaymentCompleted(order_id=key, payment_id="p"), "pay"),
                house.answer(key, ShippingLabelCreated(order_id=key, tracking_code="t"), "label"),
            )
        async with asyncio.timeout(BOUND):
            while len(completed(house.facts)) < len(keys):  # noqa: ASYNC110 - facts have no event
                await asyncio.sleep(0.01)
    assert sorted(completed(house.facts)) == keys
    assert not any(isinstance(fact, (MessageIgnored, MessageHeld)) for fact in house.facts)
    for key in keys:
        history = [
            fact.entry.kind for fact in house.facts if isinstance(fact, SagaMoved) and fact.saga_id == house.id_of(key)
        ]
        assert "message_ignored" not in history
        assert history.count("command_sent") == 3


def completed(facts: Sequence[object]) -> list[str]:
    """The keys of the sagas that are said to have completed."""
    return [fact.key for fact in facts if isinstance(fact, SagaMoved) and fact.entry.kind == "completed"]
