"""What a rule can do at a wire event: drop, delay, hold, cut, black-hole, refuse, kill, stop, continue, call back.

An action is told where it stands (`Moment`) and answers what becomes of the bytes. The bytes are those of the event;
with `side="before"` they have not been forwarded yet, with `side="after"` they are in the hands of the receiver's
kernel.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from tests.crash.proxy.postgres import SYNC, error_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.crash.proxy.wire import Event

Side = Literal["before", "after"]
Pid: TypeAlias = "int | Callable[[], int]"


class Fate(Enum):
    """What becomes of the event's bytes, and of the connection."""

    FORWARD = "forward"
    SWALLOW = "swallow"
    END = "end"  # nothing more is forwarded in this direction, these bytes included


class Line(Protocol):
    """The connection an action stands on."""

    def cut(self, *, gently: bool) -> None:
        """Close both sides: with a reset, or so that the receiver can still read what was forwarded."""
        ...

    def black_hole(self) -> None:
        """From now on forward nothing, either way, until healed; both sockets stay open."""
        ...

    def send(self, data: bytes) -> None:
        """Forward these bytes of our own making."""
        ...

    def answer(self, data: bytes) -> None:
        """Give the sender these bytes, as if they came from the other side."""
        ...

    def leave_receiver(self) -> None:
        """Tell the receiver that no more will come, as the kernel of a dead process does."""
        ...

    async def opened(self) -> None:
        """Wait until no black hole is in force."""
        ...

    async def healed(self) -> None:
        """Wait for the next `heal` of the proxy."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Where an action stands: at this event, on this side of it, on this connection."""

    event: Event
    side: Side
    line: Line


class Action(Protocol):
    """A fault."""

    @property
    def needs_whole_message(self) -> bool:
        """Whether it makes sense only before the first bytes of a message."""
        ...

    async def __call__(self, moment: Moment) -> Fate:
        """Do it, and say what becomes of the bytes."""
        ...


@dataclass(frozen=True, slots=True)
class _Fault:
    """An action made of a function."""

    name: str
    perform: Callable[[Moment], Fate]
    needs_whole_message: bool = False

    async def __call__(self, moment: Moment) -> Fate:
        return self.perform(moment)

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class _Delay:
    seconds: float
    needs_whole_message: bool = False

    async def __call__(self, moment: Moment) -> Fate:
        await asyncio.sleep(self.seconds)
        return Fate.FORWARD


@dataclass(frozen=True, slots=True)
class _Hold:
    gate: asyncio.Event
    needs_whole_message: bool = False

    async def __call__(self, moment: Moment) -> Fate:
        waits = [asyncio.ensure_future(self.gate.wait()), asyncio.ensure_future(moment.line.healed())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return Fate.FORWARD


@dataclass(frozen=True, slots=True)
class _BlackHole:
    needs_whole_message: bool = False

    async def __call__(self, moment: Moment) -> Fate:
        moment.line.black_hole()
        await moment.line.opened()
        return Fate.FORWARD


def drop() -> Action:
    """Swallow the event's bytes: of a message with content, the whole message."""
    return _Fault("drop", lambda _: Fate.SWALLOW, needs_whole_message=True)


def delay(seconds: float) -> Action:
    """Hold up this direction of the connection for so long."""
    return _Delay(seconds)


def hold(gate: asyncio.Event) -> Action:
    """Hold up this direction of the connection until the test sets `gate`, or heals the proxy."""
    return _Hold(gate)


def black_hole() -> Action:
    """Keep both sockets open and forward nothing more, either way, until `heal`; then go on with what has gathered."""
    return _BlackHole()


def cut() -> Action:
    """Close both sides with a reset; after the event, the receiver can still read what was forwarded."""

    def perform(moment: Moment) -> Fate:
        moment.line.cut(gently=moment.side == "after")
        return Fate.END

    return _Fault("cut", perform)


def say(data: bytes) -> Action:
    """Say something of our own to the receiver before the event's bytes, which follow."""

    def perform(moment: Moment) -> Fate:
        moment.line.send(data)
        return Fate.FORWARD

    return _Fault("say", perform)


def refuse(sqlstate: str) -> Action:
    """Keep a statement from PostgreSQL, and say in its place that it failed with this SQLSTATE: at `pg.c2s.<WORD>`.

    The transaction goes on as if the statement had never been sent; whoever reads the error is to roll back.
    """

    def perform(moment: Moment) -> Fate:
        moment.line.answer(error_message(sqlstate, "said by the proxy"))
        if moment.event.details["simple"]:
            moment.line.send(SYNC)  # which brings the `ready` that follows an error, as it is sent anyway behind others
        return Fate.SWALLOW

    return _Fault(f"refuse with {sqlstate}", perform)


def kill(*pids: Pid) -> Action:
    """`kill -9`. Before the event: its bytes are lost with the process. After: the receiver has them, and no more."""

    def perform(moment: Moment) -> Fate:
        for pid in pids:
            _send_signal(pid, signal.SIGKILL)
        moment.line.leave_receiver()
        return Fate.END

    return _Fault("kill", perform)


def stop(pid: Pid) -> Action:
    """`kill -STOP`; the bytes go on. With `hold` behind it they wait too."""
    return _signalling("stop", pid, signal.SIGSTOP)


def cont(pid: Pid) -> Action:
    """`kill -CONT`."""
    return _signalling("cont", pid, signal.SIGCONT)


def call(back: Callable[[Event], object]) -> Action:
    """Call the test back, at this very event: to arm another rule, say. The bytes go on."""

    def perform(moment: Moment) -> Fate:
        back(moment.event)
        return Fate.FORWARD

    return _Fault("call", perform)


def _signalling(name: str, pid: Pid, number: signal.Signals) -> Action:
    def perform(moment: Moment) -> Fate:
        _send_signal(pid, number)
        return Fate.FORWARD

    return _Fault(name, perform)


def _send_signal(pid: Pid, number: signal.Signals) -> None:
    os.kill(pid if isinstance(pid, int) else pid(), number)
