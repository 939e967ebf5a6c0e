"""`antiphon demo` as a process: what it shows, what it leaves, and that no kill makes it lose an order."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from runtime.demo.orders import DECLINED, LATE, SILENT, SMOOTH, SOLD_OUT, STORIES, Order, orders, told
from runtime.exits import CONFIGURATION, FAILED, OK, USAGE
from tests.runtime.terminal import on_terminal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runtime.conftest import Command
    from tests.runtime.processes import Process

FILE = "antiphon-demo.db"
ADDRESS = f"sqlite:///{FILE}"


def rows(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    """What a question to the demo's file says, asked past all of our code."""
    with closing(sqlite3.connect(folder / FILE)) as connection:
        return connection.execute(sql).fetchall()


def effects(folder: Path) -> dict[str, tuple[str, int, str, str]]:
    """By order: its status, its reservations, and what became of its payment and of its label."""
    found = rows(
        folder,
        """
        select business_key, status,
               (select count(*) from stock_reservation r where r.order_id = business_key),
               (select coalesce(group_concat(p.status), '') from payment p where p.order_id = business_key),
               (select coalesce(group_concat(l.status), '') from shipping_label l where l.order_id = business_key)
        from v_saga
        """,
    )
    return {key: (status, reserved, paid, label) for key, status, reserved, paid, label in found}


LEFT = {
    SMOOTH: ("completed", 1, "taken", "created"),
    SOLD_OUT: ("compensated", 0, "", ""),
    DECLINED: ("compensated", 0, "", ""),
    LATE: ("compensated", 0, "refunded", ""),
    SILENT: ("compensated", 0, "refunded", "voided"),
}
"""What each story leaves in the tables of the participants: all of its effects, or none that still holds."""


def check(folder: Path) -> list[Order]:
    """Hold every order in the file to its story, and that nothing else is left; returns the orders."""
    stood = effects(folder)
    found = [order for key in stood if (order := told(key))]
    assert stood == {order.key: LEFT[order.story] for order in found}
    (taken,) = rows(folder, "select 1000000 - on_hand from stock_level where sku = 'teapot'")
    assert taken == (sum(1 + order.number % 3 for order in found if order.story is SMOOTH),)
    assert rows(folder, "select message_id from v_outbox union all select name from v_timer") == []
    assert rows(folder, "select reason from v_dead_letter union all select reason from v_held") == []
    return found


# what there is to see


def test_most_orders_are_completed_and_every_other_story_is_told_and_undone(antiphon: Command, folder: Path) -> None:
    done = antiphon("demo", "--json")
    assert (done.returncode, done.stderr) == (OK, "")
    shown = json.loads(done.stdout)
    assert shown["as_expected"] is True
    ends = Counter((each["status"], each["end_reason"]) for each in shown["orders"])
    assert ends["compensated", "timed_out"] == 2
    assert ends["completed", None] > ends["compensated", "failed"] >= 2
    assert len(shown["orders"]) == len(check(folder)) == 20
    assert {order.story for order in check(folder)} == set(STORIES)


def test_what_it_tells_is_in_order_of_time_and_what_it_proposes_works(antiphon: Command, folder: Path) -> None:
    first = antiphon("demo", "--orders", "5")
    assert (first.returncode, first.stderr) == (OK, "")
    assert "Timeouts are shortened for the demo: pay 5 min to 1 s, label 2 min to 1 s." in first.stdout
    for order in orders(1, 5):
        assert f"  {order.key}" in first.stdout
        assert order.story.plot in first.stdout
    done, undone = re.findall(r"^(demo-1-\S+)  (?:completed|compensated)\n((?: +\d.+\n)+)", first.stdout, re.MULTILINE)
    assert (told(done[0]), told(undone[0])) == (orders(1, 5)[0], orders(1, 5)[1])
    for timeline in (done[1], undone[1]):
        times = [float(line.split()[0]) for line in timeline.splitlines()]
        assert times == sorted(times)
    assert [line.split()[-1] for line in undone[1].splitlines() if "→  undo" in line] == [
        "warehouse.VoidShippingLabel",
        "payment.RefundPayment",
        "stock.ReleaseStock",
    ]
    proposed = [line.split("#")[0].split() for line in first.stdout.split("What to try next\n")[1].splitlines()]
    assert proposed[0] == ["export", f"ANTIPHON_DATABASE_URL={ADDRESS}"]
    assert [command[0] for command in proposed[1:]] == ["antiphon"] * 4
    for command in proposed[1:3]:
        assert "demo-1-02-silent" in antiphon(*command[1:], database_url=ADDRESS).stdout

    second = antiphon("demo", "--orders", "2")
    assert (second.returncode, second.stderr) == (OK, "")
    assert "2 orders of run 2" in second.stdout
    assert sorted(order.run for order in check(folder)) == [1] * 5 + [2] * 2


def test_on_a_terminal_there_is_a_bar_and_colour_unless_nobody_wants_any(folder: Path) -> None:
    smallest = ("demo", "--orders", "1")
    coloured, plain = on_terminal(folder, *smallest), on_terminal(folder, *smallest, NO_COLOR="1")
    for shown in (coloured, plain):
        assert "1/1" in shown
        told_of = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", shown.split("What to try next")[0])
        assert max(map(len, re.split(r"[\r\n]+", told_of))) <= 80
    assert re.search(r"\x1b\[[0-9;]*3\d", coloured)
    assert not re.search(r"\x1b\[[0-9;]*3\dm", plain)


# kills


def test_what_a_killed_demo_had_begun_is_finished_by_resume_and_nothing_is_doubled(
    antiphon: Command, started: Callable[..., Process], folder: Path
) -> None:
    first = started("demo")
    for _ in range(3):
        first.says("completed")
    first.kill()
    again = started("demo", "--resume")
    again.says("was stopped with")
    again.kill()
    last = antiphon("demo", "--resume")
    assert (last.returncode, last.stderr) == (OK, "")
    assert re.search(r"Run 1 was stopped with \d+ orders? under way", last.stdout)
    assert re.search(r"(\d+) of \1 orders? under way when it was stopped have been finished", last.stdout)
    found = check(folder)
    assert [order.key for order in orders(1, 20)[: len(found)]] == sorted(order.key for order in found)

    over = antiphon("demo", "--resume")
    assert (over.returncode, over.stderr) == (OK, "")
    assert over.stdout.startswith(f"Nothing to resume: {len(found)} orders in {FILE}, and all have ended.")


BESIDE_SLOW_ONES = "demo-1-04-"
"""When this order has ended, the two before it, a silent and a late one, still take seconds."""


def test_a_new_run_finishes_what_an_earlier_one_had_begun_and_says_so(
    antiphon: Command, started: Callable[..., Process], folder: Path
) -> None:
    first = started("demo", "--orders", "6")
    first.says(BESIDE_SLOW_ONES)
    first.kill()
    second = antiphon("demo", "--orders", "1")
    assert (second.returncode, second.stderr) == (OK, "")
    assert "under way: beside them these are finished now" in second.stdout
    assert {order.run for order in check(folder)} == {1, 2}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_and_it_says_how_to_go_on(
    antiphon: Command, started: Callable[..., Process], folder: Path, number: signal.Signals
) -> None:
    first = started("demo")
    first.says(BESIDE_SLOW_ONES)
    first.send(number)
    assert first.ended() == FAILED
    assert first.stderr == ""
    first.says("To finish: antiphon demo --resume")
    assert antiphon("demo", "--resume").returncode == OK
    check(folder)


# what goes wrong


@pytest.mark.parametrize("count", ["0", "-3", "many"])
def test_a_number_of_orders_that_cannot_be_is_a_usage_error(antiphon: Command, folder: Path, count: str) -> None:
    done = antiphon("demo", "--orders", count)
    assert done.returncode == USAGE
    assert "--orders" in done.stderr
    assert list(folder.iterdir()) == []


def test_an_order_that_does_not_end_as_expected_makes_it_fail(antiphon: Command) -> None:
    sold_out = json.loads(Order(run=1, number=1, story=SOLD_OUT).placed())
    body = json.dumps({**sold_out, "order_id": "demo-1-01-smooth"})
    assert antiphon("migrate", database_url=ADDRESS).returncode == OK
    assert antiphon("publish", "ordering.OrderPlaced", body, database_url=ADDRESS).returncode == OK
    done = antiphon("demo", "--resume")
    assert done.returncode == FAILED
    assert "demo-1-01-smooth was to be completed, and is compensated (failed)." in done.stdout


def test_two_at_once_in_one_folder_are_one_too_many(antiphon: Command, started: Callable[..., Process]) -> None:
    first = started("demo", "--orders", "6")
    first.says(BESIDE_SLOW_ONES)
    first.send(signal.SIGSTOP)
    second = antiphon("demo")
    first.send(signal.SIGCONT)
    assert second.returncode == CONFIGURATION
    assert f"{FILE} is in use" in second.stderr
    assert first.ended() == OK


def test_a_folder_that_cannot_be_written_is_named(antiphon: Command, folder: Path) -> None:
    (folder / f"{FILE}.lock").mkdir()  # permissions would not stop root
    done = antiphon("demo")
    assert done.returncode == CONFIGURATION
    assert "must lie in a folder that can be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_there_is_nothing_to_resume_before_the_first_run(antiphon: Command, folder: Path) -> None:
    done = antiphon("demo", "--resume")
    assert (done.returncode, done.stderr) == (OK, "")
    assert done.stdout == f"Nothing to resume: no order was begun in {FILE}. antiphon demo begins some.\n"
    assert json.loads(antiphon("demo", "--resume", "--json").stdout)["orders"] == []
    assert list(folder.iterdir()) == []


# the orders


@pytest.mark.parametrize("count", range(1, 6))
def test_a_few_orders_tell_a_story_each(count: int) -> None:
    stories = [order.story for order in orders(1, count)]
    assert len(set(stories)) == count
    assert stories[0] is SMOOTH


@pytest.mark.parametrize("count", [10, 20, 200])
def test_of_many_orders_most_are_smooth_and_one_is_late_and_one_silent(count: int) -> None:
    told_by = Counter(order.story for order in orders(1, count))
    assert told_by.total() == count
    assert told_by[SMOOTH] >= count // 2
    assert (told_by[LATE], told_by[SILENT]) == (1, 1)


def test_an_order_is_known_again_by_its_id_alone() -> None:
    for order in orders(12, 300):
        assert told(order.key) == order
    for stranger in ("demo-1-01", "demo-0-01-smooth", "demo-1-1-smooth", "demo-1-01-rough", "order-4711", ""):
        assert told(stranger) is None
