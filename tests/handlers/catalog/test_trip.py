"""Airline, railway, hotel, rental, bank and post over each database: kept once, released by the key of what kept it."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from handlers.catalog.trip import airline, bank, hotel, post, railway, rental
from messages.catalog.trip import (
    ChargeCard,
    ReleaseCar,
    ReleaseRoom,
    ReleaseSeat,
    ReleaseTrain,
    ReserveCar,
    ReserveRoom,
    ReserveSeat,
    ReserveTrain,
    SendTickets,
)
from tests.handlers.desk import Desk, asked, undo_of

if TYPE_CHECKING:
    from handlers import Participant
    from messages import Command
    from outbox.unit import SqlStorage

KEPT = [
    (airline, "seat", ReserveSeat(trip_id="t-1", traveller="Ada"), ReleaseSeat(trip_id="t-1")),
    (railway, "train_place", ReserveTrain(trip_id="t-1", traveller="Ada"), ReleaseTrain(trip_id="t-1")),
    (hotel, "room", ReserveRoom(trip_id="t-1"), ReleaseRoom(trip_id="t-1")),
    (rental, "car", ReserveCar(trip_id="t-1"), ReleaseCar(trip_id="t-1")),
]
REFUSED = [
    (airline, ReserveSeat(trip_id="plane-full", traveller="Ada"), "airline.PlaneFull"),
    (railway, ReserveTrain(trip_id="train-full", traveller="Ada"), "railway.TrainFull"),
    (hotel, ReserveRoom(trip_id="hotel-full"), "hotel.HotelFull"),
    (rental, ReserveCar(trip_id="no-car"), "rental.NoCar"),
    (bank, ChargeCard(trip_id="card-refused", amount=Decimal(1)), "bank.CardRefused"),
]


async def at_work(participant: Participant, storage: SqlStorage) -> Desk:
    async with storage.transaction() as unit:
        for table in ("seat", "train_place", "room", "car", "charge", "itinerary"):
            await unit.session.connection.execute(text(f"drop table if exists {table}"))
    return await Desk(participant, storage).open()


@pytest.mark.parametrize(("participant", "table", "do", "undo"), KEPT, ids=[each[1] for each in KEPT])
async def test_what_is_kept_once_is_released(
    storage: SqlStorage, participant: Participant, table: str, do: Command, undo: Command
) -> None:
    desk = await at_work(participant, storage)
    try:
        await desk.take(asked(do), asked(do))
        assert len(await desk.rows(f"select * from {table}")) == 1  # noqa: S608
        await desk.take(undo_of(undo), undo_of(undo))
        assert not await desk.rows(f"select * from {table}")  # noqa: S608
    finally:
        await desk.close()


@pytest.mark.parametrize(("participant", "do", "reply"), REFUSED, ids=[each[2] for each in REFUSED])
async def test_the_trips_id_says_who_refuses(
    storage: SqlStorage, participant: Participant, do: Command, reply: str
) -> None:
    desk = await at_work(participant, storage)
    try:
        await desk.take(asked(do))
        assert [delivery.raw.type for delivery in await desk.replies(1)] == [reply]
    finally:
        await desk.close()


async def test_the_card_is_charged_once_and_the_traveller_written_to(storage: SqlStorage) -> None:
    desk = await at_work(bank, storage)
    try:
        charge = ChargeCard(trip_id="t-1", amount=Decimal("9.90"))
        await desk.take(asked(charge), asked(charge))
        [row] = await desk.rows("select what from charge")
        assert row.what.endswith(" 9.90")
    finally:
        await desk.close()
    desk = await at_work(post, storage)
    try:
        await desk.take(asked(SendTickets(trip_id="t-1", traveller="Ada", lines=["seat 12A", "room 101"])))
        [row] = await desk.rows("select what from itinerary")
        assert row.what == "seat 12A; room 101"
    finally:
        await desk.close()
