"""Whether saga consumers may take more: not while what they have made already cannot leave.

| it is  | and, once a second at most, it sees                             | then it is | and tells        |
|--------|-----------------------------------------------------------------|------------|------------------|
| open   | twice in turn: the broker takes no messages                     | paused     | ConsumingPaused  |
| open   | twice in turn: the database does not answer                     | paused     | ConsumingPaused  |
| open   | `MANY` messages that wait to be sent, or `LATE` for `LONG` s    | paused     | ConsumingPaused  |
| paused | the broker and the database at work, and half of that at most   | open       | ConsumingResumed |

The distance between the bounds keeps it from flapping. What waits for a destination that takes nothing is not counted:
one dead participant stops nobody.

While it is paused a consumer still takes a batch now and then. Where the queue that it reads is what fills the broker's
memory or disk, nothing else would ever end the pause.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from messages.errors import Trouble
from messages.value import value
from outbox.facts import ConsumingPaused, ConsumingResumed
from running import happens

if TYPE_CHECKING:
    from collections.abc import Callable

    from outbox.interface import Storage
    from running import Runner
    from transport.interface import Publisher

MANY = 10_000
LATE = 100
LONG = 30.0
_REST = 20  # a long table takes long to look at: at most so small a part of the time
TRICKLE = 10.0
"""Seconds after which a consumer takes a batch although it is paused."""


@value
class Backlog:
    """Messages that could go out now and have not: how many, and how many of them for longer than `LONG`.

    Counted up to `MANY`.
    """

    waiting: int = 0
    late: int = 0


class Pressure:
    """One per process that consumes from a broker: `run` until `stop`.

    Not in process: what waits there goes out when a consumer takes it, so that to pause would be to wait for oneself.
    """

    name = "pressure"

    def __init__(
        self,
        storage: Storage,
        publisher: Publisher,
        runner: Runner,
        report: Callable[[object], None],
        *,
        sweep: float = 1.0,
    ) -> None:
        """`sweep` is how often to look, in seconds."""
        self._storage = storage
        self._publisher = publisher
        self._runner = runner
        self._report = report
        self._sweep_seconds = sweep
        self._open = asyncio.Event()
        self._open.set()
        self._stopped = asyncio.Event()
        self._since = 0.0
        self._in_turn = 0
        self.reason: str | None = None

    async def run(self) -> None:
        """Look again and again, until stopped."""
        while not self._stopped.is_set():
            before = self._runner.monotonic()
            await self.look()
            took = self._runner.monotonic() - before
            await happens(self._stopped, self._runner, within=max(self._sweep_seconds, took * _REST))

    def stop(self) -> None:
        """Return from `run`; who waits in `passable` goes on."""
        self._stopped.set()
        self._open.set()

    async def look(self) -> None:
        """One round of the table above."""
        try:
            backlog = await self._storage.backlog()
        except Trouble as error:
            self._hindered(f"the database does not answer: {error}")
            return
        if self._publisher.ready:
            self._seen(backlog)
        else:
            self._hindered("the broker takes no messages now")

    async def passable(self) -> None:
        """Wait until another batch may be taken."""
        await happens(self._open, self._runner, within=TRICKLE)

    def _seen(self, backlog: Backlog) -> None:
        self._in_turn = 0
        if backlog.waiting >= MANY:
            self._pause(f"{MANY} messages or more wait to be sent")
        elif backlog.late >= LATE:
            self._pause(f"{backlog.late} messages have waited to be sent for more than {LONG:g} s")
        elif backlog.waiting <= MANY / 2 and backlog.late <= LATE / 2:
            self._resume()

    def _hindered(self, reason: str) -> None:
        self._in_turn += 1
        if self._in_turn > 1:
            self._pause(reason)

    def _pause(self, reason: str) -> None:
        if self.reason is None:
            self._since = self._runner.monotonic()
            self._open.clear()
            self._report(ConsumingPaused(reason=reason))
        self.reason = reason

    def _resume(self) -> None:
        if self.reason is not None:
            self.reason = None
            self._open.set()
            self._report(ConsumingResumed(after=self._runner.monotonic() - self._since))
