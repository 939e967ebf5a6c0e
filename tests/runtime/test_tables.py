"""Tables on a terminal of any width: what people copy stays whole, and nothing is as narrow as a finger."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from runtime.printing import print_facts, table
from tests.runtime.terminal import on_terminal
from tests.runtime.test_dead import asked, command

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.runtime.office import Office

ID = "4ab29854-2ec1-494c-8864-57ee3f7e66ae"
COLUMNS = ("key", "status", "reason", "saga id", "error")
ERROR = "Tiny.asked: KeyError: 'sku' (shop.py:42) while it looked for what the customer had asked for"
ROWS = [("order-1", "open", "method_raised", ID, ERROR), ("order-2", "replayed", "malformed", ID, "order_id: missing")]


def printed(width: int, content: object) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, soft_wrap=True, highlight=False).print(content)
    return file.getvalue().splitlines()


def test_a_table_that_fits_has_a_line_for_each_row() -> None:
    head, rule, *rows = printed(200, table(COLUMNS, ROWS))
    assert head == f"key      status    reason         {'saga id':<36}  error"
    assert rule == "─" * 164
    assert rows == [
        f"order-1  open      method_raised  {ID}  {ERROR}",
        f"order-2  replayed  malformed      {ID}  order_id: missing",
    ]


def test_the_last_column_goes_on_below_itself_where_there_is_some_room() -> None:
    _, _, first, more, *_ = printed(120, table(COLUMNS, ROWS))
    assert first == f"order-1  open      method_raised  {ID}  Tiny.asked: KeyError: 'sku' (shop.py:42) while"
    assert more == " " * 72 + "it looked for what the customer had asked for"


def test_what_has_no_room_stands_below_its_row_with_its_name() -> None:
    assert printed(60, table(COLUMNS, ROWS)) == [
        "key      status    reason",
        "─" * 32,
        "order-1  open      method_raised",
        f"    saga id: {ID}",
        "    error: Tiny.asked: KeyError: 'sku' (shop.py:42) while it",
        "           looked for what the customer had asked for",
        "order-2  replayed  malformed",
        f"    saga id: {ID}",
        "    error: order_id: missing",
    ]


@pytest.mark.parametrize("width", [1, 10, 40, 60, 80, 100, 200])
def test_no_word_is_ever_broken(width: int) -> None:
    long = "k" * 255
    shown = printed(width, table(COLUMNS, [*ROWS, (long, "open", "no_key", ID, "")]))
    words = {word for line in shown for word in line.split()}
    assert {word for row in ROWS for value in row for word in value.split()} | {long} <= words


def test_a_key_as_long_as_a_page_leaves_the_other_rows_in_their_columns() -> None:
    *_, first, second = printed(80, table(("key", "status"), [("k" * 100, "open"), ("o-1", "open")]))[1:]
    assert (first, second) == (f"{'':<55}open", f"{'o-1':<55}open")


def test_wide_characters_take_the_room_they_need() -> None:
    _, _, *rows = printed(80, table(("key", "status"), [("注文", "open"), ("o-1", "open")]))
    assert rows == ["注文  open", "o-1   open"]


def test_a_table_without_rows_is_its_head() -> None:
    assert printed(80, table(("field", "value"), [])) == ["field  value", "─" * 12]


def test_facts_stand_below_one_another_and_go_on_below_themselves() -> None:
    file = io.StringIO()
    facts: Iterable[tuple[str, object]] = [("reason", "malformed"), ("header schema-version", 1), ("none", None)]
    out = Console(file=file, width=40, soft_wrap=True, highlight=False)
    print_facts(out, [*facts, ("error", "order_id: Field required, and so on")])
    assert file.getvalue().splitlines() == [
        "  reason                malformed",
        "  header schema-version 1",
        "  error                 order_id: Field",
        "                        required, and so",
        "                        on",
    ]


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_on_any_terminal_a_list_of_dead_letters_can_be_read_and_copied(small: Office, columns: int) -> None:
    small.keep(asked("1", error=ERROR), command("2", error=ERROR, reason="handler_raised"))
    shown = on_terminal(small.folder, "dead", "list", COLUMNS=str(columns), NO_COLOR="1", **_environment(small))
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()]
    assert len(lines) < 15
    assert max(map(len, lines)) <= columns
    for whole in ("method_raised", "handler_raised", "participant.worker", "tiny.Asked", "KeyError"):
        assert any(re.search(rf"(^|\s){whole}(\s|$)", line) for line in lines), whole


def _environment(office: Office) -> dict[str, str]:
    return {f"ANTIPHON_{name.upper()}": value for name, value in office.settings.items()}


def test_piped_a_row_is_a_line_however_long(small: Office) -> None:
    small.keep(asked("1", error="x" * 1_500))
    _, _, row = small.dead("list").stdout.splitlines()
    assert row.endswith("x" * 1_500)


def test_on_a_narrow_terminal_the_head_of_an_instance_stays_in_its_column(small: Office) -> None:
    small.keep(asked("1"))
    assert small.dead("replay", "--all").returncode == 0
    shown = on_terminal(small.folder, "sagas", "show", "1", COLUMNS="60", NO_COLOR="1", **_environment(small))
    head = re.sub(r"\x1b\[[0-9;]*m", "", shown).split("Steps")[0].splitlines()
    assert [line for line in head[1:] if line.strip() and not line.startswith("  ")] == []
    assert max(map(len, head)) <= 60
    assert [line for line in head if re.match(r" {15}\S", line)] != []
