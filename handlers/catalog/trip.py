"""The participants of booking a trip: airline, railway, hotel, rental, bank and post, each with a table of its own.

They stand in for real services, so some words in the trip's id steer them: `plane-full`, `train-full`, `hotel-full`,
`no-car` and `card-refused` say no.

An undo finds what it takes back by `context.compensates`, never by the body: the saga may not have heard the reply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import NAMESPACE_DNS, uuid5

from sqlalchemy import text

from handlers import Context, Participant
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
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_TRAVEL = uuid5(NAMESPACE_DNS, "travel.antiphon")


def _drawn(idempotency_key: str, most: int) -> int:
    """A number from 1 that is the same however often the effect is tried."""
    return uuid5(_TRAVEL, idempotency_key).int % most + 1


class _Book:
    """What is kept free for which trip, in a table of its own."""

    def __init__(self, table: str) -> None:
        self._create = text(
            f"create table if not exists {table} (idempotency_key text primary key, trip_id text not null, what text)"
        )
        self._keep = text(f"insert into {table} values (:idempotency_key, :trip_id, :what)")  # noqa: S608 - our own name
        self._release = text(f"delete from {table} where idempotency_key = :idempotency_key")  # noqa: S608

    async def open(self, connection: AsyncConnection) -> None:
        """Make the table."""
        await connection.execute(self._create)

    async def keep(self, context: Context, trip_id: str, what: str) -> None:
        """Keep something free."""
        row = {"idempotency_key": context.idempotency_key, "trip_id": trip_id, "what": what}
        await context.connection.execute(self._keep, row)

    async def release(self, context: Context) -> None:
        """Keep it free no longer, if it was."""
        await context.connection.execute(self._release, {"idempotency_key": context.compensates})


# airline

airline = Participant("airline")
_seats = _Book("seat")
airline.setup(_seats.open)


@airline.handles
async def reserve_seat(command: ReserveSeat, context: Context) -> SeatReserved | PlaneFull:
    """A seat, unless the plane is full."""
    if "plane-full" in command.trip_id:
        return PlaneFull(trip_id=command.trip_id)
    seat = f"{_drawn(context.idempotency_key, 30)}{'ABCDEF'[_drawn(command.trip_id, 6) - 1]}"
    await _seats.keep(context, command.trip_id, seat)
    return SeatReserved(trip_id=command.trip_id, seat=seat)


@airline.handles
async def release_seat(command: ReleaseSeat, context: Context) -> SeatReleased:
    """Whoever asks is asked no questions."""
    await _seats.release(context)
    return SeatReleased(trip_id=command.trip_id)


# railway

railway = Participant("railway")
_places = _Book("train_place")
railway.setup(_places.open)


@railway.handles
async def reserve_train(command: ReserveTrain, context: Context) -> TrainReserved | TrainFull:
    """A place, unless the train is full."""
    if "train-full" in command.trip_id:
        return TrainFull(trip_id=command.trip_id)
    coach = _drawn(context.idempotency_key, 12)
    await _places.keep(context, command.trip_id, str(coach))
    return TrainReserved(trip_id=command.trip_id, coach=coach)


@railway.handles
async def release_train(command: ReleaseTrain, context: Context) -> TrainReleased:
    """The place is free again."""
    await _places.release(context)
    return TrainReleased(trip_id=command.trip_id)


# hotel

hotel = Participant("hotel")
_rooms = _Book("room")
hotel.setup(_rooms.open)


@hotel.handles
async def reserve_room(command: ReserveRoom, context: Context) -> RoomReserved | HotelFull:
    """A room, unless all are taken."""
    if "hotel-full" in command.trip_id:
        return HotelFull(trip_id=command.trip_id)
    room = _drawn(context.idempotency_key, 400)
    await _rooms.keep(context, command.trip_id, str(room))
    return RoomReserved(trip_id=command.trip_id, room=room)


@hotel.handles
async def release_room(command: ReleaseRoom, context: Context) -> RoomReleased:
    """The room is free again."""
    await _rooms.release(context)
    return RoomReleased(trip_id=command.trip_id)


# rental

rental = Participant("rental")
_cars = _Book("car")
rental.setup(_cars.open)


@rental.handles
async def reserve_car(command: ReserveCar, context: Context) -> CarReserved | NoCar:
    """A car, unless none is left."""
    if "no-car" in command.trip_id:
        return NoCar(trip_id=command.trip_id)
    plate = f"AN {_drawn(context.idempotency_key, 9_999):04}"
    await _cars.keep(context, command.trip_id, plate)
    return CarReserved(trip_id=command.trip_id, plate=plate)


@rental.handles
async def release_car(command: ReleaseCar, context: Context) -> CarReleased:
    """The car is free again."""
    await _cars.release(context)
    return CarReleased(trip_id=command.trip_id)


# bank

bank = Participant("bank")
_charges = _Book("charge")
bank.setup(_charges.open)


@bank.handles
async def charge(command: ChargeCard, context: Context) -> CardCharged | CardRefused:
    """The money, unless the card is refused."""
    if "card-refused" in command.trip_id:
        return CardRefused(trip_id=command.trip_id)
    charge_id = f"charge-{_drawn(context.idempotency_key, 10**9)}"
    await _charges.keep(context, command.trip_id, f"{charge_id} {command.amount}")
    return CardCharged(trip_id=command.trip_id, charge_id=charge_id)


# post

post = Participant("post")
_letters = _Book("itinerary")
post.setup(_letters.open)


@post.handles
async def send_tickets(command: SendTickets, context: Context) -> None:
    """Write to the traveller."""
    await _letters.keep(context, command.trip_id, "; ".join(command.lines))
