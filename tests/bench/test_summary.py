from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from bench.chart import chart
from bench.database import Work
from bench.load import Steady
from bench.report import Conditions, document, page
from bench.rounds import Plan, Round
from bench.summary import summarize

CONDITIONS = Conditions(
    processor="an abacus",
    processors=2,
    memory_gib=1.5,
    system="Linux",
    load_average=0.1,
    servers="private",
    versions={"Python": "3.11"},
)


def steady(sagas: int, *, seconds: float = 2, in_flight: int = 50, statements: int | None = 0) -> Steady:
    return Steady(
        in_flight=in_flight,
        seconds=seconds,
        sagas=sagas,
        latencies=[0.010] * sagas,
        cpu={"orchestrator": 1.0, "postgres": 0.5, "broker": 0.25, "server": 0, "participants": 0.125, "load": 0.125},
        work=Work(statements=statements, commits=sagas * 4, wal_bytes=sagas * 400),
    )


def one_round(contender: str, number: int, *levels: Steady, problems: tuple[str, ...] = ()) -> Round:
    return Round(contender=contender, number=number, orders=9, idle=[0.002, 0.004], steady=levels, problems=problems)


def test_costs_are_per_message_of_which_a_saga_brings_four() -> None:
    (level,) = summarize([one_round("orm", 1, steady(100, statements=1400))], contender="orm", title="ORM").steady
    assert level.sagas_per_second.median == 50
    assert level.statements == 3.5
    assert level.commits == 1
    assert level.wal_bytes == 100
    assert level.cpu_us["orchestrator"] == pytest.approx(1e6 / 400)
    assert level.all_cpu_us == pytest.approx(2e6 / 400)


def test_latencies_are_in_milliseconds_and_of_all_rounds_together() -> None:
    summary = summarize([one_round("orm", number, steady(10)) for number in (1, 2)], contender="orm", title="ORM")
    assert summary.idle_ms is not None
    assert (summary.idle_ms.p50, summary.idle_ms.p99, summary.idle_ms.orders) == (2, 4, 4)
    assert summary.steady[0].latency_ms.orders == 20


def test_the_product_is_compared_with_each_of_the_others_in_the_same_round() -> None:
    rounds = [one_round("antiphon", 1, steady(300)), one_round("asyncpg", 1, steady(100))]
    ratio = summarize(rounds, contender="asyncpg", title="asyncpg").steady[0].product_is_faster_by
    assert ratio is not None
    assert ratio.median == 3
    assert summarize(rounds, contender="antiphon", title="Antiphon").steady[0].product_is_faster_by is None


def test_a_round_with_a_problem_counts_for_nothing_but_is_told() -> None:
    rounds = [
        one_round("asyncpg", 1, steady(100)),
        one_round("asyncpg", 2, steady(9000), problems=("3 orders not completed",)),
    ]
    summary = summarize(rounds, contender="asyncpg", title="by hand")
    assert (summary.rounds, summary.invalid) == (1, 1)
    assert summary.steady[0].sagas_per_second.highest == 50
    assert "INVALID: asyncpg, round 2: 3 orders not completed" in page(CONDITIONS, [summary], rounds)


def test_a_contender_without_a_valid_round_has_no_figures() -> None:
    rounds = [one_round("asyncpg", 1, problems=("did not start",))]
    summary = summarize(rounds, contender="asyncpg", title="by hand")
    assert summary.idle_ms is None
    assert not summary.steady
    assert "did not start" in page(CONDITIONS, [summary], rounds)


def test_statements_that_nobody_counted_are_shown_as_unknown() -> None:
    rounds = [one_round("orm", 1, steady(100, statements=None))]
    summary = summarize(rounds, contender="orm", title="ORM")
    assert summary.steady[0].statements is None
    (costs,) = [line for line in page(CONDITIONS, [summary], rounds).splitlines() if "1.00" in line]
    assert costs.split()[:3] == ["ORM", "-", "1.00"]


def test_the_document_is_json_and_holds_conditions_plan_summaries_and_rounds() -> None:
    rounds = [one_round("orm", 1, steady(100))]
    summaries = [summarize(rounds, contender="orm", title="ORM")]
    read = json.loads(json.dumps(document(CONDITIONS, Plan(), summaries, rounds)))
    assert read["conditions"]["processor"] == "an abacus"
    assert read["plan"]["in_flight"] == list(Plan().in_flight)
    assert read["summaries"][0]["steady"][0]["sagas_per_second"]["median"] == 50
    assert read["rounds"][0]["steady"][0]["sagas"] == 100


def test_who_cannot_be_had_is_told_and_is_not_invalid() -> None:
    rounds = [Round(contender="dbos", number=1, unavailable="no package of that name")]
    summary = summarize(rounds, contender="dbos", title="DBOS")
    assert (summary.rounds, summary.invalid, summary.unavailable) == (0, 0, "no package of that name")
    assert "DBOS cannot be had here: no package of that name" in page(CONDITIONS, [summary], rounds)


def test_the_picture_shows_the_fastest_first_and_is_well_formed() -> None:
    rounds = [one_round("antiphon", 1, steady(300)), one_round("orm", 1, steady(100)), one_round("none", 1)]
    titles = {"antiphon": "Antiphon", "orm": "by <hand>", "none": "nobody"}
    picture = chart(CONDITIONS, [summarize(rounds, contender=name, title=title) for name, title in titles.items()])
    names = [
        part.text
        for part in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")  # noqa: S314 - our own
        if part.get("class") == "name"
    ]
    assert names == ["Antiphon", "by <hand>"]
