"""What a look from outside finds wrong, in words, and when it takes it back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from handlers.watchdog import INTERVAL
from sagas.instance import PARKING, Instance, Phase
from sagas.patch import patch, rebuild
from sagas.watching import AGED, OVERDUE, WATCHED, Here, Unsent, Watched, watch

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
HERE = Here(versions={"PlaceOrder": {1}}, takers={"stock.ReserveStock": "stock"})
ELSEWHERE = Here(versions={"PlaceOrder": {2}})
SECOND = timedelta(seconds=1)
ORDER = Instance(
    saga_id=UUID(int=1),
    saga_type="PlaceOrder",
    key="o-1",
    version=1,
    phase=Phase.RUNNING,
    state=b"{}",
    started_at=NOW - timedelta(hours=1),
    updated_at=NOW - timedelta(minutes=1),
    deadline_at=NOW + timedelta(days=7),
    seq=4,
    revision=3,
)
ASLEEP = Watched(timers={"deadline": NOW + timedelta(days=7)})


def unsent(state: str, age: timedelta = SECOND, **values: object) -> Unsent:
    row = Unsent(name="stock.ReserveStock", state=state, created_at=NOW - age, next_attempt_at=NOW + SECOND)
    return replace(row, **values)  # type: ignore[arg-type]


def late(by: timedelta = OVERDUE + SECOND) -> Watched:
    return replace(ASLEEP, timers={**ASLEEP.timers, "reserve/do": NOW - by})


def unheard(ago: timedelta, due: timedelta = SECOND) -> Watched:
    return Watched(timers={**ASLEEP.timers, "reserve/do": NOW + due}, asked={"reserve/do": NOW - ago})


def sending(*rows: Unsent) -> Watched:
    return replace(ASLEEP, outbox=rows)


def seen(watched: Watched, order: Instance = ORDER, here: Here = HERE) -> Instance:
    return watch(order, watched, here, NOW).instance


WRONG: dict[str, tuple[Watched, Here, list[str]]] = {
    "timer_overdue": (late(), HERE, ["timer reserve/do was due at 2026-11-21 11:59:29 UTC", "with timers running?"]),
    "version_missing": (late(), ELSEWHERE, ["timer reserve/do was due at", "PlaceOrder version 1", "start one"]),
    "unroutable": (
        sending(unsent("returned", OVERDUE + SECOND)),
        HERE,
        ["no queue takes stock.ReserveStock", "start antiphon participant stock"],
    ),
    "refused": (sending(unsent("refused", error="too big")), HERE, ["refuses stock.ReserveStock (too big)"]),
    "outbox_overdue": (
        sending(unsent("new", OVERDUE * 2, next_attempt_at=NOW - OVERDUE - SECOND)),
        HERE,
        ["stock.ReserveStock could not be published since 2026-11-21 11:59:00 UTC", "relay running"],
    ),
    "marker_overdue": (
        unheard(AGED + SECOND),
        HERE,
        ["timer reserve/do would give up since 2026-11-21 11:54:59 UTC", "the queue of PlaceOrder; does"],
    ),
    "stalled": (Watched(), HERE, ["waits for nothing", "antiphon sagas retry"]),
}


@pytest.mark.parametrize("reason", WATCHED)
def test_each_cause_is_raised_with_a_remedy_and_cleared_when_it_is_gone(reason: str) -> None:
    watched, here, words = WRONG[reason]
    raised = watch(ORDER, watched, here, NOW)
    assert list(raised.instance.attention) == [reason]
    for word in words:
        assert word in raised.instance.attention[reason]
    text = raised.instance.attention[reason]
    assert [(row.kind, row.detail) for row in raised.history] == [
        ("attention_raised", {"reason": reason, "error": text})
    ]
    assert not watch(raised.instance, watched, here, NOW + SECOND).history
    cleared = watch(raised.instance, ASLEEP, here, NOW)
    assert (dict(cleared.instance.attention), cleared.instance.seq) == ({}, 6)
    assert [(row.seq, row.kind, row.detail) for row in cleared.history] == [
        (6, "attention_cleared", {"reason": reason})
    ]


@pytest.mark.parametrize("reason", WATCHED)
def test_none_of_them_stops_anything_or_counts_as_a_message(reason: str) -> None:
    watched, here, _ = WRONG[reason]
    raised = seen(watched, here=here)
    assert (raised.status, raised.revision, raised.halted) == ("running", ORDER.revision, False)
    assert raised.updated_at == NOW
    assert reason not in PARKING


@pytest.mark.parametrize("reason", WATCHED)
def test_the_history_rebuilds_what_was_raised_and_cleared(reason: str) -> None:
    watched, here, _ = WRONG[reason]
    raised = seen(watched, here=here)
    cleared = seen(ASLEEP, raised, here)
    patches = [patch(None, ORDER), patch(ORDER, raised)]
    assert rebuild(patches) == raised
    assert rebuild([*patches, patch(raised, cleared)]) == cleared


@pytest.mark.parametrize(
    "fine",
    [
        ASLEEP,
        late(OVERDUE - SECOND),
        sending(unsent("returned", OVERDUE - SECOND)),
        sending(unsent("claimed", AGED * 2)),
        sending(unsent("returned", AGED * 2, in_flight=True)),
        sending(unsent("unknown", AGED * 2, in_flight=True)),
        sending(unsent("new", AGED - SECOND, next_attempt_at=NOW - OVERDUE + SECOND)),
        sending(unsent("new", next_attempt_at=NOW - timedelta(hours=1)), unsent("unknown")),
        unheard(AGED - SECOND),
        replace(unheard(AGED * 2), held=["version"]),
        Watched(held=["early"]),
        Watched(timers={"deadline": NOW}),
    ],
)
def test_who_may_still_be_woken_is_left_alone(fine: Watched) -> None:
    assert not watch(ORDER, fine, HERE, NOW).history


@pytest.mark.parametrize(
    "quiet",
    [
        replace(ORDER, paused=True),
        replace(ORDER, phase=Phase.COMPENSATED),
        replace(ORDER, attention={"method_raised": "x"}),
        replace(ORDER, updated_at=NOW - OVERDUE + SECOND),
    ],
)
def test_waiting_for_nothing_is_wrong_only_where_something_should_come(quiet: Instance) -> None:
    assert not watch(quiet, Watched(), HERE, NOW).history


def test_a_marker_whose_timer_is_late_itself_is_not_what_is_wrong() -> None:
    both = unheard(AGED * 2, -OVERDUE - SECOND)
    assert set(seen(both).attention) == {"timer_overdue"}
    marked = seen(unheard(AGED * 2))
    assert set(seen(both, marked).attention) == {"marker_overdue", "timer_overdue"}


def test_a_reason_of_another_kind_is_not_touched() -> None:
    parked = replace(ORDER, attention={"method_raised": "x", "timer_overdue": "y", "in_doubt": "z"})
    assert dict(seen(ASLEEP, parked).attention) == {"method_raised": "x", "in_doubt": "z"}


def test_several_causes_stand_together_and_each_goes_by_itself() -> None:
    both = seen(replace(late(), outbox=[unsent("refused")]))
    assert set(both.attention) == {"timer_overdue", "refused"}
    assert set(seen(late(), both).attention) == {"timer_overdue"}


def test_a_row_that_is_just_tried_again_leaves_what_was_said_as_it_is() -> None:
    """It was returned a moment ago and will be in a moment."""
    for reason in ("unroutable", "refused"):
        raised = seen(WRONG[reason][0])
        assert not watch(raised, sending(unsent("returned", OVERDUE * 2, in_flight=True)), HERE, NOW).history
    raised = seen(sending(unsent("unknown", AGED + SECOND)))
    assert set(raised.attention) == {"outbox_overdue"}
    assert not watch(raised, sending(unsent("unknown", AGED * 2, in_flight=True)), HERE, NOW).history


def test_what_nobody_takes_is_not_called_late_as_well() -> None:
    """While a circuit is open the relay leaves it alone."""
    for reason, state in (("unroutable", "returned"), ("refused", "refused")):
        left_alone = sending(unsent(state, AGED * 2, next_attempt_at=NOW - AGED))
        assert set(seen(left_alone).attention) == {reason}


def test_a_command_that_joins_those_without_a_queue_is_named_too() -> None:
    raised = seen(WRONG["unroutable"][0])
    other = unsent("returned", OVERDUE * 2, name="pay.Pay")
    renamed = seen(sending(*WRONG["unroutable"][0].outbox, other), raised)
    assert (
        "pay.Pay, stock.ReserveStock; start antiphon participant stock, the participant"
        in (renamed.attention["unroutable"])
    )
    assert not watch(renamed, WRONG["unroutable"][0], HERE, NOW).history


def test_a_marker_without_a_queue_wants_the_saga_itself() -> None:
    raised = seen(sending(unsent("returned", OVERDUE * 2, name="antiphon.GiveUp")))
    assert "start a process that runs PlaceOrder: antiphon run" in raised.attention["unroutable"]


def test_processes_that_know_different_versions_do_not_contradict_each_other() -> None:
    """Whoever knows the version says what is wrong; the other raises what it sees, and never takes that back."""
    ignorant = seen(late(), here=ELSEWHERE)
    assert set(ignorant.attention) == {"version_missing"}
    informed = seen(late(), ignorant)
    assert set(informed.attention) == {"timer_overdue"}
    assert not watch(informed, late(), ELSEWHERE, NOW).history
    assert not watch(ignorant, late(), ELSEWHERE, NOW).history


def test_a_version_that_a_held_message_waits_for_is_missing_until_a_process_knows_it() -> None:
    held = replace(ASLEEP, held=["version"])
    marked = replace(ORDER, attention={"version_missing": "said by whoever held it"})
    assert not watch(marked, held, ELSEWHERE, NOW).history
    assert dict(seen(held, marked).attention) == {}
    assert dict(seen(ASLEEP, marked, ELSEWHERE).attention) == {}


def test_people_are_told_before_the_statement_would_show_the_instance() -> None:
    """See `storage.stalls`: 60 seconds, and 10 minutes for what finds no queue."""
    longest = timedelta(seconds=INTERVAL) * 2  # one look may fail
    assert OVERDUE + longest <= timedelta(seconds=60)
    assert AGED + longest < timedelta(minutes=10)
