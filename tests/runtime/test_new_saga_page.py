"""The page for newcomers: its commands and its code, followed from top to bottom in an empty folder."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.runtime.conftest import Command
    from tests.runtime.processes import Process

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "new-saga.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?P<language>\w+)(?P<note> \w+)?\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"in `([\w/]+\.py)`")
REFUSAL = re.compile(r"^It refuses: \*(.+)\*", re.MULTILINE)
MODULES = {"modules": "refund_order"}


class Reader:
    """Somebody who does what the page says."""

    def __init__(self, folder: Path, antiphon: Command, started: Callable[..., Process]) -> None:
        self.folder, self.said = folder, ""
        self.running: Process | None = None
        self._antiphon, self._started = antiphon, started

    def types(self, line: str, *, refused: bool) -> None:
        program, *words = shlex.split(line)
        if line == "antiphon run":
            self._runs(refused=refused)
        elif program == "antiphon":
            done = self._antiphon(*words, **({} if words[0] == "new" else MODULES))
            assert done.returncode == 0, done.stderr
            self.said = done.stdout
            if words[0] == "publish":
                self._waits_for(json.loads(words[-1])["order_id"])
        elif program == "python":
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}
            subprocess.run([sys.executable, *words], cwd=self.folder, env=environment, check=True)
        elif program == "rm":
            for path in self.folder.glob(words[0]):
                path.unlink()
        else:
            assert program in ("pip", "export"), line

    def edits(self, name: str, code: str) -> None:
        """Put the definitions of the code in the place of those of the same names, and its imports at the top."""
        path = self.folder / name
        path.write_text(merged(path.read_text(), code))

    def _runs(self, *, refused: bool) -> None:
        if self.running is not None:
            self.running.send(signal.SIGINT)
            assert self.running.ended() == 0
        if refused:
            [told] = REFUSAL.findall(TEXT)
            done = self._antiphon("run", http_port="0", **MODULES)
            assert done.returncode == 78
            assert f"antiphon: {told}" in done.stderr
            self.running = None
        else:
            self.running = self._started("run", **MODULES)
            self.running.until("process.ready")

    def _waits_for(self, order: str) -> None:
        assert self.running is not None
        self.running.until("saga.compensated" if "refused" in order else "saga.completed", key=order)


def merged(text: str, code: str) -> str:
    """The text with what the code defines, members of classes one by one."""
    for node in ast.parse(code).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            text = re.sub(r"^(?=from (?!__future__))", f"{ast.unparse(node)}\n", text, count=1, flags=re.MULTILINE)
        elif isinstance(node, ast.ClassDef):
            before = ""
            for member in node.body:
                text = replaced(text, code, member, node.name, before)
                before = name_of(member)
        else:
            text = replaced(text, code, node, "", "")
    return text


def replaced(text: str, code: str, new: ast.stmt, owner: str, before: str) -> str:
    """The text with this statement in place of its namesake, or behind the one before it."""
    body: list[ast.stmt] = ast.parse(text).body
    if owner:
        [body] = [node.body for node in body if isinstance(node, ast.ClassDef) and node.name == owner]
    old = {name_of(node): node for node in body}
    lines, statement = text.splitlines(), code.splitlines()[first_line(new) - 1 : new.end_lineno]
    if name_of(new) in old:
        node = old[name_of(new)]
        lines[first_line(node) - 1 : node.end_lineno] = statement
    else:
        end = old[before].end_lineno
        assert end is not None
        lines[end:end] = statement
    return "\n".join(lines) + "\n"


def first_line(node: ast.stmt) -> int:
    """The line of its first decorator, or its own."""
    if isinstance(node, ast.FunctionDef) and node.decorator_list:
        return node.decorator_list[0].lineno
    return node.lineno


def name_of(node: ast.stmt) -> str:
    """What a statement defines; a docstring has no name."""
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
            return name
        case _:
            return ""


def test_whoever_follows_the_page_arrives(folder: Path, antiphon: Command, started: Callable[..., Process]) -> None:
    reader = Reader(folder, antiphon, started)
    for block in BLOCK.finditer(TEXT):
        if block["language"] == "sh":
            lines = block["code"].splitlines()
            for number, line in enumerate(lines, start=1):
                reader.types(line, refused=block["note"] == " refuses" and number == len(lines))
        elif block["language"] == "text":
            assert reader.said == block["code"]
        else:
            reader.edits(FILE.findall(TEXT[: block.start()])[-1], block["code"])
    assert reader.said.startswith("RefundOrder o-3  completed")
    assert re.search(r"^amount +12\.50$", reader.said, re.MULTILINE)


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", TEXT)
    assert len(links) > 3
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
