"""Writing a participant: what is wrong with a handler is said where it is written, and what is right is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import handlers
from handlers import Context, Participant
from messages import Command, Event
from messages.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal


class Bake(Command, name="oven.Bake"):
    loaf: str


class BakeTwice(Command, name="oven.Bake", version=2):
    loaf: str


class Clean(Command, name="oven.Clean"):
    pass


class Baked(Event, name="oven.Baked"):
    loaf: str


class TooHot(Event, name="oven.TooHot"):
    pass


class Nameless(Event, abstract=True):
    pass


@pytest.fixture
def oven() -> Participant:
    return Participant("oven")


def problem(oven: Participant, handler: Callable[..., Any], **keywords: Any) -> str:  # noqa: ANN401
    """The text of the error, which begins with the handler's place."""
    with pytest.raises(DefinitionError) as raised:
        oven.handles(**keywords)(handler) if keywords else oven.handles(handler)
    place = f"{handler.__code__.co_filename}:{handler.__code__.co_firstlineno}: "
    lines = str(raised.value).splitlines()
    assert all(line.startswith(place) for line in lines)
    assert oven.commands == ()
    return "\n".join(line.removeprefix(place) for line in lines)


def test_the_package_exports_what_writers_need() -> None:
    assert handlers.__all__ == ["Context", "Participant"]


async def test_a_handler_is_known_by_its_command_and_stays_a_function(oven: Participant) -> None:
    @oven.handles
    async def bake(command: Bake) -> Baked | TooHot:
        return Baked(loaf=command.loaf)

    @oven.handles
    async def bake_twice(command: BakeTwice, context: Context) -> Baked:
        return Baked(loaf=command.loaf * 2)

    @oven.handles(transient=TooHot)
    async def clean(command: Clean) -> TooHot | None:
        return None

    assert oven.commands == ("oven.Bake", "oven.Clean")
    assert list(oven.handlers) == [("oven.Bake", 1), ("oven.Bake", 2), ("oven.Clean", 1)]
    assert oven.handlers["oven.Bake", 1].replies == (Baked, TooHot)
    assert oven.handlers["oven.Clean", 1].replies == (TooHot, None)
    assert oven.handlers["oven.Clean", 1].transient == (TooHot,)
    assert await bake(Bake(loaf="rye")) == Baked(loaf="rye")


def test_annotations_may_name_what_is_local(oven: Participant) -> None:
    class Toast(Command, name="oven.Toast"):
        pass

    @oven.handles
    async def toast(command: Toast) -> Baked:
        return Baked(loaf="toast")

    assert oven.handlers["oven.Toast", 1].command is Toast


def test_a_handler_must_be_async(oven: Participant) -> None:
    def bake(command: Bake) -> Baked:
        return Baked(loaf=command.loaf)

    assert problem(oven, bake) == "bake is not async; write `async def bake`"


def test_a_handler_takes_a_command_and_perhaps_a_context(oven: Participant) -> None:
    async def nothing() -> Baked:
        raise NotImplementedError

    async def too_much(command: Bake, context: Context, more: int) -> Baked:
        raise NotImplementedError

    async def by_name(*, command: Bake) -> Baked:
        raise NotImplementedError

    for handler in (nothing, too_much, by_name):
        assert "write (command, context)" in problem(oven, handler)


def test_the_first_parameter_names_the_command(oven: Participant) -> None:
    async def untold(command) -> Baked:  # type: ignore[no-untyped-def] # noqa: ANN001
        raise NotImplementedError

    async def an_event(command: Baked) -> Baked:
        raise NotImplementedError

    async def two(command: Bake | Clean) -> Baked:
        raise NotImplementedError

    assert problem(oven, untold).startswith("command is annotated with nothing; annotate it with one Command class")
    assert problem(oven, an_event).startswith("command is annotated with Baked;")
    assert problem(oven, two).startswith("command is annotated with Bake and Clean;")


def test_the_second_parameter_is_the_context(oven: Participant) -> None:
    async def bake(command: Bake, context: int) -> Baked:
        raise NotImplementedError

    assert problem(oven, bake) == "context gets the context; annotate it with handlers.Context"


def test_the_return_annotation_names_the_replies(oven: Participant) -> None:
    async def untold(command: Bake): ...  # type: ignore[no-untyped-def] # noqa: ANN202

    async def a_number(command: Bake) -> int:
        raise NotImplementedError

    async def a_command(command: Bake) -> Baked | Clean:
        raise NotImplementedError

    async def abstract(command: Bake) -> Nameless:
        raise NotImplementedError

    assert problem(oven, untold).startswith("untold returns nothing; annotate what it returns with Event classes")
    assert problem(oven, a_number).startswith("a_number returns int;")
    assert problem(oven, a_command).startswith("a_command returns Clean;")
    assert problem(oven, abstract).startswith("abstract returns Nameless;")


def test_an_annotation_that_cannot_be_read_says_why(oven: Participant) -> None:
    async def bake(command: Bake, context: Decimal) -> Baked:
        raise NotImplementedError

    assert "annotation 'Decimal' means nothing here: name 'Decimal' is not defined" in problem(oven, bake)


def test_a_transient_reply_is_one_of_the_replies(oven: Participant) -> None:
    async def bake(command: Bake) -> Baked:
        raise NotImplementedError

    assert problem(oven, bake, transient=TooHot) == (
        "transient=TooHot is none of its replies; add it to what bake returns"
    )


def test_all_problems_are_told_at_once(oven: Participant) -> None:
    def bake(command: Baked, context: int) -> int:
        raise NotImplementedError

    assert len(problem(oven, bake).splitlines()) == 4


def test_a_command_has_one_handler(oven: Participant) -> None:
    @oven.handles
    async def bake(command: Bake) -> Baked:
        raise NotImplementedError

    async def rival(command: Bake) -> Baked:
        raise NotImplementedError

    with pytest.raises(DefinitionError, match=r"oven\.Bake is handled by bake \(.*test_participant_definition.*\)"):
        oven.handles(rival)


@pytest.mark.parametrize("name", ["", "1st", "a b", "x" * 101, "a*"])
def test_a_name_must_be_fit_for_a_queue(name: str) -> None:
    with pytest.raises(DefinitionError, match=r"test_participant_definition\.py:\d+: .* is no participant's name"):
        Participant(name)


def test_there_is_one_setup_and_it_is_async(oven: Participant) -> None:
    with pytest.raises(DefinitionError, match="must be async"):
        oven.setup(lambda connection: connection)  # type: ignore[arg-type, return-value]

    @oven.setup
    async def tables(connection: object) -> None: ...

    with pytest.raises(DefinitionError, match="has a setup already"):
        oven.setup(tables)
