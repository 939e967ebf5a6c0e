"""`antiphon run` that dies at a point of one's choice: the product's own engine, with database and transport wrapped.

    python -m tests.crash.launcher [--at POINT [--nth N] [--block S]] [--slow TASK] [--hurried] [--impatient]
                                   [--policies JSON] [--skew SECONDS] [--broken FILE]
                                   [--ledger FOLDER]

A point is the name of the task that passes it and what it does there, as in `consumer.PlaceOrder.batch: committed`; the
task may be left out. At the N-th passage the process kills itself, as `kill -9` would, so nothing of it is tidied up;
with `--block` it lives on and turns no event loop for so many seconds. What is delivered to a `--slow` task reaches it
never. Everything is wrapped from outside, where the product is put together: it has no hook for this.

`--hurried` gives the ordering saga short timeouts, `--impatient` every dealing with the database. `--policies` gives
the saga those that one names, in seconds: `{"deadline": 2, "calls": {"pay": [1, 8]}}` waits a second for each of eight
sends, and with a third number twice as long each time, up to that; a fourth says how many times as long instead.
`--skew` sets the host's clock so far ahead, as far as the product can see it. As long as there is a `--broken` file,
the saga raises when the stock of an order is reserved that the pattern in that file matches. With `--ledger` the
participants, which then live in the process, leave a ledger there of the commands that reached them; their effects
stand in the table `crash_effect` of the database, written in the transaction of the effect itself.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import hashlib
import json
import os
import re
import signal
import sys
import time
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from unittest.mock import patch

from sqlalchemy import text

from messages.catalog.ordering import StockReserved
from outbox.unit import SqlStorage, SqlUnit
from running import AsyncioRunner
from runtime import engine as composition
from runtime import logs
from runtime.app import App
from runtime.loading import load_modules
from runtime.settings import load
from runtime.telemetry import Telemetry
from sagas import Patience, Policies, Retry
from storage import Database, database, engine
from tests.crash.ledger import Book, Command
from tests.crash.script import EVERY_TRADE, Word, directives

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    import messages
    from handlers import Context
    from handlers.participant import Around
    from messages import Event
    from outbox.interface import Claimed, InboxEntry
    from running import Runner
    from runtime.loading import Known
    from runtime.settings import Settings
    from sagas.catalog.ordering import PlaceOrder
    from sagas.definition import Definition, Reply
    from storage.database import Session
    from transport.interface import Consumer, Delivery, Outcome, Publication, Publisher, Transport
    from transport.topology import Topology


def patience(timeout: timedelta, attempts: int, cap: timedelta | None = None, factor: float = 2.0) -> Patience:
    """Wait so long, so often; with a cap, twice as long each time (or by another factor) until it is that long."""
    growing = 1.0 if cap is None else factor
    retry = Retry(attempts=attempts, backoff=timeout, factor=growing, cap=cap or timeout)
    return Patience(timeout=timeout, retry=retry)


def told_patience(wait: float, attempts: int, cap: float | None = None, factor: float = 2.0) -> Patience:
    """The same in seconds."""
    return patience(timedelta(seconds=wait), attempts, None if cap is None else timedelta(seconds=cap), factor)


SHORT = timedelta(seconds=1)
IMPATIENCE = 1.5  # seconds
POLICIES = {"PlaceOrder": Policies(calls={"pay": patience(SHORT, 8), "label": patience(SHORT, 2)})}
KEEP_EFFECT = text("""
    insert into crash_effect (participant, at, purpose, order_id, idempotency_key, compensates, message_id)
    values (:participant, :at, :purpose, :order_id, :idempotency_key, :compensates, :message_id)
""")
WAS_DONE = text("select count(*) from crash_effect where purpose = 'do' and idempotency_key = :idempotency_key")


class Executioner:
    """Kills or blocks the process at the n-th passage of a point, and holds up who is slow."""

    def __init__(self, point: str, nth: int, slow: str | None, block: float) -> None:
        self._point, self._left, self._slow, self._block = point, nth, slow, block

    async def holds_up_the_slow(self) -> None:
        """Never returns in the slow task."""
        if task_name() == self._slow:
            await asyncio.Event().wait()

    def passes(self, what: str) -> None:
        """The task that is running now passes this point."""
        if self._point not in (what, f"{task_name()}: {what}"):
            return
        self._left -= 1
        if not self._left and self._block:
            time.sleep(self._block)
        elif not self._left:
            os.kill(os.getpid(), signal.SIGKILL)


def task_name() -> str:
    """What the task that is running now is called."""
    task = asyncio.current_task()
    return task.get_name() if task is not None else ""


class MortalUnit(SqlUnit):
    """A transaction with points within."""

    def __init__(self, session: Session, now: datetime, executioner: Executioner) -> None:
        super().__init__(session, now)
        self._executioner = executioner

    async def claim_inbox(self, consumer: str, token: UUID, entries: Sequence[InboxEntry]) -> Claimed:
        """See `outbox.interface.Unit`."""
        claimed = await super().claim_inbox(consumer, token, entries)
        self._executioner.passes("inbox written")
        return claimed


class MortalStorage(SqlStorage):
    """The storage with points at its transactions."""

    def __init__(self, database: Database, executioner: Executioner) -> None:
        super().__init__(database)
        self._executioner = executioner

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlUnit]:
        """See `outbox.interface.Storage`."""
        async with self.database.write() as session:
            yield MortalUnit(session, self._now(), self._executioner)


class MortalDatabase(Database):
    """The database with a point before and behind every commit: `commit` and `committed`."""

    executioner: ClassVar[Executioner]

    @asynccontextmanager
    async def write(self, *, joins: bool = False) -> AsyncIterator[Session]:
        """See `Database`."""
        async with super().write(joins=joins) as session:
            yield session
            self.executioner.passes("commit")
        self.executioner.passes("committed")

    @asynccontextmanager
    async def write_late(self) -> AsyncIterator[Session]:
        """See `Database`."""
        async with super().write_late() as session:
            yield session
            self.executioner.passes("commit")
        self.executioner.passes("committed")


class MortalConsumer:
    """A consumer with points where it hands out and where it is told that something is done."""

    def __init__(self, inner: Consumer, executioner: Executioner) -> None:
        self._inner, self._executioner = inner, executioner

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """See `transport.interface.Consumer`."""
        deliveries = await self._inner.receive(limit)
        await self._executioner.holds_up_the_slow()
        self._executioner.passes("received")
        return deliveries

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """See `transport.interface.Consumer`."""
        self._executioner.passes("settle")
        await self._inner.settle(deliveries)
        self._executioner.passes("settled")

    async def stop(self) -> None:
        """See `transport.interface.Consumer`."""
        await self._inner.stop()

    async def close(self) -> None:
        """See `transport.interface.Consumer`."""
        await self._inner.close()

    @property
    def attached(self) -> bool:
        """See `transport.interface.Consumer`."""
        return self._inner.attached


class MortalPublisher:
    """A publisher with points before and behind."""

    def __init__(self, inner: Publisher, executioner: Executioner) -> None:
        self._inner, self._executioner = inner, executioner

    @property
    def holds(self) -> bool:
        """See `transport.interface.Publisher`."""
        return self._inner.holds

    @property
    def ready(self) -> bool:
        """See `transport.interface.Publisher`."""
        return self._inner.ready

    async def publish(self, publications: Sequence[Publication]) -> None:
        """See `transport.interface.Publisher`."""
        self._executioner.passes("publish")
        await self._inner.publish(publications)
        self._executioner.passes("published")

    async def outcomes(self) -> Sequence[Outcome]:
        """See `transport.interface.Publisher`."""
        outcomes = await self._inner.outcomes()
        self._executioner.passes("confirmed")
        return outcomes


class MortalTransport:
    """A transport whose consumers and publisher have points."""

    def __init__(self, inner: Transport, executioner: Executioner) -> None:
        self._inner, self._executioner = inner, executioner
        self._publisher = MortalPublisher(inner.publisher, executioner)

    @property
    def publisher(self) -> Publisher:
        """See `transport.interface.Transport`."""
        return self._publisher

    @property
    def connected(self) -> bool:
        """See `transport.interface.Transport`."""
        return self._inner.connected

    async def connect(self) -> None:
        """See `transport.interface.Transport`."""
        await self._inner.connect()

    async def declare(self, topology: Topology) -> None:
        """See `transport.interface.Transport`."""
        await self._inner.declare(topology)

    async def consume(self, queue: str, *, prefetch: int) -> Consumer:
        """See `transport.interface.Transport`."""
        return MortalConsumer(await self._inner.consume(queue, prefetch=prefetch), self._executioner)

    async def close(self) -> None:
        """See `transport.interface.Transport`."""
        await self._inner.close()


def booked(book: Book) -> Around:
    """Writes down what reaches a participant and what it does, and keeps silent where an order's id says so."""
    trade = EVERY_TRADE[book.participant]

    async def around(
        command: messages.Command, context: Context, proceed: Callable[[], Awaitable[Event | None]]
    ) -> Event | None:
        arrived = _arrived(command, context)
        purpose = trade.purpose(arrived.name)
        book.note(arrived, purpose)
        reply = await proceed()
        done = {"idempotency_key": arrived.compensates}
        if reply is not None and (
            reply.message_name == trade.done
            if purpose == "do"
            else (await context.connection.execute(WAS_DONE, done)).scalar_one()
        ):
            row = {
                name: getattr(arrived, name) for name in ("order_id", "idempotency_key", "compensates", "message_id")
            }
            row |= {"participant": book.participant, "at": str(time.monotonic_ns()), "purpose": purpose}
            await context.connection.execute(KEEP_EFFECT, row)
        told = directives(arrived.order_id).get((book.participant, purpose))
        return None if told is not None and told.word is Word.SILENT else reply

    return around


def _arrived(command: messages.Command, context: Context) -> Command:
    body = command.model_dump_json().encode()
    return Command(
        message_id=context.message_id,
        name=command.message_name,
        body=body,
        body_hash=hashlib.sha256(body).hexdigest(),
        idempotency_key=context.idempotency_key,
        compensates=context.compensates or "",
        correlation_id=context.saga_id or "",
        reply_to="",
        redelivered=False,
    )


def hosted(known: Known, folder: Path | None) -> Known:
    """The same, its participants with a ledger."""
    if folder is None:
        return known
    with_book = {
        name: participant.around(booked(Book(name, folder / f"{name}.ledger"))) if name in EVERY_TRADE else participant
        for name, participant in known.participants.items()
    }
    return replace(known, participants=with_book)


class Skewed(AsyncioRunner):
    """A runner on a host whose clock is wrong."""

    def __init__(self, seconds: float) -> None:
        self._ahead = timedelta(seconds=seconds)

    def now(self) -> datetime:
        """See `Runner.now`."""
        return super().now() + self._ahead


def policies_of(arguments: argparse.Namespace) -> Mapping[str, Policies] | None:
    """What the command line asks for instead of what the class says."""
    if arguments.policies is None:
        return POLICIES if arguments.hurried else None
    told = json.loads(arguments.policies)
    calls = {name: told_patience(*words) for name, words in told["calls"].items()}
    deadline = timedelta(seconds=told["deadline"]) if "deadline" in told else None
    return {"PlaceOrder": Policies(deadline=deadline, calls=calls)}


def broken(known: Known, file: Path | None) -> Known:
    """The same, its ordering saga with a method that raises as long as the file is there."""
    if file is None:
        return known
    pattern = re.compile(file.read_text()) if file.exists() else re.compile("never^")

    def with_hook(reply: Reply) -> Reply:
        @functools.wraps(reply.hook or with_hook)
        def hook(saga: PlaceOrder, event: Event) -> None:
            if file.exists() and pattern.search(saga.order_id):
                raise RuntimeError("this method is yet to be mended")
            if reply.hook is not None:
                reply.hook(saga, event)

        return replace(reply, hook=hook)

    def with_step(definition: Definition) -> Definition:
        reserve = definition.steps["reserve"]
        replies = dict(reserve.do.replies)
        replies[StockReserved.message_name] = with_hook(replies[StockReserved.message_name])
        steps = {**definition.steps, "reserve": replace(reserve, do=replace(reserve.do, replies=replies))}
        return replace(definition, steps=steps)

    versions = known.sagas["PlaceOrder"]
    mended = {version: with_step(definition) for version, definition in versions.items()}
    return replace(known, sagas={**known.sagas, "PlaceOrder": mended})


async def run(arguments: argparse.Namespace) -> int:
    """What `antiphon run` does, with wrapped parts."""
    settings = load().settings
    known = broken(load_modules(settings.modules, policies_of(arguments), limits=settings.limits), arguments.broken)
    logs.configure(log_format=settings.log_format, level=settings.log_level, stream=sys.stdout)
    report, runner = Telemetry(settings.log_level), Skewed(arguments.skew)
    with ExitStack() as wrapped:
        if arguments.at is not None:
            wrap(wrapped, Executioner(arguments.at, arguments.nth, arguments.slow, arguments.block))
        if arguments.impatient:
            shorten(wrapped)
        if arguments.locking:
            wrapped.enter_context(patch.object(composition, "Optimistic", lambda _: None))
        process = composition.Engine(
            settings,
            hosted(known, arguments.ledger),
            runner=runner,
            report=report,
            participants=tuple(known.participants) if settings.in_process else (),
        )
        return await App(process, settings, http=True, runner=runner, report=report).run()


def wrap(until: ExitStack, executioner: Executioner) -> None:
    """Have the composition root take wrapped parts for its own, until the stack is closed."""
    MortalDatabase.executioner = executioner
    build = composition.transport_for

    def transport_for(settings: Settings, runner: Runner, report: Callable[[object], None]) -> Transport:
        return MortalTransport(build(settings, runner, report), executioner)

    until.enter_context(patch.object(composition, "Database", MortalDatabase))
    until.enter_context(
        patch.object(composition, "SqlStorage", lambda database, _: MortalStorage(database, executioner))
    )
    until.enter_context(patch.object(composition, "transport_for", transport_for))


def shorten(until: ExitStack) -> None:
    """Give up on the database sooner, and have it give up on us, until the stack is closed."""
    settings = engine.session_settings

    def hasty(schemas: Sequence[str]) -> dict[str, str]:
        return settings(schemas) | {"idle_in_transaction_session_timeout": str(int(IMPATIENCE * 1000))}

    until.enter_context(patch.object(engine, "session_settings", hasty))
    for bound in ("STATEMENT_BOUND", "ROLLBACK_BOUND"):
        until.enter_context(patch.object(database, bound, IMPATIENCE))


def main() -> None:
    """The entry point."""
    parser = argparse.ArgumentParser(description="antiphon run, to be killed from within")
    parser.add_argument("--at", help="the point to die at; without one it lives, and nothing is wrapped")
    parser.add_argument("--nth", type=int, default=1)
    parser.add_argument("--block", type=float, default=0.0, help="seconds")
    parser.add_argument("--slow", help="a task that never gets what is delivered to it")
    parser.add_argument("--hurried", action="store_true")
    parser.add_argument("--impatient", action="store_true")
    parser.add_argument("--locking", action="store_true", help="decide every batch in a transaction")
    parser.add_argument("--policies", help="the deadline and the timeouts of the ordering saga, as JSON")
    parser.add_argument("--skew", type=float, default=0.0, help="so many seconds is the host's clock ahead")
    parser.add_argument("--broken", type=Path, help="a file with a pattern: such orders raise while it is there")
    parser.add_argument("--ledger", type=Path)
    sys.exit(asyncio.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
