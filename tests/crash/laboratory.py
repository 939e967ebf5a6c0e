"""The set-up of a test with PostgreSQL and RabbitMQ: a migrated database, participants, sidecars behind proxies.

Every sidecar may have wires of its own, so that a fault meets one of several and the others not.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from tests.crash.checker import Expected, stalls, violations
from tests.crash.driver import Setup, Shop, Sidecar, at_rest, at_rest_or_stuck, finished, participants, reader
from tests.crash.forking import Program
from tests.crash.proxy.amqp import AmqpParser
from tests.crash.proxy.faults import call
from tests.crash.proxy.postgres import PostgresParser
from tests.crash.proxy.server import REMEMBERED, Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from tests.crash.process import Child
    from tests.crash.proxy.faults import Action
    from tests.crash.proxy.rules import Rule
    from tests.crash.proxy.wire import Event
    from tests.crash.views import Picture

LOCKING = Program("tests.crash.launcher", ["--locking"])
"""A sidecar that decides every batch in a transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wires:
    """What one sidecar is connected by. `setup` leads through the proxies."""

    pg: Proxy
    amqp: Proxy
    setup: Setup

    @property
    def given_back(self) -> int:
        """How many deliveries came again: each time one does, the broker's delivery limit is nearer."""
        return self.amqp.count("amqp.s2c.deliver", lambda event: bool(event.details["redelivered"]))

    def beating(self, seconds: int) -> Self:
        """The same wires for a sidecar whose heart beats every so many seconds."""
        beating = replace(self.setup, broker_url=f"{self.setup.broker_url}?heartbeat={seconds}")
        return replace(self, setup=beating)

    def at_commit(self, event: str, action: Action | Sequence[Action], *, nth: int = 1) -> Rule:
        """Act at this event of the commit that follows the `nth` statement that writes history, of a `LOCKING` sidecar.

        Other transactions come in between, if only to look for timers that are due.
        """
        deciding: set[int] = set()
        self.pg.rule("pg.s2c.SELECT", call(lambda seen: deciding.add(seen.connection)), when=decides, nth=nth)
        return self.pg.rule(event, action, when=lambda seen: seen.connection in deciding)

    def at_save(self, direction: str, action: Action | Sequence[Action], *, nth: int = 1) -> Rule:
        """Act when the `nth` batch is saved that is decided without locks: before that is sent, or before its answer.

        The save is the commit. `direction` is `pg.c2s` or `pg.s2c`.
        """
        event = {"pg.c2s": "pg.c2s.WITH", "pg.s2c": "pg.s2c.SELECT"}[direction]
        return self.pg.rule(event, action, when=saves, nth=nth)

    def assert_fired(self) -> None:
        """See `Proxy.assert_fired`, of both."""
        self.pg.assert_fired()
        self.amqp.assert_fired()


@dataclass(kw_only=True)
class Laboratory:
    """An async context: when it ends every process that it started is dead and every proxy closed."""

    setup: Setup  # leads straight to the servers
    migrated: bool = False  # whether the schema is there already
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        if not self.migrated:
            await finished("migrate", self.setup, "migrate")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def wires(self, *, remember: int = REMEMBERED) -> Wires:
        """New proxies before both servers, which remember so many events."""
        pg = await self._stack.enter_async_context(before(self.setup.database_url, PostgresParser, remember))
        amqp = await self._stack.enter_async_context(before(self.setup.broker_url, AmqpParser, remember))
        through = replace(
            self.setup,
            database_url=pg.through(self.setup.database_url),
            broker_url=amqp.through(self.setup.broker_url),
        )
        return Wires(pg=pg, amqp=amqp, setup=through)

    async def sidecar(
        self, name: str, wires: Wires | None = None, *, command: Program | Sequence[str] = (), **settings: str
    ) -> Sidecar:
        """A sidecar that is ready; without wires it is connected straight to the servers."""
        setup = self.setup if wires is None else wires.setup
        started = await Sidecar.start(setup, name, command=command, **settings)
        return await (await self._stack.enter_async_context(started)).ready()

    async def participants(self, broker_url: str = "", names: Sequence[str] = ()) -> Child:
        """Participants with ledgers, of the ordering process if none is named; at another address, if one is given."""
        started = await participants(self.setup, broker_url or self.setup.broker_url, *names)
        return await self._stack.enter_async_context(started)

    async def place(self, *orders: str) -> Mapping[str, str]:
        """Place orders; returns the ids of their events."""
        async with Shop(self.setup.broker_url, self.setup.namespace) as shop:
            return await shop.place(*orders)

    async def staffed(
        self, name: str, wires: Wires | None = None, *, command: Program | Sequence[str] = (), **settings: str
    ) -> Sidecar:
        """A sidecar and the participants, which need not wait for each other to begin."""
        sidecar, _ = await asyncio.gather(
            self.sidecar(name, wires, command=command, **settings),
            self.participants(),
        )
        return sidecar

    async def look(self) -> Picture:
        """The views and the ledgers as they are now."""
        return await reader(self.setup, self.setup.database_url)()

    async def judge(self, starts: Mapping[str, str], allowed: Mapping[str, Collection[str]]) -> Picture:
        """Wait for rest; then nothing may be wrong.

        Raises:
            AssertionError: something is, or there is no rest.
        """
        picture = await at_rest(self.look, starts, self.setup.ledger)
        assert violations(picture, Expected(starts=starts, allowed=allowed)) == []
        return picture

    async def verdict(
        self, starts: Mapping[str, str], allowed: Mapping[str, Collection[str]], *, quiet: float
    ) -> list[str]:
        """What is wrong at rest, or when nothing has changed for `quiet` seconds; for a product that may be broken."""
        picture = await at_rest_or_stuck(self.look, starts, self.setup.ledger, quiet=quiet)
        return [*stalls(picture), *violations(picture, Expected(starts=starts, allowed=allowed))]


def decides(event: Event) -> bool:
    """Whether it belongs to a statement that writes history."""
    return "event_insert" in event.text("statement")


def saves(event: Event) -> bool:
    """Whether it belongs to a statement that saves what was decided without locks."""
    return "changed_meanwhile" in event.text("statement")


def looks(event: Event) -> bool:
    """Whether it belongs to the statement that looks at everything that a batch without locks wants."""
    return "with seen" in event.text("statement")


def marks_rows(event: Event) -> bool:
    """Whether it belongs to a statement that says what became of publications."""
    return any(word in event.text("statement") for word in ("outbox_confirm", "outbox_fail"))


def before(
    url: str, parser: Callable[[], PostgresParser] | Callable[[], AmqpParser], remember: int = REMEMBERED
) -> Proxy:
    """A proxy before the server of a URL."""
    parts = urlsplit(url)
    port = parts.port or {"amqp": 5672}.get(parts.scheme, 5432)
    return Proxy(parts.hostname or "127.0.0.1", port, parser, remember=remember)
