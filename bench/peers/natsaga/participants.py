"""The three participants in a process of their own: each counts an order in its ledger and answers over NATS."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import TYPE_CHECKING

import lines
import nats
import orjson
import uvloop
from nats.js.api import ConsumerConfig
from ordering import ANSWERS, COMMANDS, FORWARD

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

LEDGERS: dict[str, Counter[str]] = {name: Counter() for name in ANSWERS}
AT_ONCE = 1000


class Desk:
    """Answers commands, many at once; one is acknowledged only after JetStream has stored its answer."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js
        self._running: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        for name in ANSWERS:
            await self._js.subscribe(
                f"{name}.*",
                stream=COMMANDS,
                durable=f"participant_{name}",
                config=ConsumerConfig(ack_wait=30, max_ack_pending=AT_ONCE),
                cb=self._take,
                manual_ack=True,
            )

    async def _take(self, command: Msg) -> None:
        task = asyncio.create_task(self._answer(command))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, command: Msg) -> None:
        asked = orjson.loads(command.data)
        order_id = asked["saga_payload"]["order_id"]
        name = command.subject.partition(".")[0]
        result = {}
        if command.subject in FORWARD:
            LEDGERS[name][order_id] += 1
            result = {ANSWERS[name]: f"{name}-{order_id}"}
        await self._js.publish(
            f"{command.subject}.response.{asked['saga_id']}.{asked['step_index']}",
            orjson.dumps({"outcome": "success", "result": result}),
            headers={"Nats-Msg-Id": f"{command.headers['Nats-Msg-Id']}:reply"},
        )
        await command.ack()


async def serve(url: str) -> None:
    """Answer until standard input ends; `{"stop": true}` asks for the ledgers."""
    link = await nats.connect(url)
    await Desk(link.jetstream()).open()
    lines.say({"ready": True})
    async for _ in lines.heard():
        lines.say({"ledgers": LEDGERS})
    await link.close()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
