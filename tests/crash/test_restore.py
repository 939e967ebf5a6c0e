"""A database that was restored to an earlier moment: what it has forgotten is done again under the ids it had then."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg

from tests.crash.driver import Setup, Shop
from tests.crash.forking import Program
from tests.crash.laboratory import Laboratory
from tests.services.waiting import until_async

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HURRIED = Program("tests.crash.launcher", ["--hurried"])
END_ALL = "select pg_terminate_backend(pid) from pg_stat_activity where datname = any($1)"


async def test_what_a_restored_database_has_forgotten_is_done_again_without_another_effect(
    fresh_database: Callable[[], str], postgres_server: str, rabbitmq_url: str, namespace: str, tmp_path: Path
) -> None:
    """Replies that were read since are gone; asked again, participants repeat them. Starts since are placed again."""
    live, backup = fresh_database(), fresh_database()
    setup = Setup(folder=tmp_path, database_url=live, broker_url=rabbitmq_url, namespace=namespace)
    orders = {
        "paid~payment=late:1": {"completed"},
        "refused~payment=late:1~warehouse=fail": {"compensated"},
    }
    async with Laboratory(setup=setup) as laboratory, Shop(rabbitmq_url, namespace) as shop:
        await laboratory.participants()
        sidecar = await laboratory.sidecar("before", command=HURRIED)
        starts = await shop.place(*orders)
        await until_async(lambda: asked_to_pay(setup, orders), timeout=60, what="everybody to wait for a payment")
        await sidecar.kill()
        await copy(postgres_server, live, backup)

        sidecar = await laboratory.sidecar("forgotten", command=HURRIED)
        orders["started-since"] = {"completed"}
        starts |= await shop.place("started-since")
        done = await laboratory.judge(starts, orders)
        assert await sidecar.stop() == 0

        await copy(postgres_server, backup, live)
        await laboratory.sidecar("restored", command=HURRIED)
        await shop.place("started-since")
        again = await laboratory.judge(starts, orders)
    assert {each.message_id for each in again.arrivals} == {each.message_id for each in done.arrivals}
    assert again.effects == done.effects
    assert len(again.arrivals) > len(done.arrivals)


async def asked_to_pay(setup: Setup, orders: dict[str, set[str]]) -> bool:
    """Whether every order's payment was asked for."""
    return {each.order_id for each in setup.ledger.arrivals() if each.participant == "payment"} == set(orders)


async def copy(server: str, source: str, target: str) -> None:
    """Make one database what another is."""
    names = [urlsplit(url).path[1:] for url in (source, target)]
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(END_ALL, names)
        await connection.execute(f"drop database {names[1]} with (force)")
        await connection.execute(f"create database {names[1]} template {names[0]}")
    finally:
        await connection.close()
