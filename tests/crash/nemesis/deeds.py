"""What a nemesis may do to a sidecar at work, and in which window of its work: drawn from a seed. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class Kind(StrEnum):
    """A kind of fault, in the words of the report."""

    KILL = "process killed"
    HALT = "process halted"
    CUT = "connection cut"
    BLACK_HOLE = "black hole"
    AWAY = "server away"
    SLOW = "slow wire"
    FAIL = "statement refused"
    TERMINATE = "backends terminated"
    CLOSE = "connection closed by the broker"
    LOSE_CONFIRMS = "confirms dropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """A fault, the wire event at which it strikes, and for how many seconds it lasts if it is one that lasts."""

    kind: Kind
    window: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.kind} at {self.window}"


BOTH = (Kind.KILL, Kind.HALT, Kind.CUT, Kind.BLACK_HOLE, Kind.AWAY, Kind.SLOW)
KINDS: Mapping[str, Sequence[Kind]] = {
    "pg": (*BOTH, Kind.FAIL, Kind.TERMINATE),
    "amqp": (*BOTH, Kind.CLOSE, Kind.LOSE_CONFIRMS),
}
WINDOWS: Mapping[str, Sequence[str]] = {
    "pg": ("pg.c2s.COMMIT", "pg.s2c.COMMIT", "pg.c2s.WITH", "pg.s2c.SELECT"),
    "amqp": (
        "amqp.s2c.deliver_done",
        "amqp.c2s.ack",
        "amqp.c2s.publish",
        "amqp.c2s.publish_done",
        "amqp.s2c.ack",
    ),
}
ONLY_AT: Mapping[Kind, Sequence[str]] = {
    Kind.FAIL: ("pg.c2s.WITH", "pg.c2s.COMMIT"),
    Kind.CLOSE: ("amqp.s2c.deliver", "amqp.s2c.ack"),
    Kind.LOSE_CONFIRMS: ("amqp.s2c.ack",),
}
LONGEST = 4.0  # seconds that a fault lasts at most; longer than the shortest lease
REFUSALS = ("40001", "40P01", "53300", "55P03", "57014", "57P03")
"""SQLSTATEs with which a server that is in trouble answers a statement that is right."""


def drawn(server: str, dice: random.Random, longest: float) -> Iterator[Deed]:
    """Deeds without end, aimed at the wire to one server: every kind once before any comes again."""
    while True:
        kinds = list(KINDS[server])
        dice.shuffle(kinds)
        yield from (_deed(kind, server, dice, longest) for kind in kinds)


def _deed(kind: Kind, server: str, dice: random.Random, longest: float) -> Deed:
    window = dice.choice(ONLY_AT.get(kind, WINDOWS[server]))
    return Deed(kind=kind, window=window, seconds=round(dice.uniform(0.2, longest), 1))


def dealt(
    seed: int, lanes: Sequence[tuple[str, str]], longest: float = LONGEST
) -> Mapping[tuple[str, str], Iterator[Deed]]:
    """A stream of deeds for each lane (sidecar, server), always the same for a seed.

    Lanes to one kind of server share a round, each beginning where another has gone halfway, so that few deeds are
    enough for every kind.
    """
    streams = {}
    for server in KINDS:
        mine = [lane for lane in lanes if lane[1] == server]
        for number, lane in enumerate(mine):
            stream = drawn(server, random.Random(f"{seed}/{server}"), longest)
            for _ in range(number * len(KINDS[server]) // len(mine)):
                next(stream)
            streams[lane] = stream
    return streams
