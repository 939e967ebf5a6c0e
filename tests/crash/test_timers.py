"""`kill -9` in the transaction of a batch of timers, and right behind it: each timer has one effect.

The ordering saga is hurried here: its last two steps wait a second for their replies.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.crash.driver import Shop
from tests.crash.forking import Program
from tests.crash.proxy.faults import call, kill

if TYPE_CHECKING:
    from tests.crash.driver import Sidecar
    from tests.crash.laboratory import Laboratory, Wires
    from tests.crash.proxy.wire import Event

HURRIED = Program("tests.crash.launcher", ["--hurried"])
RESENT = "forgetful~payment=mute:1"  # answers the copy
GIVEN_UP = "gone~warehouse=deaf"


@pytest.mark.parametrize(
    ("order", "nth"),
    [
        pytest.param(RESENT, 1, id="resend"),
        pytest.param(GIVEN_UP, 2, id="last timeout"),
    ],
)
@pytest.mark.parametrize(
    "event",
    [
        pytest.param("", id="locked, not decided"),
        pytest.param("pg.c2s.COMMIT", id="decided, not committed"),
        pytest.param("pg.s2c.COMMIT", id="committed, answer not seen"),
    ],
)
async def test_a_timer_has_one_effect_whenever_the_process_dies(
    laboratory: Laboratory, order: str, nth: int, event: str
) -> None:
    wires = await laboratory.wires()
    victim = await laboratory.sidecar("victim", wires, command=HURRIED)
    await laboratory.participants()
    aim(wires, event, nth, victim)
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        starts = await shop.place(order)
    await victim.killed()
    await laboratory.sidecar("heir", command=HURRIED)
    picture = await laboratory.judge(starts, {order: {"completed" if order == RESENT else "compensated"}})
    wires.assert_fired()
    kinds = Counter(row.kind for row in picture.history)
    assert (kinds["command_resent"], kinds["step_timed_out"]) == (1, 0 if order == RESENT else 1)


def aim(wires: Wires, event: str, nth: int, victim: Sidecar) -> None:
    """Kill the victim in its `nth` batch of timers, which begins by locking and asking which commands are unsent.

    Without an event it dies before it has the answer.
    """

    def looks_for_the_unsent(seen: Event) -> bool:
        return seen.text("statement").startswith("select saga_id, message_id from outbox where saga_id = any")

    def follow(seen: Event) -> None:
        wires.pg.rule(event, kill(victim.pid), when=lambda next_one: next_one.connection == seen.connection)

    action = call(follow) if event else kill(victim.pid)
    wires.pg.rule("pg.s2c.SELECT", action, when=looks_for_the_unsent, nth=nth)
