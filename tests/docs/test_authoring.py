"""The page for authors: its code runs from top to bottom, its errors are the real ones, its tables hold."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from messages.errors import DefinitionError
from sagas import Retry
from sagas.definition import Purpose
from sagas.keywords import DEADLINE, RETRY, TIMEOUT, class_keywords

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "authoring.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?P<language>\w+)(?P<note> \w+)?\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
PLACE = re.compile(r"\([^()]+:\d+\)")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of the page; `line` is that of its first line of code."""

    language: str
    raises: bool
    code: str
    line: int

    def run(self, module: ModuleType) -> None:
        """Run it where the page has it: places in errors are lines of the page."""
        exec(compile("\n" * (self.line - 1) + self.code, str(PAGE), "exec", dont_inherit=True), vars(module))  # noqa: S102


def blocks() -> list[Block]:
    return [
        Block(
            language=match["language"],
            raises=(match["note"] or "").strip() == "raises",
            code=match["code"],
            line=TEXT.count("\n", 0, match.start("code")) + 1,
        )
        for match in BLOCK.finditer(TEXT)
    ]


@pytest.fixture
def module() -> Iterator[ModuleType]:
    made = ModuleType("authoring_page")
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def test_the_page_runs_from_top_to_bottom(module: ModuleType) -> None:
    remaining = iter(blocks())
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
