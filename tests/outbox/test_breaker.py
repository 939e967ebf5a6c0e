"""The circuits of destinations: the table at the head of the module, and what follows from it in the course of time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.breaker import FIRST_PAUSE, LONGEST_PAUSE, MOST, THRESHOLD, Breaker, State

DEAD = ("antiphon.commands", "stock.ReserveStock")
OTHER = ("antiphon.commands", "payment.MakePayment")
CHANCE = st.floats(min_value=0, max_value=1, exclude_max=True)
HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from(["confirmed", "came back", "undecided", "time passes"]), st.sampled_from([DEAD, OTHER]), CHANCE
    ),
    max_size=80,
)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(THRESHOLD):
        breaker.came_back(DEAD, now, 0.0)
    return breaker


def half_open() -> Breaker:
    breaker = opened()
    assert breaker.probes(FIRST_PAUSE) == [DEAD]
    return breaker


def happen(breaker: Breaker, what: str, destination: tuple[str, str], now: float, chance: float = 0.0) -> None:
    match what:
        case "confirmed":
            breaker.confirmed(destination)
        case "came back":
            breaker.came_back(destination, now, chance)
        case "undecided":
            breaker.undecided(destination, now, chance)
        case _:
            breaker.probes(now)


@pytest.mark.parametrize(
    ("start", "what", "end"),
    [
        (Breaker, "confirmed", State.CLOSED),
        (Breaker, "came back", State.CLOSED),
        (Breaker, "undecided", State.CLOSED),
        (opened, "confirmed", State.CLOSED),
        (opened, "came back", State.OPEN),
        (opened, "undecided", State.OPEN),
        (opened, "time passes", State.HALF_OPEN),
        (half_open, "confirmed", State.CLOSED),
        (half_open, "came back", State.OPEN),
        (half_open, "undecided", State.OPEN),
        (half_open, "time passes", State.HALF_OPEN),
    ],
)
def test_a_circuit_goes_where_the_table_says(start: type[Breaker], what: str, end: State) -> None:
    breaker = start()
    happen(breaker, what, DEAD, now=FIRST_PAUSE)
    assert breaker.state(DEAD) is end
    assert (DEAD in breaker.open) == (end is not State.CLOSED)


def test_the_fifth_in_turn_opens_it_and_says_when_the_probe_goes() -> None:
    breaker = Breaker()
    said = [breaker.came_back(DEAD, 10.0, 0.0) for _ in range(THRESHOLD + 3)]
    assert said == [None] * (THRESHOLD - 1) + [FIRST_PAUSE] + [None] * 3
    assert breaker.probes(10.0 + FIRST_PAUSE / 2) == []
    assert breaker.probes(10.0 + FIRST_PAUSE) == [DEAD]
    assert breaker.probes(10.0 + FIRST_PAUSE) == [], "one probe at a time"


def test_one_that_is_confirmed_in_between_begins_the_count_anew() -> None:
    breaker = Breaker()
    for _ in range(10):
        for _ in range(THRESHOLD - 1):
            breaker.came_back(DEAD, 0.0, 0.0)
        breaker.confirmed(DEAD)
    assert breaker.state(DEAD) is State.CLOSED


def test_the_pause_doubles_for_probes_that_come_back_and_not_for_those_nobody_knows_of() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for what in ["came back", "undecided", *["came back"] * 8]:
        before = now
        while not breaker.probes(now):
            now += 0.5
        pauses.append(now - before)
        happen(breaker, what, DEAD, now)
    assert pauses == [1, 2, 2, 4, 8, 16, 32, 60, 60, 60]


def test_whoever_names_ten_thousand_queues_that_are_none_fills_no_memory() -> None:
    breaker = Breaker()
    for number in range(10 * MOST):
        for _ in range(THRESHOLD):
            breaker.came_back(("", f"no-queue-{number}"), 0.0, 0.0)
    assert len(breaker.open) == MOST


@given(HAPPENINGS)
def test_it_is_open_exactly_while_five_in_turn_came_back_and_none_was_confirmed_since(
    happenings: list[tuple[str, tuple[str, str], float]],
) -> None:
    breaker, now, in_turn, tripped = Breaker(), 0.0, {DEAD: 0, OTHER: 0}, {DEAD: False, OTHER: False}
    for what, destination, chance in happenings:
        now += chance * 20
        happen(breaker, what, destination, now, chance)
        if what == "confirmed":
            in_turn[destination], tripped[destination] = 0, False
        elif what == "came back":
            in_turn[destination] += 1
            tripped[destination] |= in_turn[destination] >= THRESHOLD
        assert {each for each, is_open in tripped.items() if is_open} == breaker.open


@given(st.lists(CHANCE, min_size=20, max_size=60))
def test_a_destination_that_stays_dead_gets_ever_fewer_probes_and_never_none(chances: list[float]) -> None:
    breaker, now, probed = opened(), 0.0, 0
    for second in range(600):
        now = float(second)
        if breaker.probes(now):
            probed += 1
            breaker.came_back(DEAD, now, chances[probed % len(chances)])
    doubling = 7
    assert 600 / LONGEST_PAUSE - 1 <= probed <= doubling + 600 / (LONGEST_PAUSE * 0.75) + 1
