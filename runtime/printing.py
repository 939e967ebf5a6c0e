"""What commands print for people and for programs: tables and JSON on stdout."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from messages.printable import printable
from runtime.tables import Table, folded

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LONGEST = 2_000
"""Characters of the longest value that a table shows."""

FACT = 12
"""How wide the names of facts are at least."""

_ENDLESS = 100_000

STATUS_STYLES = {
    "completed": "green",
    "running": "cyan",
    "compensating": "yellow",
    "compensated": "yellow",
    "parked": "bold red",
    "ok": "green",
    "problem": "bold red",
    "open": "red",
}


def console() -> Console:
    """Where people read; colours and width follow the terminal, `NO_COLOR` is honoured.

    It wraps nothing: what is laid out here is as wide as the terminal, or as wide as it likes where there is none. A
    word that is wider is left whole, so that it can be copied.
    """
    width = None if sys.stdout.isatty() else _ENDLESS
    return _Console(file=sys.stdout, highlight=False, soft_wrap=True, width=width)


class _Console(Console):
    """One that leaves it to `runtime.shell` what becomes of a command whose reader has gone."""

    def on_broken_pipe(self) -> None:
        """Called while the error is handled."""
        raise  # noqa: PLE0704


def print_json(value: object) -> None:
    """One JSON document, dates in ISO 8601 UTC; ASCII only, so that nothing in it can play with a terminal."""
    sys.stdout.write(json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def print_onward(out: Console, command: str, *options: str) -> None:
    """The command that shows the next page, on one line however narrow the terminal, so that it can be copied."""
    out.print(Text(f"and more: {command} {shlex.join(options)}"))


def print_facts(out: Console, facts: Iterable[tuple[str, object]], style: str = "") -> None:
    """Names and what they are, one below the other; what is empty is left out, what is long goes on below itself."""
    told = [(name, line(shown(value), style)) for name, value in facts if shown(value)]
    longest = max([FACT, *(cell_len(name) for name, _ in told)])
    for name, text in told:
        print_folded(out, Text(f"  {name:<{longest}} "), text)


def print_folded(out: Console, begun: Text, *texts: Text) -> None:
    """Texts one below the other, all behind what is begun; one that is long goes on below itself."""
    for text in texts:
        for wrapped in folded(begun, text, out.width):
            out.print(wrapped)
        begun = Text(" " * begun.cell_len)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table without heavy lines; words that are a status are coloured. Nothing in it is taken for markup."""
    return Table(columns=columns, rows=[[cell(value) for value in row] for row in rows])


def line(text: str, style: str = "") -> Text:
    """One line that holds what came from outside: control characters and direction marks are shown, not obeyed."""
    return Text(printable(text, LONGEST), style=style)


def cell(value: object) -> Text:
    """One value as people read it."""
    if isinstance(value, Text):
        return value
    text = shown(value)
    return line(text, STATUS_STYLES.get(text, ""))


def counted(number: int, one: str, many: str) -> str:
    """A number with its words: `1 queue is read`, `2 queues are read`."""
    return f"{number} {one if number == 1 else many}"


def shown(value: object) -> str:
    """A value in words: nothing for None, local time without microseconds for a date."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def plain(value: object) -> object:
    """The value with nothing in it that JSON has no words for: AMQP headers may hold decimals, NaN and bytes."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return str(value)
