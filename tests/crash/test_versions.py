"""The next version beside this one: it migrates while this one works, both take from one queue, and one may go back.

The next version is a copy of the tree with one more migration and one more version of the ordering saga.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.crash.driver import ORDERING, Setup, Shop, antiphon, finished
from tests.crash.laboratory import before
from tests.crash.mutants.tree import changed
from tests.crash.process import Child
from tests.crash.proxy.faults import kill
from tests.crash.proxy.postgres import PostgresParser
from tests.services.waiting import until_async

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.crash.laboratory import Laboratory

COMPLETED = {"completed"}
MIGRATION = '''
"""One column more, of which the version before knows nothing."""
from alembic import op
revision, down_revision, branch_labels, depends_on = "9999", "{before}", None, None
def upgrade() -> None:
    op.execute("alter table saga add column remark text")
def downgrade() -> None:
    op.execute("alter table saga drop column remark")
'''
SAGA = '''
"""The ordering saga once more."""
from sagas.catalog.ordering import PlaceOrder
class PlaceNext(PlaceOrder, key="order_id", name="PlaceOrder", version=2):
    """It has learnt nothing."""
'''


def next_version(folder: Path) -> Path:
    """The tree of the next version."""
    tree = changed([], folder)
    tables = tree / "storage" / "tables.py"
    found = next(line for line in tables.read_text().splitlines() if line.startswith("REVISION = "))
    latest = found.partition('"')[2].rstrip('"')
    tables.write_text(tables.read_text().replace(found, 'REVISION = "9999"'))
    (tree / "migrations" / "versions" / "9999_remark.py").write_text(MIGRATION.format(before=latest))
    (tree / "sagas" / "catalog" / "ordering_next.py").write_text(SAGA)
    return tree


@pytest.mark.long(19)
async def test_the_next_version_is_rolled_out_under_load_and_taken_back(laboratory: Laboratory, tmp_path: Path) -> None:
    wires = await laboratory.wires()
    ours = await laboratory.sidecar("ours", wires)
    await laboratory.participants()
    told = {"MODULES": f"{ORDERING},sagas.catalog.ordering_next"}
    after = replace(laboratory, setup=replace(laboratory.setup, tree=next_version(tmp_path), settings=told))
    starts: dict[str, str] = {}
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        # Somebody reads, and the migration, which needs the table for itself, waits: nobody waits for it meanwhile.
        reader = await asyncpg.connect(laboratory.setup.database_url)
        await reader.execute(f"begin; lock table {laboratory.setup.namespace}.saga in access share mode")
        migrating = await Child.start("migrate", antiphon("migrate"), folder=tmp_path, env=after.setup.environment())
        async with migrating:
            await until_async(lambda: reader.fetchval(WAITS), timeout=60, what="the migration to wait")
            starts |= await shop.place(*[f"migrating-{number}" for number in range(10)])
            await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
            assert migrating.running
            await reader.close()
            assert await migrating.ended() == 0

        # Both take from one queue; what is started on the new version comes to the old one too.
        theirs = await after.sidecar("theirs")
        starts |= await shop.place(*[f"both-{number}" for number in range(30)])
        await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))

        # The way back, while the new version's instances wait for replies, and forward again.
        in_flight = await shop.place(*[f"back-{number}~payment=late:1.5" for number in range(10)])
        await until_async(lambda: some_of_both(laboratory, in_flight), timeout=60, what="instances of both versions")
        assert await theirs.stop() == 0
        starts |= in_flight | await shop.place("alone")
        await until_async(lambda: held(laboratory), timeout=60, what="replies for the version that is away")
        theirs = await after.sidecar("theirs")
        await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
    assert [await each.stop() for each in (ours, theirs)] == [0, 0]


WAITS = """
    select count(*) from pg_locks join pg_class on pg_class.oid = relation
    where relname = 'saga' and mode = 'AccessExclusiveLock' and not granted
"""


async def some_of_both(laboratory: Laboratory, orders: dict[str, str]) -> bool:
    """Whether all these orders are at work, some on the old version and some on the new one."""
    connection = await asyncpg.connect(laboratory.setup.database_url)
    try:
        view = f"{laboratory.setup.namespace}.v_saga"
        rows = await connection.fetch(f"select business_key, version from {view}")  # noqa: S608 - our own name
    finally:
        await connection.close()
    versions = [row["version"] for row in rows if row["business_key"] in orders]
    return len(versions) == len(orders) and set(versions) == {1, 2}


async def held(laboratory: Laboratory) -> bool:
    """Whether something is held because nobody here knows the version of its instance."""
    return any(row.reason == "version" for row in (await laboratory.look()).held)


@pytest.mark.parametrize(
    ("event", "behind"),
    [
        pytest.param("pg.s2c.CREATE", 0, id="at a table"),
        pytest.param("pg.c2s.COMMIT", 3, id="commit never sent"),
        pytest.param("pg.s2c.COMMIT", 3, id="committed, answer not seen"),
    ],
)
async def test_a_migration_that_is_killed_is_run_again(
    fresh_database: Callable[[], str], tmp_path: Path, event: str, behind: int
) -> None:
    """The event is the first of its kind after so many tables; for a table, any of them."""
    setup, victims = Setup(folder=tmp_path, database_url=fresh_database()), list[Child]()
    async with before(setup.database_url, PostgresParser) as proxy:
        proxy.rule(
            event,
            kill(lambda: victims[0].pid),
            nth=1 if behind else random.randint(1, 20),
            when=lambda _: proxy.count("pg.s2c.CREATE") >= behind,
        )
        through = replace(setup, database_url=proxy.through(setup.database_url))
        victims.append(await Child.start("victim", antiphon("migrate"), folder=tmp_path, env=through.environment()))
        async with victims[0]:
            assert await victims[0].ended() == -9
        proxy.assert_fired()
    await finished("again", setup, "migrate")
    await finished("check", setup, "migrate", "--check")
