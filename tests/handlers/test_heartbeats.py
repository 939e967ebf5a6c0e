"""Signs of life of a participant at work: at once, to whoever sent the command, whatever becomes of the work."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from handlers import Context, Participant
from messages import Command, Event
from tests.handlers.desk import Desk, asked

if TYPE_CHECKING:
    from outbox.unit import SqlStorage


class Scan(Command, name="beats.Scan"):
    book: str


class Scanning(Event, name="beats.Scanning"):
    pages: int


class Scanned(Event, name="beats.Scanned"):
    book: str


async def test_a_sign_of_life_reaches_whoever_asked_before_the_work_is_done(storage: SqlStorage) -> None:
    scanner, read = Participant("scanner"), asyncio.Event()

    @scanner.handles
    async def scan(command: Scan, context: Context) -> Scanned:
        await context.heartbeat(Scanning(pages=7))
        await read.wait()
        return Scanned(book=command.book)

    desk = await Desk(scanner, storage).open()
    command = asked(Scan(book="b-1"))
    taking = asyncio.create_task(desk.take(command))
    beat = await desk.reply()
    assert (beat.type, beat.body) == ("beats.Scanning", b'{"pages":7}')
    assert (beat.correlation_id, beat.headers["causation-id"]) == (command.correlation_id, command.message_id)
    read.set()
    await taking
    assert (await desk.reply()).type == "beats.Scanned"
    await desk.sent()
    await desk.close()


async def test_a_context_made_by_hand_sends_nothing(storage: SqlStorage) -> None:
    async with storage.transaction() as unit:
        context = Context(connection=unit.session.connection, message_id="m", idempotency_key="k")
        await context.heartbeat(Scanning(pages=1))
