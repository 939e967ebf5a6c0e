"""`kill -9` in the transaction of a batch of timers, and right behind it: each timer has one effect.

The ordering saga is hurried here: the step that gets no reply waits a second for it, everything else is patient.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.crash.forking import Program
from tests.crash.proxy.faults import call, kill

if TYPE_CHECKING:
    from tests.crash.driver import Sidecar
    from tests.crash.laboratory import Laboratory, Wires
    from tests.crash.proxy.wire import Event
    from tests.crash.views import Picture

RESENT = "forgetful~payment=mute:1"  # answers the copy
GIVEN_UP = "gone~warehouse=deaf"
CALLS = {RESENT: {"pay": [1, 8, 60, 60]}, GIVEN_UP: {"label": [1, 2]}}
ATTEMPTS = 3


@pytest.mark.parametrize(
    ("order", "nth", "event"),
    [
        pytest.param(RESENT, 1, "", id="resend locked, not decided"),
        pytest.param(RESENT, 1, "pg.c2s.COMMIT", id="resend decided, not committed", marks=pytest.mark.soak),
        pytest.param(RESENT, 1, "pg.s2c.COMMIT", id="resend committed, answer not seen"),
        pytest.param(GIVEN_UP, 2, "", id="last timeout locked, not decided", marks=pytest.mark.soak),
        pytest.param(GIVEN_UP, 2, "pg.c2s.COMMIT", id="last timeout decided, not committed"),
        pytest.param(GIVEN_UP, 2, "pg.s2c.COMMIT", id="last timeout committed, answer not seen"),
    ],
)
async def test_a_timer_has_one_effect_whenever_the_process_dies(
    laboratory: Laboratory, order: str, nth: int, event: str
) -> None:
    await laboratory.participants()
    placed: dict[str, str] = {}
    for _ in range(ATTEMPTS):
        if await meets_its_batch(laboratory, order, placed, (event, nth)):
            return
    pytest.fail(f"the batch of timers that was meant was missed {ATTEMPTS} times")


async def meets_its_batch(laboratory: Laboratory, order: str, placed: dict[str, str], window: tuple[str, int]) -> bool:
    """Have one victim and its heir serve one more order. Whether the victim died in the batch that was meant.

    A timer whose command is still in the outbox is only set anew; and then the heir may publish the command again
    before it would be resent. Such an order has to come to its end, and proves nothing about the timer.
    """
    hurried = Program("tests.crash.launcher", ["--policies", json.dumps({"calls": CALLS[order]})])
    ends = ("completed" if order == RESENT else "compensated",)
    wires = await laboratory.wires()
    victim = await laboratory.sidecar("victim", wires, command=hurried)
    aim(wires, *window, victim)
    name = f"{len(placed)}-{order}"
    placed |= await laboratory.place(name)
    await victim.killed()
    left = await laboratory.look()
    heir = await laboratory.sidecar("heir", command=hurried)
    picture = await laboratory.judge(placed, dict.fromkeys(placed, ends))
    wires.assert_fired()
    assert await heir.stop() == 0
    resent = 1 if order == GIVEN_UP or window[0] == "pg.s2c.COMMIT" else 0
    if kinds(left, name)["command_resent"] != resent or (not resent and left.outbox):
        return False
    told = kinds(picture, name)
    assert (told["command_resent"], told["step_timed_out"]) == (1, 0 if order == RESENT else 1)
    return True


def kinds(picture: Picture, order: str) -> Counter[str]:
    """How often each kind of thing happened to an order."""
    saga_ids = {saga.saga_id for saga in picture.sagas if saga.business_key == order}
    return Counter(row.kind for row in picture.history if row.saga_id in saga_ids)


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
