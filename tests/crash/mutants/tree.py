"""A copy of the product with a few lines changed, for processes that are to run it instead of the sound one."""

from __future__ import annotations

import ast
import shutil
from typing import TYPE_CHECKING

from messages.value import value
from tests.crash.forking import PACKAGES, ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class PatchError(AssertionError):
    """A mutant does not apply: the product has changed where it is to be changed. Write the mutant anew."""


@value
class Edit:
    """In this file these lines, which stand there once, are replaced."""

    file: str
    old: str
    new: str


def changed(edits: Sequence[Edit], folder: Path) -> Path:
    """Copy the product into a folder and change it there; returns where it is.

    Raises:
        PatchError: the text to be replaced is not there exactly once, or what comes of it is no Python.
    """
    tree = folder / "tree"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package)
    for edit in edits:
        _apply(edit, tree / edit.file)
    return tree


def _apply(edit: Edit, file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    if (times := text.count(edit.old)) != 1:
        raise PatchError(f"{edit.file} has {times} times instead of once:\n{edit.old}")
    mutated = text.replace(edit.old, edit.new)
    try:
        ast.parse(mutated)
    except SyntaxError as error:
        raise PatchError(f"{edit.file} is no Python any more: {error}") from None
    file.write_text(mutated, encoding="utf-8")
