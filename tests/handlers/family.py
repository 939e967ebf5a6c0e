"""A parent and its child over one database, with the test as the broker between them: it says what arrives when."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from messages import Command, Event, codec
from messages.envelope import Raw
from outbox.rows import outgoing
from sagas import Saga, announce, cancel, child, definition_of, start, step
from storage.statements import Statement
from tests.handlers.house import NAMESPACE, House, rows
from transport.topology import saga_queue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outbox.interface import Outgoing
    from outbox.unit import SqlStorage


class Ordered(Event, name="family.Ordered"):
    id: str


class Pay(Command, name="family.Pay"):
    id: str


class Paid(Event, name="family.Paid"):
    id: str


class Declined(Event, name="family.Declined"):
    id: str


class DeliveryRequested(Event, name="family.DeliveryRequested"):
    id: str
    address: str = "here"


class Pack(Command, name="family.Pack"):
    id: str


class Packed(Event, name="family.Packed"):
    id: str


class Torn(Event, name="family.Torn"):
    id: str


class Unpack(Command, name="family.Unpack"):
    id: str


class Unpacked(Event, name="family.Unpacked"):
    id: str


class Stuck(Event, name="family.Stuck"):
    id: str


class Drive(Command, name="family.Drive"):
    id: str


class Driven(Event, name="family.Driven"):
    id: str


class Delivered(Event, name="family.Delivered"):
    id: str


class NotDelivered(Event, name="family.NotDelivered"):
    id: str


class FetchBack(Command, name="family.FetchBack"):
    parcel: str


class FetchedBack(Event, name="family.FetchedBack"):
    parcel: str


class Withdrawn(Event, name="family.Withdrawn"):
    id: str


class Delivery(Saga, key="id", name="FamilyDelivery"):
    """The child: its key is called like its parent's and is another."""

    id: str

    @start
    def requested(cls, event: DeliveryRequested) -> Self:
        if event.address == "nowhere":
            raise ValueError(event.address)
        return cls(id=event.id)

    @step(success=Packed, failure=Torn)
    def pack(self) -> Pack:
        return Pack(id=self.id)

    @pack.compensation(success=Unpacked, failure=Stuck)
    def unpack(self) -> Unpack:
        return Unpack(id=self.id)

    @step(success=Driven, pivot=True)
    def drive(self) -> Drive:
        return Drive(id=self.id)

    @announce("completed")
    def delivered(self) -> Delivered:
        return Delivered(id=self.id)

    @announce("compensated")
    def not_delivered(self) -> NotDelivered:
        return NotDelivered(id=self.id)


class Order(Saga, key="id", name="FamilyOrder"):
    """The parent."""

    id: str
    address: str = "here"

    @start
    def ordered(cls, event: Ordered) -> Self:
        return cls(id=event.id, address="nowhere" if event.id == "lost" else "here")

    @child(Delivery, undo=FetchBack, timeout=timedelta(hours=1))
    def deliver(self) -> DeliveryRequested:
        return DeliveryRequested(id=f"d-{self.id}", address=self.address)

    @deliver.compensation(success=FetchedBack)
    def fetch_back(self) -> FetchBack:
        return FetchBack(parcel=f"d-{self.id}")

    @step(success=Paid, failure=Declined)
    def pay(self) -> Pay:
        return Pay(id=self.id)

    @cancel
    def withdrawn(self, event: Withdrawn) -> None:
        pass


class Family:
    """One process with both types. Nothing arrives but what the test carries."""

    def __init__(self, storage: SqlStorage, *, reuse: bool = False) -> None:
        self.storage = storage
        self.order = House(storage, definition_of(Order))
        self.delivery = House(storage, replace(definition_of(Delivery), key_reuse=reuse))

    async def leave(self, *names: str) -> list[Raw]:
        """Take what stands in the outbox, of these names if any are given, as it arrives where it goes to."""
        found = [outgoing(row) for row in await rows(self.storage, "select * from outbox order by outbox_id")]
        gone = [each for each in found if not names or each.envelope.name in names]
        async with self.storage.database.write() as session:
            for each in gone:
                leave = Statement.both("delete from outbox where message_id = :id")
                await session.fetch(leave, {"id": each.envelope.message_id})
        return [arriving(each) for each in gone]

    async def arrive(self, *raws: Raw) -> None:
        """Deliver what is for one of the two; what is for others is lost."""
        for raw in raws:
            for house in (self.order, self.delivery):
                if raw.routing_key == saga_queue(NAMESPACE, house.definition.type):
                    await house.take(raw)

    async def carry(self) -> list[str]:
        """Deliver whatever goes from one to the other, until nothing does; the names of all that went out."""
        names: list[str] = []
        while sent := await self.leave():
            names += [raw.type or "" for raw in sent]
            await self.arrive(*sent)
        return names

    async def begin(self, key: str = "1") -> None:
        """An order is placed; its delivery has not heard of it."""
        await self.order.take(self.order.message(Ordered(id=key)))

    async def withdraw(self, key: str = "1") -> None:
        """The order is cancelled."""
        await self.order.take(self.order.message(Withdrawn(id=key)))

    async def ends(self) -> dict[str, tuple[str, str | None]]:
        """The status of each instance, and why it ended so."""
        found = await rows(self.storage, "select business_key, status, end_reason from v_saga")
        return {row.business_key: (row.status, row.end_reason) for row in found}


def arriving(sent: Outgoing) -> Raw:
    """A message as it comes out of the queue that it goes to."""
    envelope = sent.envelope
    return Raw(
        body=envelope.body,
        routing_key=sent.routing_key,
        message_id=envelope.message_id,
        type=envelope.name,
        content_type="application/json",
        correlation_id=envelope.correlation_id,
        reply_to=envelope.reply_to,
        app_id=NAMESPACE,
        headers=dict(codec.headers_of(envelope)),
    )


def names(raws: Sequence[Raw]) -> list[str]:
    """What they are called, without the prefix."""
    return [(raw.type or "").rpartition(".")[2] for raw in raws]
