"""Starts and cancels that come straight from a parent: who is answered, and with what where no saga came of a start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages import NotStarted, codec
from messages.envelope import Envelope
from outbox.interface import Outgoing
from sagas.decide import start
from sagas.instance import message_id, saga_id
from sagas.parents import Parent, parent_of

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from handlers.routing import Routed
    from handlers.saga_types import SagaType
    from handlers.work import Fold, Work
    from messages import CancelSaga
    from outbox.interface import KeyOwner
    from sagas.outcome import Decision


def parent_in(saga: SagaType, each: Routed) -> Parent | None:
    """Who wants word of the saga that a message starts: it came straight to its queue and says where to answer."""
    envelope = each.message.envelope
    if envelope is None or envelope.reply_to is None or each.message.raw.routing_key != saga.queue:
        return None
    return Parent(
        reply_to=envelope.reply_to,
        correlation_id=envelope.correlation_id,
        start=envelope.idempotency_key or envelope.message_id,
        message_id=envelope.message_id,
    )


def is_same_start(parent: Parent, fold: Fold) -> bool:
    """Whether the saga that has the key was started by the same one for the same purpose."""
    there = parent_of(fold.current.choices)
    return there is not None and (there.start, there.correlation_id) == (parent.start, parent.correlation_id)


def not_started(saga: SagaType, parent: Parent, key: str | None, reason: str, now: datetime) -> Outgoing:
    """Word that no saga came of a start; the same however often it is told."""
    told = NotStarted(saga_type=saga.name, key=key, reason=reason)
    nobody = saga_id(saga.namespace, saga.name, key or "", 0)
    envelope = Envelope(
        message_id=message_id(nobody, parent.message_id, 1, 1, "not-started"),
        name=told.message_name,
        body=codec.encode(told),
        schema_version=told.schema_version,
        correlation_id=parent.correlation_id,
        causation_id=parent.message_id,
        timestamp=now.replace(microsecond=0),
    )
    return Outgoing(envelope=envelope, exchange="", routing_key=parent.reply_to)


def refused(saga: SagaType, each: Routed, reason: str, now: datetime) -> list[Outgoing]:
    """Word that a start has become a dead letter, where somebody wants it."""
    parent = parent_in(saga, each)
    return [] if parent is None else [not_started(saga, parent, each.message.key, reason, now)]


def start_otherwise(saga: SagaType, work: Work, each: Routed, parent: Parent, fold: Fold | None) -> None:
    """A start for a key that is taken: by another attempt at the same start, or by something else."""
    if fold is not None and is_same_start(parent, fold):
        work.start_again(fold, each.arrived(), "duplicate_start")
    else:
        work.answers.append(not_started(saga, parent, each.message.key, "key_taken", work.now))


def birth(saga: SagaType, each: Routed, owner: KeyOwner, key: str, *, state: bytes, now: datetime) -> Decision:
    """The birth of an instance from its start event, with word for whoever started it straight at its queue."""
    return start(
        saga.latest,
        each.arrived(),
        state=state,
        saga_id=owner.saga_id,
        key=key,
        n=owner.n,
        now=now,
        parent=parent_in(saga, each),
    )


def following(saga: SagaType, fold: Fold, cancel: CancelSaga) -> UUID | None:
    """The next saga of the key, where a cancel is for that: it has overtaken the start, and the last one has ended."""
    there = parent_of(fold.current.choices)
    if not saga.latest.key_reuse or not fold.current.phase.ended:
        return None
    if there is not None and cancel.start in (there.start, there.message_id):
        return None
    return saga_id(saga.namespace, saga.name, cancel.key, fold.current.n + 1)
