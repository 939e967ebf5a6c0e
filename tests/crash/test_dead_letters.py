"""A process that dies while it takes over what the broker gave up on, or replays it: nothing is lost or done twice."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import aio_pika
import asyncpg
import pytest

from tests.crash.driver import antiphon, finished, order_placed, start_id
from tests.crash.process import Child
from tests.crash.proxy.faults import call, kill
from tests.services.waiting import until_async

if TYPE_CHECKING:
    from pamqp.common import FieldValue

    from tests.crash.laboratory import Laboratory
    from tests.crash.proxy.faults import Side
    from tests.crash.proxy.wire import Event

NUMBER = 20


@pytest.mark.parametrize(
    ("event", "side"),
    [
        pytest.param("pg.c2s.COMMIT", "before", id="commit never sent"),
        pytest.param("pg.s2c.COMMIT", "before", id="committed, answer not seen"),
        pytest.param("amqp.c2s.ack", "before", id="committed, not acknowledged"),
    ],
)
async def test_every_message_that_the_broker_gave_up_on_is_kept_once(
    laboratory: Laboratory, event: str, side: Side
) -> None:
    wires = await laboratory.wires()
    victim = await laboratory.sidecar("victim", wires)
    keeping: set[int] = set()
    if event.startswith("pg."):
        wires.pg.rule("pg.s2c.SELECT", call(lambda seen: keeping.add(seen.connection)), when=keeps)
        wires.pg.rule(event, kill(victim.pid), side=side, when=lambda seen: seen.connection in keeping)
    else:
        wires.amqp.rule(event, kill(victim.pid), side=side)
    await give_up(laboratory, *(aio_pika.Message(b"{}", message_id=f"m-{each}") for each in range(NUMBER)))
    await victim.killed()
    heir = await laboratory.sidecar("heir")
    found = await until_async(lambda: kept(laboratory, NUMBER), timeout=60, what=f"{NUMBER} letters")
    assert {(row["reason"], row["consumer"], row["status"]) for row in found} == {("rejected", "PlaceOrder", "open")}
    assert await heir.stop() == 0
    assert {row["copies"] for row in await letters(laboratory)} == {1}
    assert await left(laboratory) == 0
    wires.assert_fired()


@pytest.mark.parametrize(
    ("event", "nth"),
    [
        pytest.param("pg.c2s.COMMIT", 2, id="replayed, commit never sent"),
        pytest.param("pg.s2c.COMMIT", 2, id="replayed, answer not seen"),
        pytest.param("pg.s2c.COMMIT", 1, id="verdict not written down"),
    ],
)
async def test_a_replay_that_is_killed_goes_on_where_it_ended(laboratory: Laboratory, event: str, nth: int) -> None:
    """The `nth` letter is replayed in the transaction that is meant."""
    sidecar = await laboratory.sidecar("sidecar")
    orders = [f"order-{each}" for each in range(NUMBER)]
    await give_up(laboratory, *(order_placed(order, start_id(order)) for order in orders))
    await until_async(lambda: kept(laboratory, NUMBER), timeout=60, what=f"{NUMBER} letters")
    wires, replaying = await laboratory.wires(), set[int]()
    wires.pg.rule("pg.s2c.SELECT", call(lambda seen: replaying.add(seen.connection)), when=resolves, nth=nth)
    victim: list[int] = []
    wires.pg.rule(event, kill(lambda: victim[0]), when=lambda seen: seen.connection in replaying)
    child = await Child.start(
        "replay", antiphon("dead", "replay", "--all"), folder=wires.setup.folder, env=wires.setup.environment()
    )
    async with child:
        victim.append(child.pid)
        assert await child.ended() == -signal.SIGKILL
    said = await finished("resume", laboratory.setup, "dead", "replay", "--resume", "1", "--json")
    assert json.loads(said[said.index("{") :])["counts"] == {"processed": NUMBER}
    assert [row["status"] for row in await letters(laboratory)] == ["replayed"] * NUMBER
    started = [row for row in (await laboratory.look()).history if row.kind == "started"]
    assert len(started) == NUMBER
    wires.assert_fired()
    assert await sidecar.stop() == 0


def resolves(event: Event) -> bool:
    """Whether it belongs to the statement that marks a letter as replayed."""
    return "dead_letter_resolve" in event.text("statement")


def keeps(event: Event) -> bool:
    """Whether it belongs to the statement that keeps dead letters."""
    return "dead_letter_keep" in event.text("statement")


async def give_up(laboratory: Laboratory, *messages: aio_pika.Message) -> None:
    """Publish messages straight to the broker's dead-letter exchange, as a queue does that gave them up."""
    namespace = laboratory.setup.namespace
    async with await aio_pika.connect(laboratory.setup.broker_url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(f"{namespace}.dead", ensure=False)
        died: list[FieldValue] = [{"queue": f"{namespace}.saga.PlaceOrder", "reason": "rejected", "count": 1}]
        for message in messages:
            message.headers = {**message.headers, "x-death": died}
            await exchange.publish(message, "ordering.OrderPlaced")


async def letters(laboratory: Laboratory) -> list[dict[str, Any]]:
    """The dead letters of the run."""
    connection = await asyncpg.connect(laboratory.setup.database_url)
    try:
        rows = await connection.fetch(f"select * from {laboratory.setup.namespace}.v_dead_letter")  # noqa: S608
        return [dict(row) for row in rows]
    finally:
        await connection.close()


async def kept(laboratory: Laboratory, number: int) -> list[dict[str, Any]]:
    """All letters, once there are so many."""
    found = await letters(laboratory)
    return found if len(found) == number else []


async def left(laboratory: Laboratory) -> int:
    """How many messages still wait in the broker's dead-letter queue."""
    async with await aio_pika.connect(laboratory.setup.broker_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(f"{laboratory.setup.namespace}.dead", passive=True)
        return queue.declaration_result.message_count or 0
