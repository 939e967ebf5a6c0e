"""A sidecar that is halted, blocked, cut off or told to stop, whatever it is doing then."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from tests.crash.driver import Shop
from tests.crash.forking import Program
from tests.crash.laboratory import decides, looks
from tests.crash.proxy.faults import black_hole, cut, drop, hold, stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.crash.laboratory import Laboratory
    from tests.crash.proxy.wire import Event

COMPLETED = {"completed"}
IMPATIENT = Program("tests.crash.launcher", ["--impatient"])
BLOCKED = Program(
    "tests.crash.launcher", ["--at", "consumer.PlaceOrder.batch: inbox written", "--nth", "2", "--block", "4"]
)


@pytest.mark.parametrize(
    ("words", "when"),
    [
        pytest.param(["--impatient", "--locking"], decides, id="in a transaction"),
        pytest.param(["--impatient"], looks, id="after its look"),
    ],
)
async def test_a_sidecar_that_is_halted_while_it_decides_holds_nobody_up_and_commits_nothing(
    laboratory: Laboratory, words: list[str], when: Callable[[Event], bool]
) -> None:
    """It holds deliveries, and perhaps the lock of an instance; both servers give it up for dead, and it is not."""
    wires = (await laboratory.wires()).beating(1)
    zombie = await laboratory.sidecar("zombie", wires, command=Program("tests.crash.launcher", words))
    await laboratory.participants()
    waking = asyncio.Event()
    halted = wires.pg.rule("pg.s2c.SELECT", [stop(zombie.pid), hold(waking)], when=when, nth=2)
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        starts = await shop.place("o-1", "o-2")
        await halted.has_fired()
        successor = await laboratory.sidecar("successor")
        await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
        assert await successor.stop() == 0
        zombie.child.signal(signal.SIGCONT)
        waking.set()
        starts |= await shop.place("o-3")
        await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
    assert await zombie.stop() == 0


async def test_a_blocked_event_loop_costs_the_connections_and_nothing_else(laboratory: Laboratory) -> None:
    """For four heartbeats, in the middle of a transaction."""
    wires = (await laboratory.wires()).beating(1)
    sidecar = await laboratory.sidecar("sidecar", wires, command=BLOCKED)
    await laboratory.participants()
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        starts = await shop.place("o-1", "o-2")
    await wires.amqp.seen("amqp.c2s.protocol-header", 4)
    await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
    assert await sidecar.stop() == 0


async def test_a_broker_that_falls_silent_is_noticed_by_its_heart(laboratory: Laboratory) -> None:
    """Both sockets stay open and no byte comes through: first where commands go out, then where replies come in."""
    wires = (await laboratory.wires()).beating(1)
    sidecar = await laboratory.sidecar("sidecar", wires)
    await laboratory.participants()
    starts: dict[str, str] = {}
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        for event in ("amqp.c2s.publish", "amqp.s2c.deliver"):
            silent = wires.amqp.rule(event, black_hole())
            starts |= await shop.place(event)
            await silent.has_fired()
        await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
    assert await sidecar.stop() == 0


async def test_an_acknowledgement_and_a_confirm_may_be_lost(laboratory: Laboratory) -> None:
    """The one with its connection; the other on a connection that is sound, so that it is waited for."""
    wires = await laboratory.wires()
    sidecar = await laboratory.sidecar("sidecar", wires, CONFIRM_TIMEOUT="1")
    await laboratory.participants()
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        lost = wires.amqp.rule("amqp.c2s.ack", cut())
        starts = await shop.place("acknowledgement")
        await lost.has_fired()
        await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
        assert wires.given_back
        published = wires.amqp.count("amqp.c2s.publish_done")
        lost = wires.amqp.rule("amqp.s2c.ack", drop())
        starts |= await shop.place("confirm")
        await lost.has_fired()
        await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
        assert wires.amqp.count("amqp.c2s.publish_done") > published + 3, "nothing was published again"
    assert await sidecar.stop() == 0


async def test_a_stop_under_load_leaves_nothing_undone_and_nothing_doubled(laboratory: Laboratory) -> None:
    """Once; once while the database is away, and while the broker is; and twice, which waits for nothing."""
    await laboratory.participants()
    starts: dict[str, str] = {}
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        for way in ("once", "without database", "without broker", "twice"):
            wires = await laboratory.wires()
            sidecar = await laboratory.sidecar(way, wires, DRAIN_TIMEOUT="2")
            starts |= await shop.place(*[f"{way}-{number}" for number in range(20)])
            await wires.pg.seen("pg.s2c.COMMIT", wires.pg.count("pg.s2c.COMMIT") + 3)
            if way == "without database":
                wires.pg.refuse()
            if way == "without broker":
                wires.amqp.refuse()
            sidecar.child.signal(signal.SIGTERM)
            if way == "twice":
                sidecar.child.signal(signal.SIGTERM)
            assert await sidecar.child.ended() in ((0,) if way == "once" else (0, 75))
    heir = await laboratory.sidecar("heir")
    await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
    assert await heir.stop() == 0
