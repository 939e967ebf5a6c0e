"""`kill -9` at each arrow of a batch's path, on PostgreSQL and RabbitMQ: the next process finishes what was begun.

The dead process is judged from outside only: by the public views, and by participants that share no code with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.driver import Shop
from tests.crash.laboratory import LOCKING, looks, marks_rows
from tests.crash.proxy.faults import kill

if TYPE_CHECKING:
    from tests.crash.driver import Sidecar
    from tests.crash.laboratory import Laboratory, Wires
    from tests.crash.proxy.faults import Side

ORDERS = ("good-1", "good-2", "declined~payment=fail", "refused~warehouse=fail", "busy~payment=transient:1")
SOAK = pytest.mark.soak
"""Of a point at the start and the same at the replies, before and behind the commit, one way of committing is enough in
every run; and what is not published has a test of its own in `test_two_sidecars`."""

ALLOWED = {order: {"compensated"} if "=fail" in order else {"completed"} for order in ORDERS}


@pytest.mark.parametrize(
    ("event", "side", "nth"),
    [
        pytest.param("amqp.s2c.deliver_done", "after", 1, id="delivered, not begun", marks=SOAK),
        pytest.param("amqp.s2c.deliver_done", "after", 7, id="reply delivered, not begun"),
        pytest.param("pg.s2c.SELECT", "before", 1, id="looked at"),
        pytest.param("pg.c2s.save", "before", 1, id="save never sent", marks=SOAK),
        pytest.param("pg.c2s.save", "before", 3, id="save of replies never sent"),
        pytest.param("pg.s2c.save", "before", 1, id="saved, answer not seen"),
        pytest.param("pg.s2c.save", "before", 3, id="replies saved, answer not seen", marks=SOAK),
        pytest.param("pg.s2c.INSERT", "before", 1, id="inside a transaction"),
        pytest.param("pg.c2s.COMMIT", "before", 1, id="commit never sent"),
        pytest.param("pg.c2s.COMMIT", "before", 3, id="commit of replies never sent", marks=SOAK),
        pytest.param("pg.s2c.COMMIT", "before", 1, id="committed, answer not seen", marks=SOAK),
        pytest.param("pg.s2c.COMMIT", "before", 3, id="replies committed, answer not seen"),
        pytest.param("amqp.c2s.ack", "before", 1, id="committed, not acknowledged"),
        pytest.param("amqp.c2s.publish", "before", 1, id="committed, not published", marks=SOAK),
        pytest.param("amqp.c2s.publish", "before", 7, id="half of the commands published"),
        pytest.param("amqp.c2s.publish_done", "after", 2, id="published, not confirmed"),
        pytest.param("pg.c2s.WITH", "before", 1, id="confirmed, not recorded"),
    ],
)
async def test_a_killed_process_loses_nothing_and_does_nothing_twice(
    laboratory: Laboratory, event: str, side: Side, nth: int
) -> None:
    """It dies at the `nth` of these events, so that both ends of the work are met."""
    wires = await laboratory.wires()
    locking = event.endswith((".INSERT", ".COMMIT"))
    victim = await laboratory.sidecar("victim", wires, command=LOCKING if locking else ())
    aim(wires, event, side, nth, victim)
    await laboratory.participants()
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        starts = await shop.place(*ORDERS)
    await victim.killed()
    heir = await laboratory.sidecar("heir")
    await laboratory.judge(starts, ALLOWED)
    wires.assert_fired()
    assert await heir.stop() == 0


def aim(wires: Wires, event: str, side: Side, nth: int, victim: Sidecar) -> None:
    """Kill the victim at the event: a commit is that of a batch, a `WITH` records what was confirmed."""
    proxy, deadly = (wires.pg if event.startswith("pg.") else wires.amqp), kill(victim.pid)
    if event.endswith(".COMMIT"):
        wires.at_commit(event, deadly, nth=nth)
    elif event.endswith(".save"):
        wires.at_save(event.removesuffix(".save"), deadly, nth=nth)
    else:
        when = {"pg.c2s.WITH": marks_rows, "pg.s2c.SELECT": looks}.get(event)
        proxy.rule(event, deadly, side=side, nth=nth, when=when)
