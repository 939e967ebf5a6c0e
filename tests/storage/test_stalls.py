"""Rule 16's statement, against what it says in plain Python, over random worlds on every database."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from sqlalchemy import text

from sagas.instance import Phase
from sagas.watching import WATCHED
from storage import stalls as asked
from storage.engine import PLANNED_ONCE
from storage.stalls import STALLS
from storage.statements import as_uuid
from tests.storage.plans import explained
from tests.storage.world import Row, Someone, World, anyone

if TYPE_CHECKING:
    from storage import Database

EARLY = datetime(2020, 1, 1, tzinfo=UTC)


async def found(database: Database) -> set[UUID]:
    async with database.read() as session:
        return {as_uuid(row.saga_id) for row in await session.fetch(STALLS, {})}


def stalls(one: Someone) -> bool:
    """Rule 16, naively: alive, nobody was told, and something it waits for does not come, or nothing is there."""
    if one.phase.ended or one.attention or one.paused:
        return False
    timer_nobody_fires = any(due < -60 for due in one.timers)
    nobody_publishes = bool(one.outbox) and all(row.next_attempt < -60 for row in one.outbox)
    nobody_takes_it = any(row.state in ("returned", "refused") and row.created < -600 for row in one.outbox)
    held = any(expires is None or expires > -60 for expires in one.held)
    nothing_to_wait_for = not one.timers and not one.outbox and not held and one.updated < -60
    return timer_nobody_fires or nobody_publishes or nobody_takes_it or nothing_to_wait_for


@pytest.mark.parametrize("seed", range(3))
async def test_the_statement_finds_whoever_stalls_and_nobody_else(database: Database, seed: int) -> None:
    chance = random.Random(seed)
    people = [anyone(chance, f"order-{number}") for number in range(300)]
    await World(database).settle(*people)
    expected = {one.saga_id for one in people if stalls(one)}
    assert 20 < len(expected) < 280
    assert await found(database) == expected


async def test_a_row_that_waits_behind_an_earlier_one_of_its_step_is_not_forgotten(database: Database) -> None:
    earlier, later = Row(state="unknown", next_attempt=5, attempts=2, created=-300), Row(next_attempt=-300)
    await World(database).settle(Someone(key="o-1", timers=[100], outbox=[earlier, later]))
    assert await found(database) == set()


async def test_who_has_ended_or_is_paused_or_has_told_people_does_not_stall(database: Database) -> None:
    await World(database).settle(
        Someone(key="ended", phase=Phase.COMPENSATED),
        Someone(key="paused", paused=True),
        Someone(key="told", attention=("method_raised",)),
        Someone(key="held", held=[None]),
        forgotten := Someone(key="forgotten"),
    )
    assert await found(database) == {forgotten.saga_id}


async def test_a_look_for_suspects_passes_over_nothing_but_the_ids_of_those_that_live(database: Database) -> None:
    await World(database).settle(*(Someone(key=f"order-{number}", timers=[3600]) for number in range(50)))
    values = {"watched": list(WATCHED), "after": UUID(int=0), "limit": 1, "late": EARLY, "aged": EARLY}
    async with database.read() as session:
        if database.postgresql:
            for name, setting in PLANNED_ONCE.items():
                await session.connection.execute(text(f"set local {name} = {setting}"))
            await session.fetch(asked._PLANNED_ANEW, {})
        plan = await explained(session, asked._SUSPECTED, values)
    assert {"timer_due", "timer_asked", "saga_live"} <= set(re.findall(r"\w+", plan))
    assert "Seq Scan" not in plan
    assert "SCAN t" not in plan
