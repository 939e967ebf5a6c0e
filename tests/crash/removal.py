"""A process whose steps are sagas, for the crash tests: a household moves, its rooms are emptied side by side.

The van comes first. Each room is a saga of its own: its things are boxed and carried. The notary hands over the keys,
or does not. A room that was emptied is put in order again by the sweeper; one that is being emptied is told to stop.
"""

from __future__ import annotations

from typing import Self

from messages import Event
from messages.catalog.ordering import OrderPlaced  # noqa: TC001 - the annotation of a start is read when it is defined
from sagas import Saga, announce, child, parallel, start, step
from tests.crash import rooms
from tests.crash.freight import Piece
from tests.crash.travelling import Asked, Done, Failed, Undone


class Come(Asked, name="van.Do"): ...


class Leave(Asked, name="van.Undo"): ...


class PutInBoxes(Asked, name="boxes.Do"): ...


class Unpack(Asked, name="boxes.Undo"): ...


class CarryDown(Asked, name="carrier.Do"): ...


class CarryUp(Asked, name="carrier.Undo"): ...


class Sweep(Piece, name="sweeper.Do"): ...


class HandOver(Asked, name="notary.Do"): ...


class RoomWanted(Event, name="removal.RoomWanted"):
    """Empty this room."""

    order_id: str


class RoomEmpty(Event, name="removal.RoomEmpty"):
    """Nothing is left in it."""

    order_id: str


class RoomAsItWas(Event, name="removal.RoomAsItWas"):
    """Everything is in it."""

    order_id: str


class Room(Saga, key="order_id", version=1):
    """One room."""

    order_id: str

    @start
    def wanted(cls, event: RoomWanted) -> Self:
        """Somebody moves."""
        return cls(order_id=event.order_id)

    @step(success=Done, failure=Failed)
    def box(self) -> PutInBoxes:
        """The small things."""
        return PutInBoxes(order_id=self.order_id)

    @box.compensation(success=Undone)
    def unbox(self) -> Unpack:
        """Out of the boxes."""
        return Unpack(order_id=self.order_id)

    @step(success=Done, failure=Failed)
    def carry(self) -> CarryDown:
        """Everything."""
        return CarryDown(order_id=self.order_id)

    @carry.compensation(success=Undone)
    def carry_back(self) -> CarryUp:
        """Upstairs again."""
        return CarryUp(order_id=self.order_id)

    @announce("completed")
    def empty(self) -> RoomEmpty:
        """Well done."""
        return RoomEmpty(order_id=self.order_id)

    @announce("compensated")
    def as_it_was(self) -> RoomAsItWas:
        """Not at all."""
        return RoomAsItWas(order_id=self.order_id)


class Removal(Saga, key="order_id", version=1):
    """One household."""

    order_id: str

    @start
    def placed(cls, event: OrderPlaced) -> Self:
        """The shop does removals, too."""
        return cls(order_id=event.order_id)

    @step(success=Done, failure=Failed)
    def van(self) -> Come:
        """In front of the house."""
        return Come(order_id=self.order_id)

    @van.compensation(success=Undone)
    def no_van(self) -> Leave:
        """Or not."""
        return Leave(order_id=self.order_id)

    @child(Room, undo=Sweep)
    def kitchen(self) -> RoomWanted:
        """Downstairs."""
        return RoomWanted(order_id=rooms.room(self.order_id, "kitchen"))

    @kitchen.compensation(success=Done)
    def sweep_kitchen(self) -> Sweep:
        """As if nobody had been there."""
        return Sweep(order_id=self.order_id, piece=rooms.room(self.order_id, "kitchen"))

    @child(Room, undo=Sweep)
    def attic(self) -> RoomWanted:
        """Upstairs."""
        return RoomWanted(order_id=rooms.room(self.order_id, "attic"))

    @attic.compensation(success=Done)
    def sweep_attic(self) -> Sweep:
        """As if nobody had been there."""
        return Sweep(order_id=self.order_id, piece=rooms.room(self.order_id, "attic"))

    @step(success=Done, failure=Failed, pivot=True)
    def notary(self) -> HandOver:
        """The keys."""
        return HandOver(order_id=self.order_id)

    flow = van >> parallel(kitchen, attic) >> notary
