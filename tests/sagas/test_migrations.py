"""What is wrong with a `@migrate` is told when its class is created, with the place and a remedy."""

from __future__ import annotations

from types import new_class
from typing import Any, Self

import pytest

from messages import Command, Event
from messages.errors import DefinitionError
from sagas import Saga, decision, definition_of, migrate, start, step, when


class Began(Event, name="migrations.Began"):
    key: str


class Do(Command, name="migrations.Do"):
    key: str


class Base(Saga, abstract=True):
    key: str

    @start
    def began(cls, event: Began) -> Self:
        return cls(key=event.key)

    @step(reply=False)
    def work(self) -> Do:
        return Do(key=self.key)

    @step(reply=False)
    def rest(self) -> Do:
        return Do(key=self.key)

    @decision
    def long(self) -> bool:
        return len(self.key) > 1

    flow = work >> when(long, rest)


def from_old(cls: type[Any], state: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever the class is
    return cls(**state)


def lonely(cls: type[Any]) -> None: ...


async def later(cls: type[Any], state: dict[str, Any]) -> None: ...


def told(method: Any, version: Any = 1, **names: Any) -> str:  # noqa: ANN401 - wrong on purpose
    """What the author of a class of version 3 with that migration reads."""
    word: object = migrate(version, **names)(classmethod(method))
    body = {method.__name__: word}
    with pytest.raises(DefinitionError) as caught:
        new_class("Base", (Base,), {"key": "key", "version": 3}, lambda namespace: namespace.update(body))
    text = str(caught.value)
    assert f"({__file__}:" in text
    return text


@pytest.mark.parametrize(
    ("method", "version", "names", "text"),
    [
        (from_old, 3, {}, "migrates from version 3, and the class is version 3; name an older version, or raise"),
        (from_old, 0, {}, "@migrate(0) names no version; write a whole number from 1"),
        (from_old, "1", {}, "@migrate('1') names no version; write a whole number from 1"),
        (lonely, 1, {}, "takes (cls); write def lonely(cls, state)"),
        (later, 1, {}, "is async; write a plain method"),
        (
            from_old,
            1,
            {"steps": {"a": "wrok"}},
            "steps= leads to 'wrok', which is not in this class (did you mean 'work'?); correct it",
        ),
        (from_old, 1, {"places": {"a": "work"}}, "places= leads to 'work', which is not in this class"),
        (from_old, 1, {"steps": {"a": "work", "b": "work"}}, "steps= leads twice to work; what was two cannot be one"),
        (from_old, 1, {"steps": ["work"]}, 'says steps=[\'work\'], which are no names; write steps={"old": "new"}'),
    ],
)
def test_the_author_reads(method: object, version: object, names: dict[str, object], text: str) -> None:
    assert text in told(method, version, **names)


def test_two_migrations_from_one_version_are_told() -> None:
    with pytest.raises(DefinitionError, match="migrates from version 1, which 'one' does already; keep one"):

        class Twice(Base, key="key", version=2):
            @migrate(1)
            @classmethod
            def one(cls, state: dict[str, Any]) -> Self:
                return cls(**state)

            @migrate(1)
            @classmethod
            def another(cls, state: dict[str, Any]) -> Self:
                return cls(**state)


def test_it_stands_over_a_class_method() -> None:
    with pytest.raises(
        DefinitionError, match=r"@migrate\(1\) stands over a class method, not over <function .*; write @c"
    ):

        class Plain(Base, key="key", version=2):
            @migrate(1)
            def from_first(self, state: dict[str, Any]) -> Self:
                return self


def test_a_definition_has_the_migrations_of_its_class_by_version() -> None:
    class Good(Base, key="key", version=3):
        @migrate(1, steps={"toil": "work"}, places={"lengthy": "long"})
        @classmethod
        def from_first(cls, state: dict[str, Any]) -> Self:
            return cls(**state)

        @migrate(2)
        @classmethod
        def from_second(cls, state: dict[str, Any]) -> Self:
            return cls(**state)

    found = definition_of(Good).migrations
    assert [(version, each.name) for version, each in found.items()] == [(1, "from_first"), (2, "from_second")]
    assert (found[1].steps, found[1].places) == ({"toil": "work"}, {"lengthy": "long"})
    assert Good.from_second({"key": "k"}) == Good(key="k")
    assert "from_first" in definition_of(Good).document["code"]["methods"]
