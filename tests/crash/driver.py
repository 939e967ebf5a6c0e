"""Drives the real thing from outside: starts orchestrators and participants, places orders, waits for rest.

Nothing of the product is imported. What is started here is a process with an environment; what it did is read from the
public views and the participants' ledgers.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

import aio_pika
from aio_pika.abc import DeliveryMode, ExchangeType

from tests.crash.checker import ENDED, stalls
from tests.crash.forking import ROOT, Program
from tests.crash.ledger import Ledger
from tests.crash.process import GLANCE, STARTED, Child, ChildError
from tests.crash.script import TRADES
from tests.crash.views import Picture, read_postgres, read_sqlite

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from aio_pika.abc import AbstractConnection, AbstractExchange


LEASE = "3"  # seconds; the shortest there is, so that a killed process's rows are soon another's
ORDERING = "messages.catalog.ordering,sagas.catalog.ordering,handlers.catalog.ordering"
BOUND = 120.0  # seconds; only ever reached when something is broken
SPARING = 9  # times as long as a look at everything cost is waited before the next one


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Where a run takes place. `settings` are those of the product, by their names without prefix.

    The URLs are what the orchestrator is given (through a proxy, say); an empty `broker_url` leaves the broker in
    process. `folder` takes the logs, the ledgers, and the SQLite file if there is one. `tree` is where the product is.
    """

    folder: Path
    database_url: str
    broker_url: str = ""
    namespace: str = "antiphon"
    settings: Mapping[str, str] = field(default_factory=dict)
    tree: Path = ROOT

    def environment(self, **more: str) -> dict[str, str]:
        """What a process of the product gets to see: our own environment without its settings, and ours for it."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
        given = {"MODULES": ORDERING, "NAMESPACE": self.namespace, "LEASE": LEASE, "LOG_FORMAT": "json"}
        given["DATABASE_URL"] = self.database_url
        if self.broker_url:
            given["BROKER_URL"] = self.broker_url
        given |= {**self.settings, **more}
        path = str(ROOT) if self.tree == ROOT else f"{self.tree}{os.pathsep}{ROOT}"
        return inherited | {"PYTHONPATH": path} | {f"ANTIPHON_{name}": value for name, value in given.items()}

    @property
    def ledger(self) -> Ledger:
        """What the participants of this run wrote down."""
        return Ledger(self.folder)


def antiphon(*words: str) -> Program:
    """A command of the product."""
    return Program("runtime.cli", words)


async def finished(name: str, setup: Setup, *words: str, expect: int = 0) -> str:
    """Run a command of the product to its end and return its output.

    Raises:
        ChildError: it ended with another exit code, or not at all.
    """
    async with await Child.start(name, antiphon(*words), folder=setup.folder, env=setup.environment()) as child:
        code = await child.ended()
        if code != expect:
            raise ChildError(f"antiphon {' '.join(words)} ended with {code} instead of {expect}\n{child.tail()}")
        return child.text()


class Sidecar:
    """One orchestrator process. As an async context it is dead when the block ends."""

    def __init__(self, child: Child, port: int, reserved: socket.socket) -> None:
        self.child, self.port, self._reserved = child, port, reserved

    @classmethod
    async def start(
        cls, setup: Setup, name: str = "sidecar", *, command: Sequence[str] | Program = (), **settings: str
    ) -> Self:
        """Start `antiphon run`, or another command that serves the same; does not wait for it to be ready."""
        reserved = reserve_port()
        port = int(reserved.getsockname()[1])
        env = setup.environment(HTTP_HOST="127.0.0.1", HTTP_PORT=str(port), **settings)
        child = await Child.start(name, command or antiphon("run"), folder=setup.folder, env=env)
        return cls(child, port, reserved)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    @property
    def pid(self) -> int:
        """The process id, to be aimed at."""
        return self.child.pid

    async def ready(self, timeout: float = STARTED) -> Self:  # noqa: ASYNC109 - a bound for tests
        """Wait until `/readyz` says so.

        Raises:
            ChildError: it ended, or `timeout` seconds passed, before.
        """
        await self.child.until(self._says_ready, "been ready", timeout)
        return self

    async def unready(self, timeout: float = STARTED) -> None:  # noqa: ASYNC109 - a bound for tests
        """Wait until `/readyz` says that it is not ready, while it lives.

        Raises:
            ChildError: it ended, or `timeout` seconds passed, before.
        """
        await self.child.until(self._says_unready, "been unready", timeout)

    async def _says_unready(self) -> bool:
        return not await self._says_ready()

    async def _says_ready(self) -> bool:
        try:
            return await http_status(self.port, "/readyz") == 200
        except OSError:
            return False

    async def kill(self) -> int:
        """`kill -9`, and wait for the end; returns the exit code it really had."""
        try:
            return await self.child.kill()
        finally:
            self._reserved.close()

    async def killed(self) -> None:
        """Wait until a rule of the proxy has killed it.

        Raises:
            ChildError: it goes on running, or ended in another way.
        """
        code = await self.child.ended()
        if code != -signal.SIGKILL:
            raise ChildError(f"{self.child.name} ended with {code} instead of being killed\n{self.child.tail()}")

    async def stop(self) -> int:
        """SIGTERM, and wait for the end; returns the exit code."""
        self.child.signal(signal.SIGTERM)
        return await self.child.ended()


def reserve_port() -> socket.socket:
    """A port that stays ours while the socket is open: bound and never listening, it lets one other socket listen."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


async def http_status(port: int, path: str) -> int:
    """The status of a GET on the loopback.

    Raises:
        OSError: nobody listens, or what answers is no HTTP.
    """
    async with asyncio.timeout(BOUND):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            words = (await reader.readline()).split()
            await reader.read()
        finally:
            writer.close()
    if len(words) < 2 or not words[1].isdigit():
        raise ConnectionError(f"port {port} answers {words!r}")
    return int(words[1])


async def participants(
    setup: Setup,
    broker_url: str,
    *names: str,
    seed: int = 0,
    mix: Mapping[str, float] | None = None,
) -> Child:
    """Start participants (all three if none is named) straight at the broker, and wait until they consume."""
    chosen = names or tuple(TRADES)
    words = ["--broker", broker_url, "--folder", str(setup.folder), "--namespace", setup.namespace]
    words += ["--seed", str(seed), "--mix", json.dumps(mix or {}), *chosen]
    program = Program("tests.crash.participant", words)
    child = await Child.start(f"participants-{'-'.join(chosen)}", program, folder=setup.folder, env=setup.environment())
    try:
        await child.says("ready")
    except BaseException:
        await child.kill()
        raise
    return child


def start_id(order_id: str) -> str:
    """The id of the `OrderPlaced` that the shop publishes for an order: always the same."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"shop/{order_id}"))


class Shop:
    """Publishes `ordering.OrderPlaced` over plain AMQP, confirmed and mandatory. An async context."""

    def __init__(self, broker_url: str, namespace: str = "antiphon") -> None:
        self._url, self._namespace = broker_url, namespace
        self._connection: AbstractConnection | None = None
        self._events: AbstractExchange | None = None

    async def __aenter__(self) -> Self:
        self._connection = await aio_pika.connect(self._url, timeout=STARTED)
        channel = await self._connection.channel(on_return_raises=True)
        self._events = await channel.declare_exchange(f"{self._namespace}.events", ExchangeType.TOPIC, durable=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def place(self, *orders: str, copies: int = 1) -> dict[str, str]:
        """Place orders, each with so many copies of its event, all at once; returns the events' ids by order.

        Raises:
            aio_pika.exceptions.DeliveryError: no saga is bound to the event.
        """
        await asyncio.gather(*[self._publish(order) for order in orders for _ in range(copies)])
        return {order: start_id(order) for order in orders}

    async def announce(self, order: str, message_ids: Sequence[str]) -> None:
        """Place one order once under each of these ids, all at once, as a shop that has lost its memory might."""
        await asyncio.gather(*[self._publish(order, message_id) for message_id in message_ids])

    async def _publish(self, order: str, message_id: str | None = None) -> None:
        assert self._events is not None, "the shop is closed: use `async with`"
        event = order_placed(order, message_id or start_id(order))
        await self._events.publish(event, "ordering.OrderPlaced", timeout=STARTED)


def order_body(order: str) -> str:
    """The body of an `OrderPlaced`: two of an article of the order's own."""
    lines = [{"sku": f"book-of-{order}", "quantity": 2, "unit_price": "12.50"}]
    return json.dumps({"order_id": order, "customer_id": "c-1", "lines": lines, "total": "25.00"})


def order_placed(order: str, message_id: str) -> aio_pika.Message:
    """The event as the wire contract has it."""
    return aio_pika.Message(
        order_body(order).encode(),
        message_id=message_id,
        type="ordering.OrderPlaced",
        content_type="application/json",
        app_id="shop",
        timestamp=datetime.now(UTC),
        delivery_mode=DeliveryMode.PERSISTENT,
        headers={"schema-version": 1},
    )


def reader(setup: Setup, database_url: str) -> Callable[[], Awaitable[Picture]]:
    """Reads the views and the ledgers of a run; `database_url` leads straight to the database, past any proxy."""

    async def read() -> Picture:
        if database_url.startswith("sqlite"):
            return await asyncio.to_thread(read_sqlite, Path(database_url.partition("///")[2]), setup.ledger)
        return await read_postgres(database_url, setup.ledger, namespace=setup.namespace)

    return read


async def at_rest(
    read: Callable[[], Awaitable[Picture]],
    orders: Collection[str],
    ledger: Ledger,
    timeout: float = BOUND,  # noqa: ASYNC109 - a bound for tests
    waits: Callable[[Picture], Sequence[str]] = lambda _: (),
) -> Picture:
    """Wait until every order's saga has ended or is parked and nothing is on its way; nobody may stall meanwhile.

    `waits` says what else has to be waited for.

    Raises:
        AssertionError: it did not come to rest within `timeout` seconds, or something stalled; says what.
    """
    restless = "nothing was read"
    try:
        async with asyncio.timeout(timeout):
            while True:
                began = time.process_time()
                picture = await read()
                stalled = stalls(picture)
                assert not stalled, f"stalled: {stalled}"
                if not (restless := unrest(picture, orders, ledger) or ", ".join(waits(picture))):
                    return picture
                await asyncio.sleep(pause(began))
    except TimeoutError:
        raise AssertionError(f"no rest within {timeout} s: {restless}") from None


async def at_rest_or_stuck(
    read: Callable[[], Awaitable[Picture]], orders: Collection[str], ledger: Ledger, *, quiet: float
) -> Picture:
    """The same for a product that may be broken: what it shows when nothing has changed for `quiet` seconds will do.

    While something waits to be sent that takes twice as long: it may be a pause between two attempts.
    """
    clock = asyncio.get_running_loop().time
    last, since = Picture(), clock()
    while True:
        began = time.process_time()
        picture = await read()
        patience = quiet * 2 if picture.outbox or ledger.owed() else quiet
        if not unrest(picture, orders, ledger) or (picture == last and clock() - since > patience):
            return picture
        if picture != last:
            last, since = picture, clock()
        await asyncio.sleep(pause(began))


def pause(began: float) -> float:
    """How long to wait before the next look at everything: a look that costs much is not taken often."""
    return max(GLANCE, (time.process_time() - began) * SPARING)


def unrest(picture: Picture, orders: Collection[str], ledger: Ledger) -> str:
    """What is still on its way, in words; empty when nothing is."""
    known = {saga.business_key for saga in picture.sagas}
    at_work = {saga.business_key for saga in picture.sagas if saga.phase not in ENDED and saga.status != "parked"}
    if waiting := sorted(set(orders) - (known - at_work)):
        return f"{len(waiting)} orders have not ended: {', '.join(waiting[:5])}"
    if picture.outbox:
        return f"{len(picture.outbox)} messages are not confirmed: {picture.outbox[:5]}"
    owed = ledger.owed()
    return f"participants owe {owed} replies" if owed else ""
