"""The page for writers of participants: its code runs, its participant does what the page says, its tables hold."""

from __future__ import annotations

import re
import sys
from contextlib import asynccontextmanager
from dataclasses import fields
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

import migrations
from handlers import Context
from handlers.participant_consumer import CONCURRENCY, PATIENCE
from messages.errors import DefinitionError, MessageError
from outbox.unit import SqlStorage
from running import AsyncioRunner
from storage import Database
from tests.docs.pages import DOCS, blocks_of
from tests.handlers.desk import Desk, asked, undo_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from handlers import Participant

PAGE = DOCS / "participants.md"
TEXT = PAGE.read_text(encoding="utf-8")


BLOCKS = blocks_of(PAGE)


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """The page's code, run from top to bottom, but for what is meant to fail."""
    module = ModuleType("participants_page")
    sys.modules[module.__name__] = module
    for block in BLOCKS:
        if block.language == "python" and not block.raises:
            block.run(module)
    yield module
    del sys.modules[module.__name__]


@pytest.fixture
async def desk(page: Any, tmp_path: Path) -> AsyncIterator[Desk]:  # noqa: ANN401
    async with at_work(page.theatre, tmp_path) as desk:
        yield desk


@pytest.fixture
async def silent(page: Any, tmp_path: Path) -> AsyncIterator[Desk]:  # noqa: ANN401
    async with at_work(page.silent_theatre, tmp_path) as desk:
        yield desk


@asynccontextmanager
async def at_work(participant: Participant, folder: Path) -> AsyncIterator[Desk]:
    """A participant over an SQLite file."""
    database = Database(f"sqlite:///{folder / 'antiphon.db'}", AsyncioRunner())
    await migrations.up(database)
    desk = await Desk(participant, SqlStorage(database)).open()
    try:
        yield desk
    finally:
        await desk.close()
        await database.close()


async def test_the_participant_of_the_page_holds_seats_and_lets_them_go(desk: Desk, page: Any) -> None:  # noqa: ANN401
    hold = page.HoldSeat(show="Hamlet", seat="A1")
    await desk.take(asked(hold, key="guest-1/do"), asked(hold, key="guest-2/do"))
    await desk.take(undo_of(page.LetSeatGo(show="Hamlet"), key="guest-1/do"), asked(hold, key="guest-3/do"))
    assert [delivery.raw.type for delivery in await desk.replies(4)] == [
        "theatre.SeatHeld",
        "theatre.SeatTaken",
        "theatre.SeatFree",
        "theatre.SeatHeld",
    ]
    assert [row.hold for row in await desk.rows("select hold from seat_hold")] == ["guest-3/do"]


async def test_the_box_office_is_asked_again(desk: Desk, page: Any) -> None:  # noqa: ANN401
    buy = page.BuyTicket(show="Lear")
    await desk.take(asked(buy))
    page.opening_hours.add("Lear")
    await desk.take(asked(buy))
    assert [delivery.raw.type for delivery in await desk.replies(2)] == [
        "theatre.BoxOfficeClosed",
        "theatre.TicketBought",
    ]


async def test_the_silent_theatre_works_and_says_nothing(silent: Desk, page: Any) -> None:  # noqa: ANN401
    await silent.take(asked(page.HoldSeat(show="Hamlet", seat="A1")))
    await silent.sent()
    assert len(await silent.rows("select * from seat_hold")) == 1


def test_the_mistake_is_told_as_the_page_says(page: Any) -> None:  # noqa: ANN401
    [wrong] = [block for block in BLOCKS if block.raises]
    [told] = [block.code for block in BLOCKS if block.language == "text"]
    with pytest.raises(DefinitionError) as raised:
        wrong.run(page)
    assert f"{raised.value}\n".replace(f"{DOCS.parent}/", "") == told


def table(heading: str) -> dict[str, str]:
    """The rows of the first table behind a heading."""
    rows = TEXT[TEXT.index(heading) :].split("\n\n")
    lines = next(block for block in rows if block.startswith("|")).splitlines()[2:]
    cells = [re.fullmatch(r"\| (.+?) \| (.+) \|", line) for line in lines]
    return {match[1].strip("`"): match[2] for match in cells if match}


def test_the_table_of_the_context_is_complete() -> None:
    assert set(table("## What a handler gets")) == {field.name for field in fields(Context)} - {"beat"} | {
        "heartbeat(event)"
    }


def test_the_reasons_of_dead_letters_exist() -> None:
    told = set(re.findall(r"`(\w+)`", " ".join(table("## What happens when").values())))
    assert told == {"id_conflict", "malformed", "oversize", "unknown_message", "handler_raised"}
    assert told <= {error.reason for error in MessageError.__subclasses__()}


def test_the_numbers_are_those_of_the_loop() -> None:
    assert (CONCURRENCY, PATIENCE) == (16, 600.0)
    assert "Sixteen commands are at work at once" in TEXT.replace("\n", " ")
    assert "A handler has ten minutes" in TEXT.replace("\n", " ")


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (PAGE.parent / target).exists(), target
