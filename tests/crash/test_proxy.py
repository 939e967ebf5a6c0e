"""The proxy against real servers: invisible while nothing is asked of it, and exact when something is."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aio_pika
import asyncpg
import psycopg
import pytest

from tests.crash.process import Child
from tests.crash.proxy.amqp import AmqpParser
from tests.crash.proxy.faults import black_hole, call, cont, cut, delay, drop, hold, kill, refuse, stop
from tests.crash.proxy.postgres import PostgresParser
from tests.crash.proxy.server import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.crash.proxy.faults import Side

LOST = (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)  # what asyncpg says of a lost connection
WORKER = Path(__file__).with_name("worker.py")
LONG = 30  # seconds; a bound, never a measure


@pytest.fixture
def database_url(fresh_database: Callable[[], str]) -> str:
    return fresh_database()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Straight to the server, past the proxy."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("create table handled (message_id text primary key); create table tally (n bigint)")
    await connection.execute("insert into tally values (0)")
    yield connection
    await connection.close()


@pytest.fixture
async def pg(database_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(*upstream(database_url, 5432), PostgresParser) as proxy:
        yield proxy


@pytest.fixture
async def amqp(rabbitmq_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(*upstream(rabbitmq_url, 5672), AmqpParser) as proxy:
        yield proxy


@pytest.fixture
async def broker(rabbitmq_url: str) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    """Straight to the broker, past the proxy."""
    async with await aio_pika.connect(rabbitmq_url) as connection:
        yield await connection.channel()


@pytest.fixture
async def queue(broker: aio_pika.abc.AbstractChannel) -> AsyncIterator[str]:
    """A queue with its `.out` twin, gone after the test."""
    name = f"crash.{uuid.uuid4().hex}"
    for each in (name, f"{name}.out"):
        await broker.declare_queue(each, durable=True, arguments={"x-queue-type": "quorum"})
    yield name
    for each in (name, f"{name}.out"):
        await broker.queue_delete(each)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """Both servers, with a proxy before each: the URLs lead through the proxies, `database` and `broker` past them."""

    pg: Proxy
    amqp: Proxy
    database: asyncpg.Connection
    broker: aio_pika.abc.AbstractChannel
    queue: str
    folder: Path
    database_url: str
    broker_url: str


@pytest.fixture
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Lab:
    have = request.getfixturevalue
    return Lab(
        pg=have("pg"),
        amqp=have("amqp"),
        database=have("database"),
        broker=have("broker"),
        queue=have("queue"),
        folder=tmp_path,
        database_url=have("pg").through(have("database_url")),
        broker_url=have("amqp").through(have("rabbitmq_url")),
    )


def upstream(url: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or default_port


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        connection.terminate()


async def insert(connection: asyncpg.Connection, message_id: str) -> None:
    async with connection.transaction():
        await connection.execute("insert into handled values ($1)", message_id)


async def handled(database: asyncpg.Connection) -> list[str]:
    return [row["message_id"] for row in await database.fetch("select message_id from handled order by 1")]


async def publish(channel: aio_pika.abc.AbstractChannel, queue: str, message_id: str, body: bytes = b"{}") -> None:
    message = aio_pika.Message(body, message_id=message_id, delivery_mode=2)
    await channel.default_exchange.publish(message, queue, timeout=LONG)


async def drained(channel: aio_pika.abc.AbstractChannel, queue: str) -> list[str]:
    """The ids of all messages that are ready in a queue, taken out of it."""
    source, found = await channel.declare_queue(queue, passive=True), []
    while message := await source.get(no_ack=True, fail=False):
        found.append(message.message_id or "")
    return found


# Invisible.


async def test_asyncpg_under_load_notices_nothing(pg: Proxy, database: asyncpg.Connection, database_url: str) -> None:
    async with asyncpg.create_pool(pg.through(database_url), min_size=4, max_size=4) as pool:

        async def one(number: int) -> str:
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("insert into handled values ($1)", f"m{number:04}")
                return str(await connection.fetchval("select repeat('x', $1::int)", number * 500))

        texts = await asyncio.gather(*[one(number) for number in range(200)])
    assert [len(text) for text in texts] == [number * 500 for number in range(200)]
    assert len(await handled(database)) == 200
    assert {name: pg.count(name) for name in ("pg.c2s.COMMIT", "pg.s2c.COMMIT", "pg.c2s.INSERT", "pg.s2c.INSERT")} == {
        "pg.c2s.COMMIT": 200,
        "pg.s2c.COMMIT": 200,
        "pg.c2s.INSERT": 200,
        "pg.s2c.INSERT": 200,
    }
    pg.assert_fired()


async def test_psycopg_with_prepared_statements_is_followed_too(
    pg: Proxy, database: asyncpg.Connection, database_url: str
) -> None:
    async with await psycopg.AsyncConnection.connect(pg.through(database_url), prepare_threshold=2) as connection:
        for number in range(6):
            await connection.execute("insert into handled values (%s)", (f"m{number}",))
            await connection.commit()
        async with connection.cursor().copy("copy handled from stdin") as copy:
            await copy.write("from-copy\n")
    assert await handled(database) == ["from-copy", *[f"m{number}" for number in range(6)]]
    assert (pg.count("pg.c2s.INSERT"), pg.count("pg.s2c.INSERT"), pg.count("pg.s2c.COMMIT")) == (6, 6, 7)
    assert pg.count("pg.s2c.COPY") == 1


async def test_messages_of_many_frames_pass_unharmed(
    amqp: Proxy, broker: aio_pika.abc.AbstractChannel, queue: str, rabbitmq_url: str
) -> None:
    bodies = {f"m{number:03}": os.urandom(number * 3001) for number in range(120)}
    async with await aio_pika.connect(amqp.through(rabbitmq_url)) as connection:
        channel = await connection.channel()
        await asyncio.gather(*[publish(channel, queue, each, body) for each, body in bodies.items()])
        arrived, source = {}, await channel.declare_queue(queue, passive=True)
        async with asyncio.timeout(LONG), source.iterator() as deliveries:
            async for delivery in deliveries:
                arrived[delivery.message_id] = delivery.body
                await delivery.ack()
                if len(arrived) == len(bodies):
                    break
    assert arrived == bodies
    assert amqp.count("amqp.c2s.publish_done") == amqp.count("amqp.s2c.deliver_done") == len(bodies)
    assert amqp.count("amqp.c2s.ack") == len(bodies)
    assert await drained(broker, queue) == []


# Exact, on PostgreSQL.


@pytest.mark.parametrize(
    ("event", "side", "committed"),
    [
        ("pg.c2s.COMMIT", "before", []),
        ("pg.c2s.COMMIT", "after", ["m"]),
        ("pg.s2c.COMMIT", "before", ["m"]),
        ("pg.s2c.INSERT", "before", []),
    ],
)
async def test_a_cut_at_the_commit_leaves_the_client_in_doubt_and_the_server_certain(
    lab: Lab, event: str, side: Side, committed: list[str]
) -> None:
    async with connected(lab.database_url) as connection:
        rule = lab.pg.rule(event, cut(), side=side)
        with pytest.raises(LOST):
            await insert(connection, "m")
        await rule.has_fired()
    await no_other_backend(lab.database)
    assert await handled(lab.database) == committed
    lab.pg.assert_fired()


async def no_other_backend(database: asyncpg.Connection) -> None:
    """Wait until the server has noticed the end of every other connection to this database."""
    others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    async with asyncio.timeout(LONG):
        while await database.fetchval(others + " and backend_type = 'client backend'"):
            await database.execute("select pg_sleep(0.02)")


async def test_the_nth_matching_event_is_meant_and_no_other(
    pg: Proxy, database: asyncpg.Connection, database_url: str
) -> None:
    async with connected(pg.through(database_url)) as connection:
        pg.rule("pg.s2c.INSERT", cut(), nth=2, when=lambda event: "handled" in event.text("statement"))
        await insert(connection, "first")
        await connection.execute("insert into tally values (1)")
        with pytest.raises(LOST):
            await insert(connection, "second")
    await no_other_backend(database)
    assert await handled(database) == ["first"]
    pg.assert_fired()


async def test_a_held_commit_is_not_committed_until_it_is_let_go(
    pg: Proxy, database: asyncpg.Connection, database_url: str
) -> None:
    gate = asyncio.Event()
    async with connected(pg.through(database_url)) as connection:
        rule = pg.rule("pg.c2s.COMMIT", hold(gate))
        inserting = asyncio.create_task(insert(connection, "m"))
        await rule.has_fired()
        assert await handled(database) == []
        gate.set()
        await asyncio.wait_for(inserting, LONG)
    assert await handled(database) == ["m"]


@pytest.mark.parametrize("event", ["pg.c2s.INSERT", "pg.c2s.COMMIT"])
@pytest.mark.parametrize("prepared", [True, False])
async def test_a_refused_statement_never_reaches_the_server_and_harms_no_other(
    pg: Proxy, database: asyncpg.Connection, database_url: str, event: str, prepared: bool
) -> None:
    async with connected(pg.through(database_url)) as connection:
        pg.rule(event, refuse("53100"))
        with pytest.raises(asyncpg.DiskFullError, match="said by the proxy"):
            async with connection.transaction():
                words = ("insert into handled values ($1)", "m") if prepared else ("insert into handled values ('m')",)
                await connection.execute(*words)
        await connection.execute("rollback")  # a server ends the transaction whose COMMIT fails; ours has seen none
        await insert(connection, "next")
    assert await handled(database) == ["next"]
    assert pg.count("pg.s2c.error") == 0
    pg.assert_fired()


async def test_a_delay_only_delays(pg: Proxy, database: asyncpg.Connection, database_url: str) -> None:
    async with connected(pg.through(database_url)) as connection:
        pg.rule("pg.s2c.COMMIT", delay(0.05), times=None)
        await insert(connection, "a")
        await insert(connection, "b")
    assert await handled(database) == ["a", "b"]
    pg.assert_fired()


async def test_a_black_hole_swallows_the_connection_and_healing_gives_it_back(
    pg: Proxy, database: asyncpg.Connection, database_url: str
) -> None:
    async with connected(pg.through(database_url)) as connection, connected(pg.through(database_url)) as other:
        rule = pg.rule("pg.s2c.COMMIT", black_hole())
        inserting = asyncio.create_task(insert(connection, "m"))
        await rule.has_fired()
        assert await other.fetchval("select 1") == 1
        assert not inserting.done()
        pg.heal()
        await asyncio.wait_for(inserting, LONG)
    assert await handled(database) == ["m"]


async def test_a_network_that_is_away_takes_new_connections_nowhere(pg: Proxy, database_url: str) -> None:
    pg.black_hole()
    connecting = asyncio.create_task(asyncpg.connect(pg.through(database_url), timeout=LONG))
    async with connected(database_url) as past_the_proxy:
        await past_the_proxy.fetchval("select 1")
    assert not connecting.done()
    assert pg.count("pg.c2s.startup") == 0
    pg.heal()
    (await connecting).terminate()


async def test_a_server_that_is_away_refuses_until_healed(pg: Proxy, database_url: str) -> None:
    async with connected(pg.through(database_url)) as connection:
        pg.refuse()
        with pytest.raises(LOST):
            await connection.fetchval("select 1")
    with pytest.raises(LOST):
        await asyncpg.connect(pg.through(database_url), timeout=LONG)
    pg.heal()
    async with connected(pg.through(database_url)) as connection:
        assert await connection.fetchval("select 1") == 1


async def test_a_rule_that_never_fired_makes_the_test_invalid(pg: Proxy) -> None:
    pg.rule("pg.s2c.NEVER", cut())
    pg.heal()
    with pytest.raises(AssertionError, match=r"never fired.*pg\.s2c\.NEVER"):
        pg.assert_fired()


async def test_waiting_for_an_event_that_does_not_come_says_what_came(pg: Proxy, database_url: str) -> None:
    async with connected(pg.through(database_url)) as connection:
        await connection.execute("select 1")
    with pytest.raises(TimeoutError, match=r"pg\.s2c\.SELECT"):
        await pg.seen("pg.s2c.COMMIT", timeout=0.01)


def test_half_a_message_cannot_be_dropped() -> None:
    proxy = Proxy("127.0.0.1", 1, AmqpParser)
    for event, side in (("amqp.s2c.deliver_done", "before"), ("amqp.s2c.deliver", "after")):
        with pytest.raises(ValueError, match="dropped"):
            proxy.rule(event, drop(), side=side)  # type: ignore[arg-type]


async def test_a_connection_that_speaks_something_else_invalidates_the_test(pg: Proxy) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", pg.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await pg.bell.until(lambda: bool(pg.complaints), timeout=LONG)
    writer.close()
    with pytest.raises(AssertionError, match="could not be followed"):
        pg.assert_fired()


# Exact, on RabbitMQ.


async def test_a_swallowed_confirm_leaves_a_message_that_arrived(
    amqp: Proxy, broker: aio_pika.abc.AbstractChannel, queue: str, rabbitmq_url: str
) -> None:
    async with await aio_pika.connect(amqp.through(rabbitmq_url)) as connection:
        channel = await connection.channel()
        rule = amqp.rule("amqp.s2c.ack", drop())
        publishing = asyncio.create_task(publish(channel, queue, "first"))
        await rule.has_fired()
        await publish(channel, queue, "second")
        assert not publishing.done()
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
    assert await drained(broker, queue) == ["first", "second"]
    amqp.assert_fired()


async def test_a_dropped_delivery_comes_again_to_the_next_connection(
    amqp: Proxy, broker: aio_pika.abc.AbstractChannel, queue: str, rabbitmq_url: str
) -> None:
    await publish(broker, queue, "lost", os.urandom(300_000))
    await publish(broker, queue, "kept")
    amqp.rule("amqp.s2c.deliver", drop(), when=lambda event: event.text("message_id") == "lost")
    first = await took(amqp, rabbitmq_url, queue, 1)
    again = await took(amqp, rabbitmq_url, queue, 1)
    assert (first, again) == ([("kept", False)], [("lost", True)])
    amqp.assert_fired()


async def took(amqp: Proxy, rabbitmq_url: str, queue: str, count: int) -> list[tuple[str | None, bool | None]]:
    """Consume `count` messages over a connection of their own, acknowledge each."""
    found: list[tuple[str | None, bool | None]] = []
    async with await aio_pika.connect(amqp.through(rabbitmq_url)) as connection, asyncio.timeout(LONG):
        source = await (await connection.channel()).declare_queue(queue, passive=True)
        async with source.iterator() as deliveries:
            async for delivery in deliveries:
                found.append((delivery.message_id, delivery.redelivered))
                await delivery.ack()
                if len(found) == count:
                    return found
    return found


async def test_an_unroutable_message_is_seen_to_be_returned(amqp: Proxy, queue: str, rabbitmq_url: str) -> None:
    async with await aio_pika.connect(amqp.through(rabbitmq_url)) as connection:
        channel = await connection.channel(on_return_raises=True)
        with pytest.raises(aio_pika.exceptions.DeliveryError):
            await publish(channel, f"{queue}.nobody", "m")
    assert amqp.count("amqp.s2c.return", when=lambda event: event.details["code"] == 312) == 1


# Killing a process at each event.


async def worker(lab: Lab) -> Child:
    command = [sys.executable, str(WORKER), lab.database_url, lab.broker_url, lab.queue]
    child = await Child.start("worker", command, folder=lab.folder, env=os.environ)
    await child.says("ready")
    return child


@pytest.mark.parametrize(
    ("event", "side", "committed", "published"),
    [
        ("amqp.s2c.deliver_done", "after", [], 0),
        ("pg.s2c.INSERT", "before", [], 0),
        ("pg.c2s.COMMIT", "before", [], 0),
        ("pg.c2s.COMMIT", "after", ["m"], 0),
        ("pg.s2c.COMMIT", "before", ["m"], 0),
        ("amqp.c2s.publish", "before", ["m"], 0),
        ("amqp.c2s.publish", "after", ["m"], 0),
        ("amqp.c2s.publish_done", "after", ["m"], 1),
        ("amqp.s2c.ack", "before", ["m"], 1),
        ("amqp.c2s.ack", "before", ["m"], 1),
    ],
)
async def test_a_process_dies_exactly_there_and_its_successor_finishes(
    lab: Lab,
    event: str,
    side: Side,
    committed: list[str],
    published: int,
) -> None:
    async with await worker(lab) as victim:
        (lab.pg if event.startswith("pg.") else lab.amqp).rule(event, kill(victim.pid), side=side)
        await publish(lab.broker, lab.queue, "m")
        assert await victim.ended() == -signal.SIGKILL
    await no_other_backend(lab.database)
    assert await handled(lab.database) == committed
    async with await worker(lab):
        await lab.amqp.seen("amqp.c2s.ack", 2 if event == "amqp.c2s.ack" else 1)
        await lab.pg.seen("pg.s2c.COMMIT", 1)
    assert await handled(lab.database) == ["m"]
    assert await drained(lab.broker, f"{lab.queue}.out") == ["reply-m"] * (published + 1)
    (lab.pg if event.startswith("pg.") else lab.amqp).assert_fired()


async def test_one_event_may_arm_a_rule_on_the_other_wire(
    lab: Lab,
) -> None:
    async with await worker(lab) as victim:
        lab.amqp.rule("amqp.s2c.ack", call(lambda _: lab.pg.rule("pg.c2s.COMMIT", kill(victim.pid))))
        await publish(lab.broker, lab.queue, "first")
        await publish(lab.broker, lab.queue, "second")
        assert await victim.ended() == -signal.SIGKILL
    await no_other_backend(lab.database)
    assert await handled(lab.database) == ["first"]
    lab.pg.assert_fired()
    lab.amqp.assert_fired()


async def test_a_stopped_process_holds_its_transaction_open_until_it_goes_on(
    lab: Lab,
) -> None:
    async with await worker(lab) as zombie:
        rule = lab.pg.rule("pg.s2c.INSERT", stop(zombie.pid))
        await publish(lab.broker, lab.queue, "m")
        await rule.has_fired()
        await wait_for_idle_transaction(lab.database)
        assert await handled(lab.database) == []
        assert lab.pg.count("pg.c2s.COMMIT") == 0
        lab.pg.rule("pg.c2s.startup", cont(zombie.pid))
        async with connected(lab.database_url):
            await lab.amqp.seen("amqp.c2s.ack")
    assert await handled(lab.database) == ["m"]
    lab.pg.assert_fired()


async def wait_for_idle_transaction(database: asyncpg.Connection) -> None:
    waiting = "select count(*) from pg_stat_activity where datname = current_database() and state = $1"
    async with asyncio.timeout(LONG):
        while await database.fetchval(waiting, "idle in transaction") != 1:
            await database.execute("select pg_sleep(0.02)")
