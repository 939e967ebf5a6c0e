"""A process that waits for what people say, for the crash tests: a case before a court.

The clerk files it. Then there is a recess and a vote, and both again, until there were two votes or nobody has said
anything for too long. Then the case is open, or closed and in the vault, open again, for as long as nobody says that
it is over, nor does time; and the herald proclaims it. Meanwhile notes are taken, and it may be withdrawn.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self

from messages import Event
from messages.catalog.ordering import OrderPlaced  # noqa: TC001 - the annotation of a start is read when it is defined
from sagas import Saga, cancel, decision, lifecycle, on, repeat, signal, sleep, start, step, wait
from tests.crash.travelling import Asked, Done, Failed, Undone, desk

RECESS, PATIENCE, TERM = timedelta(seconds=0.2), timedelta(seconds=0.6), timedelta(seconds=1)


class Said(Event, abstract=True):
    """What somebody says of a case; `number` tells apart what is said more than once."""

    order_id: str
    number: int


class Voted(Said, name="court.Voted"): ...


class Noted(Said, name="court.Noted"): ...


class Closed(Said, name="court.Closed"): ...


class Opened(Said, name="court.Opened"): ...


class Over(Said, name="court.Over"): ...


class Withdrawn(Said, name="court.Withdrawn"): ...


class FileCase(Asked, name="clerk.Do"): ...


class StrikeCase(Asked, name="clerk.Undo"): ...


class LockAway(Asked, name="vault.Do"): ...


class Proclaim(Asked, name="herald.Do"): ...


class CourtCase(Saga, key="order_id", version=1):
    """One case."""

    order_id: str
    votes: int = 0
    silences: int = 0
    notes: int = 0

    @start
    def placed(cls, event: OrderPlaced) -> Self:
        """The shop is brought to court."""
        return cls(order_id=event.order_id)

    @step(success=Done, failure=Failed)
    def clerk(self) -> FileCase:
        """It gets a number."""
        return FileCase(order_id=self.order_id)

    @clerk.compensation(success=Undone)
    def no_clerk(self) -> StrikeCase:
        """Or not."""
        return StrikeCase(order_id=self.order_id)

    @sleep
    def recess(self) -> timedelta:
        """A moment to think it over."""
        return RECESS

    @wait(timeout=PATIENCE)
    def vote(self, event: Voted) -> None:
        """Somebody has an opinion."""
        self.votes += 1

    @vote.on_timeout
    def silence(self) -> None:
        """Nobody has."""
        self.silences += 1

    @decision
    def enough(self) -> bool:
        """So much for that."""
        return self.votes + self.silences > 1

    @on("open", elsewhere="ignore")
    def closes(self, event: Closed) -> Literal["closed"]:
        """Into the vault with it."""
        return "closed"

    @on("closed", elsewhere="keep")
    def opens(self, event: Opened) -> Literal["open"]:
        """Once more."""
        return "open"

    @on("open", "closed", after=TERM)
    def lapses(self) -> Literal["over"]:
        """Nobody cares any more."""
        return "over"

    @on("open", "closed")
    def ends(self, event: Over) -> Literal["over"]:
        """That is that."""
        return "over"

    @step(success=Done)
    def vault(self) -> LockAway:
        """Where it is safe."""
        return LockAway(order_id=self.order_id)

    @step(success=Done)
    def herald(self) -> Proclaim:
        """Let everybody know."""
        return Proclaim(order_id=self.order_id)

    @signal
    def noted(self, event: Noted) -> None:
        """For the files."""
        self.notes += 1

    @cancel
    def withdrawn(self, event: Withdrawn) -> None:
        """As if it had never been."""

    flow = (
        clerk
        >> repeat(recess >> vote, until=enough, most=3)
        >> lifecycle("open", entering={"closed": vault}, final=["over"])
        >> herald
    )


clerk, vault, herald = desk("clerk", FileCase, StrikeCase), desk("vault", LockAway), desk("herald", Proclaim)
