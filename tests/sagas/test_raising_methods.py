"""Whatever a method raises concerns its own instance: not even `sys.exit()` gets past the engine."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, NoReturn, Self

import pytest

from messages import Command, Event
from messages.errors import MethodRaised
from sagas import Saga, start, step
from sagas.outcome import Disposition
from testkit import Harness

if TYPE_CHECKING:
    from collections.abc import Callable


def leave() -> NoReturn:
    sys.exit("enough")


def cancel() -> NoReturn:
    raise asyncio.CancelledError


def interrupt() -> NoReturn:
    raise KeyboardInterrupt


def stop() -> NoReturn:
    raise GeneratorExit


class SayingError(Exception):
    """An exception whose text is made by what it was given."""

    def __str__(self) -> str:
        text: str = self.args[0]()
        return text


def saying(text: Callable[[], object]) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise SayingError(text)

    return fail


SAYING: dict[str, Callable[[], NoReturn]] = {
    "a text that raises": saying(lambda: 1 / 0),
    "a text that leaves": saying(leave),
    "no text": saying(lambda: 7),
    "a gigantic text": saying(lambda: "x" * 10_000_000),
    "an odd text": saying(lambda: "a\x00b\ud800"),
}
ENDING: dict[str, Callable[[], NoReturn]] = {"leave": leave, "cancel": cancel, "interrupt": interrupt, "stop": stop}
RAISING = {**ENDING, **SAYING}


class Asked(Event, name="raising.Asked"):
    key: str
    where: str
    how: str


class First(Command, name="raising.First"):
    key: str


class Second(Command, name="raising.Second"):
    key: str


class FirstDone(Event, name="raising.FirstDone"):
    pass


class SecondDone(Event, name="raising.SecondDone"):
    pass


class Raising(Saga, key="key"):
    key: str
    where: str
    how: str

    def perhaps(self, place: str) -> None:
        if self.where == place:
            RAISING[self.how]()

    @start
    def asked(cls, event: Asked) -> Self:
        made = cls(key=event.key, where=event.where, how=event.how)
        made.perhaps("start")
        return made

    @step
    def first(self) -> First:
        self.perhaps("first step")
        return First(key=self.key)

    @first.on_success
    def first_done(self, _reply: FirstDone) -> None:
        self.perhaps("hook")

    @step(success=SecondDone)
    def second(self) -> Second:
        self.perhaps("second step")
        return Second(key=self.key)


@pytest.mark.parametrize("how", RAISING)
@pytest.mark.parametrize(("where", "seen"), [("hook", Disposition.DEAD_LETTERED), ("second step", Disposition.APPLIED)])
def test_a_method_that_would_end_the_process_parks_its_instance(where: str, seen: Disposition, how: str) -> None:
    saga = Harness(Raising).given(Asked(key="k", where=where, how=how))
    saga.receives(FirstDone())
    assert (saga.disposition, saga.status) == (seen, "parked")
    assert "method_raised" in saga.attention


@pytest.mark.parametrize("how", RAISING)
def test_a_first_step_that_would_end_the_process_parks_its_instance(how: str) -> None:
    saga = Harness(Raising).given(Asked(key="k", where="first step", how=how))
    assert saga.status == "parked"


@pytest.mark.parametrize("how", RAISING)
def test_a_start_that_would_end_the_process_makes_no_instance(how: str) -> None:
    with pytest.raises(MethodRaised, match=r"Raising\.asked"):
        Harness(Raising).given(Asked(key="k", where="start", how=how))


@pytest.mark.parametrize("how", SAYING)
def test_whatever_an_exception_says_people_learn_its_type_and_line(how: str) -> None:
    saga = Harness(Raising).given(Asked(key="k", where="first step", how=how))
    told = saga.attention["method_raised"]
    assert told.startswith("Raising.first: SayingError")
    assert "(test_raising_methods.py:" in told[-40:]
    assert len(told.encode()) <= 2_002  # the ellipsis takes three bytes
    with pytest.raises(MethodRaised, match=r"Raising\.asked: SayingError.*\(test_raising_methods\.py:\d+\)"):
        Harness(Raising).given(Asked(key="k", where="start", how=how))
