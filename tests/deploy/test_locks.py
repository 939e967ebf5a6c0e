"""The lock files: what pyproject.toml asks for, pinned and hashed, and nothing of the machine that wrote them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
TO_RUN: list[str] = [*PYPROJECT["project"]["dependencies"], *EXTRAS["psycopg"], *EXTRAS["uvloop"]]
WANTED = {"requirements.lock": TO_RUN, "requirements-dev.lock": [*TO_RUN, *EXTRAS["dev"]]}
PIN = re.compile(r"^([\w.-]+)(?:\[[\w,-]+\])?==(\S+)", re.MULTILINE)


def pins(lock: str) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in PIN.findall((ROOT / lock).read_text())}


@pytest.mark.parametrize("lock", WANTED)
def test_every_dependency_is_pinned_to_a_version_that_will_do(lock: str) -> None:
    pinned = pins(lock)
    wanted = [Requirement(text) for text in [*WANTED[lock], *PYPROJECT["build-system"]["requires"]]]
    wrong = [
        str(requirement)
        for requirement in wanted
        if requirement.name != PYPROJECT["project"]["name"]
        and not requirement.specifier.contains(pinned.get(canonicalize_name(requirement.name), "0"))
    ]
    assert wrong == [], "`make lock` writes the locks anew"


@pytest.mark.parametrize("lock", WANTED)
def test_every_pin_has_a_hash_and_none_an_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    blocks = [block for block in re.split(r"^(?=\S)", text, flags=re.MULTILINE) if block.strip()]
    assert len(blocks) == len(pins(lock))
    assert all("--hash=sha256:" in block for block in blocks)
    assert not re.search(r"https?://|file:|--(extra-)?index-url|--find-links|\B/\w", text)


def test_both_locks_pin_the_same_versions() -> None:
    production, development = pins("requirements.lock"), pins("requirements-dev.lock")
    assert production.items() <= development.items()
