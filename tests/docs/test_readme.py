"""The first page: its code runs, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_saga_and_its_test_run() -> None:
    module = ModuleType("readme")
    sys.modules[module.__name__] = module
    try:
        for code in re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE):
            exec(compile(code, "README.md", "exec", dont_inherit=True), vars(module))  # noqa: S102
    finally:
        del sys.modules[module.__name__]
    assert module.trip.status == "compensated"


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(links) > 10
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_every_command_exists() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "runtime", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for command in set(re.findall(r"^antiphon (\w+)", TEXT, re.MULTILINE)):
        assert re.search(rf"^  {command}\b", shown, re.MULTILINE), f"antiphon {command}"


def test_every_make_target_exists() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"^make (\w+)", TEXT, re.MULTILINE)) <= set(targets)
