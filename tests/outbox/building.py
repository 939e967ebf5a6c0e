"""Values for the tests of a storage: instances, messages, history."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from messages.envelope import Envelope, Raw
from outbox.interface import Changes, ClaimedRow, DeadLetter, HistoryRow, InboxEntry, KeyClaim, Outgoing, Storage
from sagas.instance import CallProgress, CallStatus, Instance, Phase, StepProgress, Timer
from sagas.outcome import HistoryEntry

NOW = datetime(2026, 11, 21, 12, 30, 15, 123456, tzinfo=UTC)
CONSUMER = "antiphon.saga.PlaceOrder"
LEASE = 15.0
OVER = -1.0
"""A lease that has ended before it began: what it protects belongs to nobody."""


def digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


def entry(message_id: str, body: bytes = b"{}", source: str = "ordering") -> InboxEntry:
    return InboxEntry(source=source, message_id=message_id, body_hash=digest(body))


def key_claim(key: str, saga_id: UUID | None = None, *, start_id: str = "start-1", n: int = 1) -> KeyClaim:
    return KeyClaim(
        saga_type="PlaceOrder",
        key=key,
        saga_id=saga_id or uuid4(),
        n=n,
        start_id=start_id,
        start_hash=digest(start_id.encode()),
    )


def timer(seconds: float, fence: int = 1, *, after: datetime | None = None) -> Timer:
    return Timer(due_at=(after or datetime.now(UTC)) + timedelta(seconds=seconds), fence=fence)


def new_instance(key: str = "order-1", **values: object) -> Instance:
    """A running instance with a step under way, a timer and every field filled."""
    first = Instance(
        saga_id=uuid4(),
        saga_type="PlaceOrder",
        key=key,
        version=1,
        phase=Phase.RUNNING,
        state=b'{"order_id": "order-1"}',
        steps={"reserve": StepProgress(do=CallProgress(status=CallStatus.PENDING, dispatched=2))},
        timers={"reserve": timer(30), "deadline": timer(3600)},
        waiting_for="a reply from stock",
        started_at=NOW,
        updated_at=NOW,
        deadline_at=NOW + timedelta(days=7),
        seq=1,
    )
    return replace(first, **values)  # type: ignore[arg-type]


def changed(instance: Instance, **values: object) -> Instance:
    """The instance after one more message."""
    return replace(instance, revision=instance.revision + 1, **values)  # type: ignore[arg-type]


def command(
    saga_id: UUID | None = None, path: str | None = "reserve", *, message_id: str | None = None, body: bytes = b"{}"
) -> Outgoing:
    envelope = Envelope(
        message_id=message_id or str(uuid4()),
        name="stock.ReserveStock",
        body=body,
        schema_version=2,
        source="antiphon",
        correlation_id=str(saga_id),
        causation_id="start-1",
        reply_to="antiphon.saga.PlaceOrder",
        idempotency_key=f"{saga_id}/reserve/1/do",
        timestamp=NOW,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    return Outgoing(
        envelope=envelope,
        exchange="antiphon.commands",
        routing_key="stock.ReserveStock",
        saga_id=saga_id,
        path=path,
    )


def history(saga_id: UUID, seq: int, kind: str = "command_sent", *, body: bytes | None = b"{}") -> HistoryRow:
    return HistoryRow(
        saga_id=saga_id,
        at=NOW,
        entry=HistoryEntry(
            seq=seq,
            kind=kind,
            step="reserve",
            message_id=f"message-{seq}",
            message_name="stock.ReserveStock",
            detail={"causation_id": "start-1", "said": "caf\u00e9 \U0001f980"},
            body=body,
        ),
        patch=b'{"a": 1}' if seq == 1 else None,
    )


def dead_letter(message_id: str = "bad-1", body: bytes = b"\xff not json", **values: object) -> DeadLetter:
    letter = DeadLetter(
        consumer=CONSUMER,
        source="ordering",
        message_id=message_id,
        name="ordering.OrderPlaced",
        raw=Raw(body=body, routing_key="ordering.OrderPlaced", message_id=message_id, headers={"n": b"\x00\xff"}),
        body_hash=digest(body),
        reason="malformed",
        error="not JSON",
        error_class="MalformedMessage",
    )
    return replace(letter, **values)  # type: ignore[arg-type]


async def insert(storage: Storage, *instances: Instance) -> None:
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER, inserted=instances))


async def put(
    storage: Storage, *outgoing: Outgoing, lease: float | None = None, limit: int = 100
) -> tuple[UUID, list[ClaimedRow]]:
    """Have messages put into the outbox; unclaimed without a lease."""
    token = uuid4()
    claim = None if lease is None else (token, lease)
    async with storage.transaction() as unit:
        rows = await unit.save(Changes(consumer=CONSUMER, outgoing=outgoing, claim=claim, claim_limit=limit))
    return token, list(rows)


async def sweep(storage: Storage, *, lease: float = LEASE, limit: int = 100) -> list[ClaimedRow]:
    return list(await storage.claim_outbox(token=uuid4(), lease=lease, limit=limit))


def ids(rows: list[ClaimedRow]) -> list[str]:
    return [row.outgoing.envelope.message_id for row in rows]
