"""What messages can do to a sidecar: come malformed, again, late, out of turn, or for nobody at all."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING
from uuid import uuid4

import aio_pika

from tests.crash.checker import ENDED, Expected, violations
from tests.crash.driver import Shop, at_rest, order_placed
from tests.crash.forking import Program
from tests.crash.script import TRADES
from tests.services.waiting import until_async

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.crash.laboratory import Laboratory
    from tests.crash.views import Picture

HURRIED = Program("tests.crash.launcher", ["--hurried"])
COMPLETED = frozenset({"completed"})
FAR = 30.0  # seconds for the broker to take one message
COPIES = 3

BODIES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b'{"order_id": "a\\u0000b"}',
    b'{"order_id": "\\ud800"}',
    b'{"order_id": NaN}',
    b'{"order_id": 1e131071}',
    b'{"order_id": "a", "order_id": "b"}',
    b'{"order_id": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b"{}",
    b'{"order_id": "o", "customer_id": "c", "lines": 7, "total": "1"}',
    b'{"order_id": "' + b"x" * (1 << 20) + b'"}',
]
PROPERTIES: list[dict[str, object]] = [
    {"message_id": "\u00e9"},
    {"content_type": "text/plain"},
    {"content_encoding": "gzip"},
    {"headers": {"schema-version": "one"}},
    {"headers": {"idempotency-key": "x" * 5000}},
]


def malformed(namespace: str) -> Iterator[aio_pika.Message]:
    """Messages that nobody can process: wrong bodies in right envelopes, and the other way round."""
    for body in BODIES:
        message = order_placed("o", str(uuid4()))
        message.body = body
        message.body_size = len(body)
        yield message
    for properties in PROPERTIES:
        message = order_placed("o", str(uuid4()))
        for name, value in properties.items():
            setattr(message, name, value)
        yield message


async def test_what_nobody_can_process_is_kept_and_what_nobody_takes_yet_waits(laboratory: Laboratory) -> None:
    """Between sound orders, whose commands go nowhere until the participants are there; no timeout runs meanwhile."""
    sidecar = await laboratory.sidecar("sidecar", command=HURRIED)
    namespace = laboratory.setup.namespace
    async with (
        Shop(laboratory.setup.broker_url, namespace) as shop,
        await aio_pika.connect(laboratory.setup.broker_url) as connection,
    ):
        events = await (await connection.channel()).get_exchange(f"{namespace}.events", ensure=False)
        starts = await shop.place("before")
        bad = list(malformed(namespace))
        for message in bad:
            await events.publish(message, "ordering.OrderPlaced", timeout=FAR)
        starts |= await shop.place("after")

        async def returned() -> bool:
            rows = (await laboratory.look()).outbox
            return [row.state for row in rows] == ["returned", "returned"]

        await until_async(returned, timeout=60, what="both first commands to come back")
        await laboratory.participants()
        picture = await at_rest(laboratory.look, starts, laboratory.setup.ledger)
    expected = Expected(starts=starts, allowed=dict.fromkeys(starts, COMPLETED), dead_letters=len(bad))
    assert violations(picture, expected) == []
    assert {row.kind for row in picture.history} & {"command_resent", "step_timed_out"} == set()
    assert await sidecar.stop() == 0


async def test_replies_that_race_their_own_timeouts_win_or_are_taken_back(laboratory: Laboratory) -> None:
    """Two sidecars look for timers; the labels come just before, while and just after they are given up on."""
    sidecars = [await laboratory.sidecar(f"sidecar-{number}", command=HURRIED) for number in range(2)]
    await laboratory.participants()
    late = [1.0, 1.005, 1.01, *[1.9 + number / 200 for number in range(96)], 6.0]
    orders = [f"o-{number}~warehouse=late:{seconds:.3f}" for number, seconds in enumerate(late)]
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        starts = await shop.place(*orders)
    picture = await laboratory.judge(starts, dict.fromkeys(starts, ENDED))
    ends = Counter(saga.phase for saga in picture.sagas)
    assert set(ends) == set(ENDED), f"there was no race: all have {ends}"
    assert [await each.stop() for each in sidecars] == [0, 0]


async def test_whatever_was_ever_sent_may_come_again_and_contradict_itself(laboratory: Laboratory) -> None:
    """Everything that came in, three times more; and for every command the opposite answer, and one to no command.

    A success of a step that had failed, and that nobody will undo any more, is an operator's affair, and said to be.
    """
    sidecar = await laboratory.sidecar("sidecar")
    await laboratory.participants()
    orders = {
        "good": {"completed"},
        "busy~payment=transient:1": {"completed"},
        "declined~payment=fail": {"compensated"},
        "refused~warehouse=fail": {"compensated"},
    }
    async with Shop(laboratory.setup.broker_url, laboratory.setup.namespace) as shop:
        starts = await shop.place(*orders)
        before = await laboratory.judge(starts, orders)
        replies = [*sent(laboratory)]
        opposite = [contradiction(reply) for reply in replies]
        await shop.place(*orders, copies=COPIES)
    await send(laboratory, [*replies * COPIES, *opposite, *[for_nobody(reply) for reply in replies]])
    ids = {message.message_id for message in opposite}

    async def taken() -> bool:
        return ids <= {row.message_id for row in (await laboratory.look()).inbox}

    await until_async(taken, timeout=60, what="the last of them to be taken")
    after = await laboratory.judge(starts, orders)
    assert effects(after) == effects(before)
    assert len(after.history) > len(before.history)
    news = Counter(row.kind for row in after.history) - Counter(row.kind for row in before.history)
    assert set(news) == {"message_ignored", "late_success"}
    wanting = {saga.business_key: saga.attention for saga in after.sagas if saga.attention}
    assert wanting == dict.fromkeys([order for order in orders if "=fail" in order], "orphaned_effect")
    assert await sidecar.stop() == 0


def sent(laboratory: Laboratory) -> Iterator[aio_pika.Message]:
    """Every reply that a participant has sent, as it was."""
    for file in laboratory.setup.folder.glob("*.ledger"):
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as book:
            for row in book.execute("select message_id, reply_id, name, body, reply_to, correlation_id from reply"):
                causation_id, reply_id, name, body, reply_to, correlation_id = row
                yield aio_pika.Message(
                    body,
                    message_id=reply_id,
                    type=name,
                    content_type="application/json",
                    correlation_id=correlation_id,
                    app_id=f"ledger.{file.stem}",
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                    reply_to=reply_to,  # of the command; here it only tells where to send it
                    headers={"causation-id": causation_id, "schema-version": 1},
                )


def contradiction(reply: aio_pika.Message) -> aio_pika.Message:
    """Another answer to the same command, under another id: a failure for a success, a success for a failure."""
    (trade,) = [
        each for each in TRADES.values() if reply.type in (each.done, each.undone, each.transient, *each.failures)
    ]
    body = {**json.loads(reply.body), trade.receipt: "forged"}
    return changed(reply, type=trade.failures[0] if reply.type == trade.done else trade.done, body=body)


def for_nobody(reply: aio_pika.Message) -> aio_pika.Message:
    """The same answer to a command that nobody has sent."""
    return changed(reply, headers={"causation-id": str(uuid4()), "schema-version": 1})


def changed(reply: aio_pika.Message, *, body: dict[str, str] | None = None, **properties: object) -> aio_pika.Message:
    """A message of its own, made of another."""
    kept = {
        name: getattr(reply, name)
        for name in ("type", "content_type", "correlation_id", "app_id", "reply_to", "headers")
    }
    encoded = reply.body if body is None else json.dumps(body).encode()
    return aio_pika.Message(encoded, message_id=str(uuid4()), **{**kept, **properties})


async def send(laboratory: Laboratory, messages: Sequence[aio_pika.Message]) -> None:
    """Send messages straight to the queues that they name, in this order."""
    async with await aio_pika.connect(laboratory.setup.broker_url) as connection:
        channel = await connection.channel(on_return_raises=True)
        await asyncio.gather(
            *[channel.default_exchange.publish(each, each.reply_to or "", timeout=FAR) for each in messages]
        )


def effects(picture: Picture) -> list[tuple[str, str, str]]:
    """What was done and undone, where."""
    return [(each.participant, each.purpose, each.idempotency_key) for each in picture.effects]
