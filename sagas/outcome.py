"""What happened to an instance, and what was decided about it: the values that go into and come out of `decide`."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from messages.value import value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from messages import Event
    from messages.errors import MessageError
    from sagas.definition import Purpose
    from sagas.instance import Instance
    from sagas.items import Rested
    from sagas.parents import Parent


@value
class Arrived:
    """An event for this instance: a start for a key that exists, or a reply.

    `body` is what arrived, kept in the history. `causation_id` is the command it answers, when it says so. `kept`: it
    came before the instance had come to it, and the instance has counted it.
    """

    message_id: str
    name: str
    body: bytes
    event: Event
    causation_id: str | None = None
    kept: bool = False


@value
class TimerFired:
    """A timer of this instance is due. `unsent` holds the ids of its commands that still sit in the outbox."""

    name: str
    fence: int
    unsent: frozenset[str] = frozenset()


@value
class GiveUp:
    """The marker of a last timeout came back through the saga's own queue, behind every reply queued before it.

    `entry` names the wait that the marker would end (generation, attempt and sends, or nothing for the deadline): a
    marker of an earlier one changes nothing.
    """

    message_id: str
    timer: str
    entry: str


@value
class Withdrawn:
    """Of the commands whose withdrawal was proposed, these had not left the outbox and are gone."""

    message_ids: frozenset[str]


class Action(StrEnum):
    """What an operator may do to an instance."""

    CANCEL = "cancel"  # turn back: what was done is undone
    RETRY = "retry"  # go on where it stands still, or send once more without waiting
    SKIP = "skip"  # go on without a step, or without undoing one
    RESOLVE = "resolve"  # what an undo was to do was done by hand
    UNDO = "undo"  # send the undo of an effect that nothing would take back
    PAUSE = "pause"  # send nothing, apply nothing, let no timer fire
    RESUME = "resume"  # end of the pause
    FIRE_TIMER = "fire_timer"  # have it do now what it would do when it is due
    RESCHEDULE_TIMER = "reschedule_timer"  # have it due at another time
    CANCEL_TIMER = "cancel_timer"  # have it never come


@value
class Operated:
    """An operator's action. `step` is the path it concerns; left out, it is the only one that it can concern.

    `actor` says who, `reason` why; `request_id` makes the same request, asked twice, one action. An action on a `timer`
    has its name, and where it is rescheduled when it is `due`, or after how long. `unsent` holds the ids of the
    instance's messages that still sit in the outbox.
    """

    action: Action
    actor: str
    reason: str
    request_id: str
    step: str | None = None
    timer: str | None = None
    due: datetime | timedelta | None = None
    unsent: frozenset[str] = frozenset()


Input = Arrived | TimerFired | GiveUp | Withdrawn | Operated


class Disposition(StrEnum):
    """What became of a message."""

    APPLIED = "applied"
    IGNORED = "ignored"
    HELD = "held"
    DEAD_LETTERED = "dead_lettered"


@value
class HistoryEntry:
    """One row of an instance's history. `kind` is past tense; `body` is a message's bytes, as received or as sent."""

    seq: int
    kind: str
    step: str | None = None
    message_id: str | None = None
    message_name: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    body: bytes | None = None


@value
class Send:
    """A message to put into the outbox.

    `body` is None for a resend: what went out under this id stands in the history, body and cause. `marker` messages go
    straight to the saga's own queue, an `event` to whoever listens, everything else is a command. `path` is what order
    is promised for. What is for a `child` goes straight to the queue of that saga type, and what `answers` a parent to
    where that wants it.
    """

    message_id: str
    name: str
    schema_version: int
    path: str
    body: bytes | None
    purpose: Purpose | None = None
    idempotency_key: str | None = None
    compensates: str | None = None
    causation_id: str | None = None
    marker: bool = False
    event: bool = False
    child: str | None = None
    answers: Parent | None = None


@value
class Decision:
    """What follows from one input: the next instance, what to write and what to send.

    `withdraw` proposes commands to take back from the outbox; whoever carries the decision out calls `decide` again
    with `Withdrawn` before anything is written. `listed` are the items of a newborn instance's lists, by field, and
    `rested` those that are done with for now: both are kept beside it. `error` is set when the message becomes a dead
    letter.
    """

    instance: Instance
    disposition: Disposition = Disposition.APPLIED
    reason: str = ""
    history: tuple[HistoryEntry, ...] = ()
    sends: tuple[Send, ...] = ()
    withdraw: tuple[str, ...] = ()
    listed: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    rested: tuple[Rested, ...] = ()
    error: MessageError | None = None
