"""`kill -9` of one, or of everybody at once, again and again, at moments drawn from a seed; then all comes to rest."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from tests.crash.checker import ENDED
from tests.crash.driver import Shop
from tests.crash.proxy.faults import kill

if TYPE_CHECKING:
    from tests.crash.driver import Sidecar
    from tests.crash.laboratory import Laboratory, Wires
    from tests.crash.process import Child
    from tests.crash.proxy.faults import Side
    from tests.crash.proxy.rules import Rule

MOMENTS: list[tuple[str, Side]] = [
    ("pg.c2s.WITH", "before"),
    ("pg.s2c.SELECT", "before"),
    ("pg.c2s.COMMIT", "before"),
    ("pg.s2c.COMMIT", "before"),
    ("amqp.s2c.deliver_done", "after"),
    ("amqp.c2s.publish", "before"),
    ("amqp.c2s.publish_done", "after"),
    ("amqp.s2c.ack", "before"),
    ("amqp.c2s.ack", "before"),
]
WORDS = (
    "",
    "",
    "",
    "~payment=fail",
    "~warehouse=fail",
    "~payment=transient:1",
    "~stock=times:3",
    "~warehouse=late:0.3",
)
ORDERS = 6  # placed between two kills


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.soak)])
async def test_whoever_is_killed_whenever_nothing_is_lost_or_doubled(laboratory: Laboratory, kills: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    wires = [await laboratory.wires() for _ in range(2)]
    sidecars = [await laboratory.sidecar(f"sidecar-{number}", each) for number, each in enumerate(wires)]
    participants = await laboratory.participants()
    starts: dict[str, str] = {}
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        for round_ in range(kills):
            victim = dice.randrange(2)
            others = [sidecars[1 - victim].child, participants] if dice.random() < 0.5 else []
            deadly = aim(dice, wires[victim], sidecars[victim], others)
            orders = [f"o-{round_}-{number}{dice.choice(WORDS)}" for number in range(ORDERS)]
            starts |= await shop.place(*orders)
            await deadly.has_fired(timeout=120)
            await asyncio.gather(sidecars[victim].killed(), *[each.ended() for each in others])
            for number in range(2):
                if not sidecars[number].child.running:
                    name = f"sidecar-{number}"
                    sidecars[number] = await laboratory.sidecar(name, wires[number])
            if not participants.running:
                participants = await laboratory.participants()
    await laboratory.judge(starts, dict.fromkeys(starts, ENDED))


def aim(dice: random.Random, wires: Wires, victim: Sidecar, others: list[Child]) -> Rule:
    """Kill them all at a moment of the victim's that the dice choose."""
    event, side = dice.choice(MOMENTS)
    proxy = wires.pg if event.startswith("pg.") else wires.amqp
    everybody = kill(victim.pid, *[each.pid for each in others])
    return proxy.rule(event, everybody, side=side, nth=dice.randint(1, 4))
