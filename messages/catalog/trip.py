"""The messages of booking a trip: there by air or by rail, a room, a car for whoever wants one, then the money.

Every message carries the trip's id, which is the business key of the process.
"""

from __future__ import annotations

from decimal import Decimal

from messages import Command, Event


class TripRequested(Event, name="travel.TripRequested", version=1):
    """A traveller has chosen a trip. It starts the process."""

    trip_id: str
    traveller: str
    price: Decimal
    with_car: bool = False


class TripConfirmed(Event, name="trip.TripConfirmed", version=1):
    """The trip is booked and paid. Told to whoever wants to know."""

    trip_id: str
    traveller: str


class TripFailed(Event, name="trip.TripFailed", version=1):
    """There is no trip, and nothing is kept of it. Told to whoever wants to know."""

    trip_id: str
    traveller: str


# airline


class ReserveSeat(Command, name="airline.ReserveSeat", version=1):
    """Keep a seat on the plane free for the traveller."""

    trip_id: str
    traveller: str


class SeatReserved(Event, name="airline.SeatReserved", version=1):
    """The seat is kept free."""

    trip_id: str
    seat: str


class PlaneFull(Event, name="airline.PlaneFull", version=1):
    """There is no seat on the plane. None is kept free."""

    trip_id: str


class ReleaseSeat(Command, name="airline.ReleaseSeat", version=1):
    """Keep no seat free any more, if one was kept."""

    trip_id: str


class SeatReleased(Event, name="airline.SeatReleased", version=1):
    """No seat is kept free for the trip."""

    trip_id: str


# railway


class ReserveTrain(Command, name="railway.ReserveTrain", version=1):
    """Keep a place on the train free for the traveller."""

    trip_id: str
    traveller: str


class TrainReserved(Event, name="railway.TrainReserved", version=1):
    """The place is kept free."""

    trip_id: str
    coach: int


class TrainFull(Event, name="railway.TrainFull", version=1):
    """There is no place on the train. None is kept free."""

    trip_id: str


class ReleaseTrain(Command, name="railway.ReleaseTrain", version=1):
    """Keep no place free any more, if one was kept."""

    trip_id: str


class TrainReleased(Event, name="railway.TrainReleased", version=1):
    """No place is kept free for the trip."""

    trip_id: str


# hotel


class ReserveRoom(Command, name="hotel.ReserveRoom", version=1):
    """Keep a room free."""

    trip_id: str


class RoomReserved(Event, name="hotel.RoomReserved", version=1):
    """The room is kept free."""

    trip_id: str
    room: int


class HotelFull(Event, name="hotel.HotelFull", version=1):
    """There is no room. None is kept free."""

    trip_id: str


class ReleaseRoom(Command, name="hotel.ReleaseRoom", version=1):
    """Keep no room free any more, if one was kept."""

    trip_id: str


class RoomReleased(Event, name="hotel.RoomReleased", version=1):
    """No room is kept free for the trip."""

    trip_id: str


# rental


class ReserveCar(Command, name="rental.ReserveCar", version=1):
    """Keep a car free."""

    trip_id: str


class CarReserved(Event, name="rental.CarReserved", version=1):
    """The car is kept free."""

    trip_id: str
    plate: str


class NoCar(Event, name="rental.NoCar", version=1):
    """There is no car. None is kept free."""

    trip_id: str


class ReleaseCar(Command, name="rental.ReleaseCar", version=1):
    """Keep no car free any more, if one was kept."""

    trip_id: str


class CarReleased(Event, name="rental.CarReleased", version=1):
    """No car is kept free for the trip."""

    trip_id: str


# bank


class ChargeCard(Command, name="bank.ChargeCard", version=1):
    """Charge the traveller's card. What is charged is never given back by this process."""

    trip_id: str
    amount: Decimal


class CardCharged(Event, name="bank.CardCharged", version=1):
    """The card was charged."""

    trip_id: str
    charge_id: str


class CardRefused(Event, name="bank.CardRefused", version=1):
    """The card was not charged, and will not be."""

    trip_id: str


# post


class SendTickets(Command, name="post.SendTickets", version=1):
    """Tell the traveller how it goes. Nobody answers."""

    trip_id: str
    traveller: str
    lines: list[str]
