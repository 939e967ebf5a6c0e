"""The loop that feeds a saga type's queue through its handler: take what is there, commit it, publish, acknowledge.

A batch is whatever queued up while the one before was under way; a lone message never waits. Trouble with the database
runs the batch again; a message whose data the database refuses is met alone and dead-lettered.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from handlers.decoding import Decoded, decode
from handlers.handle import Attempt
from messages.errors import MessageError, Trouble
from messages.value import value
from outbox.facts import LoopTroubled

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from handlers.handle import Handler, Prepared
    from messages.codec import Limits
    from running import Runner
    from transport.interface import Consumer, Delivery, Transport

_PATIENT_FROM = 2  # tries after which a message waits for its instance's lock instead of being deferred again
_SLOWEST_RETRY = 5.0
_DOUBLINGS = 10  # beyond the slowest retry; the database may be away for days, and a power of that has no float


@value
class _Held:
    """A delivery in hand. `tries` counts the batches that had to leave it for the next."""

    delivery: Delivery
    decoded: Decoded
    tries: int = 0


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
        self._stopping = False

    @property
    def attached(self) -> bool:
        """Whether the broker is sending us the queue's messages: part of readiness."""
        return self._consumer is not None and self._consumer.attached

    async def run(self) -> None:
        """Consume until stopped; what was received but not decided by then goes back to the queue."""
        consumer = await self._transport.consume(self._queue, prefetch=self._prefetch)
        self._consumer = consumer
        held: list[_Held] = []
        try:
            while not self._stopping:
                held += await self._more(consumer, self._batch - len(held), wait=not held)
                if not held:
                    break
                held = await self._settle(consumer, held)
        finally:
            self._consumer = None
            receiving, self._receiving = self._receiving, None  # the next life begins with a consumer of its own
            if receiving is not None:
                receiving.cancel()
            await consumer.close()

    async def stop(self) -> None:
        """Ask for no more; `run` returns after the batch under way."""
        self._stopping = True
        if self._consumer is not None:
            await self._consumer.stop()

    async def _more(self, consumer: Consumer, room: int, *, wait: bool) -> list[_Held]:
        """What has arrived. Without `wait`, only what is there already: messages in hand must not stand still."""
        if not room:
            return []  # whoever asks for nothing gets nothing, and would be taken for the end
        if self._receiving is None:
            self._receiving = self._runner.start(consumer.receive(room), name=f"{self.name}.receive")
            await self._runner.sleep(0)
        if not wait and not self._receiving.done():
            return []
        deliveries, self._receiving = await self._receiving, None
        return [
            _Held(delivery=delivery, decoded=decode(delivery.raw, self._handler.latest, self._limits))
            for delivery in deliveries
        ]

    async def _settle(self, consumer: Consumer, held: list[_Held]) -> list[_Held]:
        """Commit a batch, publish what it emitted, acknowledge what it decided. Returns what is left for the next."""
        wait = any(each.tries >= _PATIENT_FROM for each in held)
        try:
            prepared = await self._commit([each.decoded for each in held], wait=wait)
        except MessageError:
            await self._one_by_one(consumer, held)
            return []
        if prepared is None:
            return []
        await self._handler.finish(prepared, len(held))  # first: others wait for what was emitted, nobody for the ack
        await consumer.settle([each.delivery for index, each in enumerate(held) if index not in prepared.deferred])
        return [replace(held[index], tries=held[index].tries + 1) for index in sorted(prepared.deferred)]

    async def _commit(self, messages: Sequence[Decoded], *, wait: bool) -> Prepared | None:
        """Run the batch until it is committed; None when the process is stopping before it could be."""
        attempt = Attempt(token=self._runner.token())
        tries = 0
        while True:
            try:
                return await self._handler.handle(messages, attempt, wait=wait)
            except Trouble as error:
                if self._stopping:
                    return None
                retry_in = min(0.05 * 2 ** min(tries, _DOUBLINGS), _SLOWEST_RETRY) * (1 + self._runner.random())
                self._report(LoopTroubled(loop=self.name, error=str(error), retry_in=retry_in))
                await self._runner.sleep(retry_in)
                tries += 1

    async def _one_by_one(self, consumer: Consumer, held: Sequence[_Held]) -> None:
        """The database refuses the data of some message of a batch: the one that fails alone is the culprit."""
        for each in held:
            message = each.decoded
            try:
                prepared = await self._commit([message], wait=True)
            except MessageError as error:
                prepared = await self._commit([replace(message, event=None, marker=None, error=error)], wait=True)
            if prepared is None:
                return
            await self._handler.finish(prepared, 1)
            await consumer.settle([each.delivery])
