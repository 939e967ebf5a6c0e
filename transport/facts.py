"""What a transport has to say about itself: frozen facts for whoever listens, instead of log lines.

Facts are reported after they are true. They name queues and addresses, never message bodies or passwords.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConnected:
    """A connection stands. `attempts` counts the tries since it was lost, 1 when the first one worked."""

    direction: str  # publish | consume
    address: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerDisconnected:
    """A connection was lost; it is being repaired."""

    direction: str
    address: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUnreachable:
    """An attempt to repair a connection failed."""

    direction: str
    address: str
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerBlocked:
    """The broker takes no publications now, usually because its memory or disk alarm is on."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUnblocked:
    """The broker takes publications again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerAttached:
    """The broker sends us this queue's messages."""

    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerDetached:
    """The broker stopped sending us this queue's messages although nobody asked it to; it is being repaired."""

    queue: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicationsSuspected:
    """The broker closed the publishing channel over one of `count` messages; they are published one by one now."""

    count: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyUnverified:
    """The user may not declare: these exist, but their arguments and bindings could not be checked."""

    names: tuple[str, ...]


TransportFact: TypeAlias = (
    BrokerConnected
    | BrokerDisconnected
    | BrokerUnreachable
    | BrokerBlocked
    | BrokerUnblocked
    | ConsumerAttached
    | ConsumerDetached
    | PublicationsSuspected
    | TopologyUnverified
)

Report: TypeAlias = Callable[[TransportFact], None]


def unheard(_fact: TransportFact) -> None:
    """Report to nobody."""
