# mypy: ignore-errors
"""Participants that are wrong: `reported:` says which checker sees it, on that very line."""

from handlers import Context, Participant
from messages import Command, Event


class Paint(Command, name="typing.Paint"):
    fence: str


class Painted(Event, name="typing.Painted"):
    fence: str


painter = Participant("painter")


@painter.handles  # reported: mypy, pyright
def at_once(command: Paint) -> Painted:
    return Painted(fence=command.fence)


@painter.handles  # reported: mypy, pyright
async def an_event(command: Painted) -> Painted:
    return command


@painter.handles  # reported: mypy, pyright
async def a_number(command: Paint) -> int:
    return 1


@painter.handles  # reported: mypy, pyright
async def no_context(command: Paint, context: str) -> Painted:
    return Painted(fence=command.fence)


@painter.handles(transient=Paint)  # reported: mypy, pyright
async def no_reply(command: Paint, context: Context) -> Painted:
    return Painted(fence=command.fence)


@painter.setup  # reported: mypy, pyright
def tables(connection: object) -> None:
    return None
