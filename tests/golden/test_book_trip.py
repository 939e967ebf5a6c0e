"""Version 1 of booking a trip goes on as it began, in each of its branches, whatever became of the code since."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from messages.catalog.trip import (
    CardCharged,
    CardRefused,
    CarReleased,
    CarReserved,
    HotelFull,
    NoCar,
    PlaneFull,
    RoomReleased,
    RoomReserved,
    SeatReleased,
    SeatReserved,
    TrainFull,
    TrainReleased,
    TrainReserved,
    TripRequested,
)
from messages.errors import OperationRefused
from sagas.catalog.trip import BookTrip
from testkit import Harness

if TYPE_CHECKING:
    from testkit import Golden

SEATED, NOT_SEATED = SeatReserved(trip_id="t-1", seat="12A"), SeatReleased(trip_id="t-1")
ON_THE_TRAIN, OFF_THE_TRAIN = TrainReserved(trip_id="t-1", coach=7), TrainReleased(trip_id="t-1")
ACCOMMODATED, LEFT = RoomReserved(trip_id="t-1", room=101), RoomReleased(trip_id="t-1")
MOTORISED, ON_FOOT = CarReserved(trip_id="t-1", plate="AN 0007"), CarReleased(trip_id="t-1")
CHARGED = CardCharged(trip_id="t-1", charge_id="c-1")


def trip(*, with_car: bool = False) -> Harness:
    return Harness(BookTrip).given(TripRequested(trip_id="t-1", traveller="Ada", price=Decimal(900), with_car=with_car))


def test_by_air(golden: Golden) -> None:
    story = trip().receives(SEATED).receives(ACCOMMODATED).receives(CHARGED)
    assert story.status == "completed"
    golden.check(story, "BookTrip-1/by_air.json")


def test_with_a_car(golden: Golden) -> None:
    story = trip(with_car=True).receives(MOTORISED).receives(ACCOMMODATED).receives(SEATED).receives(CHARGED)
    assert story.status == "completed"
    golden.check(story, "BookTrip-1/with_a_car.json")


def test_by_rail_because_the_plane_is_full(golden: Golden) -> None:
    story = trip().receives(PlaneFull(trip_id="t-1")).receives(ACCOMMODATED).receives(ON_THE_TRAIN).receives(CHARGED)
    assert story.status == "completed"
    golden.check(story, "BookTrip-1/by_rail.json")


def test_by_rail_because_the_airline_says_nothing_until_it_is_too_late(golden: Golden) -> None:
    story = trip().receives(ACCOMMODATED).advance(timedelta(minutes=10)).receives(SEATED).receives(NOT_SEATED)
    assert story.receives(ON_THE_TRAIN).receives(CHARGED).status == "completed"
    golden.check(story, "BookTrip-1/by_rail_after_silence.json")


def test_neither_by_air_nor_by_rail(golden: Golden) -> None:
    story = trip().receives(ACCOMMODATED).receives(PlaneFull(trip_id="t-1")).receives(TrainFull(trip_id="t-1"))
    assert story.receives(LEFT).status == "compensated"
    golden.check(story, "BookTrip-1/neither_by_air_nor_by_rail.json")


def test_a_branch_that_fails_while_the_others_are_under_way(golden: Golden) -> None:
    story = trip(with_car=True).receives(SEATED).receives(NoCar(trip_id="t-1")).receives(ACCOMMODATED)
    assert story.receives(NOT_SEATED).receives(LEFT).status == "compensated"
    golden.check(story, "BookTrip-1/no_car.json")


def test_a_full_hotel_when_the_train_was_taken_instead_of_the_plane(golden: Golden) -> None:
    story = trip(with_car=True).receives(MOTORISED).receives(PlaneFull(trip_id="t-1")).receives(ON_THE_TRAIN)
    story.receives(HotelFull(trip_id="t-1")).receives(OFF_THE_TRAIN).receives(ON_FOOT)
    assert story.status == "compensated"
    golden.check(story, "BookTrip-1/hotel_full.json")


def test_a_cancel_before_the_pivot(golden: Golden) -> None:
    story = trip().receives(ACCOMMODATED).operator("cancel").receives(SEATED).receives(NOT_SEATED).receives(LEFT)
    assert (story.status, story.instance.end_reason) == ("compensated", "cancelled")
    golden.check(story, "BookTrip-1/cancel.json")


def test_a_pivot_that_fails(golden: Golden) -> None:
    story = trip().receives(SEATED).receives(ACCOMMODATED).receives(CardRefused(trip_id="t-1"))
    assert story.receives(LEFT).receives(NOT_SEATED).status == "compensated"
    golden.check(story, "BookTrip-1/card_refused.json")


def test_a_pivot_that_is_in_doubt_until_it_is_passed(golden: Golden) -> None:
    story = trip().receives(SEATED).receives(ACCOMMODATED).advance(timedelta(minutes=30))
    with pytest.raises(OperationRefused):
        story.operator("cancel")
    assert story.receives(CHARGED).status == "completed"
    golden.check(story, "BookTrip-1/pivot_in_doubt.json")
