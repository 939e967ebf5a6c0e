"""Booking a trip, told as a travel agent would: what is asked for at once, what is given back, when it is too late."""

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
    ChargeCard,
    HotelFull,
    PlaneFull,
    ReleaseCar,
    ReleaseRoom,
    ReleaseSeat,
    ReleaseTrain,
    ReserveCar,
    ReserveRoom,
    ReserveSeat,
    ReserveTrain,
    RoomReleased,
    RoomReserved,
    SeatReleased,
    SeatReserved,
    SendTickets,
    TrainFull,
    TrainReleased,
    TrainReserved,
    TripConfirmed,
    TripFailed,
    TripRequested,
)
from messages.errors import OperationRefused
from sagas.catalog.trip import BookTrip
from testkit import Harness

if TYPE_CHECKING:
    from messages import Event, Message

SEATED = SeatReserved(trip_id="t-1", seat="12A")
ON_THE_TRAIN = TrainReserved(trip_id="t-1", coach=7)
ACCOMMODATED = RoomReserved(trip_id="t-1", room=101)
MOTORISED = CarReserved(trip_id="t-1", plate="AN 0007")
CHARGED = CardCharged(trip_id="t-1", charge_id="c-1")


def trip(*, with_car: bool = False) -> Harness:
    return Harness(BookTrip).given(TripRequested(trip_id="t-1", traveller="Ada", price=Decimal(900), with_car=with_car))


def sent(saga: Harness) -> list[type[Message]]:
    return [type(each) for each in saga.sent]


def test_everything_is_asked_for_at_once() -> None:
    assert sent(trip()) == [ReserveSeat, ReserveRoom]
    assert sent(trip(with_car=True)) == [ReserveSeat, ReserveRoom, ReserveCar]


def test_the_card_is_charged_when_all_is_reserved_and_the_traveller_is_told() -> None:
    saga = trip(with_car=True).receives(MOTORISED).receives(SEATED)
    assert sent(saga) == []
    assert saga.receives(ACCOMMODATED).sent == [ChargeCard(trip_id="t-1", amount=Decimal(900))]
    saga.receives(CHARGED)
    told = SendTickets(trip_id="t-1", traveller="Ada", lines=["seat 12A", "room 101", "car AN 0007"])
    assert (saga.sent, saga.status) == ([told], "completed")
    assert saga.announced == [TripConfirmed(trip_id="t-1", traveller="Ada")]


def test_who_cannot_fly_goes_by_rail() -> None:
    saga = trip().receives(PlaneFull(trip_id="t-1"))
    assert sent(saga) == [ReserveTrain]
    saga.receives(ON_THE_TRAIN).receives(ACCOMMODATED).receives(CHARGED)
    assert saga.sent == [SendTickets(trip_id="t-1", traveller="Ada", lines=["coach 7", "room 101"])]


def test_an_airline_that_says_nothing_is_asked_to_release_the_seat_before_the_railway_is_asked() -> None:
    saga = trip().receives(ACCOMMODATED).advance(timedelta(minutes=10))
    assert ReleaseSeat in sent(saga)
    assert sent(saga.receives(SeatReleased(trip_id="t-1"))) == [ReserveTrain]


def test_who_can_neither_fly_nor_ride_stays_at_home() -> None:
    saga = trip().receives(ACCOMMODATED).receives(PlaneFull(trip_id="t-1")).receives(TrainFull(trip_id="t-1"))
    assert (sent(saga), saga.announced) == ([ReleaseRoom], [])
    assert saga.receives(RoomReleased(trip_id="t-1")).status == "compensated"
    assert saga.announced == [TripFailed(trip_id="t-1", traveller="Ada")]


@pytest.mark.parametrize("refusal", [CardRefused(trip_id="t-1"), None])
def test_without_the_money_or_after_a_cancel_everything_is_given_back(refusal: Event | None) -> None:
    saga = trip(with_car=True).receives(SEATED).receives(MOTORISED)
    if refusal is not None:
        saga.receives(ACCOMMODATED).receives(refusal)
    else:
        saga.operator("cancel").receives(ACCOMMODATED)
    undone = {type(each.command) for each in saga.log if each.compensates}
    assert undone == {ReleaseSeat, ReleaseRoom, ReleaseCar}
    for reply in (SeatReleased(trip_id="t-1"), RoomReleased(trip_id="t-1"), CarReleased(trip_id="t-1")):
        saga.receives(reply)
    assert saga.status == "compensated"


def test_a_full_hotel_takes_the_train_back_that_was_taken_instead_of_the_plane() -> None:
    saga = trip().receives(PlaneFull(trip_id="t-1")).receives(ON_THE_TRAIN).receives(HotelFull(trip_id="t-1"))
    assert sent(saga) == [ReleaseTrain]
    assert saga.receives(TrainReleased(trip_id="t-1")).status == "compensated"


def test_a_bank_that_says_nothing_is_asked_until_it_does() -> None:
    saga = trip().receives(SEATED).receives(ACCOMMODATED).advance(timedelta(hours=2))
    assert set(sent(saga)) == {ChargeCard}
    assert saga.status == "running"
    with pytest.raises(OperationRefused):
        saga.operator("cancel")
    assert saga.receives(CHARGED).status == "completed"
