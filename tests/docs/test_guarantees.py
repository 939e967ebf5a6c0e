"""Every promise names its tests, and every test that is named is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guarantees.md"
_ROW = re.compile(r"^\| \*\*(?P<promise>.+?)\*\*.*\|(?P<takes>[^|]*)\|(?P<tests>[^|]*)\|$")


def promises() -> list[tuple[str, list[str]]]:
    rows = [_ROW.match(line) for line in PAGE.read_text().splitlines()]
    return [(row["promise"], re.findall(r"`([^`]+)`", row["tests"])) for row in rows if row]


@cache
def names_in(file: Path) -> frozenset[str]:
    """What a test file defines or binds at its top."""
    names: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(names)


def test_there_are_promises() -> None:
    assert len(promises()) > 20


@pytest.mark.parametrize(("promise", "tests"), promises())
def test_a_promise_is_held_by_tests_that_exist(promise: str, tests: list[str]) -> None:
    assert tests, f"{promise} no test holds it"
    for test in tests:
        path, _, name = test.partition("::")
        assert name in names_in(ROOT / path), f"{promise} {test} is not there"
