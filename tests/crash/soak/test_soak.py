"""The long run's own parts: what reads a few orders of very many, what judges them, and what tells of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from tests.crash.driver import start_id
from tests.crash.nemesis.customers import Customers
from tests.crash.script import Script
from tests.crash.soak.findings import Findings
from tests.crash.soak.judge import Judge
from tests.crash.soak.report import written
from tests.crash.views import Picture, read_orders

if TYPE_CHECKING:
    from tests.crash.driver import Setup
    from tests.crash.laboratory import Laboratory


def judge_of(setup: Setup, placed: int) -> Judge:
    customers = Customers(setup=setup, script=Script(), per_second=1, placed=placed)
    return Judge(setup=setup, customers=customers, findings=Findings(command="soak"))


async def test_an_order_that_was_lost_is_wrong(setup: Setup) -> None:
    judge = judge_of(setup, placed=2)
    await judge.drained(0.1)
    await judge.judge()
    assert judge.findings.judged == 2
    assert judge.findings.wrong[:3] == [
        "no rest within 0 s: 2 orders have no saga",
        "2 orders were placed, and there are 0 sagas",
        "order o-0000000 has 0 sagas",
    ]


async def test_the_orders_are_judged_one_part_after_the_other(laboratory: Laboratory) -> None:
    await laboratory.staffed("sidecar")
    judge = judge_of(laboratory.setup, placed=3)
    starts = await laboratory.place(*map(judge.customers.order, range(3)))
    whole = await laboratory.judge(starts, {})
    connection = await asyncpg.connect(laboratory.setup.database_url)
    one = judge.customers.order(1)
    try:
        part = await read_orders(connection, laboratory.setup.ledger, laboratory.setup.namespace, {one: start_id(one)})
    finally:
        await connection.close()
    assert sizes(part) == [size // 3 for size in sizes(whole)]
    assert {arrival.order_id for arrival in part.arrivals} == {one}
    await judge.judge()
    assert judge.findings.wrong == []
    assert judge.findings.outcomes == {"completed": 3}


def sizes(picture: Picture) -> list[int]:
    """How much there is of each part."""
    parts = (picture.sagas, picture.history, picture.inbox, picture.arrivals, picture.effects)
    return [len(part) for part in parts]


def test_the_report_says_what_is_wrong_and_what_was_not_tried() -> None:
    findings = Findings(command="soak --seed 7", wrong=["order o-1 has 0 sagas"])
    findings.note_windows({"kill at COMMIT": 3}, ["one: kill at COMMIT", "other: cut at ack"])
    text = written(findings)
    assert "**1 things are wrong.**" in text
    assert "- order o-1 has 0 sagas" in text
    assert "these were never hit: cut at ack" in text
    assert "soak --seed 7" in text
    assert "**Nothing is wrong.**" in written(Findings(command="soak"))
