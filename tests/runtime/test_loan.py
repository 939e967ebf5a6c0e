"""Approving a loan as the page for authors shows it: its commands, one after another, on SQLite, lead to the money."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.runtime.conftest import Command
    from tests.runtime.processes import Process

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "authoring.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("### All of it together") : PAGE.index("## Run it")]


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    return str(found)


def test_the_flow_on_the_page_is_that_of_the_class() -> None:
    assert (ROOT / "sagas" / "catalog" / "loan.py").read_text(encoding="utf-8").endswith(block("text"))


def test_the_commands_on_the_page_lead_to_the_money(antiphon: Command, started: Callable[..., Process]) -> None:
    process = started("run")
    process.until("process.ready")
    told: list[str] = []
    for line in block("sh").splitlines():
        name, *arguments = shlex.split(line)
        assert name == "antiphon"
        done = antiphon(*arguments)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
        if "loan.ContractSigned" in arguments:
            process.until("saga.rest_began", key="l-1")
        elif "skip" in arguments:
            process.until("saga.completed", key="l-1")
    answer, page = told[-2:]
    assert json.loads(answer) == {"stage": "paid out", "amount": "15000", "because": None}
    assert "decided_by Grace" in page
    assert "two weeks are long" in page


def test_a_refused_loan_is_closed_with_the_reason(antiphon: Command, started: Callable[..., Process]) -> None:
    process = started("run")
    process.until("process.ready")
    events: list[tuple[str, dict[str, Any]]] = [
        ("loan.LoanRequested", {"loan_id": "l-2", "applicant": "Ada", "amount": "250000"}),
        ("loan.FrontOfficeApproved", {"loan_id": "l-2", "by": "Bob"}),
        ("loan.RiskRefused", {"loan_id": "l-2", "by": "Eve", "comment": "too large"}),
    ]
    for name, body in events:
        assert antiphon("publish", name, json.dumps(body)).returncode == 0
    process.until("saga.compensated", key="l-2")
    answer = json.loads(antiphon("sagas", "query", "l-2", "standing").stdout)
    assert answer == {"stage": "closed", "amount": "250000", "because": "too large"}
