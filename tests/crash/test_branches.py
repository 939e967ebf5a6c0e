"""`kill -9` of instances whose flow branches: whichever branch was under way, the next process finishes it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.crash.branches import judged
from tests.crash.driver import Shop, at_rest, start_id
from tests.crash.script import TRAVEL
from tests.crash.test_crash_points import aim
from tests.crash.test_one_process import copied, launched, read, shop
from tests.crash.test_random_kills import aim as aim_at_random
from tests.crash.test_timers import aim as aim_at_timers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.crash.driver import Setup, Sidecar
    from tests.crash.laboratory import Laboratory, Wires
    from tests.crash.proxy.faults import Side
    from tests.crash.views import Picture

MODULES = "tests.crash.travelling"
ATTEMPTS = 3
IN_ONE_PROCESS = ("driven~car=ok~inn=fail", "poor~lounge=fail~cashier=fail")
TRAVELLERS = (
    "",  # by plane, and in whichever bed
    "~car=ok",
    "~plane=fail",  # by train
    "~lounge=fail",  # by train, when the plane is given back
    "~plane=silent",  # by train, when the plane is in doubt no more
    "~plane=fail~train=fail",  # not at all
    "~inn=fail",  # in the hostel
    "~inn=late:0.8",  # in the hostel, the inn is given back when the money is paid
    "~inn=fail~hostel=fail",
    "~car=fail",
    "~cashier=fail",
    "~lounge=fail~cashier=fail",
    "~post=transient:1",
)


async def at_work(laboratory: Laboratory, name: str, *wires: Wires) -> Sidecar:
    """A sidecar that knows how to travel."""
    return await laboratory.sidecar(name, *wires, MODULES=MODULES)


async def sound(laboratory: Laboratory, starts: Mapping[str, str]) -> Picture:
    """Wait for rest; then nothing may be wrong."""
    picture = await at_rest(laboratory.look, starts, laboratory.setup.ledger)
    assert judged(picture, starts) == []
    return picture


@pytest.mark.parametrize(
    ("event", "side", "nth"),
    [
        pytest.param("pg.c2s.save", "before", 4, id="save of branches never sent"),
        pytest.param("amqp.c2s.publish", "before", 60, id="some of the undos published"),
    ],
)
async def test_a_killed_process_leaves_every_branch_to_the_next(
    laboratory: Laboratory, event: str, side: Side, nth: int
) -> None:
    wires = await laboratory.wires()
    victim = await at_work(laboratory, "victim", wires)
    aim(wires, event, side, nth, victim)
    await laboratory.participants(names=tuple(TRAVEL))
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        starts = await shop.place(*[f"t-{number}{words}" for number, words in enumerate(TRAVELLERS)])
    await victim.killed()
    heir = await at_work(laboratory, "heir")
    picture = await sound(laboratory, starts)
    wires.assert_fired()
    assert await heir.stop() == 0
    assert {"decision_made", "alternative_failed", "branch_lost", "branches_done", "rested"} <= set(kinds(picture))


@pytest.mark.parametrize(
    ("event", "rested"),
    [
        pytest.param("pg.c2s.COMMIT", False, id="decided, not committed"),
        pytest.param("pg.s2c.COMMIT", True, id="committed, answer not seen"),
    ],
)
async def test_a_rest_ends_once_whenever_the_process_dies(laboratory: Laboratory, event: str, rested: bool) -> None:
    await laboratory.participants(names=tuple(TRAVEL))
    starts: dict[str, str] = {}
    for _ in range(ATTEMPTS):
        if await meets_its_rest(laboratory, starts, event, rested):
            return
    pytest.fail(f"the batch of timers that was meant was missed {ATTEMPTS} times")


async def meets_its_rest(laboratory: Laboratory, starts: dict[str, str], event: str, rested: bool) -> bool:
    """Have one victim and its heir serve some more travellers. Whether the victim died in the batch of their rests.

    Nobody is silent, so that is the first batch of timers, unless the machine is so slow that a plane is waited for.
    """
    wires = await laboratory.wires()
    victim = await at_work(laboratory, "victim", wires)
    aim_at_timers(wires, event, 1, victim)
    before = len(starts)
    names = [f"{before}-{words}" for words in ("plain", "driven~car=ok", "poor~cashier=fail")]
    starts |= await laboratory.place(*names)
    await victim.killed()
    left = await laboratory.look()
    heir = await at_work(laboratory, "heir")
    picture = await sound(laboratory, starts)
    wires.assert_fired()
    assert await heir.stop() == 0
    assert kinds(picture).count("rested") == len(starts)
    return "command_resent" not in kinds(left) and (kinds(left).count("rested") > before) == rested


def kinds(picture: Picture) -> list[str]:
    """What happened, in one word each."""
    return [row.kind for row in picture.history]


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.soak)])
async def test_branches_end_whoever_is_killed_whenever(laboratory: Laboratory, kills: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice, starts = random.Random(seed), dict[str, str]()
    wires = await laboratory.wires()
    sidecar = await at_work(laboratory, "sidecar", wires)
    participants = await laboratory.participants(names=tuple(TRAVEL))
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        for round_ in range(kills):
            others = [participants] if dice.random() < 0.5 else []
            deadly = aim_at_random(dice, wires, sidecar, others)
            travellers = dice.sample(TRAVELLERS, k=6)
            starts |= await shop.place(*[f"t-{round_}-{number}{words}" for number, words in enumerate(travellers)])
            await deadly.has_fired(timeout=120)
            await asyncio.gather(sidecar.killed(), *[each.ended() for each in others])
            sidecar = await at_work(laboratory, "sidecar", wires)
            if others:
                participants = await laboratory.participants(names=tuple(TRAVEL))
    await sound(laboratory, starts)


@pytest.fixture(scope="module")
async def placed(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    """A database on SQLite in which the travels are placed and nobody has taken them yet."""
    return await shop(tmp_path_factory.mktemp("placed"), *IN_ONE_PROCESS)


@pytest.mark.parametrize(
    ("point", "nth"),
    [
        pytest.param("consumer.TravelOrder.batch: committed", 4, id="branches committed, answer not seen"),
        pytest.param("participant.cashier.command: committed", 1, id="pivot passed, reply not published"),
    ],
)
async def test_in_one_process_branches_end_wherever_it_is_killed(
    placed: Setup, tmp_path: Path, point: str, nth: int
) -> None:
    setup = replace(copied(placed, tmp_path), settings={"MODULES": MODULES, "SWEEP": "0.1"})
    async with await launched(setup, "victim", "--at", point, "--nth", str(nth)) as victim:
        await victim.killed()
    async with await launched(setup, "heir") as heir:
        picture = await at_rest(partial(in_a_file, setup), IN_ONE_PROCESS, setup.ledger)
        assert await heir.stop() == 0
    assert judged(picture, {order: start_id(order) for order in IN_ONE_PROCESS}) == []


async def in_a_file(setup: Setup) -> Picture:
    """The views and the effects of a run in one process."""
    return read(setup)
