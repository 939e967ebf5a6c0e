"""The participant in Node.js as a process on a real RabbitMQ: it keeps the wire contract without any code of ours."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import aio_pika
import pytest

from messages import REGISTRY, Raw, open_envelope, parse
from messages.catalog.ordering import CreateShippingLabel, VoidShippingLabel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage, AbstractQueue, HeadersType

    from messages import Command, Message

pytestmark = pytest.mark.node

EXAMPLE = Path(__file__).parents[2] / "examples" / "node-participant"
PATIENCE = 60.0
CREATE, VOID = CreateShippingLabel(order_id="o-1"), VoidShippingLabel(order_id="o-1")


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with its dependencies installed, apart from the working copy."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        pytest.fail(f"{' and '.join(missing)} missing: install Node.js 18 or newer (Debian, Ubuntu: nodejs npm)")
    folder = tmp_path_factory.mktemp("node")
    for file in EXAMPLE.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    installed = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert installed.returncode == 0, installed.stderr
    return folder


@dataclass(kw_only=True)
class Saga:
    """The saga's side: sends commands, takes replies, and can kill the participant and start it again."""

    program: Path
    journal: Path
    broker: str
    namespace: str
    channel: AbstractChannel
    commands: AbstractExchange
    replies: AbstractQueue
    process: asyncio.subprocess.Process | None = None
    taken: asyncio.Queue[AbstractIncomingMessage] = field(default_factory=asyncio.Queue)

    async def start(self) -> None:
        """Start the participant and wait until it consumes."""
        self.process = await asyncio.create_subprocess_exec(
            "node",
            "index.js",
            cwd=self.program,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", **self._settings()},
            stdout=asyncio.subprocess.PIPE,
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert (await self.process.stdout.readline()).strip() == b"ready"

    def _settings(self) -> dict[str, str]:
        return {"BROKER_URL": self.broker, "NAMESPACE": self.namespace, "JOURNAL": str(self.journal)}

    async def stop(self) -> int:
        """Ask it to end; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        return await self._ended()

    async def kill(self) -> None:
        """End it without asking."""
        assert self.process is not None
        self.process.kill()
        await self._ended()

    async def _ended(self) -> int:
        assert self.process is not None
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
        self.process = None
        return code

    async def send(
        self, command: Command, *, key: str = "s/1/do", message_id: str | None = None, body: bytes | None = None
    ) -> str:
        """Publish a command as the engine does; an undo names its do."""
        headers: HeadersType = {"schema-version": 1, "idempotency-key": key}
        if key.endswith("/undo"):
            headers["compensates"] = key.replace("/undo", "/do")
        message = aio_pika.Message(
            body if body is not None else command.model_dump_json().encode(),
            message_id=message_id or str(uuid4()),
            type=command.message_name,
            content_type="application/json",
            correlation_id="saga-1",
            reply_to=self.replies.name,
            app_id="antiphon",
            delivery_mode=2,
            headers=headers,
        )
        await self.commands.publish(message, routing_key=command.message_name)
        assert message.message_id is not None
        return message.message_id

    async def reply(self) -> AbstractIncomingMessage:
        """Wait for the next reply."""
        async with asyncio.timeout(PATIENCE):
            return await self.taken.get()

    async def answer(
        self, command: Command, *, key: str = "s/1/do", message_id: str | None = None
    ) -> AbstractIncomingMessage:
        """Send a command and wait for its reply. One killed before its acknowledgement answers an earlier one again."""
        sent = await self.send(command, key=key, message_id=message_id)
        while True:
            reply = await self.reply()
            if reply.headers["causation-id"] == sent:
                return reply


def read(reply: AbstractIncomingMessage) -> Message:
    """The reply, through the codec that sagas read it with."""
    raw = Raw(
        body=reply.body,
        routing_key=reply.routing_key or "",
        message_id=reply.message_id,
        type=reply.type,
        content_type=reply.content_type,
        correlation_id=reply.correlation_id,
        app_id=reply.app_id,
        headers=dict(reply.headers),
    )
    envelope = open_envelope(raw)
    return parse(envelope, REGISTRY.find(envelope.name, envelope.schema_version))


@asynccontextmanager
async def connected(program: Path, journal: Path, broker: str, namespace: str) -> AsyncIterator[Saga]:
    connection = await aio_pika.connect(broker)
    async with connection:
        channel = await connection.channel(on_return_raises=True)
        commands = await channel.declare_exchange(f"{namespace}.commands", "topic", durable=True)
        replies = await channel.declare_queue(exclusive=True)
        saga = Saga(
            program=program,
            journal=journal,
            broker=broker,
            namespace=namespace,
            channel=channel,
            commands=commands,
            replies=replies,
        )
        await replies.consume(saga.taken.put, no_ack=True)
        try:
            await saga.start()
            yield saga
        finally:
            if saga.process is not None:
                await saga.kill()


@pytest.fixture
async def saga(program: Path, tmp_path: Path, rabbitmq_url: str, namespace: str) -> AsyncIterator[Saga]:
    async with connected(program, tmp_path / "journal", rabbitmq_url, namespace) as saga:
        yield saga


async def test_a_command_is_answered_as_the_contract_says(saga: Saga) -> None:
    reply = await saga.answer(CREATE)
    assert read(reply).message_name == "warehouse.ShippingLabelCreated"
    assert (reply.correlation_id, reply.exchange, reply.app_id) == ("saga-1", "", "warehouse")
    assert reply.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    refused = await saga.answer(CreateShippingLabel(order_id="label-refused"), key="s/2/do")
    assert read(refused).message_name == "warehouse.LabelRefused"


async def test_a_repeated_id_gets_the_same_bytes_also_after_a_kill(saga: Saga) -> None:
    first = await saga.answer(CREATE, message_id="command-1")
    again = await saga.answer(CREATE, message_id="command-1")
    await saga.kill()
    with saga.journal.open("ab") as journal:
        journal.write(b'{"messageId": "cut sho')
    await saga.start()
    later = await saga.answer(CREATE, message_id="command-1")
    assert {(reply.message_id, reply.body) for reply in (first, again, later)} == {(first.message_id, first.body)}
    await saga.answer(VOID, key="s/1/undo")
    await saga.kill()
    await saga.start()
    assert (await saga.answer(CREATE, message_id="command-1")).message_id == first.message_id


async def test_a_new_id_with_an_applied_key_gets_the_same_answer_under_its_own_id(saga: Saga) -> None:
    first, second = await saga.answer(CREATE), await saga.answer(CREATE)
    assert first.body == second.body
    assert first.message_id != second.message_id


async def test_an_undo_takes_the_label_back(saga: Saga) -> None:
    await saga.answer(CREATE)
    reply = await saga.answer(VOID, key="s/1/undo")
    assert read(reply).message_name == "warehouse.ShippingLabelVoided"
    last = json.loads(saga.journal.read_text().splitlines()[-1])
    assert last["effects"]["s/1/do"]["effect"]["voided"] is True


async def test_a_do_that_was_undone_before_it_came_is_dropped(saga: Saga) -> None:
    assert read(await saga.answer(VOID, key="s/1/undo")).message_name == "warehouse.ShippingLabelVoided"
    await saga.send(CREATE)
    following = await saga.answer(CREATE, key="s/2/do")
    assert read(following).message_name == "warehouse.ShippingLabelCreated"
    assert saga.taken.empty()


async def test_what_cannot_be_read_goes_to_the_dead_letters(saga: Saga) -> None:
    first = await saga.send(CREATE, body=b"[]")
    await saga.answer(CREATE, message_id="command-1")
    second = await saga.send(CREATE, message_id="command-1", body=b'{"order_id": "another"}')
    dead = await saga.channel.get_queue(f"{saga.namespace}.dead")
    found: list[str | None] = []
    async with asyncio.timeout(PATIENCE), dead.iterator(no_ack=True) as letters:
        async for letter in letters:
            found.append(letter.message_id)
            if len(found) == 2:
                break
    assert sorted(map(str, found)) == sorted([first, second])


async def test_it_ends_when_it_is_asked_to(saga: Saga) -> None:
    await saga.answer(CREATE)
    assert await saga.stop() == 0
