"""What the message path reports, after the commit that made it true: frozen facts for logs, metrics and spans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages.value import value

if TYPE_CHECKING:
    from uuid import UUID

    from sagas.outcome import HistoryEntry


@value
class SagaMoved:
    """One history row of an instance was committed. `step_number` of `step_total` where a step is concerned.

    `cause` is the id of the message on which it was decided; None when a timer or an operator was the cause.
    """

    saga_id: UUID
    saga_type: str
    key: str
    entry: HistoryEntry
    step_number: int | None
    step_total: int
    cause: str | None = None


@value
class AttentionRaised:
    """The watchdog found something that an operator should see; `error` says what it is and what to do."""

    saga_id: UUID
    saga_type: str
    key: str
    reason: str
    error: str


@value
class AttentionCleared:
    """The cause of what the watchdog had found is gone."""

    saga_id: UUID
    saga_type: str
    key: str
    reason: str


@value
class MessageDeadLettered:
    """A message could not be processed and is kept raw."""

    consumer: str
    message_id: str | None
    name: str
    reason: str
    error: str
    saga_id: UUID | None = None


@value
class MessageHeld:
    """A valid message cannot be applied now (`early`, `paused`, `version`): it waits in the database."""

    consumer: str
    message_id: str
    name: str
    reason: str
    saga_id: UUID | None = None


@value
class DeadLetterImported:
    """What the broker gave up on was taken from its dead-letter queue. `queue` is where it was before, if known."""

    consumer: str
    message_id: str
    name: str
    reason: str
    error: str
    queue: str | None


@value
class DeadLetterUnkept:
    """The database refuses a message of the broker's dead-letter queue: it stays there, unacknowledged."""

    message_id: str
    error: str


@value
class MessageIgnored:
    """A message concerns no instance here: acknowledged and counted."""

    consumer: str
    message_id: str
    name: str
    reason: str


@value
class MessageDuplicated:
    """A copy of a message that was handled before: acknowledged and counted."""

    consumer: str
    message_id: str
    name: str


@value
class BatchCommitted:
    """A batch was committed: how many messages it decided and how many were left for the next."""

    consumer: str
    messages: int
    deferred: int


@value
class MessagesSetAside:
    """Messages are met apart from the others, so that these go on: `reason` says why."""

    consumer: str
    messages: int
    reason: str


@value
class CommandAnswered:
    """A participant has carried a command out, and its reply is committed; `reply` is None when it gives none."""

    consumer: str
    message_id: str
    name: str
    reply: str | None
    saga_id: str | None = None


@value
class CommandDropped:
    """A command came after it had been undone: acknowledged without doing or answering anything, and counted."""

    consumer: str
    message_id: str
    name: str
    saga_id: str | None = None
