"""Every part of the benchmark of scale runs, in the smallest, on real servers, beside what the product would write.

That takes minutes, so `make soak` does it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from bench.antiphon import Antiphon
from bench.rounds import Plan
from bench.scale import history as history_part
from bench.scale import seed
from bench.scale.__main__ import main
from bench.scale.backlog import backlog
from bench.scale.compare import Comparison, Scope
from bench.scale.history import history
from bench.scale.sizes import processes, types, waiting
from bench.servers import Servers
from tests.bench.test_summary import one_round, steady

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.contender import Place
    from bench.scale.seed import Copies

BRIEF = Plan(in_flight=[4], seconds=0.2, warm_up=0.1, idle_orders=2, idle_seconds=5)


@pytest.fixture
def scope(postgres_server: str, rabbitmq_url: str) -> Scope:
    servers = Servers(database_url=postgres_server, broker_url=rabbitmq_url, origin="the tests' own")
    return Scope(servers=servers, plan=BRIEF, rounds=1)


def measured(found: Comparison) -> Iterator[str]:
    for line in found.lines:
        assert line.sagas_per_second is not None
        assert line.sagas_per_second.median > 0
        yield line.title


@pytest.mark.soak
async def test_orders_are_done_beside_copies_of_an_instance_that_waits(
    scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = seed.plant

    async def looked_at(place: Place, copies: Copies) -> None:
        await plant(place, copies)
        await look_at_copies(place, copies)

    monkeypatch.setattr(seed, "plant", looked_at)
    found = await waiting(scope, [3])
    assert found.valid, list(found.page())
    assert list(measured(found)) == ["3 waiting"]


async def look_at_copies(place: Place, copies: Copies) -> None:
    """A copy differs from what the product wrote in its key, its ids and its times alone."""
    connection = await seed.connect(place)
    sagas = await connection.fetch("select * from saga order by key")
    events = await connection.fetch("select * from saga_event where saga_id = $1 order by seq", sagas[1]["saga_id"])
    due = await connection.fetch("select due_at from timer where saga_id = $1", sagas[1]["saga_id"])
    indexes = await connection.fetchval("select count(*) from pg_indexes where schemaname = $1", place.namespace)
    await connection.close()
    (original,) = copies.of["saga"]
    assert [saga["key"] for saga in sagas] == ["seed-0000001", "seed-0000002", "seed-0000003"]
    assert len({saga["saga_id"] for saga in sagas}) == 3
    assert sagas[1]["state"] == original["state"].replace(b"seed-0000000", b"seed-0000002")
    assert [event["kind"] for event in events] == [event["kind"] for event in copies.of["saga_event"]]
    assert str(sagas[1]["saga_id"]).encode() in events[0]["patch"]
    past = timedelta(seconds=2)
    assert {row["due_at"] for row in due} == {timer["due_at"] + copies.ahead - past for timer in copies.of["timer"]}
    assert indexes > 30


@pytest.mark.soak
async def test_orders_are_dealt_out_to_saga_types(scope: Scope) -> None:
    found = await types(scope, [3])
    assert found.valid, list(found.page())
    assert list(measured(found)) == ["3 types"]


@pytest.mark.soak
async def test_orders_are_shared_by_processes(scope: Scope) -> None:
    found = await processes(scope, [2])
    assert found.valid, list(found.page())
    assert list(measured(found)) == ["2 processes"]


@pytest.mark.soak
async def test_a_backlog_is_worked_off(scope: Scope) -> None:
    found = await backlog(scope, 30)
    assert found.valid, list(found.page())
    assert found.longest["saga.PlaceOrder"] == 30
    assert found.seconds >= found.first >= found.ready > 0


@pytest.mark.soak
async def test_orders_commands_and_retention_go_on_beside_a_long_history(
    scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_part, "TIMES", 1)
    monkeypatch.setattr(history_part, "COMMANDS", ("sagas show KEY",))
    found = await history(scope, 200)
    assert found.valid, list(found.page())
    assert list(measured(found.comparison)) == ["no history", "200 rows"]
    assert all(len(each) == 2 and min(each) > 0 for each in found.commands_ms.values())
    assert "Retention, by one process that has nothing else to do" in list(found.page())


def test_cost_is_compared_within_each_round() -> None:
    one, other = Antiphon(name="one", title="1"), Antiphon(name="other", title="2")
    sagas = {("one", 1): 110, ("other", 1): 100, ("one", 2): 40, ("other", 2): 40}
    rounds = [one_round(name, number, steady(done)) for (name, number), done in sagas.items()]
    first, second = Comparison(title="x", cases=[one, other], rounds=rounds).lines
    assert first.cost is not None
    assert second.cost is not None
    assert (first.cost.median, second.cost.lowest) == (1.0, 1.0)
    assert second.cost.highest == pytest.approx(1.1)


def test_more_than_the_disk_holds_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "history", "--history-rows", str(10**12)]) == 1
    assert "lower --history-rows" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--only", "everything"], ["--waiting", "0"], ["--backlog", "-1"]])
def test_what_cannot_be_measured_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(words)
