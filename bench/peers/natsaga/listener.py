"""A listener for the replies that handles them concurrently and knows from their subject which way they go."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import TYPE_CHECKING

import orjson
from nats.js.api import ConsumerConfig
from ordering import FORWARD, REPLIES

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext
    from natsaga.orchestrator import SagaOrchestrator

AT_ONCE = 1000
GROUP = "orchestrators"


class Listener:
    """Any number of processes share one durable consumer; a reply is acknowledged when the saga's state is committed.

    The library's SagaListener takes one reply per subject at a time, in one process, and asks the database before each
    reply which way the saga goes.
    """

    def __init__(self, js: JetStreamContext, orchestrator: SagaOrchestrator) -> None:
        self._js = js
        self._orchestrator = orchestrator
        self._running: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        await self._js.subscribe(
            "*.*.response.>",
            stream=REPLIES,
            queue=GROUP,
            config=ConsumerConfig(ack_wait=30, max_ack_pending=AT_ONCE),
            cb=self._take,
            manual_ack=True,
        )

    async def _take(self, reply: Msg) -> None:
        task = asyncio.create_task(self._handle(reply))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _handle(self, reply: Msg) -> None:
        try:
            await self._route(reply)
        except Exception:
            logging.exception("reply %s", reply.subject)
            await reply.nak()
        else:
            await reply.ack()

    async def _route(self, reply: Msg) -> None:
        subject, _, rest = reply.subject.partition(".response.")
        saga, _, index = rest.partition(".")
        saga_id, step = uuid.UUID(saga), int(index)
        said = orjson.loads(reply.data)
        match subject in FORWARD, said["outcome"]:
            case True, "success":
                await self._orchestrator.on_step_success(saga_id, step, said["result"])
            case True, "failure":
                await self._orchestrator.on_step_failure(saga_id, step, said["error"])
            case False, "success":
                await self._orchestrator.on_compensation_success(saga_id, step)
            case False, "failure":
                await self._orchestrator.on_compensation_failure(saga_id, step, said["error"])
