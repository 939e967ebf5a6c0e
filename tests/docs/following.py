"""Follows the tutorial as its reader does: writes its files as far as a section has them, and runs what it says to run.

A block of Python says in its note where it belongs: `travel` and `desks` are those files, `story` is one of its own; a
piece of `tried` or `wrong` stands in the class for its section only. A piece that is indented is of the class: what has
a name that the class knows takes its place.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.docs.pages import DOCS, blocks_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.docs.pages import Block

PAGE = DOCS / "tutorial.md"
ROOT = DOCS.parent


@dataclass(frozen=True, kw_only=True)
class Travel:
    """`travel.py`: what stands above the class, its first line, and what it holds, by name in the order written."""

    above: str = ""
    title: str = ""
    members: Mapping[str, str] = field(default_factory=dict)

    def with_piece(self, code: str) -> Travel:
        """The file with one more piece."""
        if code.startswith(" "):
            return replace(self, members=_merged(self.members, code))
        above, title, body = code.partition("class BookTrip")
        if not title:
            return replace(self, above=f"{self.above}{code}\n")
        first, _, rest = body.partition("\n")
        return Travel(above=above, title=f"{title}{first}", members=_merged({}, rest))

    @property
    def text(self) -> str:
        """The whole file."""
        return f"{self.above}{self.title}\n" + "\n".join(self.members.values())


def _merged(members: Mapping[str, str], code: str) -> dict[str, str]:
    """New fields stand behind the fields, new methods behind the methods, the flow at the end."""
    new = {**members, **dict(_members(code))}
    return dict(sorted(new.items(), key=lambda member: _rank(member[1])))


def _rank(code: str) -> int:
    if code.lstrip().startswith("flow ="):
        return 2
    return 1 if "def " in code else 0


def _members(code: str) -> Iterator[tuple[str, str]]:
    """Each member of a class body with its name; a method begins with a blank line."""
    lines = code.splitlines()
    for node in ast.parse(f"class _:\n{code}").body[0].body:  # type: ignore[attr-defined]
        match node:
            case ast.FunctionDef(name=name, decorator_list=[decorator, *_]):
                start, blank = decorator.lineno, "\n"
            case ast.AnnAssign(target=ast.Name(id=name)):
                start, blank = node.lineno, ""
            case ast.Assign(targets=[ast.Name(id=name)]):
                start, blank = node.lineno, "\n"
            case _:
                raise ValueError(f"a piece of a class holds fields, methods and a flow: {ast.unparse(node)}")
        yield name, blank + "\n".join(lines[start - 2 : node.end_lineno - 1])


@dataclass(frozen=True, kw_only=True)
class Try:
    """A story, or a mistake, with the file as it stands there and what the page says is printed."""

    travel: Travel
    story: str
    printed: str
    line: int


def tries() -> Sequence[Try]:
    """Everything that the reader is told to run, in the order of the page."""
    found: list[Try] = []
    travel = tried = Travel()
    story: Block | None = None
    for block in blocks_of(PAGE):
        match block.note:
            case "travel":
                travel = tried = travel.with_piece(block.code)
            case "tried" | "wrong":
                tried = travel.with_piece(block.code)
                story = replace(block, code="import travel\n") if block.note == "wrong" else None
            case "story":
                story = block
            case "" if block.language == "text" and story is not None:
                found.append(Try(travel=tried, story=story.code, printed=block.code, line=block.line))
                story, tried = None, travel
    return found


def files() -> Mapping[str, str]:
    """The files at the end of the page."""
    blocks, travel = blocks_of(PAGE), Travel()
    for block in blocks:
        if block.note == "travel":
            travel = travel.with_piece(block.code)
    [desks] = [block.code for block in blocks if block.note == "desks"]
    return {"travel.py": travel.text, "desks.py": desks}


def commands() -> Sequence[tuple[str, str]]:
    """What is typed into the second terminal, each with what the page says it prints; empty where it does not say."""
    found: list[tuple[str, str]] = []
    for block in blocks_of(PAGE):
        lines = block.code.splitlines()
        if block.language == "sh" and all(line.startswith("antiphon ") for line in lines):
            found += [(line, "") for line in lines]
        elif block.language == "text" and found and block.note == "":
            found[-1] = (found[-1][0], block.code)
    return found


def told(folder: Path, files: Mapping[str, str], story: str) -> str:
    """What a story prints, or the last line of why it cannot, in a folder with these files."""
    for name, text in {**files, "story.py": story}.items():
        (folder / name).write_text(text, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "story.py"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout if not ran.returncode else ran.stderr.splitlines(keepends=True)[-1].replace(f"{folder}/", "")
