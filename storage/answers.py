"""What the read side answers with: the rows of the views, and what is put together from them. Nothing but values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from messages.envelope import Raw


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaSummary:
    """A row of `v_saga`."""

    saga_id: UUID
    saga_type: str
    business_key: str
    version: int
    status: str
    phase: str
    paused: bool
    attention: str | None
    waiting_for: str | None
    started_at: datetime
    updated_at: datetime
    deadline_at: datetime
    ended_at: datetime | None
    end_reason: str | None
    skipped: int
    revision: int
    parent_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why an instance wants an operator."""

    reason: str
    detail: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A row of `v_saga_event`."""

    seq: int
    at: datetime
    kind: str
    step: str | None
    message_id: str | None
    message_name: str | None
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingMessage:
    """A row of `v_outbox`."""

    message_id: str
    saga_id: UUID | None
    name: str
    state: str
    created_at: datetime
    attempts: int
    next_attempt_at: datetime
    stuck: bool
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmedTimer:
    """A row of `v_timer`."""

    name: str
    generation: int
    due_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterSummary:
    """A row of `v_dead_letter`."""

    dead_letter_id: int
    consumer: str
    message_id: str
    name: str
    reason: str
    error: str
    saga_id: UUID | None
    first_seen_at: datetime
    copies: int
    status: str
    error_class: str
    queue: str | None
    replaces: int | None
    last_seen_at: datetime
    resolved_at: datetime | None
    resolved_by: str | None
    resolved_why: str | None
    replayed_seq: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterEvent:
    """Something that was done with a dead letter. `outcome` is the verdict on a replay, `seq` the history it caused."""

    at: datetime
    kind: str
    actor: str
    why: str
    request_id: str | None
    outcome: str | None
    detail: str
    saga_id: UUID | None
    seq: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterDetail:
    """A dead letter with the message as it arrived, and what was done with it."""

    summary: DeadLetterSummary
    source: str
    raw: Raw
    events: Sequence[DeadLetterEvent]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterGroup:
    """Dead letters that are alike: `letters` of them, `copies` in all."""

    reason: str
    error_class: str
    name: str
    consumer: str
    letters: int
    copies: int
    oldest: datetime
    newest: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter:
    """Which dead letters; None leaves a thing open. A span of time takes those of which a copy came within it."""

    ids: Sequence[int] | None = None
    reason: str | None = None
    error_class: str | None = None
    name: str | None = None
    consumer: str | None = None
    saga_id: UUID | None = None
    status: str | None = "open"
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaDetail:
    """An instance with everything that hangs on it, in order of time, as it was at `read_at` by the database's clock.

    `policy` holds the timeouts and retries that were recorded with its definition, if any were. `parent` is the
    instance that started it, where it is still there, `children` those that it started.
    """

    saga: SagaSummary
    read_at: datetime
    state: Mapping[str, Any]
    attention: Sequence[Reason]
    events: Sequence[Event]
    timers: Sequence[ArmedTimer]
    outbox: Sequence[PendingMessage]
    held: Sequence[HeldSummary]
    dead_letters: Sequence[DeadLetterSummary]
    policy: Mapping[str, Any] | None
    aliases: Mapping[str, str] = field(default_factory=dict)
    parent: SagaSummary | None = None
    children: Sequence[SagaSummary] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaFilter:
    """Which instances; None leaves a thing open. `attention` True means: only those that want an operator.

    With `aliased` the `key` is one of an instance's aliases, not its business key. `parent` are those that an instance
    has started, `children` True means: only those that another has.
    """

    saga_type: str | None = None
    status: str | None = None
    key: str | None = None
    attention: bool = False
    aliased: bool = False
    parent: UUID | None = None
    children: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaPage:
    """Instances, the latest started first. `following` is given back to get the next page; None on the last."""

    sagas: Sequence[SagaSummary]
    following: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterPage:
    """Dead letters, the newest first. `following` is given back to get the next page; None on the last."""

    dead_letters: Sequence[DeadLetterSummary]
    following: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The state of things in numbers; ages in seconds by the database's clock."""

    sagas: Mapping[tuple[str, str], int]  # by (type, status)
    attention: Mapping[str, int]  # by the gravest reason of each
    stalled: int  # by the statement of `storage.stalls`: nobody has noticed them
    outbox: int
    outbox_stuck: int
    outbox_oldest: float
    timers: int
    timers_due: int
    timer_overdue: float
    held: int
    dead_letters: int  # open ones


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSummary:
    """A row of `v_held`, with the number that pages are made of."""

    held_id: int
    saga_id: UUID | None
    saga_type: str
    business_key: str | None
    message_id: str
    name: str
    reason: str
    received_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldFilter:
    """Which held messages are wanted; what is None does not matter."""

    saga_type: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPage:
    """A page of held messages, the oldest first; `following` is the last of it, if there is more."""

    held: Sequence[HeldSummary]
    following: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerSummary:
    """An armed timer, and whose it is."""

    saga_id: UUID
    saga_type: str
    business_key: str
    name: str
    generation: int
    due_at: datetime

    @property
    def place(self) -> TimerPlace:
        """Where it stands in the list of all."""
        return TimerPlace(due_at=self.due_at, saga_id=self.saga_id, name=self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerPlace:
    """Where a list of timers goes on: behind this one, whether it still stands or not."""

    due_at: datetime
    saga_id: UUID
    name: str

    def __str__(self) -> str:
        return f"{self.due_at.isoformat()}/{self.saga_id}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFilter:
    """Which timers are wanted; what is None does not matter."""

    saga_type: str | None = None
    saga_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerPage:
    """A page of timers, those first that are due first; `following` is the last of it, if there is more."""

    timers: Sequence[TimerSummary]
    read_at: datetime
    following: TimerPlace | None
