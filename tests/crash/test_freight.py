"""`kill -9` while a list is worked off item by item, and while it is undone: the next process goes on from there."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.crash import loads
from tests.crash.driver import BOUND, at_rest
from tests.crash.laboratory import LOCKING, decides, marks_rows, saves
from tests.crash.proxy.faults import call, kill
from tests.crash.script import HARBOUR
from tests.crash.tallyman import cargoes, judged, kinds
from tests.crash.test_random_kills import MOMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.crash.driver import Sidecar
    from tests.crash.laboratory import Laboratory, Wires
    from tests.crash.proxy.faults import Side
    from tests.crash.proxy.wire import Event
    from tests.crash.views import Picture

MODULES = "tests.crash.freight"
DO, UNDO = "crane.Do", "crane.Undo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When to die: at this event, once a victim has published so many of these commands."""

    name: str
    event: str
    side: Side = "before"
    command: str = DO
    nth: int = 3

    @property
    def locking(self) -> bool:
        """Whether it is in a batch that is decided in a transaction."""
        return self.event.endswith(".COMMIT")

    def aim(self, wires: Wires, victim: Sidecar) -> None:
        """Kill this victim then."""
        wires.amqp.rule(
            "amqp.c2s.publish",
            call(lambda _: self._arm(wires, victim)),
            when=lambda event: event.text("type") == self.command,
            nth=self.nth,
        )

    def _arm(self, wires: Wires, victim: Sidecar) -> None:
        deadly = kill(victim.pid)
        if self.locking:
            wires.at_commit(self.event, deadly)
        elif self.event.startswith("amqp."):
            wires.amqp.rule(self.event, deadly, side=self.side, when=self._is_of_an_item)
        else:
            when = {"pg.c2s.save": saves, "pg.s2c.save": saves, "pg.s2c.fetch": fetches}.get(self.event, marks_rows)
            event = {"pg.c2s.save": "pg.c2s.WITH", "pg.s2c.save": "pg.s2c.SELECT", "pg.s2c.fetch": "pg.s2c.SELECT"}
            wires.pg.rule(event.get(self.event, self.event), deadly, when=when)

    def _is_of_an_item(self, event: Event) -> bool:
        return event.name != "amqp.c2s.publish" or event.text("type") == self.command


def fetches(event: Event) -> bool:
    """Whether it belongs to a statement that fetches items, or how they went."""
    return "from saga_item" in event.text("statement") and not (saves(event) or decides(event))


WORKING = (
    Moment(name="an item's reply delivered, not begun", event="amqp.s2c.deliver_done", side="after"),
    Moment(name="items fetched, not decided", event="pg.s2c.fetch"),
    Moment(name="save of items never sent", event="pg.c2s.save"),
    Moment(name="items saved, answer not seen", event="pg.s2c.save", nth=8),
    Moment(name="commit of items never sent", event="pg.c2s.COMMIT"),
    Moment(name="items committed, answer not seen", event="pg.s2c.COMMIT", nth=8),
    Moment(name="some of the items published", event="amqp.c2s.publish", nth=6),
    Moment(name="items published, not confirmed", event="amqp.c2s.publish_done", side="after", nth=6),
    Moment(name="items confirmed, not recorded", event="pg.c2s.WITH"),
    Moment(name="replies of items applied, not acknowledged", event="amqp.c2s.ack"),
)
UNDOING = tuple(
    Moment(name=f"undoing: {each.name}", event=each.event, side=each.side, command=UNDO, nth=min(each.nth, 4))
    for each in WORKING
)
IN_TURN = (
    "items saved, answer not seen",
    "some of the items published",
    "undoing: commit of items never sent",
    "undoing: items saved, answer not seen",
)
"""Those that even a short run meets, one after the other."""


async def at_work(laboratory: Laboratory, name: str, *wires: Wires, locking: bool = False) -> Sidecar:
    """A sidecar that knows how to load a ship."""
    return await laboratory.sidecar(name, *wires, command=LOCKING if locking else (), MODULES=MODULES, SWEEP="0.2")


async def sound(laboratory: Laboratory, starts: Mapping[str, str]) -> Picture:
    """Wait for rest; then nothing may be wrong, and everything that can happen to an item has happened."""
    setup = laboratory.setup
    picture = await at_rest(laboratory.look, starts, setup.ledger)
    assert judged(picture, starts, await cargoes(setup.database_url, setup.namespace)) == []
    happened = kinds(picture)
    assert {"reply_transient", "step_timed_out", "step_failed", "step_compensated"} <= set(happened)
    return picture


async def serve(laboratory: Laboratory, moments: Sequence[Moment]) -> None:
    """Have ships served by one victim after the other, each killed at its moment, and by an heir."""
    starts: dict[str, str] = {}
    await laboratory.participants(names=tuple(HARBOUR))
    for number, moment in enumerate(moments):
        wires = await laboratory.wires()
        victim = await at_work(laboratory, f"victim-{number}", wires, locking=moment.locking)
        moment.aim(wires, victim)
        names = tuple(loads.LOADS) if number == 0 else ("overloaded",)
        starts |= await laboratory.place(*loads.orders(number, names))
        await victim.killed()
        wires.assert_fired()
    heir = await at_work(laboratory, "heir")
    await sound(laboratory, starts)
    assert await heir.stop() == 0


async def test_a_list_is_finished_whoever_dies_in_the_middle_of_it(laboratory: Laboratory) -> None:
    await serve(laboratory, [each for each in (*WORKING, *UNDOING) if each.name in IN_TURN])


@pytest.mark.soak
@pytest.mark.parametrize("moment", [*WORKING, *UNDOING], ids=lambda moment: moment.name)
async def test_a_list_is_finished_wherever_a_process_dies(laboratory: Laboratory, moment: Moment) -> None:
    await serve(laboratory, [moment])


@pytest.mark.soak
async def test_lists_are_finished_whoever_is_killed_whenever(laboratory: Laboratory) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice, starts = random.Random(seed), dict[str, str]()
    wires = await laboratory.wires()
    sidecar = await at_work(laboratory, "sidecar", wires)
    participants = await laboratory.participants(names=tuple(HARBOUR))
    for round_ in range(40):
        others = [participants] if dice.random() < 0.5 else []
        event, side = dice.choice(MOMENTS)
        proxy = wires.pg if event.startswith("pg.") else wires.amqp
        everybody = kill(sidecar.pid, *[each.pid for each in others])
        deadly = proxy.rule(event, everybody, side=side, nth=dice.randint(1, 20))
        starts |= await laboratory.place(*loads.orders(round_, dice.sample(tuple(loads.LOADS), k=2)))
        await deadly.has_fired(timeout=BOUND)
        await asyncio.gather(sidecar.killed(), *[each.ended() for each in others])
        sidecar = await at_work(laboratory, "sidecar", wires)
        if others:
            participants = await laboratory.participants(names=tuple(HARBOUR))
    await sound(laboratory, starts)
