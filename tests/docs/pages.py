"""A page as its reader meets it: blocks of code and of what they print, each with its language and its note."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```(?P<language>\w+)(?: (?P<note>\w+))?\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of a page; `line` is that of its first line of code, `note` the word behind its language."""

    page: Path
    language: str
    note: str
    code: str
    line: int

    @property
    def raises(self) -> bool:
        """Whether it is there to be refused."""
        return self.note == "raises"

    def run(self, module: ModuleType) -> None:
        """Run it where the page has it: places in errors are lines of the page."""
        code = compile("\n" * (self.line - 1) + self.code, str(self.page), "exec", dont_inherit=True)
        exec(code, vars(module))  # noqa: S102


def blocks_of(page: Path) -> Sequence[Block]:
    """The blocks of a page, in its order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page=page,
            language=match["language"],
            note=match["note"] or "",
            code=match["code"],
            line=text.count("\n", 0, match.start("code")) + 1,
        )
        for match in _BLOCK.finditer(text)
    ]
