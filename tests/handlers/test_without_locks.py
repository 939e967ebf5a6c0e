"""The way without locks, when somebody else comes first: nothing overtakes what it follows, and nobody is mistaken."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy import text

from handlers.facts import MessageHeld, MessageIgnored
from handlers.handle import Attempt, Overtaken
from messages.catalog.ordering import PaymentCompleted, StockReserved
from messages.errors import MessageError
from outbox.unit import SqlStorage
from tests.handlers.house import House, kinds, placed
from tests.handlers.test_consumer import BOUND, Gated, Hall, decided_behind_o_1
from tests.handlers.wrapped import Wrapped
from tests.services.waiting import until_async
from tests.storage.databases import storage_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from uuid import UUID

    from messages.envelope import Raw
    from outbox.interface import Changes, ClaimedRow
    from outbox.unit import SqlUnit
    from storage import Database


class Meanwhile(Wrapped):
    """Everything of the storage it wraps; something happens between what is seen without locks and its save."""

    def __init__(self, storage: SqlStorage, what: Callable[[], Awaitable[object]]) -> None:
        super().__init__(storage)
        self._what = what

    @asynccontextmanager
    async def around(self, opening: AbstractAsyncContextManager[SqlUnit], *, at_once: bool) -> AsyncIterator[SqlUnit]:
        """A unit that is late."""
        async with opening as unit:
            save = unit.save

            async def late(changes: Changes) -> Sequence[ClaimedRow]:
                await self._what()
                return await save(changes)

            if at_once:
                unit.save = late  # type: ignore[method-assign, assignment]
            yield unit


class Logged(Wrapped):
    """Everything of the storage it wraps, telling what is done with it."""

    def __init__(self, storage: SqlStorage) -> None:
        super().__init__(storage)
        self.log: list[str] = []

    async def logged(self, line: str, times: int = 1) -> None:
        """Wait until this was done so many times."""
        async with asyncio.timeout(BOUND):
            while self.log.count(line) < times:  # noqa: ASYNC110 - the log has no event
                await asyncio.sleep(0.01)


class Steered(Logged):
    """Once it is `armed`, the first save without locks is refused, and others wait until they are let go.

    `refusing` lets the first save go, `looking` the second look, and `writing` the first transaction.
    """

    def __init__(self, storage: SqlStorage) -> None:
        super().__init__(storage)
        self.armed = False
        self.refusing, self.looking, self.writing = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._looks = self._transactions = 0

    @asynccontextmanager
    async def around(self, opening: AbstractAsyncContextManager[SqlUnit], *, at_once: bool) -> AsyncIterator[SqlUnit]:
        """A unit that goes on when it may."""
        if self.armed and not at_once:
            self._transactions += 1
            self.log.append(f"transaction {self._transactions}")
            if self._transactions == 1:
                await self.writing.wait()
        async with opening as unit:
            if self.armed and at_once:
                self._looks += 1
                self.log.append(f"look {self._looks}")
                if self._looks == 1:
                    unit.save = self._refuse  # type: ignore[method-assign]
                elif self._looks == 2:
                    await self.looking.wait()
            yield unit

    async def _refuse(self, *_arguments: object, **_keywords: object) -> Sequence[ClaimedRow]:
        self.log.append("saving")
        await self.refusing.wait()
        raise MessageError("the database refuses this data")


class SlowToHold(Logged):
    """Everything of the storage it wraps, which keeps a message for later only behind the gate."""

    def __init__(self, storage: SqlStorage) -> None:
        super().__init__(storage)
        self.gate = asyncio.Event()

    @asynccontextmanager
    async def around(self, opening: AbstractAsyncContextManager[SqlUnit], *, at_once: bool) -> AsyncIterator[SqlUnit]:
        """A unit that tells what it does."""
        async with opening as unit:
            save = unit.save

            async def slowly(changes: Changes) -> Sequence[ClaimedRow]:
                if changes.held:
                    self.log.append("holding")
                    await self.gate.wait()
                return await save(changes)

            unit.save = slowly  # type: ignore[method-assign, assignment]
            self.log.append("looked" if at_once else "locking")
            yield unit


def reserved(house: House, key: str = "o-1") -> Raw:
    """The reply to the first command of an order."""
    return house.answer(key, StockReserved(order_id=key, reservation_id="r-1"), "reserve")


def paid(house: House, key: str = "o-1") -> Raw:
    """The reply to its second command."""
    return house.answer(key, PaymentCompleted(order_id=key, payment_id="p-1"), "pay")


async def outcomes(storage: SqlStorage, saga: UUID, number: int) -> list[str]:
    """What became of the replies to an instance, in order; waits until there are so many, or one was ignored."""

    async def found() -> list[str]:
        return [each for each in await kinds(storage, saga) if each in ("step_completed", "message_ignored")]

    async def enough() -> bool:
        came = await found()
        return len(came) >= number or "message_ignored" in came

    await until_async(enough, timeout=BOUND, what=f"{number} replies")
    return await found()


async def test_somebody_who_only_records_a_copy_is_noticed(postgresql: Database) -> None:
    storage = storage_on(postgresql)
    other = await House(storage).open()
    await other.take(other.message(placed()))

    async def copy() -> None:
        await other.take(other.message(placed()))

    house = await House(Meanwhile(storage, copy)).open()
    with pytest.raises(Overtaken):
        await house.handler.handle(house.decoded([reserved(house)]), Attempt(token=uuid4()))


async def test_a_change_of_another_types_instance_overtakes_nobody(postgresql: Database) -> None:
    storage = storage_on(postgresql)
    other = await House(storage).open()
    await other.take(other.message(placed()))
    foreign = uuid4()
    async with postgresql.write() as session:
        await session.connection.execute(
            text(
                "insert into saga select (jsonb_populate_record(s, jsonb_build_object("
                "'saga_id', cast(:id as text), 'saga_type', 'Other', 'key', 'x'))).* from saga s"
            ),
            {"id": str(foreign)},
        )

    async def change() -> None:
        async with postgresql.write() as session:
            await session.connection.execute(text("update saga set revision = revision + 1 where saga_type = 'Other'"))

    house = await House(Meanwhile(storage, change)).open()
    message = house.message(placed("o-2"), correlation_id=str(foreign))
    await house.handler.handle(house.decoded([message]), Attempt(token=uuid4()))
    assert await kinds(storage, house.id_of("o-2")) == ["started", "command_sent"]


async def test_a_correlation_id_that_several_starts_share_reorders_nothing(postgresql: Database) -> None:
    gated = Gated(storage_on(postgresql))
    house = await Hall(gated).open()
    job = str(uuid4())
    async with house.consuming(batch=10):
        await house.send(house.message(placed("o-1"), correlation_id=job))
        await gated.logged("deciding", "saving")
        await house.send(house.message(placed("o-2"), correlation_id=job), reserved(house, "o-2"))
        await gated.logged("deciding", "saving", "deciding")
        gated.gate.set()
        await house.told(StockReserved.message_name)
    assert not any(isinstance(fact, (MessageHeld, MessageIgnored)) for fact in house.facts)
    assert "step_completed" in await kinds(gated.storage, house.id_of("o-2"))


async def test_what_is_set_aside_while_the_next_batch_looks_is_not_overtaken_by_it(postgresql: Database) -> None:
    steered = Steered(storage_on(postgresql))
    house = await Hall(steered).open()
    await house.take(house.message(placed("o-1")))
    async with house.consuming(batch=10):
        await house.send(reserved(house, "o-9"))
        await house.told("MessageHeld")
        steered.armed = True
        await house.send(reserved(house), house.message(placed("o-2")))
        await steered.logged("saving")
        await house.send(house.message(placed("o-9")), paid(house))
        await steered.logged("look 2")
        steered.refusing.set()
        await house.told("MessagesSetAside")
        await steered.logged("transaction 1")
        steered.looking.set()
        await steered.logged("transaction 2")
        await house.told("key='o-9'")
        steered.writing.set()
        found = await outcomes(steered.storage, house.id_of("o-1"), 2)
    assert found == ["step_completed", "step_completed"]


async def test_what_a_batch_was_too_late_for_is_not_overtaken_while_it_publishes(
    postgresql: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = storage_on(postgresql)
    house = await Hall(storage).open()
    await house.take(house.message(placed("o-1")))
    gate, publishing = asyncio.Event(), asyncio.Event()
    publish = house.relay.publish

    async def slowly(claimed: Sequence[ClaimedRow], until: float) -> None:
        if claimed:
            publishing.set()
            await gate.wait()
        await publish(claimed, until)

    monkeypatch.setattr(house.relay, "publish", slowly)
    async with house.consuming(batch=10):
        async with storage.transaction() as unit:
            await unit.lock([house.id_of("o-1")])
            await house.send(reserved(house), house.message(placed("o-2")))
            await asyncio.wait_for(publishing.wait(), BOUND)
        await house.send(paid(house))
        await outcomes(storage, house.id_of("o-1"), 1)
        gate.set()
        found = await outcomes(storage, house.id_of("o-1"), 2)
    assert found == ["step_completed", "step_completed"]


async def test_what_the_batch_before_holds_is_applied_by_the_birth_behind_it(postgresql: Database) -> None:
    slow = SlowToHold(storage_on(postgresql))
    house = await Hall(slow).open()
    async with house.consuming(batch=10):
        await house.send(reserved(house))
        await slow.logged("holding")
        await house.send(house.message(placed()))
        await slow.logged("looked", times=2)
        slow.gate.set()
        await house.told("key='o-1'")
        await house.send(paid(house))
        found = await outcomes(slow.storage, house.id_of("o-1"), 2)
    assert found == ["step_completed", "step_completed"]


@pytest.mark.parametrize("way", [SqlStorage, storage_on], ids=["locking", "optimistic"])
async def test_what_was_decided_before_an_outage_is_decided_again_after_it(
    postgresql: Database, way: Callable[[Database], SqlStorage]
) -> None:
    gated = Gated(way(postgresql), failures=1)
    house = await Hall(gated).open()
    async with house.consuming(batch=10):
        await decided_behind_o_1(house, gated, house.message(placed("o-2")))
        gated.gate.set()
        await house.told("key='o-2'")
    assert gated.log[gated.log.index("saved o-1") + 1 :] == ["deciding", "saving", "saved o-2"]
    assert (await house.instance("o-1")).started_at < (await house.instance("o-2")).started_at
