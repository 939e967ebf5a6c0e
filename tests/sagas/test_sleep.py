"""Rests: for how long, until when, and what becomes of them when the saga turns back or people act."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sagas import Saga, alternative, decision, definition_of, parallel, repeat, sleep, start, step
from testkit.harness import Harness
from tests.sagas.test_branches import Booked, Booking, Do, Done, Failed, answered, sent, undone


class Resting(Booking, key="key", version=1, deadline=timedelta(days=30)):
    @sleep
    def nap(self) -> timedelta:
        return timedelta(days=2)

    flow = Booking.a >> nap >> Booking.b >> Booking.c >> Booking.d


def resting() -> Harness:
    return answered(Harness(Resting).given(Booked(key="k")), "a")


def test_the_flow_goes_on_when_the_rest_is_over_and_not_before() -> None:
    saga = resting()
    assert sent(saga) == []
    assert saga.instance.waiting_for == "2026-01-03 00:00:00 UTC (rest nap)"
    assert sent(saga.advance(timedelta(days=2, seconds=-1))) == []
    assert sent(saga.advance(timedelta(seconds=1))) == ["do b"]
    assert [entry.kind for entry in saga.history if entry.step == "nap"] == ["rest_began", "rested"]


@pytest.mark.parametrize(("ahead", "rests"), [(timedelta(hours=1), True), (timedelta(hours=-1), False)])
def test_a_moment_that_has_passed_is_no_rest(ahead: timedelta, rests: bool) -> None:
    class Until(Booking, key="key", version=1):
        @sleep
        def dawn(self) -> datetime:
            return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=self.size)

        flow = dawn >> Booking.a >> Booking.b >> Booking.c >> Booking.d

    saga = Harness(Until).given(Booked(key="k", size=int(ahead / timedelta(hours=1))))
    assert sent(saga) == ([] if rests else ["do a"])
    if rests:
        assert sent(saga.advance(ahead)) == ["do a"]


def test_a_rest_is_part_of_the_shape_and_a_method() -> None:
    assert {"sleep": "nap"} in definition_of(Resting).document["shape"]["flow"]
    assert Resting(key="k").nap() == timedelta(days=2)


def test_a_subclass_may_rest_longer_in_the_same_place() -> None:
    class Tired(Resting, key="key", version=1, deadline=timedelta(days=30)):
        @sleep
        def nap(self) -> timedelta:
            return timedelta(days=9)

    saga = answered(Harness(Tired).given(Booked(key="k")), "a")
    assert sent(saga.advance(timedelta(days=8))) == []
    assert sent(saga.advance(timedelta(days=1))) != []


def test_a_cancel_ends_the_rest() -> None:
    saga = resting().operator("cancel")
    assert sent(saga) == ["undo a"]
    assert "nap/sleep" not in saga.instance.timers
    undone(saga, "a")
    assert saga.instance.status == "compensated"
    assert sent(saga.advance(timedelta(days=3))) == []


def test_an_operator_may_end_the_rest() -> None:
    assert sent(resting().operator("skip", "nap")) == ["do b"]


def test_a_rest_in_a_branch_that_is_given_up_is_over_too() -> None:
    class Branches(Booking, key="key", version=1, deadline=timedelta(days=30)):
        @sleep
        def nap(self) -> timedelta:
            return timedelta(days=2)

        flow = alternative(parallel(nap >> Booking.a, Booking.b), Booking.c) >> Booking.d

    saga = Harness(Branches).given(Booked(key="k"))
    assert sent(answered(saga, "b", Failed)) == ["do c"]
    assert "nap/sleep" not in saga.instance.timers
    assert sent(saga.advance(timedelta(days=3))) != ["do a"]


def test_a_rest_in_a_loop_is_what_the_instance_waits_for() -> None:
    class Again(Booking, key="key", version=1, deadline=timedelta(days=30)):
        @sleep
        def nap(self) -> timedelta:
            return timedelta(days=2)

        @decision
        def over(self) -> bool:
            return False

        flow = Booking.a >> repeat(nap, until=over, most=3) >> Booking.b >> Booking.c >> Booking.d

    saga = answered(Harness(Again).given(Booked(key="k")), "a")
    assert saga.instance.waiting_for == "2026-01-03 00:00:00 UTC (rest nap[0])"
    saga.advance(timedelta(days=2))
    assert saga.instance.waiting_for == "2026-01-05 00:00:00 UTC (rest nap[1])"


def test_a_paused_saga_rests_on_and_goes_on_when_it_is_resumed() -> None:
    saga = resting().operator("pause")
    assert sent(saga.advance(timedelta(days=3))) == []
    saga.operator("resume")
    assert sent(saga.advance(timedelta(seconds=1))) == ["do b"]


@pytest.mark.parametrize("said", [5, datetime(2027, 1, 1), timedelta(days=40_000), None])  # noqa: DTZ001
def test_what_is_no_time_parks_the_instance(said: object) -> None:
    class Wrong(Saga, key="key", version=1):
        key: str

        @start
        def booked(cls, event: Booked):  # type: ignore[no-untyped-def]  # noqa: ANN202
            return cls(key=event.key)

        @sleep
        def nap(self) -> timedelta:
            return said  # type: ignore[return-value]

        @step(success=Done)
        def a(self) -> Do:
            return Do(what="a")

        flow = nap >> a

    saga = Harness(Wrong).given(Booked(key="k"))
    assert saga.instance.attention["method_raised"].startswith("Wrong.nap: TypeError")
