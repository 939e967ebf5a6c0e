"""The loop of a participant over the in-process broker: several commands at once, settled when committed."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from handlers import Context, Participant
from handlers.participant_consumer import ParticipantConsumer
from handlers.suspects import MOST_NOTES, SUSPICIOUS, Suspects, accused_message
from messages import Command, Event
from messages.codec import open_envelope
from messages.errors import DatabaseBusy
from outbox.interface import Changes, Outgoing
from tests.handlers.desk import LIMITS, NAMESPACE, PATIENCE, Desk, asked
from tests.handlers.house import tally
from transport.interface import Publication
from transport.topology import commands_exchange, participant_queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from outbox.unit import SqlStorage


class Fold(Command, name="paper.Fold"):
    sheet: int


class Folded(Event, name="paper.Folded"):
    sheet: int


class Table:
    """A participant that folds sheets when the test lets it."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.at_work = 0
        self.most_at_once = 0
        self.begun = asyncio.Semaphore(0)
        self.errors: list[BaseException] = []
        self.stuck: set[int] = set()  # sheets that somebody holds
        self.participant = participant = Participant("table")

        @participant.setup
        async def tables(connection: AsyncConnection) -> None:
            await connection.execute(text("create table if not exists sheet (number int primary key)"))
            await connection.execute(text("delete from sheet"))

        @participant.handles
        async def fold(command: Fold, context: Context) -> Folded:
            self.at_work += 1
            self.most_at_once = max(self.most_at_once, self.at_work)
            self.begun.release()
            try:
                await self.open.wait()
                if self.errors:
                    raise self.errors.pop()
                if command.sheet in self.stuck:
                    raise DatabaseBusy("canceling statement due to statement timeout")
                await context.connection.execute(
                    text("insert into sheet (number) values (:number)"), {"number": command.sheet}
                )
            finally:
                self.at_work -= 1
            return Folded(sheet=command.sheet)


class Hall(Desk):
    """A desk whose loop runs."""

    def __init__(self, table: Table, storage: SqlStorage, concurrency: int) -> None:
        super().__init__(table.participant, storage)
        self.consumer = ParticipantConsumer(
            table.participant,
            storage,
            self.transport,
            self.relay,
            self.runner,
            report=self.facts.append,
            namespace=NAMESPACE,
            queue=participant_queue(NAMESPACE, "table"),
            limits=LIMITS,
            concurrency=concurrency,
        )

    async def send(self, *sheets: int) -> None:
        """Put commands into the outbox, as a saga does."""
        raws = [asked(Fold(sheet=sheet), key=f"sheet/{sheet}/do", message_id=f"sheet-{sheet}") for sheet in sheets]
        outgoing = [
            Outgoing(envelope=open_envelope(raw), exchange=commands_exchange(NAMESPACE), routing_key=raw.routing_key)
            for raw in raws
        ]
        async with self.storage.transaction() as unit:
            await unit.save(Changes(consumer="test", outgoing=outgoing))

    async def sheets(self) -> list[int]:
        """What was folded."""
        return [row.number for row in await self.rows("select number from sheet order by number")]


@asynccontextmanager
async def running(table: Table, storage: SqlStorage, concurrency: int = 4) -> AsyncIterator[Hall]:
    hall = Hall(table, storage, concurrency)
    await hall.open()
    loop = asyncio.create_task(hall.consumer.run())
    try:
        yield hall
    finally:
        table.open.set()
        await hall.consumer.stop()
        async with asyncio.timeout(PATIENCE):
            await loop
        await hall.close()


async def test_commands_are_at_work_at_once_but_no_more_than_allowed(storage: SqlStorage) -> None:
    table = Table()
    table.open.clear()
    async with running(table, storage, concurrency=4) as hall:
        await hall.send(*range(10))
        async with asyncio.timeout(PATIENCE):
            for _ in range(4):
                await table.begun.acquire()
        assert table.begun.locked()
        table.open.set()
        assert len(await hall.replies(10)) == 10
        assert table.most_at_once == 4
        assert await hall.sheets() == list(range(10))
        await hall.sent()


async def handed_out_before(hall: Hall, *sheets: int) -> None:
    """Hand out commands that were in hand when three processes died."""
    await hall.transport.publisher.publish(
        [
            Publication(
                ticket=1_000 + sheet,
                exchange=commands_exchange(NAMESPACE),
                routing_key="paper.Fold",
                envelope=open_envelope(asked(Fold(sheet=sheet), key=f"s/{sheet}/do", message_id=f"sheet-{sheet}")),
                attempts=SUSPICIOUS,
            )
            for sheet in sheets
        ]
    )


async def test_what_may_have_killed_a_process_is_met_alone_and_passes_if_it_is_innocent(storage: SqlStorage) -> None:
    table = Table()
    async with running(table, storage, concurrency=4) as hall:
        await handed_out_before(hall, 1, 2, 3, 4)
        assert len(await hall.replies(4)) == 4
        await hall.sent()
        assert table.most_at_once == 1
        assert await hall.rows("select * from suspect") == []
        assert await hall.dead() == []


async def test_what_three_processes_died_of_is_a_dead_letter(storage: SqlStorage) -> None:
    table = Table()
    async with running(table, storage, concurrency=4) as hall:
        raw = asked(Fold(sheet=1), key="s/1/do", message_id="sheet-1")
        for _ in range(MOST_NOTES):
            await Suspects(storage, hall.runner).note(accused_message("participant.table", raw))
        await handed_out_before(hall, 1, 2)
        assert len(await hall.replies(1)) == 1
        await hall.sent()
        assert await hall.sheets() == [2]
        assert await hall.dead() == [("sheet-1", "killed_process")]
        assert await hall.rows("select * from suspect") == []


async def test_stopping_finishes_what_was_begun_and_leaves_the_rest(storage: SqlStorage) -> None:
    table = Table()
    table.open.clear()
    async with running(table, storage, concurrency=2) as hall:
        await hall.send(1, 2, 3, 4)
        async with asyncio.timeout(PATIENCE):
            for _ in range(2):
                await table.begun.acquire()
        await hall.consumer.stop()
    assert table.most_at_once == 2
    assert await hall.sheets() == [1, 2]
    left = {row.message_id for row in await hall.rows("select message_id from v_outbox where name = 'paper.Fold'")}
    assert left.isdisjoint({f"sheet-{number}" for number in await hall.sheets()})


async def test_trouble_is_reported_and_the_command_is_carried_out_again(storage: SqlStorage) -> None:
    table = Table()
    table.errors = [DatabaseBusy("deadlock"), DatabaseBusy("deadlock")]
    async with running(table, storage) as hall:
        await hall.send(7)
        await hall.replies(1)
        assert tally(hall.facts) == {"LoopTroubled": 2, "CommandAnswered": 1}
        assert await hall.sheets() == [7]


async def test_commands_that_always_fail_make_room_for_others_and_end_as_dead_letters(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.blame.ALONE_SECONDS", 0.0)
    table = Table()
    table.stuck = {1, 2}
    async with running(table, storage, concurrency=2) as hall:
        await hall.send(*range(1, 11))
        await hall.replies(8)
        assert await hall.sheets() == list(range(3, 11))
        await hall.sent()
        assert sorted(await hall.dead()) == [("sheet-1", "unprocessable"), ("sheet-2", "unprocessable")]


@pytest.mark.parametrize("error", [ZeroDivisionError("a torn sheet"), SystemExit(1), KeyboardInterrupt()])
async def test_what_a_handler_raises_stops_nobody(storage: SqlStorage, error: BaseException) -> None:
    table = Table()
    table.errors = [error]
    async with running(table, storage, concurrency=1) as hall:
        await hall.send(1, 2, 3)
        assert len(await hall.replies(2)) == 2
        await hall.sent()
        assert [reason for _, reason in await hall.dead()] == ["handler_raised"]
        assert len(await hall.sheets()) == 2


async def test_it_is_attached_while_it_runs(storage: SqlStorage) -> None:
    table = Table()
    async with running(table, storage) as hall:
        await hall.send(1)
        await hall.replies(1)
        assert hall.consumer.attached
    assert not hall.consumer.attached


async def test_a_stop_before_the_start_ends_it_at_once(storage: SqlStorage) -> None:
    table = Table()
    hall = Hall(table, storage, concurrency=1)
    await hall.open()
    await hall.consumer.stop()
    async with asyncio.timeout(PATIENCE):
        await hall.consumer.run()
    await hall.close()


async def test_a_loop_that_is_cancelled_gives_everything_back(storage: SqlStorage) -> None:
    table = Table()
    table.open.clear()
    hall = Hall(table, storage, concurrency=2)
    await hall.open()
    loop = asyncio.create_task(hall.consumer.run())
    await hall.send(1)
    async with asyncio.timeout(PATIENCE):
        await table.begun.acquire()
        loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loop
        assert table.at_work == 0
        again: Any = await hall.transport.consume(participant_queue(NAMESPACE, "table"), prefetch=10)
        [delivery] = await again.receive(10)
    assert delivery.raw.message_id == "sheet-1"
    await hall.close()


async def test_two_processes_prepare_the_tables_at_once(storage: SqlStorage) -> None:
    halls = [Hall(Table(), storage, concurrency=1) for _ in range(4)]
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(hall.consumer.set_up() for hall in halls))
    assert await halls[0].sheets() == []


async def test_a_setup_that_would_end_the_process_fails_like_any_other(storage: SqlStorage) -> None:
    table = Table()
    hasty = Participant("table")

    @hasty.setup
    async def leave(_connection: AsyncConnection) -> None:
        raise SystemExit("no table")

    table.participant = hasty
    with pytest.raises(RuntimeError, match=r"setup of participant\.table raised SystemExit: no table"):
        await Hall(table, storage, concurrency=1).consumer.set_up()
