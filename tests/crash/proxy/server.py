"""The proxy: a TCP server on the loopback that forwards to one upstream and acts where a rule says so.

    async with Proxy("127.0.0.1", 5432, PostgresParser) as proxy:
        rule = proxy.rule("pg.s2c.COMMIT", cut())
        ...                                             # connect to proxy.port, provoke a commit
        await rule.has_fired()
        proxy.assert_fired()                            # a rule that never fired makes the test invalid

It runs in the test's event loop; rules may be armed at any time, also from within an action.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit, urlunsplit

from tests.crash.proxy.connection import CHUNK, Connection, reset
from tests.crash.proxy.rules import Bell, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.crash.proxy.faults import Action, Side
    from tests.crash.proxy.wire import Event, Parser

REMEMBERED = 200_000  # events kept in the log; the counters never forget


class Proxy:
    """Stands between the process under test and one server."""

    def __init__(
        self, upstream_host: str, upstream_port: int, parser: Callable[[], Parser], *, remember: int = REMEMBERED
    ) -> None:
        self.upstream = (upstream_host, upstream_port)
        self.log: deque[Event] = deque(maxlen=remember)
        self.complaints: list[str] = []
        self.observers: list[Callable[[Event], None]] = []
        self.bell = Bell()
        self._parser = parser
        self._counts: Counter[str] = Counter()
        self._rules: list[Rule] = []
        self._lines: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)
        self._refusing = False
        self._open = asyncio.Event()
        self._open.set()
        self._heals = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=CHUNK)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cut every connection and stop listening."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        assert self._server is not None, "the proxy is not started: use `async with`"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def through(self, url: str) -> str:
        """The same URL with the proxy in the place of the server."""
        parts = urlsplit(url)
        login, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{login}{at}127.0.0.1:{self.port}"))

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._lines)

    # Rules.

    def rule(
        self,
        event: str,
        action: Action | Sequence[Action],
        *,
        nth: int = 1,
        times: int | None = 1,
        when: Callable[[Event], bool] | None = None,
        side: Side = "before",
    ) -> Rule:
        """Arm a rule: at the `nth` event of this name for which `when` holds, counted from now, do this.

        Several actions are carried out in order, until one of them ends the matter. With `times=None` the rule goes on
        acting at every further event.

        Raises:
            ValueError: the rule would leave half a message on the wire.
        """
        actions = [action] if callable(action) else list(action)
        if any(each.needs_whole_message for each in actions) and (side == "after" or event.endswith("_done")):
            raise ValueError(f"bytes can only be dropped before the first event of their message, not {side} {event}")
        made = Rule(event=event, actions=actions, nth=nth, times=times, when=when, side=side, bell=self.bell)
        self._rules.append(made)
        return made

    def assert_fired(self) -> None:
        """A rule that never acted means that the test did not test what it says."""
        idle = [str(rule) for rule in self._rules if not rule.fired]
        assert not idle, f"rules that never fired: {idle}; events seen: {dict(self._counts)}"
        assert not self.complaints, f"connections that could not be followed: {self.complaints}"

    # What was seen.

    def count(self, event: str, when: Callable[[Event], bool] | None = None) -> int:
        """How many events of this name there were since the start; with `when`, among those still in the log."""
        if when is None:
            return self._counts[event]
        return sum(1 for past in self.log if past.name == event and when(past))

    async def seen(
        self,
        event: str,
        count: int = 1,
        timeout: float = 30,  # noqa: ASYNC109 - a bound for tests
        when: Callable[[Event], bool] | None = None,
    ) -> None:
        """Wait until there were `count` events of this name since the start.

        Raises:
            TimeoutError: there were not, within `timeout` seconds; says what was seen instead.
        """
        try:
            await self.bell.until(lambda: self.count(event, when) >= count, timeout=timeout)
        except TimeoutError:
            raise TimeoutError(f"no {count} x {event} within {timeout} s; seen: {dict(self._counts)}") from None

    def seen_on_wire(self, event: Event) -> list[Rule]:
        """Count and remember an event; return the rules that are due at it, in the order they were armed."""
        self.log.append(event)
        self._counts[event.name] += 1
        for observe in self.observers:
            observe(event)
        self.bell.ring()
        return [rule for rule in self._rules if rule.is_due(event)]

    # Faults that no event brings about.

    def cut_all(self) -> None:
        """Reset every connection there is; new ones are welcome."""
        for line in list(self._lines):
            line.reset()

    def refuse(self) -> None:
        """Reset every connection there is, and every new one, until `heal`: a server that is away."""
        self._refusing = True
        self.cut_all()

    def black_hole(self) -> None:
        """Forward nothing more, on old connections and new, until `heal`: a network that is away."""
        self._open.clear()

    def heal(self) -> None:
        """Disarm all rules and end every black hole, hold and refusal; what had gathered goes on its way."""
        for rule in self._rules:
            rule.disarm()
        self._refusing = False
        self._heals += 1
        self._open.set()
        for line in self._lines:
            line.open.set()
        self.bell.ring()

    def forget(self) -> None:
        """Forget the rules that act no more, in a run that arms new ones without end."""
        self._rules = [rule for rule in self._rules if rule.armed]

    async def opened(self) -> None:
        """Wait until the proxy as a whole is no black hole."""
        await self._open.wait()

    async def healed(self) -> None:
        """Wait for the next `heal`."""
        before = self._heals
        await self.bell.until(lambda: self._heals > before, timeout=3600)

    # Connections.

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.opened()
            if self._refusing:
                raise ConnectionRefusedError
            upstream = await asyncio.open_connection(*self.upstream, limit=CHUNK)
        except BaseException as error:
            reset(writer)
            if isinstance(error, OSError):
                return
            raise
        line = Connection(self, next(self._numbers), self._parser(), (reader, writer), upstream)
        self._lines.add(line)
        try:
            await line.run()
        finally:
            self._lines.discard(line)
            line.close()
            self.bell.ring()
