"""The point of no return: what may still happen before it is known to be passed, and what follows behind it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from messages.errors import OperationRefused
from sagas import Retry, alternative, step
from sagas.definition import Purpose
from testkit.harness import Harness
from tests.sagas.test_branches import Booked, Booking, Do, Done, Failed, answered, sent, undone


class Busy(Done, name="pivot.Busy"):
    pass


class Final(Booking, key="key", version=1, deadline=timedelta(hours=1)):
    @step(success=Done, failure=Failed, pivot=True, retry=Retry(attempts=2, cap=timedelta(minutes=10)))
    def charge(self) -> Do:
        return Do(what="charge")

    @step(success=Done, transient=Busy, retry=Retry(attempts=1, cap=timedelta(minutes=10)))
    def ship(self) -> Do:
        return Do(what="ship")

    @step(success=Done)
    def tell(self) -> Do:
        return Do(what="tell")

    flow = Booking.a >> Booking.c >> Booking.d >> charge >> ship >> alternative(Booking.b, tell)


def charging() -> Harness:
    saga = Harness(Final).given(Booked(key="k"))
    return answered(answered(answered(saga, "a"), "c"), "d")


def test_a_pivot_that_fails_turns_the_whole_back() -> None:
    saga = answered(charging(), "charge", Failed)
    assert sent(saga) == ["undo c"]
    assert sent(undone(saga, "c")) == ["undo a"]
    assert undone(saga, "a").instance.status == "compensated"


def test_a_pivot_that_nobody_answers_is_sent_until_somebody_does_and_people_are_told() -> None:
    saga = charging().advance(timedelta(minutes=40))
    assert saga.instance.status == "running"
    assert set(sent(saga)) == {"do charge"}
    assert saga.instance.attention["in_doubt"].endswith(": charge")
    assert sent(answered(saga, "charge")) == ["do ship"]
    assert "in_doubt" not in saga.instance.attention


def test_what_comes_after_the_pivot_is_tried_until_it_succeeds() -> None:
    saga = answered(charging(), "charge")
    answered(saga, "ship", Busy)
    assert saga.instance.attention["in_doubt"].endswith(": ship")
    assert sent(saga.advance(timedelta(minutes=25))) == ["do ship", "do ship"]
    assert sent(answered(saga, "ship")) == ["do b"]


@pytest.mark.parametrize("passed", [False, True])
def test_a_pivot_on_its_way_cannot_be_cancelled(passed: bool) -> None:
    saga = charging()
    if passed:
        answered(saga, "charge")
    with pytest.raises(OperationRefused, match="its pivot charge was sent, and from there on nothing is undone"):
        saga.operator("cancel")


def test_a_cancel_before_the_pivot_turns_back() -> None:
    saga = Harness(Final).given(Booked(key="k")).operator("cancel")
    assert saga.instance.end_reason == "cancelled"


def test_the_deadline_only_tells_people_once_the_pivot_is_on_its_way() -> None:
    saga = answered(charging(), "charge").advance(timedelta(hours=2))
    assert saga.instance.status == "running"
    assert "since the pivot charge nothing is undone" in saga.instance.attention["deadline_passed"]
    answered(answered(saga, "ship"), "b")
    assert (saga.instance.status, saga.instance.attention) == ("completed", {})


def test_behind_the_pivot_a_branch_that_fails_is_undone_and_the_next_is_taken() -> None:
    saga = answered(answered(charging(), "charge"), "ship")
    assert sent(answered(saga, "b", Failed)) == ["do tell"]
    assert answered(saga, "tell").instance.status == "completed"
    assert all(each.purpose is Purpose.DO for each in saga.log)
