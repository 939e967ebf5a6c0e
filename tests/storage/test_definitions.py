from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from messages import Command, Event
from sagas.definition import Definition, Digests, SequenceNode
from storage.definitions import consumed_events, load, record

if TYPE_CHECKING:
    from storage import Database


def definition(saga_type: str = "PlaceOrder", version: int = 1, *, shape: str = "s1") -> Definition:
    return Definition(
        type=saga_type,
        version=version,
        saga_class=object,  # type: ignore[arg-type]
        key="order_id",
        keys={},
        key_reuse=False,
        deadline=timedelta(days=7),
        starts={},
        steps={},
        decisions={},
        sleeps={},
        flow=SequenceNode(()),
        answers={},
        events={"stock.StockReserved": Event},
        commands={"stock.ReserveStock": Command},
        document={"shape": {"key": "order_id"}, "state": {}, "policy": {}, "code": {"said": "ö\x00"}},
        digests=Digests(shape=shape, state="s", policy="p", code="c"),
    )


async def test_a_recorded_version_comes_back_and_is_replaced_by_a_change(database: Database) -> None:
    assert await load(database) == {}
    await record(database, [definition(), definition(version=2), definition("Other")])
    before = await load(database)
    assert set(before) == {("PlaceOrder", 1), ("PlaceOrder", 2), ("Other", 1)}
    found = before["PlaceOrder", 1]
    assert found.document == definition().document
    assert found.digests == definition().digests
    assert found.python
    await record(database, [definition(shape="s2")])
    after = await load(database)
    assert after["PlaceOrder", 1].digests.shape == "s2"
    assert after["PlaceOrder", 2] == before["PlaceOrder", 2]


async def test_two_processes_may_record_at_once(database: Database) -> None:
    await asyncio.gather(*(record(database, [definition(), definition("Other")]) for _ in range(6)))
    assert len(await load(database)) == 2


async def test_the_events_that_some_saga_consumes_are_known_to_all(database: Database) -> None:
    other = replace(definition("Other"), events={"other.Event": Event})
    await record(database, [definition(), other])
    assert await consumed_events(database) == {"stock.StockReserved", "other.Event"}
    await record(database, [replace(other, events={})])
    assert await consumed_events(database) == {"stock.StockReserved"}
