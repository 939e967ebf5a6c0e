"""`kill -9` of parents and children: whoever dies between them, each ends as the other was told."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from tests.crash import rooms
from tests.crash.driver import BOUND, at_rest
from tests.crash.kinsman import judged, parents
from tests.crash.laboratory import LOCKING
from tests.crash.proxy.faults import kill
from tests.crash.script import MOVERS
from tests.crash.test_freight import Moment
from tests.crash.test_random_kills import MOMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.crash.driver import Sidecar
    from tests.crash.laboratory import Laboratory, Wires
    from tests.crash.proxy.faults import Side
    from tests.crash.views import Picture

MODULES = "tests.crash.removal"
START, EMPTY, AS_IT_WAS, CANCEL = (
    "removal.RoomWanted",
    "removal.RoomEmpty",
    "removal.RoomAsItWas",
    "antiphon.CancelSaga",
)
SPOTS: Sequence[tuple[str, str, Side]] = (
    ("published, not confirmed", "amqp.c2s.publish_done", "after"),
    ("confirmed, not recorded", "pg.c2s.WITH", "before"),
    ("delivered, not begun", "amqp.s2c.deliver_done", "after"),
    ("its decision never sent", "pg.c2s.save", "before"),
    ("its decision saved, answer not seen", "pg.s2c.save", "before"),
    ("its commit never sent", "pg.c2s.COMMIT", "before"),
    ("applied, not acknowledged", "amqp.c2s.ack", "before"),
)
BETWEEN = tuple(
    Moment(name=f"{what}: {name}", event=event, side=side, command=command, nth=1)
    for what, command in (("a start", START), ("an end", EMPTY), ("a way back", AS_IT_WAS), ("a cancel", CANCEL))
    for name, event, side in SPOTS
)
"""Each once the first message of its kind has been published."""

IN_TURN = (
    "a start: its decision saved, answer not seen",
    "an end: published, not confirmed",
    "a cancel: delivered, not begun",
    "a cancel: its commit never sent",
)
"""Those that even a short run meets, one after the other."""


async def at_work(laboratory: Laboratory, name: str, *wires: Wires, locking: bool = False) -> Sidecar:
    """A sidecar that knows how to move a household."""
    return await laboratory.sidecar(name, *wires, command=LOCKING if locking else (), MODULES=MODULES, SWEEP="0.2")


async def sound(laboratory: Laboratory, starts: Mapping[str, str]) -> Picture:
    """Wait for rest; then nothing may be wrong."""
    setup = laboratory.setup
    picture = await at_rest(laboratory.look, starts, setup.ledger)
    assert judged(picture, starts, await parents(setup.database_url, setup.namespace)) == []
    return picture


async def serve(laboratory: Laboratory, moments: Sequence[Moment]) -> Picture:
    """Have households moved by one victim after the other, each killed at its moment, and by an heir."""
    starts: dict[str, str] = {}
    await laboratory.participants(names=tuple(MOVERS))
    for number, moment in enumerate(moments):
        wires = await laboratory.wires()
        victim = await at_work(laboratory, f"victim-{number}", wires, locking=moment.locking)
        moment.aim(wires, victim)
        starts |= await laboratory.place(*rooms.orders(number))
        await victim.killed()
        wires.assert_fired()
    heir = await at_work(laboratory, "heir")
    picture = await sound(laboratory, starts)
    assert await heir.stop() == 0
    return picture


async def test_parents_and_children_agree_whoever_dies_between_them(laboratory: Laboratory) -> None:
    picture = await serve(laboratory, [each for each in BETWEEN if each.name in IN_TURN])
    happened = {row.kind for row in picture.history}
    assert {"child_cancelled", "cancelled", "parent_answered", "step_compensated"} <= happened


@pytest.mark.soak
@pytest.mark.parametrize("moment", BETWEEN, ids=lambda moment: moment.name)
async def test_parents_and_children_agree_wherever_a_process_dies(laboratory: Laboratory, moment: Moment) -> None:
    await serve(laboratory, [moment])


@pytest.mark.soak
async def test_parents_and_children_agree_whoever_is_killed_whenever(laboratory: Laboratory) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice, starts = random.Random(seed), dict[str, str]()
    wires = await laboratory.wires()
    sidecar = await at_work(laboratory, "sidecar", wires)
    participants = await laboratory.participants(names=tuple(MOVERS))
    for round_ in range(40):
        others = [participants] if dice.random() < 0.5 else []
        event, side = dice.choice(MOMENTS)
        proxy = wires.pg if event.startswith("pg.") else wires.amqp
        everybody = kill(sidecar.pid, *[each.pid for each in others])
        deadly = proxy.rule(event, everybody, side=side, nth=dice.randint(1, 20))
        starts |= await laboratory.place(*rooms.orders(round_, dice.sample(tuple(rooms.PLANS), k=2)))
        await deadly.has_fired(timeout=BOUND)
        await asyncio.gather(sidecar.killed(), *[each.ended() for each in others])
        sidecar = await at_work(laboratory, "sidecar", wires)
        if others:
            participants = await laboratory.participants(names=tuple(MOVERS))
    await sound(laboratory, starts)
