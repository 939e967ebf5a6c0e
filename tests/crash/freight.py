"""A process that works off lists, for the crash tests: a ship is loaded, crate by crate, and sails.

The pilot brings it in. Then the crane loads the crates, a few at once, and beside it the papers are stamped, of which
one that nobody answers is done without. Then the captain sails, or will not; who has sailed does not come back.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Self

from messages.catalog.ordering import OrderPlaced  # noqa: TC001 - the annotation of a start is read when it is defined
from sagas import Retry, Saga, each, parallel, start, step
from tests.crash import loads
from tests.crash.travelling import Asked, Busy, Done, Failed, Undone

SHORT = timedelta(seconds=0.2)


class BringIn(Asked, name="pilot.Do"): ...


class LeadOut(Asked, name="pilot.Undo"): ...


class Piece(Asked, abstract=True):
    """What every command is about that is about one item."""

    piece: str


class Lift(Piece, name="crane.Do"): ...


class PutBack(Piece, name="crane.Undo"): ...


class Stamp(Piece, name="stamp.Do"): ...


class Void(Piece, name="stamp.Undo"): ...


class Sail(Asked, name="captain.Do"): ...


class Freight(Saga, key="order_id", version=1):
    """One ship."""

    order_id: str
    crates: list[str]
    papers: list[str]
    loaded: int = 0
    refused: int = 0
    unloaded: int = 0
    stamped: int = 0
    voided: int = 0

    @start
    def placed(cls, event: OrderPlaced) -> Self:
        """What it carries is told by the order's id."""
        load = loads.load(event.order_id)
        return cls(
            order_id=event.order_id,
            crates=load.items(event.order_id, "load"),
            papers=load.items(event.order_id, "clear"),
        )

    @step(success=Done, failure=Failed)
    def pilot(self) -> BringIn:
        """To its berth."""
        return BringIn(order_id=self.order_id)

    @pilot.compensation(success=Undone)
    def no_pilot(self) -> LeadOut:
        """Or away from it."""
        return LeadOut(order_id=self.order_id)

    @each(
        "crates",
        at_once=loads.AT_ONCE["load"],
        tolerate=loads.TOLERATED["load"],
        transient=Busy,
        retry=Retry(backoff=SHORT),
    )
    def load(self, crate: str) -> Lift:
        """On board with it."""
        return Lift(order_id=self.order_id, piece=crate)

    @load.on_success
    def on_board(self, reply: Done, crate: str) -> None:
        """One more."""
        self.loaded += 1

    @load.on_failure
    def left_behind(self, reply: Failed, crate: str) -> None:
        """Too heavy."""
        self.refused += 1

    @load.compensation
    def unload(self, crate: str) -> PutBack:
        """Back on the quay."""
        return PutBack(order_id=self.order_id, piece=crate)

    @unload.on_success
    def on_the_quay(self, reply: Undone, crate: str) -> None:
        """One less."""
        self.unloaded += 1

    @each(
        "papers",
        at_once=loads.AT_ONCE["clear"],
        tolerate=loads.TOLERATED["clear"],
        failure=Failed,
        timeout=timedelta(seconds=1),
        retry=Retry(attempts=2),
    )
    def clear(self, paper: str) -> Stamp:
        """Nobody waits long for a stamp."""
        return Stamp(order_id=self.order_id, piece=paper)

    @clear.on_success
    def stamped_it(self, reply: Done, paper: str) -> None:
        """It has one, however late."""
        self.stamped += 1

    @clear.compensation(timeout=timedelta(seconds=1))
    def void(self, paper: str) -> Void:
        """As if it had none."""
        return Void(order_id=self.order_id, piece=paper)

    @void.on_success
    def voided_it(self, reply: Undone, paper: str) -> None:
        """It has none."""
        self.voided += 1

    @step(success=Done, failure=Failed, pivot=True)
    def captain(self) -> Sail:
        """Anchors aweigh."""
        return Sail(order_id=self.order_id)

    flow = pilot >> parallel(load, clear) >> captain
