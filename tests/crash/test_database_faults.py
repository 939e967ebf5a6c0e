"""What PostgreSQL and the way to it can do to a sidecar at work: it lives through it, and loses and doubles nothing."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.crash.driver import Setup, Shop, antiphon, order_body, start_id
from tests.crash.forking import Program
from tests.crash.laboratory import LOCKING, Laboratory, decides, looks, marks_rows, saves
from tests.crash.proxy.faults import black_hole, cut, refuse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from tests.crash.proxy.wire import Event
    from tests.services.private import PrivatePostgres

COMPLETED = {"completed"}


@pytest.mark.parametrize("locking", [False, True], ids=["without locks", "in a transaction"])
async def test_a_commit_without_an_answer_is_neither_lost_nor_done_twice(laboratory: Laboratory, locking: bool) -> None:
    """The connection is reset before the commit arrives, and when it is done and the answer is on its way."""
    wires = await laboratory.wires()
    sidecar = await laboratory.sidecar("sidecar", wires, command=LOCKING if locking else ())
    await laboratory.participants()
    starts: dict[str, str] = {}
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        for direction in ("pg.c2s", "pg.s2c"):
            for nth in (1, 3):
                if locking:
                    in_doubt = wires.at_commit(f"{direction}.COMMIT", cut(), nth=nth)
                else:
                    in_doubt = wires.at_save(direction, cut(), nth=nth)
                starts |= await shop.place(f"{direction}-{nth}")
                await in_doubt.has_fired()
    await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
    assert wires.given_back == 0
    assert await sidecar.stop() == 0


def locks(event: Event) -> bool:
    """Whether it belongs to a statement that locks instances."""
    return "for no key update" in event.text("statement")


IN_A_TRANSACTION = {
    "deadlock": ("pg.c2s.INSERT", "40P01", None),
    "serialization": ("pg.c2s.WITH", "40001", decides),
    "lock_timeout": ("pg.c2s.WITH", "55P03", locks),
    "statement_timeout": ("pg.c2s.WITH", "57014", decides),
    "disk_full_at_work": ("pg.c2s.WITH", "53100", decides),
    "disk_full_at_a_mark": ("pg.c2s.WITH", "53100", marks_rows),
    "disk_full_at_the_end": ("pg.c2s.COMMIT", "53100", None),
    "out_of_memory": ("pg.c2s.INSERT", "53200", None),
    "io_error": ("pg.c2s.INSERT", "58030", None),
    "idle_too_long": ("pg.c2s.WITH", "25P03", decides),
    "shutdown": ("pg.c2s.WITH", "57P01", decides),
}
WITHOUT_LOCKS = {
    "look_timeout": ("pg.c2s.WITH", "57014", looks),
    "look_shutdown": ("pg.c2s.WITH", "57P01", looks),
    "deadlock": ("pg.c2s.WITH", "40P01", saves),
    "disk_full": ("pg.c2s.WITH", "53100", saves),
    "io_error": ("pg.c2s.WITH", "58030", saves),
}


@pytest.mark.long(17)
@pytest.mark.parametrize(
    ("command", "refusals"),
    [
        pytest.param(LOCKING, IN_A_TRANSACTION, id="in a transaction"),
        pytest.param(antiphon("run"), WITHOUT_LOCKS, id="without locks"),
    ],
)
async def test_what_the_database_cannot_do_now_is_tried_again_and_counts_against_no_message(
    laboratory: Laboratory, command: Program, refusals: Mapping[str, tuple[str, str, Callable[[Event], bool] | None]]
) -> None:
    wires = await laboratory.wires()
    sidecar = await laboratory.sidecar("sidecar", wires, command=command)
    await laboratory.participants()
    starts: dict[str, str] = {}
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        for name, (event, sqlstate, when) in refusals.items():
            refused = wires.pg.rule(event, refuse(sqlstate), when=when)
            starts |= await shop.place(name)
            await refused.has_fired()
            await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
    assert wires.given_back == 0
    assert await sidecar.stop() == 0


async def test_strangers_may_end_every_session_and_hold_a_snapshot_and_come_late(laboratory: Laboratory) -> None:
    """A snapshot that is never let go keeps dead rows alive; a late committer has a lower number than those before."""
    wires = await laboratory.wires()
    sidecar = await laboratory.sidecar("sidecar", wires)
    await laboratory.participants()
    late, orders = "late-committer", [f"o-{number}" for number in range(20)]
    async with (
        session(laboratory.setup.database_url) as administrator,
        session(laboratory.setup.database_url) as reader,
        session(laboratory.setup.database_url) as writer,
        Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop,
    ):
        mine = [connection.get_server_pid() for connection in (administrator, reader, writer)]
        await reader.execute("begin isolation level repeatable read")
        await reader.fetchval(f"select count(*) from {laboratory.setup.namespace}.v_saga")  # noqa: S608 - our own name
        await writer.execute("begin")
        await writer.execute(
            f"select {laboratory.setup.namespace}.publish('ordering.OrderPlaced', $1, $2)",
            order_body(late),
            start_id(late),
        )
        placing = asyncio.create_task(shop.place(*orders))
        for batch in range(1, 6):
            await wires.pg.seen("pg.s2c.COMMIT", wires.pg.count("pg.s2c.COMMIT") + batch)
            await administrator.execute(END_ALL, mine)
        starts = await placing
        await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
        await writer.execute("commit")
        starts[late] = start_id(late)
        await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
        await reader.execute("commit")
    assert wires.given_back == 0
    assert await sidecar.stop() == 0


END_ALL = """
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and backend_type = 'client backend' and pid <> all($1::int[])
"""


@asynccontextmanager
async def session(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A session of a stranger's."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.mark.long(17)
async def test_a_database_that_is_restarted_is_waited_for_with_every_message_in_hand(
    private_postgres: PrivatePostgres, rabbitmq_url: str, namespace: str, tmp_path: Path
) -> None:
    """Fast, then immediate as in a crash; while it is away the broker gets nothing back, so no attempt is burnt."""
    setup = Setup(
        folder=tmp_path, database_url=private_postgres.database(), broker_url=rabbitmq_url, namespace=namespace
    )
    async with Laboratory(setup=setup) as laboratory:
        wires = await laboratory.wires()
        sidecar = await laboratory.sidecar("sidecar", wires)
        await laboratory.participants()
        starts: dict[str, str] = {}
        async with Shop(rabbitmq_url, namespace) as shop:
            for graceful in (True, False):
                starts |= await shop.place(*[f"before-{graceful}-{number}" for number in range(10)])
                await wires.pg.seen("pg.s2c.COMMIT", wires.pg.count("pg.s2c.COMMIT") + 2)
                await asyncio.to_thread(private_postgres.stop, graceful=graceful)
                starts |= await shop.place(*[f"while-{graceful}-{number}" for number in range(10)])
                await sidecar.unready()
                await asyncio.to_thread(private_postgres.start)
                await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
        assert wires.given_back == 0
        assert await sidecar.stop() == 0


async def test_a_database_that_falls_silent_is_given_up_and_asked_again_on_another_connection(
    laboratory: Laboratory,
) -> None:
    """Both sockets stay open, and no byte comes through: first a statement gets no answer, then a commit."""
    wires = await laboratory.wires()
    sidecar = await laboratory.sidecar("sidecar", wires, command=IMPATIENT)
    await laboratory.participants()
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        silent = wires.pg.rule("pg.c2s.bind", black_hole(), when=looks)
        starts = await shop.place("statement")
        await silent.has_fired()
        silent = wires.at_save("pg.s2c", black_hole())
        starts |= await shop.place("commit")
        await silent.has_fired()
        await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
    assert wires.given_back == 0
    assert await sidecar.stop() == 0


IMPATIENT = Program("tests.crash.launcher", ["--impatient"])


async def test_without_a_free_slot_it_waits_for_one(laboratory: Laboratory) -> None:
    """Others have taken them all: the role may have no further connection, and those it had are ended."""
    role = laboratory.setup.namespace  # a name of this test's own
    url = urlsplit(laboratory.setup.database_url)
    limited = url._replace(netloc=f"{role}:{role}@{url.netloc.rpartition('@')[2]}").geturl()
    async with session(laboratory.setup.database_url) as administrator:
        await administrator.execute(f"create role {role} login password '{role}' in role pg_read_all_data")
        await administrator.execute(f"grant pg_write_all_data to {role}")
        try:
            wires = await replace(laboratory, setup=replace(laboratory.setup, database_url=limited)).wires()
            sidecar = await laboratory.sidecar("sidecar", wires)
            await laboratory.participants()
            await administrator.execute(f"alter role {role} connection limit 0")
            await administrator.execute(END_ALL, [administrator.get_server_pid()])
            refused = wires.pg.count("pg.s2c.error", no_slot)
            async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
                starts = await shop.place("o-1", "o-2")
            await wires.pg.seen("pg.s2c.error", refused + 3, when=no_slot)
            await sidecar.unready()
            await administrator.execute(f"alter role {role} connection limit -1")
            await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
            assert wires.given_back == 0
            assert await sidecar.stop() == 0
        finally:
            await administrator.execute(END_ALL, [administrator.get_server_pid()])
            await administrator.execute(f"drop role {role}")


def no_slot(event: Event) -> bool:
    """Whether a connection was refused because there are too many."""
    return event.details["sqlstate"] == "53300"
