"""Facts become log lines: the one place that knows what each fact is called and how loud it is.

Code reports what it did; this decides who hears of it. A fact that is missing in the table is still logged, under a
name made of its own, and a test keeps the table complete.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from handlers import facts as handling
from messages.errors import AntiphonError
from messages.printable import in_words
from outbox import facts as outbox
from runtime import facts as process
from transport import facts as transport

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LONGEST = 2_000
"""Characters of the longest error text in a line."""

LEVELS: Mapping[str, int] = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": 40}

NAMES: Mapping[type, tuple[str, str]] = {
    handling.AttentionRaised: ("saga.attention_raised", "error"),
    handling.AttentionCleared: ("saga.attention_cleared", "info"),
    handling.MessageDeadLettered: ("message.dead_lettered", "error"),
    handling.MessageHeld: ("message.held", "info"),
    handling.DeadLetterImported: ("dead_letter.imported", "error"),
    handling.DeadLetterUnkept: ("dead_letter.unkept", "error"),
    handling.MessageIgnored: ("message.ignored", "debug"),
    handling.MessageDuplicated: ("message.duplicated", "debug"),
    handling.BatchCommitted: ("batch.committed", "debug"),
    handling.MessagesSetAside: ("messages.set_aside", "warning"),
    handling.CommandAnswered: ("command.answered", "info"),
    handling.CommandDropped: ("command.dropped", "info"),
    outbox.PublicationFailed: ("message.publication_failed", "warning"),
    outbox.EventUnrouted: ("message.event_unrouted", "info"),
    outbox.MessagesAbandoned: ("messages.abandoned", "warning"),
    outbox.CircuitOpened: ("circuit.opened", "warning"),
    outbox.CircuitClosed: ("circuit.closed", "info"),
    outbox.ConsumingPaused: ("consuming.paused", "warning"),
    outbox.ConsumingResumed: ("consuming.resumed", "info"),
    outbox.LoopTroubled: ("loop.troubled", "warning"),
    outbox.RowsRemoved: ("retention.removed", "info"),
    transport.BrokerConnected: ("broker.connected", "info"),
    transport.BrokerDisconnected: ("broker.disconnected", "warning"),
    transport.BrokerUnreachable: ("broker.unreachable", "warning"),
    transport.BrokerBlocked: ("broker.blocked", "warning"),
    transport.BrokerUnblocked: ("broker.unblocked", "info"),
    transport.ConsumerAttached: ("consumer.attached", "info"),
    transport.ConsumerDetached: ("consumer.detached", "warning"),
    transport.PublicationsSuspected: ("broker.publications_suspected", "warning"),
    transport.TopologyUnverified: ("broker.topology_unverified", "warning"),
    process.ProcessStarting: ("process.starting", "info"),
    process.HttpListening: ("http.listening", "info"),
    process.ProcessReady: ("process.ready", "info"),
    process.ProcessesStarting: ("processes.starting", "info"),
    process.ProcessesReady: ("processes.ready", "info"),
    process.ProcessEnded: ("process.ended", "error"),
    process.ProcessStopping: ("process.stopping", "info"),
    process.ProcessStopped: ("process.stopped", "info"),
    process.DrainTimedOut: ("process.drain_timed_out", "error"),
    process.DependencyAway: ("dependency.away", "warning"),
    process.DependencyReached: ("dependency.reached", "info"),
    process.LoopEnded: ("loop.ended", "error"),
}
"""Event name and level of every fact, but for `SagaMoved`, whose name is that of its history row."""

_LOUD: Mapping[str, str] = {
    "step_failed": "warning",
    "step_timed_out": "warning",
    "command_resent": "warning",
    "reply_transient": "warning",
    "late_success": "warning",
    "compensation_started": "warning",
    "deadline_struck": "warning",
    "operator_acted": "warning",
    "migrated": "warning",
    "step_skipped": "warning",
    "compensation_failed": "error",
    "parked": "error",
}
_QUIET = frozenset({"reply_received", "timer_set", "timer_fired", "message_ignored", "command_withdrawn"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What is logged of a fact."""

    event: str
    level: str
    fields: Mapping[str, object]


class Telemetry:
    """Takes every fact of the process. Cheap for those below the level."""

    def __init__(self, level: str) -> None:
        self._least = LEVELS[level]
        self._log: Any = structlog.get_logger()

    def __call__(self, fact: object) -> None:
        """Log the fact, when it is loud enough. Never raises for a stream that nobody reads any more."""
        if LEVELS[level_of(fact)] >= self._least:
            line = line_of(fact)
            with suppress(OSError, ValueError):  # the work goes on without its log, as every fact is in the database
                getattr(self._log, line.level)(line.event, **line.fields)


def level_of(fact: object) -> str:
    """How loud a fact is."""
    if isinstance(fact, handling.SagaMoved):
        return _loudness(fact.entry.kind)
    return NAMES.get(type(fact), ("", "info"))[1]


def line_of(fact: object) -> Line:
    """The log line of a fact: its name, how loud, its fields as plain values."""
    if isinstance(fact, handling.SagaMoved):
        return _moved(fact)
    event = NAMES[type(fact)][0] if type(fact) in NAMES else _own_name(fact)
    return Line(event=event, level=level_of(fact), fields=dict(_fields(fact)))


def _moved(fact: handling.SagaMoved) -> Line:
    """One history row: which saga, which step of how many, which message."""
    entry = fact.entry
    fields: dict[str, object] = {"saga_type": fact.saga_type, "key": fact.key}
    if entry.step is not None:
        fields["step"] = entry.step
    if fact.step_number is not None:
        fields |= {"step_number": fact.step_number, "step_total": fact.step_total}
    fields["saga_id"] = str(fact.saga_id)
    if entry.message_id is not None:
        fields |= {"message": entry.message_name, "message_id": entry.message_id}
    elif fact.cause is not None:
        fields["message_id"] = fact.cause
    fields |= {name: _plain(value) for name, value in entry.detail.items() if name not in fields}
    return Line(event=f"saga.{entry.kind}", level=_loudness(entry.kind), fields=fields)


def _loudness(kind: str) -> str:
    return "debug" if kind in _QUIET else _LOUD.get(kind, "info")


def _own_name(fact: object) -> str:
    """`RelayStalled` says `relay_stalled`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(fact).__name__).lower()


def _fields(fact: object) -> Iterable[tuple[str, object]]:
    if not dataclasses.is_dataclass(fact):
        yield "fact", str(fact)
        return
    for field in dataclasses.fields(fact):
        value = getattr(fact, field.name)
        if value is not None:
            yield field.name, _plain(value)
        if isinstance(value, Exception) and not isinstance(value, AntiphonError):
            yield "exc_info", value  # nobody raised it on purpose: its traceback is what helps


def _plain(value: object) -> object:
    """A value that JSON can hold."""
    if isinstance(value, BaseException):
        return in_words(value, LONGEST)
    if isinstance(value, UUID):
        return str(value)
    return round(value, 3) if isinstance(value, float) else value
