"""The participants as processes on a real broker: they answer by the contract, and go on where they were killed."""

from __future__ import annotations

import asyncio
import json
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aio_pika
import pytest

from tests.crash.driver import Setup, participants

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aio_pika.abc import AbstractExchange, AbstractIncomingMessage, AbstractQueue

LONG = 30  # seconds; a bound, never a measure


@dataclass(slots=True, kw_only=True)
class Caller:
    """Stands in for an orchestrator: sends commands, takes replies."""

    commands: AbstractExchange
    replies: AbstractQueue
    setup: Setup
    broker_url: str
    taken: list[AbstractIncomingMessage] = field(default_factory=list)

    async def send(self, name: str, message_id: str, order: str, key: str, compensates: str = "") -> None:
        headers = {"idempotency-key": key} | ({"compensates": compensates} if compensates else {})
        message = aio_pika.Message(
            json.dumps({"order_id": order}).encode(),
            message_id=message_id,
            type=name,
            correlation_id="saga-1",
            reply_to=self.replies.name,
            headers=dict(headers),
            delivery_mode=2,
        )
        await self.commands.publish(message, name, timeout=LONG)

    async def reply(self) -> AbstractIncomingMessage:
        """The next reply there is."""
        async with asyncio.timeout(LONG), self.replies.iterator() as deliveries:
            async for delivery in deliveries:
                await delivery.ack()
                return delivery
        raise AssertionError("the iterator ended without a reply")


@pytest.fixture
async def caller(rabbitmq_url: str, namespace: str, tmp_path: Path) -> AsyncIterator[Caller]:
    async with await aio_pika.connect(rabbitmq_url) as connection:
        channel = await connection.channel(on_return_raises=True)
        await channel.set_qos(prefetch_count=1)
        commands = await channel.declare_exchange(f"{namespace}.commands", "topic", durable=True)
        replies = await channel.declare_queue(f"{namespace}.saga.Test", durable=True)
        setup = Setup(folder=tmp_path, database_url="", namespace=namespace)
        yield Caller(commands=commands, replies=replies, setup=setup, broker_url=rabbitmq_url)


async def test_a_command_is_done_recorded_and_answered(caller: Caller) -> None:
    async with await participants(caller.setup, caller.broker_url):
        await caller.send("stock.ReserveStock", "m-1", "o-1", "s/reserve/1/do")
        reply = await caller.reply()
    assert reply.type == "stock.StockReserved"
    assert reply.correlation_id == "saga-1"
    assert reply.headers["causation-id"] == "m-1"
    assert json.loads(reply.body)["order_id"] == "o-1"
    (arrival,) = caller.setup.ledger.arrivals()
    assert (arrival.name, arrival.idempotency_key) == ("stock.ReserveStock", "s/reserve/1/do")
    assert caller.setup.ledger.sequence("o-1") == ["do stock"]


async def test_a_repeated_command_gets_the_same_reply(caller: Caller) -> None:
    async with await participants(caller.setup, caller.broker_url, "payment"):
        for _ in range(2):
            await caller.send("payment.MakePayment", "m-1", "o-1", "s/pay/1/do")
        first, second = await caller.reply(), await caller.reply()
    assert (first.message_id, first.body, first.type) == (second.message_id, second.body, second.type)
    assert caller.setup.ledger.sequence("o-1") == ["do payment"]


async def test_a_late_reply_survives_the_death_of_its_participant(caller: Caller) -> None:
    late = "o-1~payment=late:2"
    async with await participants(caller.setup, caller.broker_url, "payment") as victim:
        await caller.send("payment.MakePayment", "m-1", late, "s/pay/1/do")
        await caller.send("payment.MakePayment", "m-2", "o-2", "s2/pay/1/do")
        assert (await caller.reply()).headers["causation-id"] == "m-2"
        assert await victim.kill() == -signal.SIGKILL
    async with await participants(caller.setup, caller.broker_url, "payment"):
        answered = {"m-2"}
        while "m-1" not in answered:  # the other one may come again: its sending may not have been written down
            answered.add(str((await caller.reply()).headers["causation-id"]))
    assert answered == {"m-1", "m-2"}
    assert caller.setup.ledger.sequence(late) == ["do payment"]


async def test_a_duplicate_reply_is_one_message_twice(caller: Caller) -> None:
    async with await participants(caller.setup, caller.broker_url, "stock"):
        await caller.send("stock.ReserveStock", "m-1", "o-1~stock=times:2", "s/reserve/1/do")
        first, second = await caller.reply(), await caller.reply()
    assert first.message_id == second.message_id


async def test_an_undo_that_overtakes_its_do_is_answered_and_the_do_is_not(caller: Caller) -> None:
    do, undo = "s/pay/1/do", "s/pay/1/undo"
    async with await participants(caller.setup, caller.broker_url, "payment"):
        await caller.send("payment.RefundPayment", "m-2", "o-1", undo, compensates=do)
        await caller.send("payment.MakePayment", "m-1", "o-1", do)
        await caller.send("payment.MakePayment", "m-3", "o-3", "s3/pay/1/do")
        answered = [(await caller.reply()).headers["causation-id"] for _ in range(2)]
    assert answered == ["m-2", "m-3"]
    assert caller.setup.ledger.sequence("o-1") == []


async def test_participants_end_in_order_at_sigterm(caller: Caller) -> None:
    async with await participants(caller.setup, caller.broker_url) as child:
        child.signal(signal.SIGTERM)
        assert await child.ended() == 0


async def test_nonsense_ends_the_participant_loudly(caller: Caller) -> None:
    async with await participants(caller.setup, caller.broker_url, "stock") as child:
        await caller.send("stock.ReserveStock", "m-1", "o-1~stock=explode", "s/reserve/1/do")
        assert await child.ended() == 1
        assert "explode" in child.tail()
