"""One name means one thing: a command or an event, and each version of it one class."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

from messages import REGISTRY, Command, Event, Registry
from messages.errors import DefinitionError, UnknownMessage

if TYPE_CHECKING:
    from pathlib import Path

    from messages import Message


class First(Event, name="tests.registry.Happened", version=1):
    pass


class Second(Event, name="tests.registry.Happened", version=2):
    pass


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.add(Second)
    registry.add(First)
    return registry


def test_a_class_is_found_by_name_and_version(registry: Registry) -> None:
    assert registry.find("tests.registry.Happened", 1) is First
    assert registry.find("tests.registry.Happened", 2) is Second
    assert registry.versions("tests.registry.Happened") == (1, 2)
    assert list(registry) == [First, Second]


def test_an_unknown_version_says_which_are_known(registry: Registry) -> None:
    with pytest.raises(UnknownMessage, match="known in version 1, 2, not 3"):
        registry.find("tests.registry.Happened", 3)


def test_an_unknown_name_is_told_as_such(registry: Registry) -> None:
    assert "tests.Nothing" not in registry
    assert registry.versions("tests.Nothing") == ()
    with pytest.raises(UnknownMessage, match=r"no message class is named 'tests\.Nothing'"):
        registry.find("tests.Nothing", 1)


def test_two_classes_cannot_have_one_name_and_version(registry: Registry) -> None:
    class Other(Event, name="tests.registry.Happened", version=2):
        pass

    with pytest.raises(DefinitionError, match=r"version 2 is already .*Second"):
        registry.add(Other)
    assert registry.find("tests.registry.Happened", 2) is Second


def test_a_name_cannot_be_a_command_and_an_event(registry: Registry) -> None:
    class Ask(Command, name="tests.registry.Happened", version=3):
        pass

    with pytest.raises(DefinitionError, match="is of kind command here and of kind event in"):
        registry.add(Ask)


def test_adding_a_class_again_changes_nothing(registry: Registry) -> None:
    registry.add(First)
    assert list(registry) == [First, Second]


def test_a_class_defined_again_at_the_same_place_replaces_the_earlier_one(registry: Registry) -> None:
    def defined() -> type[Message]:
        class Again(Event, name="tests.registry.Again"):
            pass

        return Again

    earlier, later = defined(), defined()
    registry.add(earlier)
    registry.add(later)
    assert registry.find("tests.registry.Again", 1) is later


def test_a_module_may_be_reloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = 'from messages import Event\nclass Reloaded(Event, name="tests.Reloaded"):\n    order_id: str\n'
    (tmp_path / "reloaded_messages.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("reloaded_messages")
    earlier = module.Reloaded
    module = importlib.reload(module)
    del sys.modules["reloaded_messages"]
    assert module.Reloaded is not earlier
    assert REGISTRY.find("tests.Reloaded", 1) is module.Reloaded


def test_the_same_name_in_two_modules_is_an_error_that_names_both() -> None:
    source = 'from messages import Event\nclass First(Event, name="tests.registry.Happened"):\n    pass\n'
    with pytest.raises(DefinitionError) as caught:
        exec(source, {"__name__": "elsewhere"})  # noqa: S102 - a module of the test's own
    assert "elsewhere.First" in str(caught.value)
    assert f"{First.__module__}.First" in str(caught.value)
