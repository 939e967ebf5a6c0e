"""Tables for people, on a terminal of any width.

No value is broken in the middle of a word, so that an id or a key can be copied from any terminal. The columns come in
the order of their importance, the longest text last: those for which there is no room stand below their row, each with
its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

GAP = "  "
INDENT = "    "
LONGEST_RULE = 200
LEAST_OF_THE_LAST = 40
"""So much room, if it needs as much, the last column gets beside the others, where it goes on below itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of as many texts as there are columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Text]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines."""
        places = self._places(options.max_width)
        head = [Text(name, style="bold") for name in self.columns]
        yield from _row(head, places, options.max_width)
        yield Text("─" * min(options.max_width, LONGEST_RULE, max(end for _, end in places.values())))
        for row in self.rows:
            yield from _row(row, places, options.max_width)
            yield from self._below(row, places, options.max_width)

    def _places(self, width: int) -> dict[int, tuple[int, int]]:
        """Where the columns begin and end that stand beside one another, by their number."""
        places: dict[int, tuple[int, int]] = {}
        begin, last = 0, len(self.columns) - 1
        for number, name in enumerate(self.columns):
            wide = max(cell_len(name), *(row[number].cell_len for row in self.rows), 0)
            least = min(wide, LEAST_OF_THE_LAST) if number == last else wide
            if number and begin + least > width:
                continue
            end = begin + (min(wide, width * 2 // 3) if number == 0 else wide)
            places[number] = (begin, min(end, width))
            begin = end + len(GAP)
        return places

    def _below(self, row: Sequence[Text], places: dict[int, tuple[int, int]], width: int) -> Iterator[Text]:
        """What the row holds in the columns for which there is no room, as much on a line as fits."""
        written = Text()
        for number, name in enumerate(self.columns):
            if number in places or not row[number]:
                continue
            named = Text.assemble((f"{name}: ", "dim")) if name else Text()
            if written and written.cell_len + len(GAP) + named.cell_len + row[number].cell_len <= width:
                written = Text.assemble(written, GAP, named, row[number])
                continue
            if written:
                yield written
            *whole, written = folded(Text.assemble(INDENT, named), row[number], width)
            yield from whole
        if written:
            yield written


def _row(row: Sequence[Text], places: dict[int, tuple[int, int]], width: int) -> Iterator[Text]:
    """The cells in their places; behind one that is wider than its place the next begins on a line of its own."""
    written = Text()
    for number, (begin, _) in places.items():
        if number and written.cell_len > begin - len(GAP):
            yield written
            written = Text()
        written.append(" " * (begin - written.cell_len))
        *whole, written = folded(written, row[number], width)
        yield from whole
    written.rstrip()
    yield written


def folded(begun: Text, text: Text, width: int) -> Iterator[Text]:
    """The text behind what is begun, in lines of that width that begin where it began; no word is broken."""
    line = begun.copy()
    margin = " " * line.cell_len
    if line.cell_len + text.cell_len <= width:
        yield line.append_text(text)
        return
    empty = True
    for word in text.split(" "):
        if not empty and line.cell_len + 1 + word.cell_len > width:
            yield line
            line, empty = Text(margin), True
        if not empty:
            line.append(" ")
        line.append_text(word)
        empty = False
    yield line
