"""The loop that feeds a saga type's queue through its handler: take what is there, commit it, publish, acknowledge.

A batch is whatever queued up while the one before was being decided; a lone message never waits. While a batch is being
saved and published, the next is loaded and decided; it is saved only after the one before was committed, so that what
came first counts first, and runs again from the start when that failed or gave birth to an instance that it missed.
Trouble with the database runs a batch again. One that the database refuses, or keeps failing on while it works, leaves
the line and is met in parts (`handlers.aside`); the line goes on without it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from handlers.aside import Aside, InHand
from handlers.decoding import Decoded, decode, unread
from handlers.handle import Attempt, Overtaken
from handlers.suspects import Suspects, suspicious
from messages.errors import DatabaseBusy, MessageError, Trouble
from outbox.facts import LoopTroubled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from handlers.handle import Decided, Handler
    from messages.codec import Limits
    from messages.envelope import Raw
    from outbox.pressure import Pressure
    from running import Runner
    from transport.interface import Consumer, Delivery, Transport

UNDER_WAY = 2
"""Batches of one saga type: one is saved while the next is decided, each in a transaction of its own."""

_WORTHWHILE = 2  # a batch begins beside another only if it has half as many messages: each costs something of its own
_PATIENT_FROM = 2  # batches that had to leave a message; then it waits for its instance's lock, aside
_STUBBORN_FROM = 3  # failures of a batch in turn; then the database is asked whether it is to blame
_SLOWEST_RETRY = 5.0
_DOUBLINGS = 10  # beyond the slowest retry; the database may be away for days, and a power of that has no float


class _Batch:
    """One batch on its way, and what the one behind it has to know.

    `held` are its messages: once it has been decided, without those that it `left` to the next batch. `at_once` says
    whether the first try was committed, `committed` whether any was before there was trouble. `ended` is when nothing
    of it will be done any more, and says whether all of it was committed. `late` are messages that a later try could
    not decide: then the next batch has begun.
    """

    def __init__(self, held: list[InHand], before: _Batch | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.held = held
        self.left: asyncio.Future[list[InHand]] = loop.create_future()
        self.at_once: asyncio.Future[bool] = loop.create_future()
        self.committed: asyncio.Future[bool] = loop.create_future()
        self.ended: asyncio.Future[bool] = loop.create_future()
        self.late: list[InHand] = []
        self._born: frozenset[UUID] = frozenset()
        self._concerned: frozenset[UUID] = frozenset()
        self._before = before

    def begin(self) -> frozenset[UUID]:
        """See `handlers.handle.Line`."""
        if self._before is not None and self._before.at_once.done() and self._before.at_once.result():
            self._before = None
        return frozenset() if self._before is None else self._before._concerned

    def compared(self) -> None:
        """Its messages are being compared with what stands aside: what the batch before could not do is there."""
        if self._before is not None and self._before.ended.done() and self._before.ended.result():
            self._before = None

    async def decided(self, what: Decided) -> None:
        """It can be saved, without what is deferred, as soon as the batch before is.

        That may be overtaken and tried again; whoever holds locks then lets them go, and whoever holds none can wait.

        Raises:
            Overtaken: that was not committed (at once), or gave birth to an instance that was missing here.
        """
        deferred = [self.held[index] for index in sorted(what.deferred)]
        self._born, self._concerned = what.born, self._concerned | what.concerned
        if self.left.done():
            self.late = deferred
        else:
            self.held = [each for index, each in enumerate(self.held) if index not in what.deferred]
            self.left.set_result([replace(each, tries=each.tries + 1) for each in deferred])
        before = self._before
        if before is None:
            return
        if not await asyncio.shield(before.at_once if what.locked else before.committed):
            raise Overtaken
        if before._born & what.missing:
            raise Overtaken

    async def in_turn(self) -> bool:
        """Wait until the batch before has ended, and say whether it was committed: if not, this must not be either."""
        if self._before is not None and not await asyncio.shield(self._before.ended):
            return False
        self._before = None
        return True

    def tried(self, *, committed: bool, trouble: bool = False) -> None:
        """A try has ended; with `trouble` nobody knows how long the next one takes."""
        if not self.at_once.done():
            self.at_once.set_result(committed)
        if (committed or trouble) and not self.committed.done():
            self.committed.set_result(committed)

    def end(self, *, committed: bool) -> None:
        """Nothing of it will be tried any more."""
        self._before = None
        self.tried(committed=False)
        if not self.committed.done():
            self.committed.set_result(committed)
        if not self.left.done():
            self.left.set_result([])
        self.ended.set_result(committed)


class SagaConsumer:
    """One per saga type and process. `run` until `stop`."""

    def __init__(
        self,
        handler: Handler,
        transport: Transport,
        runner: Runner,
        report: Callable[[object], None],
        *,
        queue: str,
        limits: Limits,
        batch: int = 200,
        prefetch: int = 400,
        suspects: Suspects | None = None,
        pressure: Pressure | None = None,
    ) -> None:
        """`suspects` and `pressure` are those of the whole process; in process there is no `pressure`."""
        self.name = f"consumer.{handler.consumer}"
        self._handler = handler
        self._transport = transport
        self._runner = runner
        self._report = report
        self._queue = queue
        self._limits = limits
        self._batch = batch
        self._prefetch = prefetch
        self._suspects = suspects or Suspects(handler.storage, runner)
        self._pressure = pressure
        self._consumer: Consumer | None = None
        self._drained = False
        self._arrived = 0
        self._receiving: asyncio.Task[Sequence[Delivery]] | None = None
        self._settling: deque[asyncio.Task[None]] = deque()
        self._broken: asyncio.Future[None]  # done when a batch has failed
        self._stopping = False
        self._halted = asyncio.Event()

    @property
    def attached(self) -> bool:
        """Whether the broker is sending us the queue's messages: part of readiness."""
        return self._consumer is not None and self._consumer.attached

    async def run(self) -> None:
        """Consume until stopped; what was received but not decided by then goes back to the queue."""
        consumer = await self._transport.consume(self._queue, prefetch=self._prefetch)
        self._consumer = consumer
        aside = Aside(
            self._handler,
            consumer,
            self._suspects,
            self._runner,
            self._report,
            name=self.name,
            decode=self._decoded,
        )
        try:
            await self._consume(consumer, aside)
        finally:
            self._consumer = None
            await self._abandon(aside)
            await consumer.close()

    async def _consume(self, consumer: Consumer, aside: Aside) -> None:
        self._drained = False
        self._broken = asyncio.get_running_loop().create_future()
        held: list[InHand] = []
        batch: _Batch | None = None
        while not self._stopping:
            while len(self._settling) >= UNDER_WAY:
                await self._settling[0]
                self._settling.popleft()
            held = await self._more(consumer, aside, held, until=batch.left if batch and held else None)
            if not held:
                if self._drained:
                    break
                continue
            if not await self._passable(aside):
                break
            batch, later = _Batch(held[: self._batch], batch), held[self._batch :]
            settling = self._settle(consumer, aside, batch)
            self._settling.append(self._runner.start(settling, name=f"{self.name}.batch"))
            self._settling[-1].add_done_callback(self._notice)
            held = _left(await batch.left, aside) + later
            while len(held) < len(batch.held) / _WORTHWHILE and not batch.at_once.done() and not self._drained:
                held = await self._more(consumer, aside, held, until=batch.at_once)
        while self._settling:
            await self._settling[0]
            self._settling.popleft()
        await aside.stop()

    async def _abandon(self, aside: Aside) -> None:
        """Cancel what is still under way, if anything; the next life begins with a consumer of its own."""
        under_way = [*self._settling, self._receiving, aside.working]
        tasks: list[asyncio.Task[Any]] = [task for task in under_way if task is not None]
        self._settling.clear()
        self._receiving = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def stop(self) -> None:
        """Ask for no more; `run` returns after the batch under way."""
        self._stopping = True
        self._halted.set()
        if self._consumer is not None:
            await self._consumer.stop()

    async def _more(
        self, consumer: Consumer, aside: Aside, held: list[InHand], *, until: asyncio.Future[Any] | None
    ) -> list[InHand]:
        """What is held and what has come besides; waits for something, until then at most.

        If that is done, only what is there already. What belongs behind something that stands aside goes there.
        """
        room = self._batch - len(held)
        if room <= 0:
            return held  # whoever asks for nothing gets nothing, and would be taken for the end
        if self._receiving is None:
            self._receiving = self._runner.start(consumer.receive(room), name=f"{self.name}.receive")
            await self._runner.sleep(0)
        await self._received(aside, until)
        held = aside.screened(held) + aside.freed(room)
        if not self._receiving.done():
            return held
        deliveries, self._receiving = await self._receiving, None
        self._drained = not deliveries
        arrived = [self._in_hand(each) for each in deliveries]
        aside.suspect([each for each in arrived if suspicious(each.delivery)])
        return held + aside.screened([each for each in arrived if not suspicious(each.delivery)])

    def _in_hand(self, delivery: Delivery) -> InHand:
        """The delivery, read; one that may have killed a process is not."""
        self._arrived += 1
        decoded = unread(delivery.raw) if suspicious(delivery) else self._decoded(delivery.raw)
        return InHand(number=self._arrived, delivery=delivery, decoded=decoded)

    def _decoded(self, raw: Raw) -> Decoded:
        return decode(raw, self._handler.latest, self._limits)

    async def _passable(self, aside: Aside) -> bool:
        """Wait while what was made already cannot leave; what was received stays unacknowledged. False at a stop."""
        if self._pressure is None or self._pressure.reason is None:
            return True
        waits = [
            self._runner.start(self._pressure.passable(), name=f"{self.name}.paused"),
            self._runner.start(self._halted.wait(), name=f"{self.name}.halted"),
        ]
        try:
            await self._first(aside, waits)
        finally:
            for each in waits:
                each.cancel()
            await asyncio.wait(waits)
        return not self._halted.is_set()

    async def _received(self, aside: Aside, until: asyncio.Future[Any] | None) -> None:
        """Wait until something was received or freed, or until then."""
        await self._first(aside, [each for each in (self._receiving, until, aside.freeing) if each is not None])

    async def _first(self, aside: Aside, ends: Sequence[asyncio.Future[Any]]) -> None:
        """Wait until one of these is done; a batch that fails meanwhile ends the loop, not only the next batch."""
        while not any(end.done() for end in ends):
            watched = [self._broken] if aside.working is None or aside.working.done() else [self._broken, aside.working]
            await asyncio.wait([*ends, *watched], return_when=asyncio.FIRST_COMPLETED)
            for task in (*self._settling, aside.working):
                if task is not None and task.done():
                    task.result()

    def _notice(self, settled: asyncio.Task[None]) -> None:
        """One that went well wakes nobody."""
        if not self._broken.done() and (settled.cancelled() or settled.exception() is not None):
            self._broken.set_result(None)

    async def _settle(self, consumer: Consumer, aside: Aside, batch: _Batch) -> None:
        """Commit a batch, publish what it emitted, acknowledge what it decided; or put aside what cannot be decided."""
        committed = False
        try:
            committed = await self._commit(consumer, aside, batch)
        except (MessageError, DatabaseBusy) as error:
            batch.tried(committed=False)
            committed = await batch.in_turn()
            if committed:
                aside.take(batch.held, error)
        finally:
            batch.end(committed=committed)

    async def _commit(self, consumer: Consumer, aside: Aside, batch: _Batch) -> bool:
        """Run the batch until it is done; False when it, or the one before, could not be before the process stops.

        Raises:
            MessageError: the database refuses the data of some message of the batch.
            DatabaseBusy: it fails again and again while the database works.
        """
        attempt = Attempt(token=self._runner.token())
        tries = stubborn = 0
        while True:
            batch.compared()
            batch.held = aside.screened(batch.held)
            if not batch.held:
                return await batch.in_turn()
            messages = [each.decoded for each in batch.held]
            try:
                prepared = await self._handler.handle(messages, attempt, line=batch)
            except (Trouble, Overtaken) as error:
                batch.tried(committed=False, trouble=isinstance(error, Trouble))
                if self._stopping:
                    return False
                if isinstance(error, Trouble):
                    stubborn = stubborn + 1 if isinstance(error, DatabaseBusy) else 0
                    if stubborn >= _STUBBORN_FROM and await aside.blames(error):
                        raise
                    await self._pause(error, tries)
                    tries += 1
                if not await batch.in_turn():
                    return False
            else:
                for each in batch.late:
                    aside.wait_for(each)
                batch.tried(committed=True)
                await self._handler.finish(prepared, len(batch.held))  # first: others wait for it, nobody for the ack
                done = [each.delivery for each in batch.held if each not in batch.late]
                await consumer.settle(done)
                return True

    async def _pause(self, error: Trouble, tries: int) -> None:
        retry_in = min(0.05 * 2 ** min(tries, _DOUBLINGS), _SLOWEST_RETRY) * (1 + self._runner.random())
        self._report(LoopTroubled(loop=self.name, error=str(error), retry_in=retry_in))
        await self._runner.sleep(retry_in)


def _left(messages: list[InHand], aside: Aside) -> list[InHand]:
    """What the next batch begins with. What was left often enough is waited for aside, where it holds up nobody."""
    for each in messages:
        if each.tries >= _PATIENT_FROM:
            aside.wait_for(each)
    return aside.screened([each for each in messages if each.tries < _PATIENT_FROM])
