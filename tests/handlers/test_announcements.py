"""Announcements on their way out: with the decision they are of, to whoever listens, in order; nobody has to."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self
from uuid import UUID, uuid4

from messages import Command, Event
from outbox.facts import EventUnrouted
from sagas import Saga, announce, definition_of, start, step
from tests.handlers.house import NAMESPACE, House, kinds, outbox, rows
from transport.topology import Queue, saga_queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from messages.envelope import Raw
    from outbox.unit import SqlStorage


class Asked(Event, name="telling.Asked"):
    loan: str


class Check(Command, name="telling.Check"):
    loan: str


class Checked(Event, name="telling.Checked"):
    loan: str


class Begun(Event, name="telling.Begun"):
    loan: str


class Safe(Event, name="telling.Safe"):
    loan: str


class Granted(Event, name="telling.Granted"):
    loan: str


class Loan(Saga, key="loan", name="TellingLoan", version=1):
    """One step, and all of it is announced."""

    loan: str

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(loan=event.loan)

    @step(success=Checked)
    def check(self) -> Check:
        return Check(loan=self.loan)

    @check.announce
    def safe(self) -> Safe:
        return Safe(loan=self.loan)

    @announce("started")
    def begun(self) -> Begun:
        return Begun(loan=self.loan)

    @announce("completed")
    def granted(self) -> Granted:
        return Granted(loan=self.loan)


EVENTS = ("telling.Begun", "telling.Safe", "telling.Granted")


@asynccontextmanager
async def relayed(house: House) -> AsyncIterator[None]:
    """What stands in the outbox goes out meanwhile."""
    relaying = house.runner.start(house.relay.run(), name="relay")
    try:
        async with asyncio.timeout(30):
            yield
    finally:
        house.relay.stop()
        await relaying


async def through(house: House) -> tuple[Raw, Raw]:
    """One loan from its beginning to its end: what started it, and the answer."""
    asked = house.message(Asked(loan="l-1"))
    await house.take(asked)
    answer = house.answer("l-1", Checked(loan="l-1"), "check")
    await house.take(answer)
    return asked, answer


async def test_whoever_listens_hears_them_in_order_with_the_saga_and_the_cause(storage: SqlStorage) -> None:
    audience = Queue.of_saga(NAMESPACE, "Audience", events=EVENTS)
    house = await House(storage, definition_of(Loan)).open(audience)
    consumer = await house.transport.consume(saga_queue(NAMESPACE, "Audience"), prefetch=10)
    asked, answer = await through(house)
    heard: list[Raw] = []
    async with relayed(house):
        while len(heard) < len(EVENTS):
            burst = await consumer.receive(10)
            await consumer.settle(burst)
            heard += [delivery.raw for delivery in burst]
    assert [raw.type for raw in heard] == [raw.routing_key for raw in heard] == list(EVENTS)
    assert {raw.correlation_id for raw in heard} == {str(house.id_of("l-1"))}
    assert [(raw.headers or {})["causation-id"] for raw in heard] == [asked.message_id, *[answer.message_id] * 2]
    assert [raw.reply_to for raw in heard] == [None] * 3
    assert not any("idempotency-key" in (raw.headers or {}) for raw in heard)
    told = "select message_id, cast(body as text) from saga_event where kind = 'announced' order by seq"
    assert [UUID(raw.message_id or "") for raw in heard] == [UUID(row.message_id) for row in await rows(storage, told)]
    assert [raw.body for raw in heard] == [b'{"loan":"l-1"}'] * 3


async def test_they_are_committed_with_what_they_are_of_and_their_history_says_so(storage: SqlStorage) -> None:
    house = House(storage, definition_of(Loan))  # whose broker is away
    await house.take(house.message(Asked(loan="l-1")))
    await house.take(house.answer("l-1", Checked(loan="l-1"), "check"))
    assert [name for name, _ in await outbox(storage)] == [
        "telling.Begun",
        "telling.Check",
        "telling.Granted",
        "telling.Safe",
    ]
    assert await kinds(storage, house.id_of("l-1")) == [
        *("started", "announced", "command_sent"),
        *("reply_received", "step_completed", "announced", "completed", "announced"),
    ]


async def test_copies_of_a_message_announce_nothing_again(storage: SqlStorage) -> None:
    house = House(storage, definition_of(Loan))
    asked = house.message(Asked(loan="l-1"))
    await house.take(asked)
    await house.take(asked)
    await house.take(house.message(Asked(loan="l-1"), message_id=str(uuid4())))
    assert (await kinds(storage, house.id_of("l-1"))).count("announced") == 1


async def test_what_nobody_listens_to_is_done_and_counted(storage: SqlStorage) -> None:
    house = await House(storage, definition_of(Loan)).open()
    async with relayed(house):
        await through(house)
        while any(name in EVENTS for name, _ in await outbox(storage)):  # noqa: ASYNC110 - a table does not tell
            await asyncio.sleep(0)
    assert [fact.name for fact in house.facts if isinstance(fact, EventUnrouted)] == list(EVENTS)
