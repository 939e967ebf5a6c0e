"""Caches of mypy for tests that check what imports Antiphon, so that each need not check Antiphon itself again."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

MYPY_CACHE = Path(__file__).parents[2] / ".mypy_cache"
_OF_THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def seeded(folders: pytest.TempPathFactory) -> str:
    """A folder with a copy of what the check of this repository has left, if there was one.

    mypy compares the content of what it finds there, and so it is of use for copies of the source too.
    """
    cache = folders.mktemp("mypy")
    if (known := MYPY_CACHE / _OF_THIS_PYTHON).exists():
        shutil.copytree(known, cache / _OF_THIS_PYTHON)
    return str(cache)
