"""What a dead letter says of the place where a handler raised: the line of its author, and what that line called."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from handlers import Participant
from messages import Command, Event
from tests.handlers.desk import Desk, asked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from outbox.unit import SqlStorage


class Read(Command, name="where.Read"):
    text: str


class HaveRead(Event, name="where.HaveRead"):
    pass


reader = Participant("reader")


@reader.handles
async def read(command: Read) -> HaveRead:
    if command.text == "wait":
        await asyncio.Event().wait()
    if command.text == "fail":
        raise RuntimeError("upside down")
    if command.text == "odd":
        return 7  # type: ignore[return-value]
    json.loads(command.text)
    return HaveRead()


def place(code: str) -> str:
    """`file:line` of the line of this file that is this code."""
    lines = [line.strip() for line in Path(__file__).read_text().splitlines()]
    return f"{__file__}:{lines.index(code) + 1}"


@pytest.fixture
async def desk(storage: SqlStorage) -> AsyncIterator[Desk]:
    desk = await Desk(reader, storage, patience=0.1).open()
    yield desk
    await desk.close()


async def error(desk: Desk, text: str) -> str:
    await desk.take(asked(Read(text=text)))
    [letter] = await desk.rows("select error from v_dead_letter")
    return str(letter.error)


async def test_the_line_that_raised_is_named_and_not_that_of_the_handler(desk: Desk) -> None:
    raising = place('raise RuntimeError("upside down")')
    assert await error(desk, "fail") == f"read ({raising}) raised RuntimeError: upside down"


async def test_what_a_library_raised_names_the_line_that_called_it_and_the_line_that_raised(desk: Desk) -> None:
    calling = re.escape(place("json.loads(command.text)"))
    assert re.match(
        rf"read \({calling}, from json\.decoder:\d+\) raised JSONDecodeError: Expecting", await error(desk, "{")
    )


async def test_a_handler_that_took_too_long_is_shown_where_it_waited(desk: Desk) -> None:
    said = await error(desk, "wait")
    assert said.startswith(f"read ({place('await asyncio.Event().wait()')}, from asyncio.")
    assert "raised TimeoutError (it has 0.1 s)" in said


async def test_what_was_wrong_with_an_answer_names_the_handler(desk: Desk) -> None:
    said = f"read ({place('@reader.handles')}) raised TypeError: it returned 7, which is none of the replies"
    assert (await error(desk, "odd")).startswith(said)
