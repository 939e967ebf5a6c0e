"""Participants as they should be written: both checkers are silent."""

from collections.abc import Awaitable, Callable
from typing import assert_type

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from handlers import Context, Participant
from messages import Command, Event


class Mend(Command, name="typing.Mend"):
    shoe: str


class MendTwice(Command, name="typing.Mend", version=2):
    shoe: str


class Throw(Command, name="typing.Throw"):
    shoe: str


class Mended(Event, name="typing.Mended"):
    shoe: str


class NoLeather(Event, name="typing.NoLeather"):
    pass


cobbler = Participant("cobbler")


@cobbler.setup
async def tables(connection: AsyncConnection) -> None:
    await connection.execute(text("create table if not exists shoe (name text primary key)"))


@cobbler.handles
async def mend(command: Mend, context: Context) -> Mended | NoLeather:
    assert_type(context.connection, AsyncConnection)
    assert_type(context.compensates, str | None)
    return Mended(shoe=command.shoe)


@cobbler.handles(transient=NoLeather)
async def mend_twice(command: MendTwice) -> Mended | NoLeather:
    return Mended(shoe=command.shoe)


@cobbler.handles
async def throw(command: Throw) -> None:
    return None


async def used() -> None:
    assert_type(await mend_twice(MendTwice(shoe="left")), Mended | NoLeather)


async def late(command: Command, context: Context, proceed: Callable[[], Awaitable[Event | None]]) -> Event | None:
    return await proceed()


assert_type(cobbler.around(late), Participant)
assert_type(cobbler.commands, tuple[str, ...])
