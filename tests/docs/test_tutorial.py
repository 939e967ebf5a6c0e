"""The tutorial, followed to the letter: its stories print what it says, and it ends with the saga of the catalog."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest

from sagas import definition_of
from sagas.catalog.trip import BookTrip
from tests.docs.following import PAGE, Try, commands, files, told, tries
from tests.docs.pages import DOCS, blocks_of
from tests.runtime.conftest import antiphon, folder, started

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runtime.conftest import Command
    from tests.runtime.processes import Process

__all__ = ["antiphon", "folder", "started"]

TEXT = PAGE.read_text(encoding="utf-8")
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DIGESTS = """
from sagas import definition_of
from travel import BookTrip

digests = definition_of(BookTrip).digests
print(digests.shape, digests.state, digests.policy, digests.code)
"""


@pytest.mark.parametrize("each", tries(), ids=lambda each: f"line {each.line}")
def test_what_the_reader_runs_prints_what_the_page_says(each: Try, tmp_path: Path) -> None:
    assert told(tmp_path, {"travel.py": each.travel.text}, each.story) == each.printed


def test_the_first_file_stands_as_the_page_has_it() -> None:
    """So that the lines in what is printed are those of the reader's file."""
    assert f"{tries()[0].travel.text}\n" == blocks_of(PAGE)[1].code


def test_every_word_of_the_page_has_its_story() -> None:
    assert len(tries()) > 8


def test_the_last_file_is_the_saga_of_the_catalog(tmp_path: Path) -> None:
    """In its shape, in what it remembers, in its patience, and in what its methods do."""
    digests = definition_of(BookTrip).digests
    assert told(tmp_path, files(), DIGESTS).split() == [digests.shape, digests.state, digests.policy, digests.code]


def test_the_travellers_of_the_page_travel(antiphon: Command, started: Callable[..., Process], folder: Path) -> None:
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")
    process = started("run", modules="travel,desks")
    process.until("process.ready")
    shown = 0
    for line, printed in commands():
        ran = antiphon(*shlex.split(line)[1:], modules="travel,desks")
        assert (ran.returncode, ran.stderr) == (0, ""), line
        if trip := re.search(r'"trip_id": "(.+?)"', line):
            process.until("saga.compensated" if "9000" in line else "saga.completed", key=trip[1])
        assert rows(printed) <= rows(ran.stdout), line
        shown += bool(printed)
    assert shown == 3


def rows(printed: str) -> set[str]:
    """The lines of a table, each alike on every day and for every instance."""
    return {" ".join(ID.sub("id", TIME.sub("time", line)).split()) for line in printed.splitlines()}


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(links) > 4
    assert [link for link in links if not (DOCS / link).exists()] == []
