"""Book a trip: there by air or else by rail, a room, perhaps a car, all at once; then charge the card, and tell.

Until the card is charged everything can be given back. From there on there is no way back.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Self

from messages.catalog.trip import (
    CardCharged,
    CardRefused,
    CarReleased,
    CarReserved,
    ChargeCard,
    HotelFull,
    NoCar,
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
from sagas import Retry, Saga, alternative, announce, decision, parallel, start, step, when


class BookTrip(Saga, key="trip_id", version=1, deadline=timedelta(days=1)):
    """One trip of one traveller."""

    trip_id: str
    traveller: str
    price: Decimal
    with_car: bool
    seat: str | None = None
    coach: int | None = None
    room: int | None = None
    plate: str | None = None

    @start
    def requested(cls, event: TripRequested) -> Self:
        """The traveller has chosen."""
        return cls(trip_id=event.trip_id, traveller=event.traveller, price=event.price, with_car=event.with_car)

    @step(timeout=timedelta(minutes=1), failure=PlaneFull)
    def fly(self) -> ReserveSeat:
        """By air, if there is a seat."""
        return ReserveSeat(trip_id=self.trip_id, traveller=self.traveller)

    @fly.on_success
    def seated(self, reply: SeatReserved) -> None:
        """There is one."""
        self.seat = reply.seat

    @fly.compensation(success=SeatReleased)
    def stay_on_the_ground(self) -> ReleaseSeat:
        """Give the seat back."""
        return ReleaseSeat(trip_id=self.trip_id)

    @step(timeout=timedelta(minutes=1), failure=TrainFull)
    def ride(self) -> ReserveTrain:
        """Else by rail."""
        return ReserveTrain(trip_id=self.trip_id, traveller=self.traveller)

    @ride.on_success
    def placed(self, reply: TrainReserved) -> None:
        """There is a place on the train."""
        self.coach = reply.coach

    @ride.compensation(success=TrainReleased)
    def get_off(self) -> ReleaseTrain:
        """Give the place back."""
        return ReleaseTrain(trip_id=self.trip_id)

    @step(timeout=timedelta(minutes=1), failure=HotelFull)
    def stay(self) -> ReserveRoom:
        """Somewhere to sleep."""
        return ReserveRoom(trip_id=self.trip_id)

    @stay.on_success
    def accommodated(self, reply: RoomReserved) -> None:
        """There is a room."""
        self.room = reply.room

    @stay.compensation(success=RoomReleased)
    def leave(self) -> ReleaseRoom:
        """Give the room back."""
        return ReleaseRoom(trip_id=self.trip_id)

    @decision
    def wants_car(self) -> bool:
        """The traveller has asked for a car."""
        return self.with_car

    @step(timeout=timedelta(minutes=1), failure=NoCar)
    def rent(self) -> ReserveCar:
        """Wheels for the last miles."""
        return ReserveCar(trip_id=self.trip_id)

    @rent.on_success
    def motorised(self, reply: CarReserved) -> None:
        """There is a car."""
        self.plate = reply.plate

    @rent.compensation(success=CarReleased)
    def walk(self) -> ReleaseCar:
        """Give the car back."""
        return ReleaseCar(trip_id=self.trip_id)

    @step(pivot=True, success=CardCharged, failure=CardRefused, retry=Retry(cap=timedelta(minutes=10)))
    def charge(self) -> ChargeCard:
        """Take the money. It does not come back."""
        return ChargeCard(trip_id=self.trip_id, amount=self.price)

    @step(reply=False)
    def tell(self) -> SendTickets:
        """Say how it goes."""
        way = f"seat {self.seat}" if self.seat is not None else f"coach {self.coach}"
        car = [f"car {self.plate}"] if self.plate is not None else []
        return SendTickets(trip_id=self.trip_id, traveller=self.traveller, lines=[way, f"room {self.room}", *car])

    @announce("completed")
    def confirmed(self) -> TripConfirmed:
        """Whoever wants to know hears that it worked."""
        return TripConfirmed(trip_id=self.trip_id, traveller=self.traveller)

    @announce("compensated")
    def failed(self) -> TripFailed:
        """Or that it did not, and nothing is left of it."""
        return TripFailed(trip_id=self.trip_id, traveller=self.traveller)

    flow = parallel(alternative(fly, ride), stay, when(wants_car, rent)) >> charge >> tell
