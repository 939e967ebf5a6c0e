"""A process that runs the same statements all day has each planned once, whatever the tables hold by then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from running import AsyncioRunner
from storage import Database
from storage.engine import PLANNED_ONCE
from storage.statements import Statement

if TYPE_CHECKING:
    from collections.abc import Mapping

_SETTINGS = Statement.both("select name, setting from pg_settings where name = any(cast(:names as text[]))")


async def settings(url: str, *, planned_once: bool) -> Mapping[str, str]:
    database = Database(url, AsyncioRunner(), planned_once=planned_once)
    try:
        async with database.read() as session:
            rows = await session.fetch(_SETTINGS, {"names": list(PLANNED_ONCE)})
    finally:
        await database.close()
    return {row.name: row.setting for row in rows}


@pytest.mark.parametrize("driver", ["postgresql+asyncpg", "postgresql+psycopg"])
async def test_only_who_asks_for_it_has_its_statements_planned_once(postgres_url: str, driver: str) -> None:
    url = postgres_url.replace("postgresql", driver, 1)
    assert await settings(url, planned_once=True) == PLANNED_ONCE
    assert (await settings(url, planned_once=False))["plan_cache_mode"] == "auto"
