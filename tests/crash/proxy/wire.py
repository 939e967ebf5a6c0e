"""The words both protocol parsers speak: a direction, a unit of bytes that travels whole, and the events it carries.

Nothing here reads a socket. A parser is fed bytes as they come, split or glued in any way, and answers with units; the
units' bytes, put one behind the other, are the bytes that came in (save where a unit says what to answer instead).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Detail = str | int | bool


class Direction(StrEnum):
    """Which way bytes travel."""

    C2S = "c2s"  # from the process under test to the server
    S2C = "s2c"  # from the server to the process under test


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something a rule can be aimed at: a name like `pg.s2c.COMMIT`, and what is known about it.

    `connection` numbers the connections of one proxy from 1, in the order in which they came.
    """

    name: str
    details: Mapping[str, Detail] = field(default_factory=dict)
    connection: int = 0

    def text(self, detail: str) -> str:
        """The detail as text; empty when the event does not have it."""
        return str(self.details.get(detail, ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Bytes that are forwarded together or not at all.

    `group` ties the units of one content-bearing message together: whoever drops the first must drop the rest.
    `answer` goes back to the sender.
    """

    data: bytes
    events: Sequence[Event] = ()
    group: int | None = None
    answer: bytes = b""


class WireError(Exception):
    """The bytes are not of the protocol this parser reads; the connection cannot be followed any further."""


class Parser(Protocol):
    """One connection's two streams, read without any I/O."""

    def feed(self, direction: Direction, data: bytes) -> Sequence[Unit]:
        """Take the next bytes of one direction and return the units they complete, in order.

        Raises:
            WireError: the bytes are not of this protocol.
        """
        ...
