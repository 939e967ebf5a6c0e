"""`kill -9` of instances that wait for what people say: whatever was said, and when, is decided once."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from tests.crash.driver import at_rest
from tests.crash.jury import judged, kept
from tests.crash.laboratory import LOCKING
from tests.crash.proxy.faults import call, kill
from tests.crash.script import COURT
from tests.crash.test_random_kills import aim as aim_at_random
from tests.crash.witnesses import PLOTS, Court

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from tests.crash.driver import Sidecar
    from tests.crash.laboratory import Laboratory, Wires
    from tests.crash.proxy.wire import Event
    from tests.crash.views import Picture
    from tests.crash.witnesses import Plot, Word

MODULES = "tests.crash.court"
SOAK = pytest.mark.soak


async def at_work(laboratory: Laboratory, name: str, *wires: Wires, locking: bool = False) -> Sidecar:
    """A sidecar that holds court."""
    return await laboratory.sidecar(name, *wires, command=LOCKING if locking else (), MODULES=MODULES, SWEEP="0.2")


def cases(number: int = 0, plots: Collection[str] = tuple(PLOTS)) -> Mapping[str, Plot]:
    """A case for each of these plots."""
    return {f"{name.partition('~')[0]}-{number}{''.join(name.partition('~')[1:])}": PLOTS[name] for name in plots}


async def sound(laboratory: Laboratory, starts: Mapping[str, str], said: Sequence[Word]) -> Picture:
    """Wait for rest, and until everything that was said is decided; then nothing may be wrong."""
    picture = await at_rest(laboratory.look, starts, laboratory.setup.ledger, waits=lambda picture: kept(picture, said))
    assert judged(picture, starts, said) == []
    return picture


def writes(word: str) -> Callable[[Event], bool]:
    """Whether an event belongs to a statement with such a write in it."""
    return lambda event: f"{word} as (" in event.text("statement")


def at_statement(event: str, write: str) -> Callable[[Wires, Sidecar], None]:
    """Kill at the first statement with such a write: before it is sent, or before its answer is seen."""

    def aim(wires: Wires, victim: Sidecar) -> None:
        wires.pg.rule(event, kill(victim.pid), when=writes(write))

    return aim


def at_commit(event: str, is_meant: Callable[[Event], bool]) -> Callable[[Wires, Sidecar], None]:
    """Kill at the commit of the first transaction in which a statement is meant."""

    def aim(wires: Wires, victim: Sidecar) -> None:
        def follow(seen: Event) -> None:
            wires.pg.rule(event, kill(victim.pid), when=lambda commit: commit.connection == seen.connection)

        wires.pg.rule("pg.s2c.SELECT", call(follow), when=is_meant)

    return aim


def locks_held(event: Event) -> bool:
    """Whether it belongs to the statement with which the sweep takes what is ripe."""
    return "h.held_id = any" in event.text("statement")


def decides_a_marker(event: Event) -> bool:
    """Whether it belongs to the statement that asks what is held for an instance whose time is over."""
    return "reason <> 'unawaited'" in event.text("statement")


MET, RIPE = writes("held_release"), writes("held_ripen")


@pytest.mark.parametrize(
    ("aim", "locking"),
    [
        pytest.param(at_statement("pg.c2s.WITH", "held_hold"), False, id="an early event, not held"),
        pytest.param(at_statement("pg.s2c.SELECT", "held_hold"), False, id="an early event held, answer not seen"),
        pytest.param(at_commit("pg.s2c.COMMIT", MET), True, id="what was kept applied, answer not seen"),
        pytest.param(at_commit("pg.s2c.COMMIT", RIPE), False, id="ripe by a timer, answer not seen"),
        pytest.param(at_commit("pg.c2s.COMMIT", locks_held), False, id="swept, not committed", marks=SOAK),
        pytest.param(at_commit("pg.s2c.COMMIT", locks_held), False, id="swept, answer not seen"),
        pytest.param(
            at_commit("pg.c2s.COMMIT", decides_a_marker), False, id="a time was over, not committed", marks=SOAK
        ),
        pytest.param(at_commit("pg.s2c.COMMIT", decides_a_marker), False, id="a time was over, answer not seen"),
    ],
)
async def test_a_killed_process_leaves_what_was_said_to_the_next(
    laboratory: Laboratory, aim: Callable[[Wires, Sidecar], None], locking: bool
) -> None:
    wires = await laboratory.wires()
    victim = await at_work(laboratory, "victim", wires, locking=locking)
    aim(wires, victim)
    await laboratory.participants(names=tuple(COURT))
    async with Court(laboratory.setup.broker_url, laboratory.setup.namespace) as court:
        starts, said = await court.hear(cases())
    await victim.killed()
    heir = await at_work(laboratory, "heir")
    picture = await sound(laboratory, starts, said)
    wires.assert_fired()
    assert await heir.stop() == 0
    happened = {row.kind for row in picture.history}
    assert {"message_held", "event_received", "wait_timed_out", "state_entered", "signal_received"} <= happened


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.soak)])
async def test_what_is_said_is_decided_once_whoever_is_killed_whenever(laboratory: Laboratory, kills: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice, starts, said = random.Random(seed), dict[str, str](), list["Word"]()
    wires = await laboratory.wires()
    sidecar = await at_work(laboratory, "sidecar", wires)
    participants = await laboratory.participants(names=tuple(COURT))
    async with Court(laboratory.setup.broker_url, laboratory.setup.namespace) as court:
        for round_ in range(kills):
            others = [participants] if dice.random() < 0.5 else []
            deadly = aim_at_random(dice, wires, sidecar, others)
            placed, words = await court.hear(cases(round_, dice.sample(tuple(PLOTS), k=4)))
            starts |= placed
            said += words
            await deadly.has_fired(timeout=120)
            await asyncio.gather(sidecar.killed(), *[each.ended() for each in others])
            sidecar = await at_work(laboratory, "sidecar", wires)
            if others:
                participants = await laboratory.participants(names=tuple(COURT))
    await sound(laboratory, starts, said)
