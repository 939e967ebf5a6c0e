"""Every contender that is our own runs a handful of orders on real servers: what is measured must work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from bench.antiphon import Antiphon
from bench.contenders import CONTENDERS
from bench.database import fresh_database, read_work
from bench.peer import Peer
from bench.rounds import Plan, run_round
from bench.servers import Servers
from bench.services import ByHand

if TYPE_CHECKING:
    from bench.contender import Contender

BRIEF = Plan(in_flight=[4], seconds=0.2, warm_up=0.1, idle_orders=3, idle_seconds=5)


OURS = [each for each in CONTENDERS.values() if not isinstance(each, Peer)]


@pytest.mark.parametrize("contender", [*OURS, Antiphon(processes=2)], ids=lambda each: each.title)
async def test_a_contender_completes_every_order_once(
    contender: Contender, postgres_server: str, rabbitmq_url: str
) -> None:
    servers = Servers(database_url=postgres_server, broker_url=rabbitmq_url, origin="the tests' own")
    done = await run_round(contender, servers, BRIEF, 1)
    assert list(done.problems) == []
    assert len(done.idle) == 3
    (level,) = done.steady
    assert level.sagas >= 1
    assert done.orders >= level.sagas + 4
    assert level.work.commits >= level.sagas


async def test_a_contender_that_does_not_start_is_reported_with_its_last_words(
    postgres_server: str, rabbitmq_url: str
) -> None:
    servers = Servers(database_url=postgres_server, broker_url=rabbitmq_url, origin="the tests' own")
    broken = ByHand(name="broken", title="broken", module="bench.no_such_module")
    done = await run_round(broken, servers, BRIEF, 1)
    assert not done.steady
    assert any("No module named bench.no_such_module" in problem for problem in done.problems)


async def test_a_reading_counts_exactly_the_transactions_that_wrote(postgres_server: str) -> None:
    async with fresh_database(postgres_server, "antiphon_bench_counting") as url:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute("create table thing (name text)")
            before = await read_work(connection, counts_statements=False)
            for _ in range(5):
                await connection.execute("insert into thing values ('x')")
                await connection.fetch("select * from thing")
            done = (await read_work(connection, counts_statements=False)).since(before)
        finally:
            await connection.close()
    assert done.commits >= 5  # others may use the server meanwhile
    assert done.wal_bytes > 0
    assert done.statements is None
