"""What the outbox reports: frozen facts for whoever turns them into logs and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages.value import value

if TYPE_CHECKING:
    from uuid import UUID


@value
class PublicationFailed:
    """Rows of one message name could not be published this time, `count` of them alike; the rest is about the last.

    It will be tried again in `retry_in` seconds.
    """

    message_id: str
    name: str
    saga_id: UUID | None
    verdict: str
    reason: str
    attempts: int
    retry_in: float
    count: int = 1


@value
class EventUnrouted:
    """An event that nobody here consumes found no queue: done, and counted."""

    message_id: str
    name: str


@value
class MessagesAbandoned:
    """There has been no queue of that name for `age` seconds: what waited for it is removed.

    So many were replies, whose askers get them when they ask again, and so many dead letters that were given back and
    are open again.
    """

    queue: str
    replies: int
    letters: int
    age: float


@value
class CircuitOpened:
    """Everything that goes there comes back, so nothing more is published to it until a probe arrives.

    Its rows wait in the outbox; the first probe goes in `probe_in` seconds. `reason` is why the last one came back.
    """

    exchange: str
    routing_key: str
    reason: str
    probe_in: float


@value
class CircuitClosed:
    """A destination takes messages again, after so many seconds; what waited for it goes out."""

    exchange: str
    routing_key: str
    after: float


@value
class ConsumingPaused:
    """Saga consumers take no further batch, but for one now and then, until what waits has gone out."""

    reason: str


@value
class ConsumingResumed:
    """Saga consumers go on, after so many seconds."""

    after: float


@value
class LoopTroubled:
    """A loop met trouble with the database or the broker and runs again in `retry_in` seconds."""

    loop: str
    error: str
    retry_in: float


@value
class RowsRemoved:
    """So many of one kind (`sagas`, `inbox`, `dead_letters`, `jobs`) were older than `age` seconds and are gone."""

    kind: str
    amount: int
    age: float
