"""The page for authors: its code runs from top to bottom, its errors are the real ones, its tables hold."""

from __future__ import annotations

import re
import sys
from dataclasses import fields
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from messages.errors import DefinitionError
from sagas import Retry
from sagas.definition import Purpose
from sagas.keywords import DEADLINE, RETRY, TIMEOUT, class_keywords
from testkit import Golden
from tests.docs.pages import DOCS, blocks_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = DOCS / "authoring.md"
TEXT = PAGE.read_text(encoding="utf-8")
PLACE = re.compile(r"\([^()]+:\d+\)")


@pytest.fixture
def module() -> Iterator[ModuleType]:
    made = ModuleType("authoring_page")
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def test_the_page_runs_from_top_to_bottom(module: ModuleType) -> None:
    remaining = iter(blocks_of(PAGE))
    for block in remaining:
        if block.language != "python":
            continue
        if not block.raises:
            block.run(module)
            continue
        with pytest.raises(DefinitionError) as caught:
            block.run(module)
        shown = next(remaining)
        assert shown.language == "text"
        assert PLACE.sub("", str(caught.value)) == PLACE.sub("", shown.code).rstrip("\n")
        assert _lines(str(caught.value), since=block.line) == _lines(shown.code)


def test_the_golden_of_the_page_is_written_and_holds(module: ModuleType, tmp_path: Path) -> None:
    for block in blocks_of(PAGE):
        if block.language == "python" and not block.raises:
            block.run(module)
    for update in (True, False):
        vars(module)["test_who_cannot_fly_goes_by_rail"](Golden(folder=tmp_path, update=update))
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.json")] == ["LongTrip-1/by_rail.json"]


def _lines(text: str, since: int = 1) -> list[int]:
    return [int(line) - since + 1 for line in re.findall(r"\([^()]+:(\d+)\)", text)]


def test_every_keyword_of_the_class_statement_is_on_the_page() -> None:
    problems: list[str] = []
    class_keywords("X", {"key": "id", "nonsense": 1}, problems.append)
    known = problems[0].rpartition("there are ")[2].split(", ")
    assert len(known) > 1
    for keyword in known:
        assert f"| `{keyword}=" in TEXT


def test_every_part_of_a_retry_is_on_the_page() -> None:
    table = TEXT[TEXT.index("## Patience") : TEXT.index("## What the state may hold")]
    for field in fields(Retry):
        assert f"{field.name}=" in table


def test_the_defaults_on_the_page_are_the_real_ones() -> None:
    do, undo = RETRY[Purpose.DO], RETRY[Purpose.UNDO]
    assert f"| {TIMEOUT.seconds} s |" in TEXT
    assert f"| {do.attempts}; compensation {undo.attempts} |" in TEXT
    assert (do.backoff.seconds, do.factor) == (1, 2.0)
    assert "| 1 s, doubled each time |" in TEXT
    assert f"| {do.cap.seconds // 60} min; compensation {undo.cap.seconds // 3600} h |" in TEXT
    assert f"| {do.jitter} |" in TEXT
    assert f"| {DEADLINE.days} days |" in TEXT
