"""The loop that feeds a participant's queue through its handlers, several commands at once.

A command is acknowledged when it was answered, dropped or dead-lettered, and that is committed. Trouble with the
database carries it out again after a pause. One that may have killed a process is met when no other such is.

One that fails while the database works (its statement takes too long, somebody holds its row) is to blame itself: it
makes room for others, is tried again when no other such one is, and becomes a dead letter when it does not end.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from handlers.answering import Answering
from handlers.blame import Failures, is_to_blame
from handlers.suspects import Suspects, accused_message, killed_process, suspicious
from messages.errors import Trouble
from messages.printable import in_words
from outbox.facts import LoopTroubled
from running import happens
from storage.database import ChangedMeanwhile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from handlers.participant import Participant
    from messages.codec import Limits
    from messages.envelope import Raw
    from messages.errors import MessageError
    from outbox.relay import Relay
    from outbox.unit import SqlStorage
    from running import Runner
    from transport.interface import Consumer, Delivery, Transport

CONCURRENCY = 16
PATIENCE = 600.0
"""Seconds a handler may take by default; well within the broker's own bound for an acknowledgement."""

_IN_HAND = 2  # times as many commands as are at work: those that make room for others still wait for their end
_SLOWEST_RETRY = 5.0
_DOUBLINGS = 10  # beyond the slowest retry; the database may be away for days, and a power of that has no float


@dataclass(slots=True)
class _Command:
    """A command in hand, how often it failed by its own doing, and what it is refused with once that is enough."""

    raw: Raw
    failures: Failures = field(default_factory=Failures)
    refusal: MessageError | None = None


class ParticipantConsumer:
    """One per participant and process. `run` until `stop`."""

    def __init__(
        self,
        participant: Participant,
        storage: SqlStorage,
        transport: Transport,
        relay: Relay,
        runner: Runner,
        *,
        report: Callable[[object], None],
        namespace: str,
        queue: str,
        limits: Limits,
        concurrency: int = CONCURRENCY,
        patience: float = PATIENCE,
        suspects: Suspects | None = None,
    ) -> None:
        """At most `concurrency` commands are at work, each with a database connection and `patience` seconds.

        `suspects` are those of the whole process.
        """
        self._answering = Answering(
            participant,
            storage,
            relay,
            runner,
            report=report,
            namespace=namespace,
            limits=limits,
            patience=patience,
        )
        self.name = self._answering.consumer
        self._storage = storage
        self._suspects = suspects or Suspects(storage, runner)
        self._prepare = participant.prepare
        self._transport = transport
        self._runner = runner
        self._report = report
        self._queue = queue
        self._in_hand = _IN_HAND * concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._blamed = asyncio.Lock()
        self._consumer: Consumer | None = None
        self._receiving: asyncio.Task[Sequence[Delivery]] | None = None
        self._working: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    @property
    def attached(self) -> bool:
        """Whether the broker is sending us the queue's messages: part of readiness."""
        return self._consumer is not None and self._consumer.attached

    async def set_up(self) -> None:
        """Prepare the participant's own tables; `run` does it first. Changes nothing when they are prepared.

        Raises:
            Trouble: the database is away or busy; it can be tried again.
            RuntimeError: it would have ended the process, which runs more than this participant.
        """
        if self._prepare is None:
            return
        try:
            await self._answering.store.set_up(self._prepare)
        except (SystemExit, KeyboardInterrupt) as error:
            raise RuntimeError(f"the setup of {self.name} raised {in_words(error)}") from error

    async def _set_up(self) -> bool:
        await self.set_up()
        return True

    async def run(self) -> None:
        """Prepare the tables, then answer commands until stopped; what was begun by then is finished."""
        if not await self._until_no_trouble(self._set_up):
            return
        consumer = await self._transport.consume(self._queue, prefetch=self._in_hand)
        self._consumer = consumer
        try:
            if self._stopping.is_set():
                await consumer.stop()
            await self._work_off(consumer)
        finally:
            self._consumer = None
            await self._abandon()
            await consumer.close()

    async def stop(self) -> None:
        """Ask for no more; `run` returns after the commands under way."""
        self._stopping.set()
        if self._consumer is not None:
            await self._consumer.stop()

    async def _work_off(self, consumer: Consumer) -> None:
        drained = False
        while not (drained and not self._working):
            room = self._in_hand - len(self._working)
            if self._receiving is None and room and not drained:
                self._receiving = self._runner.start(consumer.receive(room), name=f"{self.name}.receive")
            await self._something_happens()
            for task in [task for task in self._working if task.done()]:
                self._working.discard(task)
                task.result()
            if self._receiving is not None and self._receiving.done():
                deliveries, self._receiving = self._receiving.result(), None
                drained = not deliveries
                self._begin(consumer, deliveries)

    async def _something_happens(self) -> None:
        """Deliveries have come, or a command has come to its end."""
        tasks: list[asyncio.Task[Any]] = [*self._working]
        if self._receiving is not None:
            tasks.append(self._receiving)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    def _begin(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._working.add(self._runner.start(self._take(consumer, delivery), name=f"{self.name}.command"))

    async def _take(self, consumer: Consumer, delivery: Delivery) -> None:
        take = self._meet_alone if suspicious(delivery) else self._answering.take
        command = _Command(delivery.raw)
        if await self._until_no_trouble(lambda: self._try(command, take), command):
            await consumer.settle([delivery])

    async def _try(self, command: _Command, take: Callable[[Raw], Awaitable[object]]) -> bool:
        """Carry it out, or refuse it, once there is a slot; False when the process is stopping by then."""
        async with self._blamed if command.failures.times else nullcontext(), self._slots:
            if self._stopping.is_set():
                return False
            if command.refusal is not None:
                await self._answering.refuse(command.raw, command.refusal)
            else:
                await take(command.raw)
        return True

    async def _meet_alone(self, raw: Raw) -> None:
        accused = accused_message(self.name, raw)
        async with self._suspects.alone():
            if await self._suspects.note(accused):
                await self._answering.take(raw)
            else:
                await self._answering.refuse(raw, killed_process(accused))
            await self._suspects.acquit(accused)

    async def _until_no_trouble(self, work: Callable[[], Awaitable[bool]], command: _Command | None = None) -> bool:
        """Do it until the database lets us; False when the process is stopping before it could be done."""
        tries = 0
        while True:
            try:
                return await work()
            except Trouble as error:
                if self._stopping.is_set():
                    return False
                if tries or not isinstance(error, ChangedMeanwhile):  # else what changed can be read at once
                    if command is not None and await is_to_blame(self._storage, error):
                        command.refusal = command.failures.another(error, self._runner.monotonic())
                    await self._pause(error, tries)
            tries += 1

    async def _pause(self, error: Trouble, tries: int) -> None:
        retry_in = min(0.05 * 2 ** min(tries, _DOUBLINGS), _SLOWEST_RETRY) * (1 + self._runner.random())
        self._report(LoopTroubled(loop=self.name, error=str(error), retry_in=retry_in))
        await happens(self._stopping, self._runner, within=retry_in)

    async def _abandon(self) -> None:
        """Whatever is still under way when the loop ends otherwise than by `stop` goes back to the queue."""
        left: set[asyncio.Task[Any]] = {*self._working, *([self._receiving] if self._receiving else [])}
        self._working, self._receiving = set(), None
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
