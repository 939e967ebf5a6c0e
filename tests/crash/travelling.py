"""A process whose flow has every word that branches, for the crash tests: to a place, somewhere to stay, perhaps a car.

There by plane, with a seat in the lounge, or else by train; in the inn or the hostel, whichever says yes first. Then a
short rest, then the cashier, who gives nothing back, then a letter. An order with `car` in its id wants one. The plane
is not waited for long; everybody else is.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Self

from handlers import Participant
from messages import Command, Event
from messages.catalog.ordering import OrderPlaced  # noqa: TC001 - the annotation of a start is read when it is defined
from sagas import Retry, Saga, alternative, decision, parallel, sleep, start, step, when
from tests.crash.script import Word, directives

SHORT = timedelta(seconds=0.5)


class Asked(Command, abstract=True):
    """What every command is about."""

    order_id: str


class Done(Event, name="travel.Done"):
    """It is done."""

    order_id: str


class Failed(Event, name="travel.Failed"):
    """It is not done, and will not be."""

    order_id: str


class Busy(Event, name="travel.Busy"):
    """Not now."""

    order_id: str


class Undone(Event, name="travel.Undone"):
    """It is not done any more."""

    order_id: str


class Fly(Asked, name="plane.Do"): ...


class DoNotFly(Asked, name="plane.Undo"): ...


class Relax(Asked, name="lounge.Do"): ...


class GetUp(Asked, name="lounge.Undo"): ...


class Ride(Asked, name="train.Do"): ...


class GetOff(Asked, name="train.Undo"): ...


class StayAtInn(Asked, name="inn.Do"): ...


class LeaveInn(Asked, name="inn.Undo"): ...


class StayAtHostel(Asked, name="hostel.Do"): ...


class LeaveHostel(Asked, name="hostel.Undo"): ...


class Rent(Asked, name="car.Do"): ...


class ReturnCar(Asked, name="car.Undo"): ...


class Charge(Asked, name="cashier.Do"): ...


class Tell(Asked, name="post.Do"): ...


class TravelOrder(Saga, key="order_id", version=1):
    """One traveller."""

    order_id: str

    @start
    def placed(cls, event: OrderPlaced) -> Self:
        """The shop sells travels, too."""
        return cls(order_id=event.order_id)

    @step(success=Done, failure=Failed, timeout=timedelta(seconds=1), retry=Retry(attempts=2))
    def plane(self) -> Fly:
        """By air."""
        return Fly(order_id=self.order_id)

    @plane.compensation(success=Undone)
    def no_plane(self) -> DoNotFly:
        """Or not."""
        return DoNotFly(order_id=self.order_id)

    @step(success=Done, failure=Failed)
    def lounge(self) -> Relax:
        """Who flies waits in the lounge."""
        return Relax(order_id=self.order_id)

    @lounge.compensation(success=Undone)
    def no_lounge(self) -> GetUp:
        """Or not."""
        return GetUp(order_id=self.order_id)

    @step(success=Done, failure=Failed)
    def train(self) -> Ride:
        """Else by rail."""
        return Ride(order_id=self.order_id)

    @train.compensation(success=Undone)
    def no_train(self) -> GetOff:
        """Or not."""
        return GetOff(order_id=self.order_id)

    @step(success=Done, failure=Failed)
    def inn(self) -> StayAtInn:
        """Somewhere to sleep."""
        return StayAtInn(order_id=self.order_id)

    @inn.compensation(success=Undone)
    def no_inn(self) -> LeaveInn:
        """Or not."""
        return LeaveInn(order_id=self.order_id)

    @step(success=Done, failure=Failed)
    def hostel(self) -> StayAtHostel:
        """Or somewhere else, whichever is faster."""
        return StayAtHostel(order_id=self.order_id)

    @hostel.compensation(success=Undone)
    def no_hostel(self) -> LeaveHostel:
        """Or not."""
        return LeaveHostel(order_id=self.order_id)

    @decision
    def wants_car(self) -> bool:
        """The order says so."""
        return "car" in self.order_id

    @step(success=Done, failure=Failed)
    def car(self) -> Rent:
        """Wheels."""
        return Rent(order_id=self.order_id)

    @car.compensation(success=Undone)
    def no_car(self) -> ReturnCar:
        """Or not."""
        return ReturnCar(order_id=self.order_id)

    @sleep
    def rest(self) -> timedelta:
        """A moment to think it over."""
        return SHORT

    @step(success=Done, failure=Failed, pivot=True)
    def cashier(self) -> Charge:
        """The money."""
        return Charge(order_id=self.order_id)

    @step(success=Done, transient=Busy, retry=Retry(backoff=SHORT))
    def post(self) -> Tell:
        """The letter."""
        return Tell(order_id=self.order_id)

    flow = (
        parallel(
            alternative(plane >> lounge, train),
            parallel(inn, hostel, first=1),
            when(wants_car, car),
        )
        >> rest
        >> cashier
        >> post
    )


def desk(name: str, do: type[Asked], undo: type[Asked] | None = None) -> Participant:
    """A participant for one process: it refuses where an order's id says so; what it did the launcher writes down."""
    made = Participant(name)

    @made.handles
    async def take(command: do) -> Done | Failed:  # type: ignore[valid-type]
        told = directives(command.order_id).get((name, "do"))  # type: ignore[attr-defined]
        refuses = told is not None and told.word is Word.FAIL
        return (Failed if refuses else Done)(order_id=command.order_id)  # type: ignore[attr-defined]

    if undo is not None:

        @made.handles
        async def take_back(command: undo) -> Undone:  # type: ignore[valid-type]
            return Undone(order_id=command.order_id)  # type: ignore[attr-defined]

    return made


plane, lounge, train = desk("plane", Fly, DoNotFly), desk("lounge", Relax, GetUp), desk("train", Ride, GetOff)
inn, hostel = desk("inn", StayAtInn, LeaveInn), desk("hostel", StayAtHostel, LeaveHostel)
car, cashier, post = desk("car", Rent, ReturnCar), desk("cashier", Charge), desk("post", Tell)
