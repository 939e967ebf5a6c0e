"""Every fault has its row, and every test that a row names is there."""

from __future__ import annotations

import re

import pytest

from tests.docs.test_guarantees import ROOT, names_in

PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| F(?P<number>\d+) \|(?P<cells>.*)\|(?P<tests>[^|]*)\|$", re.MULTILINE)
NAMED = re.compile(r"`(tests/[^`]+?\.py)::([^`]+)`")
FAULTS = 64


def test_every_fault_has_one_row_that_says_what_how_and_what_must_come_of_it() -> None:
    rows = {int(row["number"]): [cell.strip() for cell in row["cells"].split("|")] for row in ROW.finditer(PAGE)}
    assert list(rows) == list(range(1, FAULTS + 1))
    assert all(len(cells) == 3 and all(cells) for cells in rows.values())
    assert all(NAMED.search(row["tests"]) for row in ROW.finditer(PAGE))


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED.findall(PAGE))))
def test_a_test_that_is_named_is_there(path: str, name: str) -> None:
    assert name in names_in(ROOT / path)
