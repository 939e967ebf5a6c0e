"""One connection to the broker that is repaired when it is lost, with jitter, for as long as it is wanted."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import aio_pika

from messages.errors import BrokerAway, ConfigurationError
from transport.facts import BrokerBlocked, BrokerConnected, BrokerDisconnected, BrokerUnblocked, BrokerUnreachable
from transport.rabbitmq.address import refusal, said
from transport.rabbitmq.talking import FAREWELL, CutOff, backoff, parting, talking
from transport.rabbitmq.tap import Notice, TappedTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiormq.connection import Connection
    from yarl import URL

    from running import Runner
    from transport.facts import Report
    from transport.rabbitmq.address import Address


def quieten_client_library() -> None:
    """Silence the client library's own log lines: it prints tracebacks on ordinary reconnects, and we report facts.

    A level that an operator has set on these loggers stays.
    """
    for name in ("aio_pika", "aiormq"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.CRITICAL + 1)


class TappedConnection(aio_pika.Connection):
    """A plain connection of the client library (not its robust one: repairing is our business) with a tap on it."""

    def __init__(self, url: URL, *, tap: TappedTransport, name: str) -> None:
        super().__init__(url, client_properties={"connection_name": name, "product": "antiphon"})
        self.tap = tap
        self.kwargs["transport_factory"] = tap

    @property
    def underlay(self) -> Connection:
        """The protocol-level connection."""
        if self.transport is None:
            raise CutOff("the connection was closed")
        return cast("Connection", self.transport.connection)


class Link:
    """A connection for one direction. Nothing is said on it before `connect`."""

    def __init__(
        self, address: Address, direction: str, *, name: str, runner: Runner, report: Report, timeout: float
    ) -> None:
        self.direction = direction
        self._address = address
        self._name = name
        self._runner = runner
        self._report = report
        self._timeout = timeout
        self._connection: TappedConnection | None = None
        self._notice = Notice(lambda _reason: None)
        self._up = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self.on_change: Callable[[], None] = lambda: None

    @property
    def is_up(self) -> bool:
        """Whether the connection stands, as far as anybody knows."""
        return self._up.is_set() and self._connection is not None and self._connection.underlay.is_opened

    @property
    def blocked(self) -> bool:
        """Whether the broker has said that it takes no publications."""
        return self._notice.blocked is not None

    async def connect(self) -> None:
        """Connect once and keep the connection from then on.

        Raises:
            BrokerAway, ConfigurationError: see `transport.interface.Transport.connect`.
        """
        if self._keeper is None:
            await self._open(attempts=1)
            self._keeper = self._runner.start(self._keep(), name=f"broker link {self.direction}")

    async def underlay(self) -> tuple[Connection, TappedTransport]:
        """The open connection and its tap; waits for it while it is being repaired."""
        while True:
            await self._up.wait()
            if self._connection is not None and self.is_up:
                return self._connection.underlay, self._connection.tap
            await self._runner.sleep(0.05)  # lost, and the keeper has not noticed yet

    async def close(self) -> None:
        """Say goodbye, whatever state it is in."""
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        self._up.clear()
        await self._discard()

    async def _open(self, *, attempts: int) -> None:
        notice = Notice(self._hear_blocked)
        tap = TappedTransport(notice)
        connection = TappedConnection(self._address.url, tap=tap, name=f"{self._name} {self.direction}")
        try:
            async with talking(self._runner, self._timeout):
                await connection.connect()
        except CutOff as error:
            await self._farewell(connection)
            raise refusal(error.__cause__ or error, self._address, notice) from None
        except BaseException:
            await self._farewell(connection)
            raise
        self._connection, self._notice = connection, notice
        self._up.set()
        self._report(BrokerConnected(direction=self.direction, address=self._address.shown, attempts=attempts))
        self.on_change()

    async def _keep(self) -> None:
        while True:
            reason = await self._until_lost()
            self._up.clear()
            self._report(BrokerDisconnected(direction=self.direction, address=self._address.shown, reason=reason))
            self.on_change()
            await self._discard()
            await self._repair()

    async def _until_lost(self) -> str:
        if self._connection is None:
            return "never connected"
        closing = self._connection.underlay.closing
        await asyncio.wait([closing])
        error = None if closing.cancelled() else closing.exception()
        if self._notice.closed is not None:
            return "{} {}".format(*self._notice.closed)
        return said(error)

    async def _repair(self) -> None:
        attempt = 1
        while True:
            await self._runner.sleep(backoff(self._runner, attempt))
            try:
                await self._open(attempts=attempt)
            except (BrokerAway, ConfigurationError) as error:
                self._report_failure(attempt, str(error))
                attempt += 1
            else:
                return

    def _report_failure(self, attempt: int, reason: str) -> None:
        self._report(
            BrokerUnreachable(direction=self.direction, address=self._address.shown, attempt=attempt, reason=reason)
        )

    def _hear_blocked(self, reason: str | None) -> None:
        self._report(BrokerUnblocked() if reason is None else BrokerBlocked(reason=reason))
        self.on_change()

    async def _discard(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._farewell(connection)

    async def _farewell(self, connection: TappedConnection) -> None:
        """Close politely, or else abruptly: the client library would wait for a silent peer for minutes."""
        if not await parting(self._runner, connection.close(), FAREWELL):
            connection.tap.abort()
