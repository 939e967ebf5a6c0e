"""A second process that hears of the same orders as the first: it has each one noted, and that is all.

With it one message has two consumers, of which one may have committed when the other has not.
"""

from __future__ import annotations

from typing import Self

from handlers import Participant
from messages import Command, Event
from messages.catalog.ordering import OrderPlaced  # noqa: TC001 - the annotation of a start is read when it is defined
from sagas import Saga, start, step


class NoteOrder(Command, name="audit.NoteOrder"):
    """Note that an order was placed."""

    order_id: str


class OrderNoted(Event, name="audit.OrderNoted"):
    """It is noted."""

    order_id: str


class AuditOrder(Saga, key="order_id", version=1):
    """Have every order noted."""

    order_id: str

    @start
    def placed(cls, event: OrderPlaced) -> Self:
        """The shop has taken the order."""
        return cls(order_id=event.order_id)

    @step(success=OrderNoted)
    def note(self) -> NoteOrder:
        """Tell the auditor."""
        return NoteOrder(order_id=self.order_id)


audit = Participant("audit")


@audit.handles
async def take_note(command: NoteOrder) -> OrderNoted:
    """It is enough to have heard it."""
    return OrderNoted(order_id=command.order_id)
