"""Paying out a batch as the page for authors shows it: its commands on SQLite, and what they say of so many items."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.runtime.conftest import Command
    from tests.runtime.processes import Process

PAGE = (Path(__file__).parents[2] / "docs" / "authoring.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("### Each of many") : PAGE.index("### A rest")]
[SHOWN] = re.findall(r"^```text\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
[(WRITES, COMMANDS)] = re.findall(
    r"^```sh\npython3 - > batch\.json <<'END'\n(.*?)^END\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE
)


def batch() -> dict[str, Any]:
    """What the page orders."""
    written = subprocess.run([sys.executable, "-c", WRITES], check=True, capture_output=True, text=True)
    return dict(json.loads(written.stdout))


def without_times(table: str) -> list[list[str]]:
    """The rows of a table of steps, without when they moved."""
    head, _, *rows = table.strip().splitlines()
    return [head.split(), *(re.split(r"  +", row)[:3] for row in rows)]


def section(text: str, title: str) -> str:
    [found] = [part for part in text.split("\n\n") if part.startswith(title)]
    return found.partition("\n")[2]


def test_the_commands_on_the_page_pay_the_batch_and_say_who_was_not_paid(
    antiphon: Command, started: Callable[..., Process]
) -> None:
    process = started("run")
    process.until("process.ready")
    publish, query, show = (shlex.split(line)[1:] for line in COMMANDS.splitlines())
    assert publish[-3:] == ["-", "<", "batch.json"]
    done = antiphon(*publish[:-2], stdin=json.dumps(batch()))
    assert done.returncode == 0, done.stderr
    process.until("saga.completed", key="b-1")
    assert json.loads(antiphon(*query).stdout) == {
        "stage": "settled",
        "ordered": 300,
        "total": "3150.00",
        "paid": 297,
        "amount": "3118.50",
        "refused": 3,
        "called_back": 0,
        "because": None,
    }
    assert json.loads(antiphon("sagas", "query", "b-1", "everybody").stdout) == batch()["payouts"]
    shown = antiphon(*show).stdout
    assert without_times(section(shown, "Steps")) == without_times(section(SHOWN, "Steps"))
    history = section(shown, "What happened, without 891 events of items that are only counted (--json has them)")
    assert len(history.splitlines()) < 30
    assert "transfer[100]" in history
    assert "transfer[101]" not in history


def test_a_batch_that_is_withdrawn_while_the_bank_is_busy_is_called_back(
    antiphon: Command, started: Callable[..., Process]
) -> None:
    process = started("run")
    process.until("process.ready")
    ordered = batch() | {"batch_id": "b-2"}
    for payout in ordered["payouts"][30:]:
        payout["account"] = f"busy-{payout['account']}"
    assert antiphon("publish", "payout.BatchOrdered", "-", stdin=json.dumps(ordered)).returncode == 0
    process.until("saga.step_completed", key="b-2", step="transfer[1]")
    running = antiphon("sagas", "show", "b-2").stdout
    assert "not begun" in section(running, "Steps")
    assert section(running, "Timers, without ")
    withdrawn = json.dumps({"batch_id": "b-2", "because": "the wrong month"})
    assert antiphon("publish", "payout.BatchWithdrawn", withdrawn).returncode == 0
    process.until("saga.compensated", key="b-2")
    told = json.loads(antiphon("sagas", "query", "b-2", "progress").stdout)
    assert (told["stage"], told["because"]) == ("turned back", "the wrong month")
    assert told["called_back"] == told["paid"] > 0
