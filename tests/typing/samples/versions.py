"""What a class says of its older versions: type checkers see through it, and through what is wrong with it."""

# mypy: ignore-errors

from typing import Any, Self, assert_type

from messages import Command, Event, upcast
from sagas import Saga, migrate, start, step


class Begun(Event, name="versions.Begun", version=3):
    number: int
    note: str = ""

    @upcast(1)
    @classmethod
    def with_number(cls, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "number": 1}

    @upcast(2)
    @classmethod
    def with_note(cls, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "note": cls.__name__}

    @upcast(2)  # reported: mypy, pyright
    @classmethod
    def wrong(cls, body: dict[str, Any], more: int) -> dict[str, Any]:
        return body

    @upcast("2")  # reported: mypy, pyright
    @classmethod
    def worse(cls, body: dict[str, Any]) -> dict[str, Any]:
        return body


class Do(Command, name="versions.Do"):
    number: int


class Counting(Saga, key="number", version=2):
    number: int

    @migrate(1, steps={"undo": "do"}, places={})
    @classmethod
    def from_first(cls, state: dict[str, Any]) -> Self:
        return cls(number=state["number"])

    @migrate(1, step={})  # reported: mypy, pyright
    @classmethod
    def wrong(cls, state: dict[str, Any]) -> Self:
        return cls(nubmer=1)  # reported: mypy, pyright

    @start
    def begun(cls, event: Begun) -> Self:
        return cls(number=event.number)

    @step(reply=False)
    def do(self) -> Do:
        return Do(number=self.number)


assert_type(Counting.from_first({}), Counting)
assert_type(Begun.with_note({}), dict[str, Any])
