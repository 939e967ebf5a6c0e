"""The functional core: what follows from one message or timer, given an instance. Pure; nothing here does anything.

`start` makes the first decision of an instance, `decide` every further one. Whoever calls them carries the decision
out: writes the instance and its history, sets its timers, puts its messages into the outbox.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from messages import CancelSaga
from messages.errors import MethodRaised, NotAwaited
from sagas import backward, forward, heard, operations, replies, timeouts
from sagas.definition import Unfit
from sagas.instance import Instance, Phase
from sagas.items import Items
from sagas.lists import apart
from sagas.names import ITEMS, PARENT
from sagas.outcome import Arrived, Decision, Disposition, GiveUp, HistoryEntry, Operated, TimerFired
from sagas.parents import answer_again, cancel_by_parent, packed
from sagas.problems import told
from sagas.turn import Turn
from sagas.watching import UNREAD

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sagas.definition import Definition, Heard
    from sagas.outcome import Input
    from sagas.parents import Parent


def first_state(definition: Definition, arrived: Arrived) -> bytes:
    """The state that a start event makes.

    Raises:
        MethodRaised: the `@start` method raised: a dead letter, no instance, and the key stays free.
    """
    build = definition.starts[arrived.name].build
    try:
        state = build(definition.saga_class, arrived.event)._dump(whole=True)
        definition.saga_class.model_validate_json(state, extra="ignore")  # it must be loadable from now on
    except BaseException as error:  # see `Turn.raised`
        text = told(f"{definition.type}.{build.__name__}", build, error)
        raise MethodRaised(text, saga_type=definition.type, message_id=arrived.message_id) from error
    return state


def start(
    definition: Definition,
    arrived: Arrived,
    *,
    state: bytes,
    saga_id: UUID,
    key: str,
    n: int,
    now: datetime,
    parent: Parent | None = None,
) -> Decision:
    """The birth of an instance from its start event, with the `state` that `first_state` made of it.

    A `parent` is told of its end.
    """
    listed: dict[str, list[bytes]] = {}
    if definition.lists:
        state, listed = apart(state, definition.lists)
    instance = Instance(
        saga_id=saga_id,
        saga_type=definition.type,
        key=key,
        n=n,
        version=definition.version,
        phase=Phase.RUNNING,
        state=state,
        started_at=now,
        updated_at=now,
        deadline_at=now + definition.deadline,
        revision=0,
        choices={f"{name}/{ITEMS}": str(len(items)) for name, items in listed.items()},
        items=Items(bodies={name: dict(enumerate(items)) for name, items in listed.items()}),
    )
    turn = Turn(definition, instance, now, causation_id=arrived.message_id)
    if parent is not None:
        turn.choices[PARENT] = packed(parent)
    started_by = None if parent is None or parent.saga_id is None else str(parent.saga_id)
    turn.record("started", message=arrived, body=arrived.body, version=definition.version, parent_id=started_by)
    turn.set_timer(backward.DEADLINE, definition.deadline)
    turn.applied = 1
    forward.go_on(turn)
    decision = turn.finish()
    return replace(decision, listed=listed) if listed else decision


def decide(definition: Definition, instance: Instance, happened: Input, now: datetime) -> Decision:
    """What follows from one input.

    A method of the author that raises never escapes: it parks the instance (design: section 4, rule 8).

    Raises:
        OperationRefused: an operator's action does not fit where the instance stands.
    """
    cause = happened.message_id if isinstance(happened, Arrived) else None
    turn = Turn(definition, instance, now, causation_id=cause)
    turn.applied = 1
    if not turn.attention.get("version_missing", "").endswith(UNREAD):  # else the watchdog sees whether it is still so
        turn.attention.pop("version_missing", None)
    try:
        if isinstance(happened, Arrived):
            return _arrived(turn, happened)
        if isinstance(happened, TimerFired):
            return _timer_fired(turn, happened)
        if isinstance(happened, GiveUp):
            return _gave_up(turn, happened)
        if isinstance(happened, Operated):
            operations.operate(turn, happened)
            return turn.finish()
    except MethodRaised as error:
        return _parked(definition, instance, happened, error, now)
    turn.applied = 0
    backward.withdrawn(turn, happened.message_ids)
    forward.go_on(turn)
    return turn.finish()


def ignored(definition: Definition, instance: Instance, arrived: Arrived, reason: str, now: datetime) -> Decision:
    """Record that a message changes nothing, and why."""
    turn = Turn(definition, instance, now)
    _meet(turn, arrived)
    turn.record("message_ignored", message=arrived, body=arrived.body, reason=reason)
    return turn.finish(Disposition.IGNORED, reason)


TOLD_AS = {"version": "version_missing", "paused": "messages_held"}
"""What people are told of an instance for which a message is held, by the reason for which it is held, if anything."""


def held(
    instance: Instance, message_id: str, name: str, reason: str, now: datetime, *, unread: bool = False
) -> Decision:
    """Record that a message waits until it can be applied. Needs no definition: it may be the one that is missing.

    `unread`: it is the message's own version that is not known.
    """
    text = {
        "version": f"{instance.saga_type} version {instance.version} is not known to the process that got {name}",
        "paused": "messages wait until it is resumed",
    }
    attention = {TOLD_AS[reason]: f"{name} {UNREAD}" if unread else text[reason]} if reason in TOLD_AS else {}
    choices = {**instance.choices} if reason in TOLD_AS else heard.with_another_kept(instance.choices)
    entry = HistoryEntry(
        seq=instance.seq + 1, kind="message_held", message_id=message_id, message_name=name, detail={"reason": reason}
    )
    attention = {**instance.attention, **attention}
    after = replace(instance, seq=entry.seq, updated_at=now, attention=attention, choices=choices)
    return Decision(instance=after, disposition=Disposition.HELD, reason=reason, history=(entry,))


def dead_lettered(
    instance: Instance, message_id: str, name: str, reason: str, now: datetime, *, kept: bool = True
) -> Decision:
    """Record that an event is a dead letter, and is kept no longer if it was. Needs no definition."""
    entry = HistoryEntry(
        seq=instance.seq + 1,
        kind="message_dead_lettered",
        message_id=message_id,
        message_name=name,
        detail={"reason": reason},
    )
    choices = heard.with_one_kept_less(instance.choices) if kept else instance.choices
    after = replace(instance, seq=entry.seq, updated_at=now, choices=choices)
    return Decision(instance=after, disposition=Disposition.DEAD_LETTERED, reason=reason, history=(entry,))


def failed_later(definition: Definition, instance: Instance, arrived: Arrived, text: str, now: datetime) -> Decision:
    """Record that a message which was held failed, although what it failed of is what the instance is parked for."""
    turn = Turn(definition, instance, now)
    _meet(turn, arrived)
    turn.record("parked", message=arrived, reason="method_raised", error=text)
    return turn.finish(Disposition.DEAD_LETTERED)


def park(definition: Definition, instance: Instance, text: str, now: datetime) -> Decision:
    """Stop an instance that cannot go on, until someone acts: state and revision stay, its timers stand still."""
    turn = Turn(definition, instance, now)
    turn.park("method_raised", text)
    return turn.finish()


def _arrived(turn: Turn, arrived: Arrived) -> Decision:
    if (listener := turn.definition.heard.get(arrived.name)) is not None:
        return _heard(turn, arrived, listener)
    target = replies.find_target(turn.definition, turn.before, arrived)
    if target is None and isinstance(arrived.event, CancelSaga):
        return _cancelled(turn, arrived, arrived.event)
    if target is None:
        reason = "not_awaited" if arrived.causation_id is None else "unknown_command"
        return ignored(turn.definition, turn.before, arrived, reason, turn.now)
    was_halted = turn.halted
    refusal = replies.apply_reply(turn, arrived, target)
    if refusal is not None:
        return ignored(turn.definition, turn.before, arrived, refusal, turn.now)
    if was_halted and not turn.halted:
        forward.go_on(turn)
    return turn.finish()


def started_again(definition: Definition, instance: Instance, arrived: Arrived, reason: str, now: datetime) -> Decision:
    """Record another attempt of its parent's to start it; if it has ended, its parent is told again."""
    turn = Turn(definition, instance, now)
    turn.record("message_ignored", message=arrived, body=arrived.body, reason=reason)
    if instance.phase.ended:
        answer_again(turn)
    return turn.finish(Disposition.IGNORED, reason)


def _cancelled(turn: Turn, arrived: Arrived, cancel: CancelSaga) -> Decision:
    refusal = cancel_by_parent(turn, arrived, cancel)
    if refusal is None:
        return turn.finish()
    if refusal == "ended":
        return started_again(turn.definition, turn.before, arrived, refusal, turn.now)
    return ignored(turn.definition, turn.before, arrived, refusal, turn.now)


def _heard(turn: Turn, arrived: Arrived, listener: Heard) -> Decision:
    was_halted = turn.halted
    misfit = heard.hear(turn, arrived, listener)
    if misfit is None:
        if was_halted and not turn.halted:
            forward.go_on(turn)
        return turn.finish()
    if misfit.policy is Unfit.IGNORE:
        return ignored(turn.definition, turn.before, arrived, misfit.reason, turn.now)
    if misfit.policy is Unfit.KEEP:
        return Decision(instance=turn.before, disposition=Disposition.HELD, reason=misfit.reason)
    text = f"{turn.definition.type} {turn.before.key!r} takes no {arrived.name} now: {misfit.reason.replace('_', ' ')}"
    error = NotAwaited(
        text, saga_type=turn.definition.type, saga_id=str(turn.before.saga_id), message_id=arrived.message_id
    )
    decision = dead_lettered(turn.before, arrived.message_id, arrived.name, misfit.reason, turn.now, kept=arrived.kept)
    return replace(decision, error=error)


def _meet(turn: Turn, arrived: Arrived) -> None:
    """Whatever becomes of an event that was kept, it is kept no longer."""
    if arrived.kept:
        turn.choices = heard.with_one_kept_less(turn.choices)


def _timer_fired(turn: Turn, fired: TimerFired) -> Decision:
    timer = turn.before.armed.get(fired.name)
    if timer is None or timer.fence != fired.fence or timer.due_at > turn.now:
        turn.applied = 0
        return turn.finish(Disposition.IGNORED, "stale_timer")
    timeouts.fire(turn, fired.name, fired.unsent)
    return turn.finish()


def _gave_up(turn: Turn, marker: GiveUp) -> Decision:
    reason = "halted" if turn.halted else timeouts.give_up(turn, marker.timer, marker.entry)
    if reason is None:
        return turn.finish()
    turn.applied = 0
    return turn.finish(Disposition.IGNORED, reason)


def _parked(
    definition: Definition, instance: Instance, happened: Input, error: MethodRaised, now: datetime
) -> Decision:
    """The instance is parked; the message, if it was one, becomes a dead letter. An operator's try is recorded."""
    if isinstance(happened, Operated):
        turn = Turn(definition, instance, now)
        operations.note(turn, happened)
        turn.park("method_raised", str(error))
        return turn.finish()
    turn = Turn(definition, instance, now)
    if isinstance(happened, Arrived):
        _meet(turn, happened)
    turn.park("method_raised", str(error))
    decision = turn.finish()
    if not isinstance(happened, Arrived):
        return decision
    error.message_id = happened.message_id
    return replace(decision, disposition=Disposition.DEAD_LETTERED, reason=error.reason, error=error)
