"""The loop that feeds a saga type's queue through its handler: take what is there, commit it, publish, acknowledge.

A batch is whatever queued up while the one before was being decided; a lone message never waits. While a batch is being
saved and published, the next is loaded and decided; it is saved only after the one before was committed, so that what
came first counts first, and runs again from the start when that failed or gave birth to an instance that it missed.
Trouble with the database runs a batch again; a message whose data the database refuses is met alone and dead-lettered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from handlers.decoding import Decoded, decode
from handlers.handle import Attempt
from messages.errors import MessageError, Trouble
from messages.value import value
from outbox.facts import LoopTroubled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from handlers.handle import Decided, Handler, Prepared
    from messages.codec import Limits
    from running import Runner
    from transport.interface import Consumer, Delivery, Transport

UNDER_WAY = 2
"""Batches of one saga type: one is saved while the next is decided, each in a transaction of its own."""

_WORTHWHILE = 2  # a batch begins beside another only if it has half as many messages: each costs something of its own
_PATIENT_FROM = 2  # tries after which a message waits for its instance's lock instead of being deferred again
_SLOWEST_RETRY = 5.0
_DOUBLINGS = 10  # beyond the slowest retry; the database may be away for days, and a power of that has no float


@value
class _Held:
    """A delivery in hand. `tries` counts the batches that had to leave it for the next."""

    delivery: Delivery
    decoded: Decoded
    tries: int = 0


class _Overtook(Exception):  # noqa: N818
    """The batch before was not committed at once, or changed what this one read: it has to be decided again."""


class _Batch:
    """One batch on its way, and what the one behind it has to know.

    `held` are its messages: once it has been decided, without those that it `left` to the next batch. `at_once` says
    whether the first try was committed, with `born`. `ended` is when nothing of it will be tried any more, and says
    whether all of it was committed.
    """

    def __init__(self, held: list[_Held], before: _Batch | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.held = held
        self.left: asyncio.Future[list[_Held]] = loop.create_future()
        self.at_once: asyncio.Future[bool] = loop.create_future()
        self.ended: asyncio.Future[bool] = loop.create_future()
        self.born: frozenset[UUID] = frozenset()
        self._before = before

    @property
    def patient(self) -> bool:
        """Whether it waits for instances that others hold, and leaves nothing."""
        return self.left.done() or any(each.tries >= _PATIENT_FROM for each in self.held)

    async def decided(self, what: Decided) -> None:
        """It can be saved, without what is deferred, as soon as the batch before is.

        Raises:
            _Overtook: that could not be committed at once, or gave birth to an instance that was missing here.
        """
        if not self.left.done():
            left = [replace(self.held[index], tries=self.held[index].tries + 1) for index in sorted(what.deferred)]
            self.held = [each for index, each in enumerate(self.held) if index not in what.deferred]
            self.born = what.born
            self.left.set_result(left)
        before = self._before
        if before is not None and (not await asyncio.shield(before.at_once) or before.born & what.missing):
            raise _Overtook

    async def in_turn(self) -> bool:
        """Wait until the batch before has ended, and say whether it was committed: if not, this must not be either."""
        if self._before is not None and not await asyncio.shield(self._before.ended):
            return False
        self._before = None
        return True

    def tried(self, *, committed: bool) -> None:
        """A try has ended."""
        if not self.at_once.done():
            self.at_once.set_result(committed)

    def end(self, *, committed: bool) -> None:
        """Nothing of it will be tried any more."""
        self._before = None
        self.tried(committed=False)
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
    ) -> None:
        self.name = f"consumer.{handler.consumer}"
        self._handler = handler
        self._transport = transport
        self._runner = runner
        self._report = report
        self._queue = queue
        self._limits = limits
        self._batch = batch
        self._prefetch = prefetch
        self._consumer: Consumer | None = None
        self._receiving: asyncio.Task[Sequence[Delivery]] | None = None
        self._settling: deque[asyncio.Task[None]] = deque()
        self._stopping = False

    @property
    def attached(self) -> bool:
        """Whether the broker is sending us the queue's messages: part of readiness."""
        return self._consumer is not None and self._consumer.attached

    async def run(self) -> None:
        """Consume until stopped; what was received but not decided by then goes back to the queue."""
        consumer = await self._transport.consume(self._queue, prefetch=self._prefetch)
        self._consumer = consumer
        try:
            await self._consume(consumer)
        finally:
            self._consumer = None
            await self._abandon()
            await consumer.close()

    async def _consume(self, consumer: Consumer) -> None:
        held: list[_Held] = []
        batch: _Batch | None = None
        while not self._stopping:
            while len(self._settling) >= UNDER_WAY:
                await self._settling[0]
                self._settling.popleft()
            held += await self._more(consumer, self._batch - len(held), until=batch.left if batch and held else None)
            if not held:
                break
            batch = _Batch(held, batch)
            self._settling.append(self._runner.start(self._settle(consumer, batch), name=f"{self.name}.batch"))
            held = await batch.left
            while len(held) < len(batch.held) / _WORTHWHILE:
                more = await self._more(consumer, self._batch - len(held), until=batch.at_once)
                if not more:
                    break
                held += more
        while self._settling:
            await self._settling[0]
            self._settling.popleft()

    async def _abandon(self) -> None:
        """Cancel what is still under way, if anything; the next life begins with a consumer of its own."""
        tasks: list[asyncio.Task[object]] = [*self._settling, *([self._receiving] if self._receiving else [])]
        self._settling.clear()
        self._receiving = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def stop(self) -> None:
        """Ask for no more; `run` returns after the batch under way."""
        self._stopping = True
        if self._consumer is not None:
            await self._consumer.stop()

    async def _more(self, consumer: Consumer, room: int, *, until: asyncio.Future[Any] | None) -> list[_Held]:
        """What has arrived; waits for something, until then at most. If that is done, only what is there already."""
        if not room:
            return []  # whoever asks for nothing gets nothing, and would be taken for the end
        if self._receiving is None:
            self._receiving = self._runner.start(consumer.receive(room), name=f"{self.name}.receive")
            await self._runner.sleep(0)
        await self._received(until)
        if not self._receiving.done():
            return []
        deliveries, self._receiving = await self._receiving, None
        return [
            _Held(delivery=delivery, decoded=decode(delivery.raw, self._handler.latest, self._limits))
            for delivery in deliveries
        ]

    async def _received(self, until: asyncio.Future[Any] | None) -> None:
        """Wait until something was received; a batch that fails meanwhile ends the loop, not only the next batch."""
        ends = [each for each in (self._receiving, until) if each is not None]
        while not any(end.done() for end in ends):
            under_way = [task for task in self._settling if not task.done()]
            await asyncio.wait([*ends, *under_way], return_when=asyncio.FIRST_COMPLETED)
            for task in self._settling:
                if task.done():
                    task.result()

    async def _settle(self, consumer: Consumer, batch: _Batch) -> None:
        """Commit a batch, publish what it emitted, acknowledge what it decided."""
        committed = False
        try:
            prepared = await self._commit(batch)
        except MessageError:
            batch.tried(committed=False)
            committed = await batch.in_turn() and await self._one_by_one(consumer, batch.held)
        else:
            committed = await self._finish(consumer, batch, prepared)
        finally:
            batch.end(committed=committed)

    async def _finish(self, consumer: Consumer, batch: _Batch, prepared: Prepared | None) -> bool:
        """Whether there was anything to finish: not when the process stopped before the batch was committed."""
        if prepared is None:
            return False
        await self._handler.finish(prepared, len(batch.held))  # first: others wait for it, nobody for the ack
        await consumer.settle([each.delivery for each in batch.held])
        return True

    async def _commit(self, batch: _Batch) -> Prepared | None:
        """Run the batch until it is committed; None when it, or the one before, could not be before the process stops.

        Raises:
            MessageError: the database refuses the data of some message of the batch.
        """
        attempt = Attempt(token=self._runner.token())
        tries = 0
        while True:
            messages = [each.decoded for each in batch.held]
            try:
                prepared = await self._handler.handle(messages, attempt, wait=batch.patient, decided=batch.decided)
            except (Trouble, _Overtook) as error:
                batch.tried(committed=False)
                if self._stopping:
                    return None
                if isinstance(error, Trouble):
                    await self._pause(error, tries)
                    tries += 1
                if not await batch.in_turn():
                    return None
            else:
                batch.tried(committed=True)
                return prepared

    async def _pause(self, error: Trouble, tries: int) -> None:
        retry_in = min(0.05 * 2 ** min(tries, _DOUBLINGS), _SLOWEST_RETRY) * (1 + self._runner.random())
        self._report(LoopTroubled(loop=self.name, error=str(error), retry_in=retry_in))
        await self._runner.sleep(retry_in)

    async def _one_by_one(self, consumer: Consumer, held: Sequence[_Held]) -> bool:
        """The database refuses the data of some message of a batch: the one that fails alone is the culprit.

        Whether all were committed before the process stops.
        """
        for each in held:
            batch = _alone(each)
            try:
                prepared = await self._commit(batch)
            except MessageError as error:
                refused = replace(each.decoded, event=None, marker=None, error=error)
                batch = _alone(replace(each, decoded=refused))
                prepared = await self._commit(batch)
            if not await self._finish(consumer, batch, prepared):
                return False
        return True


def _alone(held: _Held) -> _Batch:
    """A batch of one message that leaves nothing to any other."""
    batch = _Batch([held])
    batch.left.set_result([])
    return batch
