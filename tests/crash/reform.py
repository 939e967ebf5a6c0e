"""The next version of `court`, for the crash tests of moving instances: votes are ballots, and a scribe writes it down.

What the first version called a vote, a wait under way with its timer and all that is kept for it, has another name
here; what it counted as notes is called remarks; and there is one step more before the herald proclaims the case.
"""

from __future__ import annotations

from datetime import timedelta  # noqa: TC003 - the annotation of a rest is read when it is defined
from typing import Any, Literal, Self

from messages.catalog.ordering import OrderPlaced  # noqa: TC001 - the annotation of a start is read when it is defined
from sagas import Saga, cancel, decision, lifecycle, migrate, on, repeat, signal, sleep, start, step, wait
from tests.crash.court import (
    PATIENCE,
    RECESS,
    TERM,
    Closed,
    FileCase,
    LockAway,
    Noted,
    Opened,
    Over,
    Proclaim,
    StrikeCase,
    Voted,
    Withdrawn,
)
from tests.crash.travelling import Asked, Done, Failed, Undone


class WriteDown(Asked, name="scribe.Do"): ...


class ReformedCase(Saga, key="order_id", name="CourtCase", version=2):
    """One case."""

    order_id: str
    ballots: int
    silences: int
    remarks: int

    @migrate(1, places={"vote": "ballot"})
    @classmethod
    def from_first(cls, state: dict[str, Any]) -> Self:
        """The same numbers under other names."""
        return cls(
            order_id=state["order_id"], ballots=state["votes"], silences=state["silences"], remarks=state["notes"]
        )

    @start
    def placed(cls, event: OrderPlaced) -> Self:
        """The shop is brought to court."""
        return cls(order_id=event.order_id, ballots=0, silences=0, remarks=0)

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
    def ballot(self, event: Voted) -> None:
        """Somebody has an opinion."""
        self.ballots += 1

    @ballot.on_timeout
    def silence(self) -> None:
        """Nobody has."""
        self.silences += 1

    @decision
    def enough(self) -> bool:
        """So much for that."""
        return self.ballots + self.silences > 1

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
    def scribe(self) -> WriteDown:
        """For those who come after us."""
        return WriteDown(order_id=self.order_id)

    @step(success=Done)
    def herald(self) -> Proclaim:
        """Let everybody know."""
        return Proclaim(order_id=self.order_id)

    @signal
    def noted(self, event: Noted) -> None:
        """For the files."""
        self.remarks += 1

    @cancel
    def withdrawn(self, event: Withdrawn) -> None:
        """As if it had never been."""

    flow = (
        clerk
        >> repeat(recess >> ballot, until=enough, most=3)
        >> lifecycle("open", entering={"closed": vault}, final=["over"])
        >> scribe
        >> herald
    )
