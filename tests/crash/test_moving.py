"""`kill -9` of `antiphon definitions migrate` at its commits, while instances live and messages come for them.

The first version is away: a sidecar that knows only the next one keeps what comes for instances that are still to be
moved. What cannot be moved, or had ended before, is left to a sidecar that knows both.
"""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING

import pytest

from tests.crash.driver import BOUND, at_rest
from tests.crash.forking import Program
from tests.crash.jury import judged, kept
from tests.crash.laboratory import decides
from tests.crash.moved import instances, miscounted, out_of_place, torn
from tests.crash.process import Child
from tests.crash.proxy.faults import kill
from tests.crash.script import REFORM
from tests.crash.test_court import cases
from tests.crash.test_random_kills import aim as aim_at_random
from tests.crash.witnesses import Court, Word
from tests.services.waiting import until_async

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tests.crash.driver import Sidecar
    from tests.crash.laboratory import Laboratory, Wires

BEFORE, AFTER = "tests.crash.court", "tests.crash.reform"
SIZE = 4
OLD = ["definitions", "migrate", "CourtCase", "1", "--reason", "the reform", "--json"]
Moment = tuple[str, int]
MOMENTS: Mapping[str, Moment] = {
    "saved, not committed": ("pg.s2c.SELECT", 1),
    "commit never sent": ("pg.c2s.COMMIT", 1),
    "committed, answer not seen": ("pg.s2c.COMMIT", 1),
    "second batch saved, not committed": ("pg.s2c.SELECT", 2),
    "second commit never sent": ("pg.c2s.COMMIT", 2),
    "second batch committed, answer not seen": ("pg.s2c.COMMIT", 2),
}


async def at_work(laboratory: Laboratory, name: str, *modules: str) -> Sidecar:
    """A sidecar that holds court by these rules."""
    return await laboratory.sidecar(name, MODULES=",".join(modules), SWEEP="0.2")


def mover(laboratory: Laboratory, wires: Wires | None = None) -> Mapping[str, object]:
    """What a process is started with that moves everybody to the next version."""
    setup = laboratory.setup if wires is None else wires.setup
    program = Program("tests.crash.moving", [str(SIZE), *OLD])
    return {"command": program, "folder": setup.folder, "env": setup.environment(MODULES=AFTER)}


def aim(wires: Wires, moment: Moment, victims: Sequence[Child]) -> None:
    """Kill the first of these, which need not have begun yet, at this moment."""
    (event, nth), deadly = moment, kill(lambda: victims[0].pid)
    if event.endswith(".COMMIT"):
        wires.at_commit(event, deadly, nth=nth)
    else:
        wires.pg.rule(event, deadly, when=decides, nth=nth)


async def killed_at(laboratory: Laboratory, name: str, moment: Moment) -> None:
    """Begin to move everybody, and be killed at this moment."""
    wires, victims = await laboratory.wires(), list[Child]()
    aim(wires, moment, victims)
    victims.append(await Child.start(name, **mover(laboratory, wires)))  # type: ignore[arg-type]
    async with victims[0]:
        assert await victims[0].ended() == -9, victims[0].tail()
    wires.assert_fired()


async def finished(laboratory: Laboratory, name: str = "mover") -> int:
    """Move everybody who can be moved; returns how many were left."""
    async with await Child.start(name, **mover(laboratory)) as child:  # type: ignore[arg-type]
        code = await child.ended()
        assert code in (0, 75), child.tail()
        remaining = int(json.loads(child.text())["remaining"])
        assert (code == 75) == (remaining > 0)
        return remaining


async def half_way(laboratory: Laboratory, born: Collection[str], *, waits: int) -> None:
    """Wait until all these cases are under way, and so many of them have come to their first vote."""

    async def seen() -> bool:
        picture = await laboratory.look()
        begun = {row.saga_id for row in picture.history if row.kind == "wait_began"}
        return len(picture.sagas) >= len(born) and len(begun) >= waits

    await until_async(seen, timeout=60, what="cases that wait for a vote")


async def whole(laboratory: Laboratory, born: Collection[str]) -> int:
    """Nobody may be half moved. Returns how many were moved so far."""
    found = await instances(laboratory.setup.database_url, laboratory.setup.namespace)
    assert torn(found, born) == []
    return sum(each.moves for each in found)


async def sound(laboratory: Laboratory, starts: Mapping[str, str], said: Sequence[Word], born: Collection[str]) -> None:
    """Wait for rest, and until everything that was said is decided; then nothing may be wrong."""
    setup = laboratory.setup
    picture = await at_rest(laboratory.look, starts, setup.ledger, waits=lambda picture: kept(picture, said))
    found = await instances(setup.database_url, setup.namespace)
    assert [*judged(picture, starts, said), *torn(found, born)] == []
    assert [*miscounted(found, picture), *out_of_place(found, picture)] == []


def more(orders: Collection[str], number: int) -> list[Word]:
    """Something else to be noted of each of these but those of which silence is expected: see `PLOTS`."""
    return [
        Word(order=order, name="Noted", number=number) for order in orders if not order.startswith(("silent", "half"))
    ]


async def reformed(laboratory: Laboratory, moments: Sequence[Moment]) -> None:
    """Reform the court while it has cases, with as many movers killed as there are moments."""
    old = await at_work(laboratory, "old", BEFORE)
    await laboratory.participants(names=tuple(REFORM))
    async with Court(laboratory.setup.broker_url, laboratory.setup.namespace) as court:
        starts, said = await court.hear({**cases(0), **cases(1)})
        born = list(starts)
        await half_way(laboratory, born, waits=4)
        await old.kill()
        new = await at_work(laboratory, "new", AFTER)
        moved = 0
        for number, moment in enumerate(moments):
            words, _ = await asyncio.gather(
                court.say(*more(born, 10 + number)), killed_at(laboratory, f"victim-{number}", moment)
            )
            said += words
            before, moved = moved, await whole(laboratory, born)
            committed = moment[1] - (not moment[0].startswith("pg.s2c.COMMIT"))
            assert (moved > before) == (committed > 0)
            placed, words = await court.hear(cases(10 + number, ("early",)))
            starts, said = starts | placed, [*said, *words]
        await finished(laboratory)
        assert await whole(laboratory, born) > moved
        await at_work(laboratory, "both", BEFORE, AFTER)
        await sound(laboratory, starts, said, born)
    assert await new.stop() == 0


async def test_a_move_that_is_killed_is_run_again(laboratory: Laboratory) -> None:
    await reformed(laboratory, [MOMENTS["second commit never sent"], MOMENTS["committed, answer not seen"]])


@pytest.mark.soak
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
async def test_a_move_may_be_killed_anywhere(laboratory: Laboratory, moment: Moment) -> None:
    await reformed(laboratory, [moment])


@pytest.mark.soak
async def test_instances_are_moved_whoever_is_killed_whenever(laboratory: Laboratory) -> None:
    """Again and again cases begin under the first rules, and are moved while a sidecar that knows both is at work."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice, starts, said, born = random.Random(seed), dict[str, str](), list[Word](), list[str]()
    await laboratory.participants(names=tuple(REFORM))
    async with Court(laboratory.setup.broker_url, laboratory.setup.namespace) as court:
        await (await at_work(laboratory, "first", BEFORE, AFTER)).kill()  # both versions are recorded
        for round_ in range(20):
            old = await at_work(laboratory, "old", BEFORE)
            placed, words = await court.hear(cases(round_))
            starts, said, born = starts | placed, [*said, *words], [*born, *placed]
            await half_way(laboratory, born, waits=len(born) // 4)
            await old.kill()
            wires = await laboratory.wires()
            both = await laboratory.sidecar("both", wires, MODULES=f"{BEFORE},{AFTER}", SWEEP="0.2")
            deadly = aim_at_random(dice, wires, both, [])
            heard, moved = await asyncio.gather(
                court.say(*more(placed, 10)), killed_or_not(laboratory, dice.choice(list(MOMENTS.values())))
            )
            said += heard
            assert torn(await instances(laboratory.setup.database_url, laboratory.setup.namespace), born) == []
            await deadly.has_fired(timeout=BOUND)
            await both.killed()
            if not moved:
                await finished(laboratory, f"mover-{round_}")
        await at_work(laboratory, "heir", BEFORE, AFTER)
        await sound(laboratory, starts, said, born)


async def killed_or_not(laboratory: Laboratory, moment: Moment) -> bool:
    """Begin to move everybody, and be killed at this moment if it comes to that. Whether everybody was moved before."""
    wires, victims = await laboratory.wires(), list[Child]()
    aim(wires, moment, victims)
    victims.append(await Child.start("either", **mover(laboratory, wires)))  # type: ignore[arg-type]
    async with victims[0]:
        return await victims[0].ended() == 0
