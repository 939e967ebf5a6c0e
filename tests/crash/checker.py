"""The judge of a crash test: looks at the public views and the ledgers only, and says in words what is wrong.

`violations` is for the end, when every fault is healed and everything has come to rest; `stalls` holds at every moment.
An empty list means that nothing was lost, nothing happened twice, nothing happened out of order, and nothing is stuck.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.crash.script import TRADES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from tests.crash.ledger import Effect
    from tests.crash.views import HistoryRow, Picture, SagaRow

    Check = Callable[["Picture", "Expected"], Iterator[str]]

ENDED = ("completed", "compensated")
FORWARD, BACKWARD = "command_sent", "compensation_sent"
TAKEN = {
    *("started", "reply_received", "reply_transient", "late_success"),
    *("event_received", "signal_received", "cancelled"),
}
"""History of a message that was applied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the test asked for: the orders it placed, and where each may end.

    `starts` maps an order to the id of its `OrderPlaced`; `allowed` maps it to the statuses it may have in the end
    (default: completed or compensated). `participants` are those whose ledgers are complete.
    """

    starts: Mapping[str, str]
    allowed: Mapping[str, Collection[str]] = field(default_factory=dict)
    saga_type: str = "PlaceOrder"
    participants: Sequence[str] = tuple(TRADES)
    dead_letters: int = 0

    def may_end(self, order: str) -> Collection[str]:
        """The statuses an order may have in the end."""
        return self.allowed.get(order, ENDED)


def violations(picture: Picture, expected: Expected, checks: Sequence[Check] | None = None) -> list[str]:
    """Everything that is wrong at the end of a run, one sentence each; by the checks of a line or by these."""
    return [sentence for check in checks or CHECKS for sentence in check(picture, expected)]


def stalls(picture: Picture) -> list[str]:
    """Live instances that nothing will ever wake, and those that the published statement finds: nobody was told."""
    awake = {row.saga_id for row in picture.timers} | {row.saga_id for row in picture.outbox}
    awake |= {row.saga_id for row in picture.held}
    return [
        f"{_name(saga)} is {saga.status} and waits for nothing: no timer, no outgoing message, none held"
        for saga in picture.sagas
        if saga.phase not in ENDED and saga.attention is None and not saga.paused and saga.saga_id not in awake
    ] + [
        f"{_name(saga)} is {saga.status} and waits in vain: rule 16's statement finds it"
        for saga in picture.sagas
        if saga.saga_id in picture.stalled
    ]


# Nothing lost.


def every_order_has_one_saga(picture: Picture, expected: Expected) -> Iterator[str]:
    """An order that was placed has exactly one saga, and no saga comes from nowhere."""
    found = Counter(saga.business_key for saga in picture.sagas if saga.saga_type == expected.saga_type)
    for order in expected.starts:
        if found[order] != 1:
            yield f"order {order} has {found[order]} sagas"
    for order in found.keys() - expected.starts.keys():
        yield f"order {order} was never placed but has a saga"


def every_saga_ended_as_allowed(picture: Picture, expected: Expected) -> Iterator[str]:
    """An ended saga's history says the same as its row; who is neither ended nor allowed to be parked is stuck."""
    ends: dict[str, list[str]] = defaultdict(list)
    for row in picture.history:
        if row.kind in ENDED:
            ends[row.saga_id].append(row.kind)
    for saga in picture.sagas:
        allowed, told = expected.may_end(saga.business_key), ends[saga.saga_id]
        if saga.status not in allowed:
            yield f"{_name(saga)} is {saga.status} (attention: {saga.attention}); allowed: {_list(allowed)}"
        if told != ([saga.phase] if saga.phase in ENDED else []):
            yield f"{_name(saga)} is {saga.phase}, but its history says that it ended: {_list(told)}"


def nothing_is_left_to_send(picture: Picture, expected: Expected) -> Iterator[str]:
    """The outbox is empty, nothing is held, and no ended saga has a timer."""
    ended = {saga.saga_id: saga for saga in picture.sagas if saga.phase in ENDED}
    for row in picture.outbox:
        yield f"outbox: {row.name} {row.message_id} is still {row.state}"
    for held in picture.held:
        yield f"held: {held.name} {held.message_id} is still held ({held.reason})"
    for timer in picture.timers:
        if timer.saga_id in ended:
            yield f"{_name(ended[timer.saga_id])} is {ended[timer.saga_id].phase} and still has the timer {timer.name}"


def every_command_arrived(picture: Picture, expected: Expected) -> Iterator[str]:
    """What was decided and not withdrawn reached its participant; what reached one had been decided."""
    arrived = {arrival.message_id for arrival in picture.arrivals}
    withdrawn = _withdrawn(picture)
    decided = {row.message_id: row for row in picture.history if row.kind in (FORWARD, BACKWARD)}
    mine = tuple(f"{participant}." for participant in expected.participants)
    for message_id, row in decided.items():
        lost = message_id not in arrived and message_id not in withdrawn
        if lost and (row.message_name or "").startswith(mine):
            yield f"saga {row.saga_id}: {row.message_name} {message_id} was decided and never arrived"
    for arrival in picture.arrivals:
        if arrival.message_id not in decided:
            yield f"{arrival.participant}: {arrival.name} {arrival.message_id} arrived, but no saga decided to send it"


# Nothing twice.


def no_effect_happens_twice(picture: Picture, expected: Expected) -> Iterator[str]:
    """Each order is done at most once at each participant, and undone at most once, and only after it was done."""
    for (order, participant), effects in _effects_at_participants(picture).items():
        purposes = [effect.purpose for effect in effects]
        for one, next_one in pairwise(purposes):
            if one == next_one:
                yield f"order {order}: {participant} has two effects '{one}' in a row: {_list(purposes)}"
        if purposes[0] == "undo":
            yield f"order {order}: {participant} undid what it had not done"


def every_message_is_applied_once(picture: Picture, expected: Expected) -> Iterator[str]:
    """No message stands in one saga's history twice as applied; no start made two sagas."""
    applied = Counter((row.saga_id, row.message_id) for row in picture.history if row.kind in TAKEN and row.message_id)
    for (saga_id, message_id), times in applied.items():
        if times > 1:
            yield f"saga {saga_id}: message {message_id} was applied {times} times"


def every_command_has_one_body(picture: Picture, expected: Expected) -> Iterator[str]:
    """All copies of a command are the same bytes, under one idempotency key; and every command has such a key."""
    bodies: dict[str, set[str]] = defaultdict(set)
    keys: dict[str, set[str]] = defaultdict(set)
    for arrival in picture.arrivals:
        bodies[arrival.message_id].add(arrival.body_hash)
        keys[arrival.message_id].add(arrival.idempotency_key)
    for message_id, hashes in bodies.items():
        if len(hashes) > 1:
            yield f"command {message_id} arrived with {len(hashes)} different bodies"
        if len(keys[message_id]) > 1 or "" in keys[message_id]:
            yield f"command {message_id} arrived with the idempotency keys {_list(keys[message_id])}"


# All or nothing, and in order.


def effects_are_all_or_nothing(picture: Picture, expected: Expected) -> Iterator[str]:
    """A completed saga is done everywhere, a compensated one nowhere."""
    left: dict[tuple[str, str], int] = defaultdict(int)
    for effect in picture.effects:
        left[effect.order_id, effect.participant] += 1 if effect.purpose == "do" else -1
    for saga in picture.sagas:
        if saga.phase not in ENDED or saga.status == "parked" or saga.skipped:
            continue
        due = 1 if saga.phase == "completed" else 0
        for participant in expected.participants:
            net = left[saga.business_key, participant]
            if net != due:
                yield f"{_name(saga)} is {saga.phase}, but {participant} has a net effect of {net} instead of {due}"


def effects_are_undone_in_reverse(picture: Picture, expected: Expected) -> Iterator[str]:
    """At the participants: what was done last is undone first, and nothing is done once undoing began.

    What succeeded after its undoing could have had its turn is undone when it is known, out of order.
    """
    late = _known_too_late(picture)
    for order, every_effect in _effects_of_orders(picture).items():
        effects = [effect for effect in every_effect if (order, effect.participant) not in late]
        words = [f"{effect.purpose} {effect.participant}" for effect in effects]
        undone = [effect.compensates for effect in effects if effect.purpose == "undo"]
        done = [effect.idempotency_key for effect in effects if effect.purpose == "do"]
        if undone != [key for key in reversed(done) if key in undone]:
            yield f"order {order}: effects were not undone in reverse: {_list(words)}"
        if "do" in [effect.purpose for effect in effects][_first_undo(effects) :]:
            yield f"order {order}: an effect was done after undoing began: {_list(words)}"


def compensations_follow_completions_in_reverse(picture: Picture, expected: Expected) -> Iterator[str]:
    """In the history: if B was sent after A completed, B's undo is confirmed before A's is sent."""
    for saga_id, rows in _histories(picture).items():
        sent, completed = _first(rows, FORWARD), _first(rows, "step_completed", "late_success")
        undo_sent, undo_done = _first(rows, BACKWARD), _first(rows, "step_compensated")
        for later in undo_sent:
            for earlier in undo_sent:
                follows = later in sent and earlier in completed and sent[later] > completed[earlier]
                due = follows and later not in _late_successes(rows, undo_sent[earlier])
                if due and not undo_done.get(later, len(rows) + 1) < undo_sent[earlier]:
                    yield f"saga {saga_id}: {earlier} was undone before {later}, which had come after it"


def nothing_goes_forward_once_turned_back(picture: Picture, expected: Expected) -> Iterator[str]:
    """No forward command is created after compensation began, and no command at all after the end."""
    for saga_id, rows in _histories(picture).items():
        turned = ended = None
        for row in rows:
            if row.kind in (FORWARD, BACKWARD) and ended:
                yield f"saga {saga_id}: {row.message_name} was sent after the saga had {ended}"
            elif row.kind == FORWARD and turned:
                yield f"saga {saga_id}: {row.message_name} was sent after compensation had begun"
            turned = turned or row.kind == "compensation_started"
            ended = ended or (row.kind if row.kind in ENDED else None)


def whatever_completed_is_compensated(picture: Picture, expected: Expected) -> Iterator[str]:
    """A compensated saga has undone each step that it had completed, before it ended."""
    histories = _histories(picture)
    for saga in picture.sagas:
        if saga.phase != "compensated" or saga.skipped:
            continue
        rows = histories.get(saga.saga_id, [])
        for step in _first(rows, "step_completed").keys() - _first(rows, "step_compensated").keys():
            yield f"{_name(saga)} is compensated, but its step {step} was completed and never undone"


# The books agree.


def history_has_no_gaps(picture: Picture, expected: Expected) -> Iterator[str]:
    """`seq` counts from 1 without a gap, in every saga; and every saga has a history."""
    histories = _histories(picture)
    for saga_id, rows in histories.items():
        numbers = [row.seq for row in rows]
        if numbers != list(range(1, len(rows) + 1)):
            yield f"saga {saga_id}: the history is numbered {numbers}"
    for saga in picture.sagas:
        if saga.saga_id not in histories:
            yield f"{_name(saga)} has no history"


def history_is_told_in_the_order_of_time(picture: Picture, expected: Expected) -> Iterator[str]:
    """One clock decides, read under the lock of the saga: what is told later did not happen earlier."""
    for saga_id, rows in _histories(picture).items():
        for one, next_one in pairwise(rows):
            if next_one.at < one.at:
                yield f"saga {saga_id}: {next_one.kind} at {next_one.at} is told after {one.kind} at {one.at}"


def inbox_and_history_agree(picture: Picture, expected: Expected) -> Iterator[str]:
    """What history says was taken stands in the inbox; what the inbox says was applied or dead-lettered, it was."""
    dispositions = {(row.consumer, row.message_id): row.disposition for row in picture.inbox}
    types = {saga.saga_id: saga.saga_type for saga in picture.sagas}
    known = {(types.get(row.saga_id, ""), row.message_id) for row in picture.history}
    dead = {(row.consumer, row.message_id) for row in picture.dead}
    for row in picture.history:
        if row.kind in TAKEN and row.message_id:
            entry = dispositions.get((types.get(row.saga_id, ""), row.message_id))
            if entry != "applied":
                yield f"saga {row.saga_id}: {row.kind} of {row.message_id}, but the inbox says {entry}"
    for key, disposition in dispositions.items():
        if disposition == "applied" and key not in known:
            yield f"inbox: {key[1]} was applied to {key[0]}, but stands in no history"
        if disposition == "dead_lettered" and key not in dead:
            yield f"inbox: {key[1]} was dead-lettered for {key[0]}, but there is no letter"
    for order, message_id in expected.starts.items():
        if (expected.saga_type, message_id) not in dispositions:
            yield f"inbox: the start {message_id} of order {order} was never taken"


def dead_letters_are_those_expected(picture: Picture, expected: Expected) -> Iterator[str]:
    """Nothing was dead-lettered that was not meant to be."""
    still_open = [row for row in picture.dead if row.status == "open"]
    if len(still_open) != expected.dead_letters:
        listed = [f"{row.name} {row.message_id} ({row.reason})" for row in still_open]
        yield f"{len(still_open)} open dead letters instead of {expected.dead_letters}: {_list(listed)}"


SOUND: Sequence[Check] = (
    every_order_has_one_saga,
    every_saga_ended_as_allowed,
    nothing_is_left_to_send,
    every_command_arrived,
    no_effect_happens_twice,
    every_message_is_applied_once,
    every_command_has_one_body,
    nothing_goes_forward_once_turned_back,
    history_has_no_gaps,
    history_is_told_in_the_order_of_time,
    inbox_and_history_agree,
    dead_letters_are_those_expected,
)
"""What holds of every flow."""

CHECKS: Sequence[Check] = (
    *SOUND,
    effects_are_all_or_nothing,
    effects_are_undone_in_reverse,
    compensations_follow_completions_in_reverse,
    whatever_completed_is_compensated,
)
"""What holds of a flow that is a line."""


def _histories(picture: Picture) -> Mapping[str, list[HistoryRow]]:
    found: dict[str, list[HistoryRow]] = defaultdict(list)
    for row in sorted(picture.history, key=lambda each: each.seq):
        found[row.saga_id].append(row)
    return found


def _first(rows: Iterable[HistoryRow], *kinds: str) -> dict[str, int]:
    """Where each step first has a row of one of these kinds."""
    found: dict[str, int] = {}
    for row in rows:
        if row.kind in kinds and row.step is not None:
            found.setdefault(row.step, row.seq)
    return found


def _withdrawn(picture: Picture) -> set[str | None]:
    """The commands that were taken back before they were sent: the last ones of the steps of which that is told."""
    found: set[str | None] = set()
    for rows in _histories(picture).values():
        last: dict[str | None, str | None] = {}
        for row in rows:
            if row.kind == FORWARD:
                last[row.step] = row.message_id
            elif row.kind == "command_withdrawn":
                found.add(last.get(row.step))
    return found


def _late_successes(rows: Sequence[HistoryRow], after: int) -> set[str]:
    """The steps that were taken for failed until they succeeded, later than that row."""
    failed = _first(rows, "step_failed")
    return {step for step, seq in _first(rows, "late_success").items() if seq > after and step in failed}


def _known_too_late(picture: Picture) -> set[tuple[str, str]]:
    """(order, participant) of every step that succeeded when compensation had begun without it."""
    orders = {saga.saga_id: saga.business_key for saga in picture.sagas}
    found = set()
    for saga_id, rows in _histories(picture).items():
        late = _late_successes(rows, 0)
        participants = {row.step: (row.message_name or "").partition(".")[0] for row in rows if row.kind == FORWARD}
        found |= {(orders.get(saga_id, ""), participants.get(step, "")) for step in late}
    return found


def _effects_of_orders(picture: Picture) -> Mapping[str, list[Effect]]:
    found: dict[str, list[Effect]] = defaultdict(list)
    for effect in picture.effects:
        found[effect.order_id].append(effect)
    return found


def _effects_at_participants(picture: Picture) -> Mapping[tuple[str, str], list[Effect]]:
    found: dict[tuple[str, str], list[Effect]] = defaultdict(list)
    for effect in picture.effects:
        found[effect.order_id, effect.participant].append(effect)
    return found


def _first_undo(effects: Sequence[Effect]) -> int:
    return next((at for at, effect in enumerate(effects) if effect.purpose == "undo"), len(effects))


def _name(saga: SagaRow) -> str:
    return f"saga {saga.saga_type} {saga.business_key}"


def _list(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"
