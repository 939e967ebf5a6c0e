"""Which destinations nothing is published to for now, because everything sent there comes back.

A destination is an exchange and a routing key. Each has a circuit of its own, so that the rows of a participant that is
gone cost the others nothing:

| circuit   | confirmed | came back                         | nobody knows             | its pause is over |
|-----------|-----------|-----------------------------------|--------------------------|-------------------|
| closed    | closed    | closed; open at the fifth in turn | closed                   |                   |
| open      | closed    | open                              | open                     | half-open         |
| half-open | closed    | open, for twice as long           | open, for as long again  |                   |

While it is open nothing is published; half-open, one row is, as a probe. What still comes back of earlier publications
while it is open says nothing new; what is confirmed says that it is over, whatever the circuit. A pause is 1 s, then
twice as long each time, up to 60 s, less a quarter of it by chance.

Pure: time and chance are arguments.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

from messages.value import value

if TYPE_CHECKING:
    from outbox.interface import Destination

THRESHOLD = 5
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
_JITTER = 0.25
MOST = 1_000
"""Destinations that are remembered. Whoever asks may name any queue for the answer, also ten thousand that are none."""


class State(StrEnum):
    """What is published to a destination: everything, nothing, or one row."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@value
class Circuit:
    """One destination that something came back from. Times are on the caller's clock, in seconds."""

    state: State = State.CLOSED
    failures: int = 0
    pause: float = FIRST_PAUSE
    opened_at: float = 0.0
    probe_at: float = 0.0


class Breaker:
    """All circuits of one process. A destination that nothing came back from is not remembered."""

    def __init__(self) -> None:
        self._circuits: dict[Destination, Circuit] = {}
        self._open: frozenset[Destination] = frozenset()

    @property
    def open(self) -> frozenset[Destination]:
        """Where nothing is published to, but for a probe: the open ones and the half-open ones."""
        return self._open

    def state(self, destination: Destination) -> State:
        """The state of one circuit."""
        circuit = self._circuits.get(destination)
        return State.CLOSED if circuit is None else circuit.state

    def probes(self, now: float) -> list[Destination]:
        """Half-open every circuit whose pause is over; publish one row to each, and say what came of it."""
        due = [
            destination
            for destination in self._open
            if (circuit := self._circuits[destination]).state is State.OPEN and circuit.probe_at <= now
        ]
        for destination in due:
            self._circuits[destination] = replace(self._circuits[destination], state=State.HALF_OPEN)
        return sorted(due)

    def confirmed(self, destination: Destination) -> float | None:
        """A publication arrived. When the circuit was not closed, returns since when."""
        circuit = self._circuits.pop(destination, None)
        if circuit is None or circuit.state is State.CLOSED:
            return None
        self._open -= {destination}
        return circuit.opened_at

    def came_back(self, destination: Destination, now: float, chance: float) -> float | None:
        """A publication came back. When that opens a closed circuit, returns in how many seconds it is probed."""
        circuit = self._circuits.get(destination, Circuit())
        match circuit.state:
            case State.CLOSED:
                return self._counted(destination, circuit, now, chance)
            case State.HALF_OPEN:
                self._pause(destination, replace(circuit, pause=min(circuit.pause * 2, LONGEST_PAUSE)), now, chance)
            case State.OPEN:
                pass
        return None

    def undecided(self, destination: Destination, now: float, chance: float) -> None:
        """Nobody knows what became of a publication, or it was this row that could not be published."""
        circuit = self._circuits.get(destination)
        if circuit is not None and circuit.state is State.HALF_OPEN:
            self._pause(destination, circuit, now, chance)

    def _counted(self, destination: Destination, circuit: Circuit, now: float, chance: float) -> float | None:
        counted = replace(circuit, failures=circuit.failures + 1)
        if destination not in self._circuits and len(self._circuits) >= MOST:
            self._forget_the_oldest()
        self._circuits[destination] = counted
        if counted.failures < THRESHOLD:
            return None
        return self._pause(destination, replace(counted, opened_at=now), now, chance)

    def _pause(self, destination: Destination, circuit: Circuit, now: float, chance: float) -> float:
        seconds = circuit.pause * (1 - _JITTER * chance)
        self._circuits[destination] = replace(circuit, state=State.OPEN, probe_at=now + seconds)
        self._open |= {destination}
        return seconds

    def _forget_the_oldest(self) -> None:
        oldest = next(iter(self._circuits))
        del self._circuits[oldest]
        self._open -= {oldest}
