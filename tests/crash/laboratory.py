"""The set-up of a test with PostgreSQL and RabbitMQ: a migrated database, participants, sidecars behind proxies.

Every sidecar may have wires of its own, so that a fault meets one of several and the others not.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from tests.crash.checker import Expected, violations
from tests.crash.driver import Setup, Sidecar, at_rest, finished, participants, reader
from tests.crash.proxy.amqp import AmqpParser
from tests.crash.proxy.faults import call
from tests.crash.proxy.postgres import PostgresParser
from tests.crash.proxy.server import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from tests.crash.forking import Program
    from tests.crash.proxy.faults import Action
    from tests.crash.proxy.rules import Rule
    from tests.crash.proxy.wire import Event
    from tests.crash.views import Picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Wires:
    """What one sidecar is connected by. `setup` leads through the proxies."""

    pg: Proxy
    amqp: Proxy
    setup: Setup

    def at_commit(self, event: str, action: Action | Sequence[Action], *, nth: int = 1) -> Rule:
        """Act at this event of the commit that follows the `nth` statement that writes history.

        Other transactions come in between, if only to look for timers that are due.
        """
        deciding: set[int] = set()
        self.pg.rule("pg.s2c.SELECT", call(lambda seen: deciding.add(seen.connection)), when=decides, nth=nth)
        return self.pg.rule(event, action, when=lambda seen: seen.connection in deciding)

    def assert_fired(self) -> None:
        """See `Proxy.assert_fired`, of both."""
        self.pg.assert_fired()
        self.amqp.assert_fired()


@dataclass(kw_only=True)
class Laboratory:
    """An async context: when it ends every process that it started is dead and every proxy closed."""

    setup: Setup  # leads straight to the servers
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        await finished("migrate", self.setup, "migrate")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def wires(self) -> Wires:
        """New proxies before both servers."""
        pg = await self._stack.enter_async_context(before(self.setup.database_url, PostgresParser))
        amqp = await self._stack.enter_async_context(before(self.setup.broker_url, AmqpParser))
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

    async def participants(self) -> None:
        """All three participants, with ledgers."""
        await self._stack.enter_async_context(await participants(self.setup, self.setup.broker_url))

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


def decides(event: Event) -> bool:
    """Whether it belongs to a statement that writes history."""
    return "event_insert" in event.text("statement")


def marks_rows(event: Event) -> bool:
    """Whether it belongs to a statement that says what became of publications."""
    return any(word in event.text("statement") for word in ("outbox_confirm", "outbox_fail"))


def before(url: str, parser: Callable[[], PostgresParser] | Callable[[], AmqpParser]) -> Proxy:
    """A proxy before the server of a URL."""
    parts = urlsplit(url)
    return Proxy(parts.hostname or "127.0.0.1", parts.port or {"amqp": 5672}.get(parts.scheme, 5432), parser)
