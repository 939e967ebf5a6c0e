"""Two orchestrators on one queue: copies, concurrent starts, and one of them killed or halted in the middle of it.

The fate of a sidecar that was halted for longer than its lease is that of a dead one, save that it wakes up and goes on
where it was: what it says then about rows that are no longer its own must not count.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.crash.driver import BOUND, Shop, antiphon, finished, order_body, start_id
from tests.crash.laboratory import decides, marks_rows
from tests.crash.process import GLANCE
from tests.crash.proxy.faults import hold, kill, stop

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.crash.laboratory import Laboratory, Wires
    from tests.crash.proxy.wire import Event

HUNDRED = 100
COPIED = "copied~stock=times:100~payment=times:100~warehouse=times:100"
TURNED = "turned~stock=times:100~stock.undo=times:100~payment=fail"
RIVALS = "rivals"  # announced a hundred times, under a hundred ids
ALLOWED = {TURNED: {"compensated"}, COPIED: {"completed"}, RIVALS: {"completed"}}
THROUGH_CLI, THROUGH_SQL = 4, 32  # of the hundred; the rest over AMQP


@pytest.mark.parametrize("killed", [False, True], ids=["both live", "one is killed at work"])
async def test_a_hundred_copies_and_a_hundred_starts_of_one_key_have_one_effect(
    laboratory: Laboratory, killed: bool
) -> None:
    wires = [await laboratory.wires(), await laboratory.wires()]
    one, other = [await laboratory.sidecar(f"sidecar-{n}", each) for n, each in enumerate(wires)]
    await laboratory.participants()
    if killed:
        wires[0].at_save("pg.s2c", kill(one.pid), nth=2)
    starts, rivals = await place_everything(laboratory)
    if killed:
        await one.killed()
    async with asyncio.timeout(BOUND):  # rest says nothing of starts that wait in the queue
        while (dispositions := await dispositions_of(laboratory)).keys() & set(rivals) != set(rivals):  # noqa: ASYNC110
            await asyncio.sleep(GLANCE)
    await laboratory.judge(starts, ALLOWED)
    assert Counter(dispositions[each] for each in rivals) == {"applied": 1, "ignored": HUNDRED - 1}
    for each in wires:
        assert each.pg.count("pg.c2s.WITH", decides), "one sidecar did nothing"
        each.assert_fired()
    assert [await each.stop() for each in ([other] if killed else [one, other])] == [0] * (1 if killed else 2)


async def dispositions_of(laboratory: Laboratory) -> Mapping[str, str]:
    """What the inbox says of every message that the saga has met."""
    return {row.message_id: row.disposition for row in (await laboratory.look()).inbox if row.consumer == "PlaceOrder"}


async def place_everything(laboratory: Laboratory) -> tuple[Mapping[str, str], Sequence[str]]:
    """A hundred copies of two orders and a hundred starts of a third, at once and through all three doors."""
    rivals = [start_id(f"{RIVALS}/{number}") for number in range(HUNDRED)]
    by_cli, by_sql, by_amqp = rivals[:THROUGH_CLI], rivals[THROUGH_CLI:THROUGH_SQL], rivals[THROUGH_SQL:]
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        placing = asyncio.create_task(shop.place(COPIED, TURNED, copies=HUNDRED))
        await asyncio.gather(
            placing,
            shop.announce(RIVALS, by_amqp),
            *[through_sql(laboratory, each) for each in by_sql],
            *[through_cli(laboratory, each) for each in by_cli],
        )
    return {**placing.result(), RIVALS: rivals[0]}, rivals


async def through_sql(laboratory: Laboratory, message_id: str) -> None:
    """As a service that shares the database places an order."""
    connection = await asyncpg.connect(laboratory.setup.database_url)
    try:
        statement = f"select {laboratory.setup.namespace}.publish('ordering.OrderPlaced', $1, $2)"
        await connection.execute(statement, order_body(RIVALS), message_id)
    finally:
        await connection.close()


async def through_cli(laboratory: Laboratory, message_id: str) -> None:
    """As a person places an order."""
    words = ("publish", "ordering.OrderPlaced", order_body(RIVALS), "--message-id", message_id)
    await finished(f"publish-{message_id}", laboratory.setup, *words)


@pytest.mark.parametrize(
    ("lease", "command"),
    [
        pytest.param({}, (), id="short lease"),
        # As people run it: the default lease, and a process that begins from nothing.
        pytest.param(
            {"LEASE": ""}, antiphon("run").command, id="default lease", marks=[pytest.mark.long(22), pytest.mark.soak]
        ),
    ],
)
async def test_what_a_killed_sidecar_had_not_published_another_publishes(
    laboratory: Laboratory, lease: Mapping[str, str], command: Sequence[str]
) -> None:
    wires, others = await laboratory.wires(), await laboratory.wires()
    victim = await laboratory.sidecar("victim", wires, command=command, **lease)
    wires.amqp.rule("amqp.c2s.publish", kill(victim.pid))
    await laboratory.participants()
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        starts = await shop.place("o-1")
        heir = await laboratory.sidecar("heir", others, command=command, **lease)
        await victim.killed()
    picture = await laboratory.judge(starts, {"o-1": {"completed"}})
    first = next(arrival for arrival in picture.arrivals if arrival.name == "stock.ReserveStock")
    assert published(others, first.message_id)
    wires.assert_fired()
    assert await heir.stop() == 0


async def test_what_a_halted_sidecar_says_after_its_lease_does_not_count(laboratory: Laboratory) -> None:
    """Both have published a row and neither knows: the one that no longer holds it gets its confirm first."""
    wires, others = await laboratory.wires(), await laboratory.wires()
    zombie = await laboratory.sidecar("zombie", wires)
    waking, confirming = asyncio.Event(), asyncio.Event()
    wires.amqp.rule("amqp.s2c.ack", [stop(zombie.pid), hold(waking)])
    await laboratory.participants()
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        starts = await shop.place("o-1~stock=late:6")
    await wires.amqp.seen("amqp.s2c.ack")
    row = (await laboratory.look()).outbox[0].message_id
    others.amqp.rule("amqp.s2c.ack", hold(confirming))
    await laboratory.sidecar("successor", others)
    await others.amqp.seen("amqp.c2s.publish_done", when=lambda event: event.text("message_id") == row)
    marks = wires.pg.count("pg.s2c.SELECT", marks_rows)
    zombie.child.signal(signal.SIGCONT)
    waking.set()
    await wires.pg.seen("pg.s2c.SELECT", marks + 1, when=marks_rows)
    assert row in [each.message_id for each in (await laboratory.look()).outbox], "the late mark was taken for true"
    confirming.set()
    await laboratory.judge(starts, {"o-1~stock=late:6": {"completed"}})
    wires.assert_fired()


@pytest.mark.parametrize("halted", [True, False], ids=["halted", "not answered"])
async def test_a_halted_sidecar_publishes_nothing_after_its_lease(laboratory: Laboratory, halted: bool) -> None:
    """It was halted between its commit and its publication, and another has published in its place.

    Or the answer to its commit did not come: then it works on, and may get the reply before it knows of its command. It
    would claim the row again itself once the lease is over, so what it asks of the outbox waits until another has it.
    """
    wires, others = await laboratory.wires(), await laboratory.wires()
    zombie = await laboratory.sidecar("zombie", wires)
    waking = asyncio.Event()
    await laboratory.participants()
    pause = [stop(zombie.pid)] if halted else []
    committed = wires.at_save("pg.s2c", [*pause, hold(waking)])
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        starts = await shop.place("o-1")
    await committed.has_fired()
    if not halted:
        wires.pg.rule("pg.c2s.WITH", hold(waking), times=None, when=claims_rows)
    row = (await laboratory.look()).outbox[0].message_id
    await laboratory.sidecar("successor", others)
    await others.amqp.seen("amqp.c2s.publish_done", when=lambda event: event.text("message_id") == row)
    zombie.child.signal(signal.SIGCONT)
    waking.set()
    await laboratory.judge(starts, {"o-1": {"completed"}})
    assert await zombie.stop() == 0
    assert published(others, row)
    assert not published(wires, row)
    wires.assert_fired()


def claims_rows(event: Event) -> bool:
    """Whether it belongs to a statement that takes rows which others left behind."""
    return "o.next_attempt_at <= now()" in event.text("statement")


def published(wires: Wires, message_id: str) -> int:
    """How often a message went out through these wires."""
    return wires.amqp.count("amqp.c2s.publish_done", lambda event: event.text("message_id") == message_id)
