"""The ordering saga with words in its flow that wait for events, for stories: a wait, a loop, states, an alternative.

All are of the one type `PlaceOrder`. Times are over as soon as anybody looks.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from messages import Event
from sagas import alternative, cancel, decision, lifecycle, on, parallel, repeat, signal, wait
from sagas.catalog.ordering import PlaceOrder

AT_ONCE = timedelta(microseconds=1)


class Told(Event, abstract=True):
    """Something that is told of an order."""

    order_id: str


class Approved(Told, name="story.Approved"): ...


class Refused(Told, name="story.Refused"): ...


class Changed(Told, name="story.Changed"): ...


class CalledOff(Told, name="story.CalledOff"): ...


class Closed(Told, name="story.Closed"): ...


class Opened(Told, name="story.Opened"): ...


class Over(Told, name="story.Over"): ...


class Eventful(PlaceOrder, abstract=True):
    """An order that can be changed and called off, and counts what it was told."""

    changes: int = 0
    approvals: int = 0

    @signal
    def changed(self, event: Changed) -> None:
        """It may come at any time."""
        self.changes += 1

    @cancel
    def called_off(self, event: CalledOff) -> None:
        """It may come at any time."""


class Approving(Eventful, key="order_id", name="PlaceOrder", version=1):
    """Somebody has to say yes, and nobody waits for ever."""

    @wait(timeout=AT_ONCE)
    def approval(self, event: Approved) -> None:
        """Yes."""
        self.approvals += 1

    @approval.on_failure
    def refusal(self, event: Refused) -> None:
        """No."""

    flow = PlaceOrder.reserve >> approval >> PlaceOrder.pay >> PlaceOrder.label


class Asking(Eventful, key="order_id", name="PlaceOrder", version=1):
    """Somebody has to say yes twice."""

    @wait(timeout=AT_ONCE)
    def approval(self, event: Approved) -> None:
        """Yes."""
        self.approvals += 1

    @approval.on_timeout
    def silence(self) -> None:
        """Silence is no yes, nor a no."""

    @decision
    def enough(self) -> bool:
        """Two are enough."""
        return self.approvals > 1

    flow = repeat(PlaceOrder.reserve >> approval, until=enough, most=3) >> PlaceOrder.pay >> PlaceOrder.label


class Doubting(Eventful, key="order_id", name="PlaceOrder", version=1):
    """Whoever says no only has it sent another way."""

    @wait
    def approval(self, event: Approved) -> None:
        """Yes."""
        self.approvals += 1

    @approval.on_failure
    def refusal(self, event: Refused) -> None:
        """No."""

    flow = parallel(alternative(PlaceOrder.reserve >> approval, PlaceOrder.label), PlaceOrder.pay)


class Living(Eventful, key="order_id", name="PlaceOrder", version=1):
    """An account more than an order: open and closed, until it is over."""

    @on("open", elsewhere="ignore")
    def closes(self, event: Closed) -> Literal["closed"]:
        """What comes when it is closed already changes nothing."""
        return "closed"

    @on("closed", elsewhere="keep")
    def opens(self, event: Opened) -> Literal["open"]:
        """What comes while it is open is kept until it is closed."""
        return "open"

    @on("open", elsewhere="dead_letter")
    def approved(self, event: Approved) -> None:
        """Told, and nothing else."""
        self.approvals += 1

    @on("closed", after=AT_ONCE)
    def in_time(self) -> Literal["open", "over"]:
        """It opens by itself, unless it was approved too often."""
        return "over" if self.approvals > 2 else "open"

    @on("open", "closed")
    def ends(self, event: Over) -> Literal["over"]:
        """Now it is over."""
        return "over"

    flow = (
        PlaceOrder.reserve >> lifecycle("open", entering={"closed": PlaceOrder.pay}, final=["over"]) >> PlaceOrder.label
    )


EVENTS = (Approved, Refused, Changed, CalledOff, Closed, Opened, Over)
EVENTFUL = (Approving, Asking, Doubting, Living)
