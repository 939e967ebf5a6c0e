"""`kill -9` at each arrow of a batch's path, on PostgreSQL and RabbitMQ: the next process finishes what was begun.

The dead process is judged from outside only: by the public views, and by participants that share no code with it.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.crash.checker import Expected, violations
from tests.crash.driver import Setup, Shop, Sidecar, at_rest, finished, participants, reader
from tests.crash.proxy.amqp import AmqpParser
from tests.crash.proxy.faults import call, kill
from tests.crash.proxy.postgres import PostgresParser
from tests.crash.proxy.server import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.crash.proxy.faults import Side

ORDERS = ("good-1", "good-2", "declined~payment=fail", "refused~warehouse=fail", "busy~payment=transient:1")
ALLOWED = {order: {"compensated"} if "=fail" in order else {"completed"} for order in ORDERS}


@pytest.mark.parametrize(
    ("first", "event", "side"),
    [
        pytest.param("", "amqp.s2c.deliver_done", "after", id="delivered, not begun"),
        pytest.param("amqp.s2c.deliver_done", "pg.s2c.INSERT", "before", id="inside the transaction"),
        pytest.param("amqp.s2c.deliver_done", "pg.c2s.COMMIT", "before", id="commit never sent"),
        pytest.param("amqp.s2c.deliver_done", "pg.s2c.COMMIT", "before", id="committed, answer not seen"),
        pytest.param("", "amqp.c2s.ack", "before", id="committed, not acknowledged"),
        pytest.param("", "amqp.c2s.publish", "before", id="committed, not published"),
        pytest.param("", "amqp.c2s.publish_done", "after", id="published, not confirmed"),
        pytest.param("amqp.s2c.ack", "pg.c2s.COMMIT", "before", id="confirmed, not recorded"),
    ],
)
@pytest.mark.parametrize("nth", [1, 3])
async def test_a_killed_process_loses_nothing_and_does_nothing_twice(
    request: pytest.FixtureRequest, first: str, event: str, side: Side, nth: int
) -> None:
    """`first` is the event that arms the rule; the `nth` of it, so that both ends of the work are met."""
    database_url = request.getfixturevalue("fresh_database")()
    broker_url: str = request.getfixturevalue("rabbitmq_url")
    async with AsyncExitStack() as stack:
        pg = await stack.enter_async_context(before(database_url, PostgresParser))
        amqp = await stack.enter_async_context(before(broker_url, AmqpParser))
        setup = Setup(
            folder=request.getfixturevalue("tmp_path"),
            database_url=pg.through(database_url),
            broker_url=amqp.through(broker_url),
            namespace=request.getfixturevalue("namespace"),
        )
        await finished("migrate", setup, "migrate")
        victim = await stack.enter_async_context(await Sidecar.start(setup, "victim"))
        await victim.ready()
        aim(pg if event.startswith("pg.") else amqp, amqp, first, event, side, nth, victim)
        await stack.enter_async_context(await participants(setup, broker_url))
        async with Shop(broker_url, setup.namespace) as shop:
            starts = await shop.place(*ORDERS)
        await victim.killed()
        heir = await stack.enter_async_context(await Sidecar.start(setup, "heir"))
        picture = await at_rest(reader(setup, database_url), ORDERS, setup.ledger)
        assert violations(picture, Expected(starts=starts, allowed=ALLOWED)) == []
        pg.assert_fired()
        amqp.assert_fired()
        assert await heir.stop() == 0


def before(url: str, parser: Callable[[], PostgresParser] | Callable[[], AmqpParser]) -> Proxy:
    """A proxy before the server of a URL."""
    parts = urlsplit(url)
    return Proxy(parts.hostname or "127.0.0.1", parts.port or {"amqp": 5672}.get(parts.scheme, 5432), parser)


def aim(proxy: Proxy, amqp: Proxy, first: str, event: str, side: Side, nth: int, victim: Sidecar) -> None:  # noqa: PLR0917
    """Kill the victim at the event; at its first occurrence behind `first`, where there is one."""
    deadly = kill(victim.pid)
    if first:
        amqp.rule(first, call(lambda _: proxy.rule(event, deadly, side=side)), nth=nth)
    else:
        proxy.rule(event, deadly, side=side, nth=nth)
