"""A saga instance as data: the author's state as JSON bytes, and how far each step has come.

Immutable; every change is a new value made by `decide`. `pack` and `unpack` turn the engine's own part (steps, timers,
attention) into the compact JSON that one column holds.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import sha1
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_DNS, UUID, uuid5

from pydantic_core import from_json, to_json

from messages.value import value
from sagas.definition import Purpose
from sagas.items import Items

if TYPE_CHECKING:
    from collections.abc import Mapping

_ANTIPHON = uuid5(NAMESPACE_DNS, "antiphon")


class Phase(StrEnum):
    """Where the whole instance is; the last two are final."""

    RUNNING = "running"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"

    @property
    def ended(self) -> bool:
        """Whether this phase is final."""
        return self in (Phase.COMPLETED, Phase.COMPENSATED)


class CallStatus(StrEnum):
    """How far one command of a step has come."""

    PENDING = "pending"  # sent, no definitive reply yet, budget left
    WAITING = "waiting"  # answered by a transient reply, the next attempt stands on a timer
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"  # budget used up in silence
    WITHDRAWN = "withdrawn"  # taken back before the broker had it: never sent
    BLOCKED = "blocked"  # an undo that cannot be built or has failed: waits for an operator or a late success
    SKIPPED = "skipped"  # an operator went on without it; where it was sent, its effect is possible

    @property
    def open(self) -> bool:
        """Whether a reply is still awaited."""
        return self in (CallStatus.PENDING, CallStatus.WAITING)


DONE = (CallStatus.SUCCEEDED, CallStatus.SKIPPED)
"""How a step ends that the flow goes on behind."""

RESTING, RESTED = "resting", "rested"
"""How far a rest is."""

WAITING, ANSWERED, REFUSED, EXPIRED, TIMED_OUT = "waiting", "answered", "refused", "expired", "timed_out"
"""How far a wait is. One that has `expired` ended with its default, one that has `timed_out` failed."""

SKIPPED, WOKEN = "skipped", "woken"
"""How a rest or wait ends by an operator's word, or because its part of the flow was given up."""

PAUSED, PASSED = (RESTING, WAITING), (RESTED, ANSWERED, EXPIRED, SKIPPED)
"""Rests and waits that are under way, and those that the flow goes on behind."""

USED = "#used"
"""Above the names, in an instance's choices, of steps and waits that it had in older versions and has no more."""

PARKING = ("method_raised", "undo_needs_reply", "compensation_failed", "compensation_exhausted")
"""Reasons for attention under which people see the status `parked`, the gravest first."""


@value
class CallProgress:
    """The sends of one command of one step.

    `generation` counts entries, `attempt` new sends within it, `sends` copies of the current attempt, `spent` all sends
    of the generation (the budget). `earlier` holds the number of attempts of each earlier generation. `dispatched` and
    `ended` are history numbers: what was dispatched after another ended is undone before it. `silent` says that an
    attempt was given up without an answer, so that its effect remains possible whatever later attempts say.
    """

    status: CallStatus
    generation: int = 1
    attempt: int = 1
    sends: int = 1
    spent: int = 1
    earlier: tuple[int, ...] = ()
    dispatched: int = 0
    ended: int = 0
    silent: bool = False


@value
class StepProgress:
    """A step that was entered: the command that does it, and the one that undoes it once that was decided."""

    do: CallProgress
    undo: CallProgress | None = None

    def call(self, purpose: Purpose) -> CallProgress | None:
        """The progress of the command for that purpose."""
        return self.do if purpose is Purpose.DO else self.undo


@value
class Timer:
    """A timer as the instance knows it. `fence` is the history number at which it was set; another is stale.

    `asked_at` is when the first of the markers was sent that have not come back, one after another.
    """

    due_at: datetime
    fence: int
    asked_at: datetime | None = None


@value
class Instance:
    """One running or ended business process.

    `state` is the JSON of the author's fields. `choices` holds what was decided on the way through the flow, by path.
    `seq` is the number of the last history row, `revision` counts applied messages. `items` are those at hand of the
    lists that are kept beside it, and no part of what is stored. `timers` are kept while
    the instance is parked by `method_raised` or paused, but only `armed` ones exist as rows. `attention` maps a reason
    word to its detail.
    """

    saga_id: UUID
    saga_type: str
    key: str
    n: int = 1
    version: int
    phase: Phase
    state: bytes
    steps: Mapping[str, StepProgress] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    timers: Mapping[str, Timer] = field(default_factory=dict)
    attention: Mapping[str, str] = field(default_factory=dict)
    paused: bool = False
    waiting_for: str | None = None
    started_at: datetime
    updated_at: datetime
    deadline_at: datetime
    ended_at: datetime | None = None
    end_reason: str | None = None
    skipped: int = 0
    revision: int = 1
    seq: int = 0
    items: Items = field(default_factory=Items, compare=False, repr=False)

    @property
    def halted(self) -> bool:
        """Whether nothing may be sent and no timer may fire until someone acts."""
        return self.paused or "method_raised" in self.attention

    @property
    def armed(self) -> Mapping[str, Timer]:
        """The timers that exist as rows."""
        return {} if self.halted else self.timers

    @property
    def status(self) -> str:
        """What people see: `parked`, else the phase."""
        return "parked" if any(reason in self.attention for reason in PARKING) else self.phase.value


@lru_cache(maxsize=4096)  # every message of an instance asks again
def saga_id(namespace: str, saga_type: str, key: str, n: int = 1) -> UUID:
    """The identity of the n-th instance of a type for a business key."""
    return uuid5(_ANTIPHON, f"{namespace}/{saga_type}/{key}/{n}")


def message_id(saga: UUID, path: str, generation: int, attempt: int, purpose: str) -> str:
    """The identity of one attempt of one command (`purpose` is `do` or `undo`): the same however often computed.

    It is `uuid5(saga, "<path>/<generation>/<attempt>/<purpose>")` as text, without the detour over a UUID object,
    because every message computes it twice.
    """
    digest = bytearray(
        sha1(saga.bytes + f"{path}/{generation}/{attempt}/{purpose}".encode(), usedforsecurity=False).digest()
    )
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:32]}"


def idempotency_key(saga: UUID, path: str, generation: int, purpose: str) -> str:
    """What a participant applies at most once: one entry of a step, whatever the number of attempts."""
    return f"{saga}/{path}/{generation}/{purpose}"


# What the row's `progress` column holds. Short names, because every message rewrites it.


_STATUSES = {status.value: status for status in CallStatus}


def _pack_call(call: CallProgress) -> list[Any]:
    return [
        call.status,
        call.generation,
        call.attempt,
        call.sends,
        call.spent,
        call.earlier,
        call.dispatched,
        call.ended,
        call.silent,
    ]


def _unpack_call(packed: list[Any]) -> CallProgress:
    status, generation, attempt, sends, spent, earlier, dispatched, ended, silent = packed
    return CallProgress(
        status=_STATUSES[status],
        generation=generation,
        attempt=attempt,
        sends=sends,
        spent=spent,
        earlier=tuple(earlier),
        dispatched=dispatched,
        ended=ended,
        silent=silent,
    )


def pack_step(step: StepProgress) -> list[Any]:
    """A step's progress as what JSON is made of."""
    return [_pack_call(step.do)] if step.undo is None else [_pack_call(step.do), _pack_call(step.undo)]


def unpack_step(packed: list[Any]) -> StepProgress:
    """What `pack_step` made."""
    return StepProgress(do=_unpack_call(packed[0]), undo=_unpack_call(packed[1]) if len(packed) > 1 else None)


def pack_timer(timer: Timer) -> list[Any]:
    """A timer as what JSON is made of."""
    return [timer.due_at, timer.fence] if timer.asked_at is None else [timer.due_at, timer.fence, timer.asked_at]


@value
class Progress:
    """The engine's part of an instance."""

    steps: Mapping[str, StepProgress]
    choices: Mapping[str, str]
    timers: Mapping[str, Timer]
    attention: Mapping[str, str]


def unpack_parts(parts: Mapping[str, Mapping[str, Any]]) -> Progress:
    """The steps, choices, timers and attention that were packed, each under its name."""
    steps = {path: unpack_step(calls) for path, calls in parts["steps"].items()}
    timers = {
        name: Timer(
            due_at=datetime.fromisoformat(due_at),
            fence=fence,
            asked_at=datetime.fromisoformat(asked[0]) if asked else None,
        )
        for name, (due_at, fence, *asked) in parts["timers"].items()
    }
    return Progress(
        steps=steps, choices=dict(parts.get("choices", {})), timers=timers, attention=dict(parts["attention"])
    )


def pack_progress(instance: Instance) -> bytes:
    """The engine's part of an instance as JSON: steps, choices where there are any, timers, attention."""
    parts: dict[str, object] = {
        "steps": {path: pack_step(step) for path, step in instance.steps.items()},
        "timers": {name: pack_timer(timer) for name, timer in instance.timers.items()},
        "attention": instance.attention,
    }
    if instance.choices:
        parts["choices"] = instance.choices
    return to_json(parts)


def unpack_progress(packed: bytes) -> Progress:
    """What `pack_progress` wrote."""
    return unpack_parts(from_json(packed))
