"""What a process reports of itself: its start and stop, what it waits for, its loops.

Nothing but values, so that whoever only reads facts loads neither a web server nor an engine.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStarting:
    """A process begins: it is alive from now on, and not yet ready."""

    pid: int
    parts: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpListening:
    """The health endpoints answer at this address."""

    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReady:
    """Everything runs."""

    sagas: str
    participants: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessesStarting:
    """A parent begins; it does no work itself, and so many processes will."""

    pid: int
    processes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessesReady:
    """Everything runs in every one of them."""

    processes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEnded:
    """One of several ended unasked. It is started again in `retry_in` seconds; None: all end, since it never ran."""

    process: int
    pid: int
    ending: str
    restarts: int
    retry_in: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStopping:
    """A stop was asked for: nothing new is taken, what was begun is finished.

    `signal` is the signal's name; `parent` or `parent_gone` in one of several.
    """

    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStopped:
    """Everything that was begun is finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainTimedOut:
    """The drain ran out of time while these loops were still at work; what they had is delivered or sent again."""

    unfinished: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DependencyAway:
    """One attempt to reach what the process needs has failed; the next follows in `retry_in` seconds."""

    dependency: str
    error: str
    attempt: int
    retry_in: float
    left: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DependencyReached:
    """It answers. `attempt` is 1 when it did at once."""

    dependency: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopEnded:
    """A loop ended unasked. `error` is None when it simply returned."""

    component: str
    error: BaseException | None
    restarts: int
    retry_in: float
