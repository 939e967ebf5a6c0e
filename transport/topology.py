"""What exists on a broker: the names of the wire contract and which queue takes which message. Pure data.

Knows no broker client and no message class: a message is its name, which is also its routing key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from messages.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NAMESPACE = re.compile(r"[a-z][a-z0-9_]{0,30}")
NAME_LIMIT = 255  # bytes of an AMQP short string: queue names, exchange names, routing keys
WILDCARDS = frozenset("*#")

QUEUE_ARGUMENTS: Mapping[str, str | int] = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 1000,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}
"""Arguments of every consumed queue, beside its dead-letter exchange. What operators may change later is a policy."""

DEAD_QUEUE_ARGUMENTS: Mapping[str, str | int] = {"x-queue-type": "quorum"}
"""The last net has no dead-letter exchange of its own."""


def events_exchange(namespace: str) -> str:
    """The topic exchange that events are published on."""
    return f"{namespace}.events"


def commands_exchange(namespace: str) -> str:
    """The topic exchange that commands are published on."""
    return f"{namespace}.commands"


def dead_exchange(namespace: str) -> str:
    """The fanout exchange behind every queue: where the broker puts what it handed out too often."""
    return f"{namespace}.dead"


def dead_queue(namespace: str) -> str:
    """The queue of that name behind `dead_exchange`."""
    return f"{namespace}.dead"


def saga_queue(namespace: str, saga_type: str) -> str:
    """Where a saga type takes its events and its replies: the `reply_to` of its commands."""
    return f"{namespace}.saga.{saga_type}"


def participant_queue(namespace: str, name: str) -> str:
    """Where a Python participant takes its commands."""
    return f"{namespace}.participant.{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Messages published on `exchange` under exactly this `routing_key` are put into the queue that has it."""

    exchange: str
    routing_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A consumed queue. The default exchange reaches every queue by its name, without a binding."""

    name: str
    bindings: frozenset[Binding] = field(default_factory=frozenset)

    @classmethod
    def of_saga(cls, namespace: str, saga_type: str, *, events: Iterable[str]) -> Queue:
        """The queue of a saga type, bound to the events it consumes by name."""
        return cls(name=saga_queue(namespace, saga_type), bindings=_bound(events_exchange(namespace), events))

    @classmethod
    def of_participant(cls, namespace: str, name: str, *, commands: Iterable[str]) -> Queue:
        """The queue of a participant, bound to the commands it takes."""
        return cls(name=participant_queue(namespace, name), bindings=_bound(commands_exchange(namespace), commands))

    def joined(self, other: Queue) -> Queue:
        """This queue with the bindings of both descriptions."""
        return Queue(name=self.name, bindings=self.bindings | other.bindings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The exchanges of a namespace and the queues that one process needs there.

    Raises:
        ConfigurationError: on construction, with all problems at once: a namespace that cannot name a schema, a name
            that is too long or holds a wildcard, a queue given twice, a command that two queues take.
    """

    namespace: str
    queues: tuple[Queue, ...] = ()

    def __post_init__(self) -> None:
        problems = [*self._namespace_problems(), *self._name_problems(), *self._command_problems()]
        if problems:
            raise ConfigurationError("; ".join(problems))

    def bound_to(self, exchange: str, routing_key: str) -> tuple[str, ...]:
        """The names of the queues that take this message, in the order of `queues`."""
        if not exchange:
            return tuple(queue.name for queue in self.queues if queue.name == routing_key)
        binding = Binding(exchange=exchange, routing_key=routing_key)
        return tuple(queue.name for queue in self.queues if binding in queue.bindings)

    def joined(self, other: Topology) -> Topology:
        """Both together, as they stand on the broker after both were declared.

        Raises:
            ConfigurationError: a command would be taken by two queues.
        """
        queues = {queue.name: queue for queue in self.queues}
        for queue in other.queues:
            known = queues.get(queue.name)
            queues[queue.name] = queue if known is None else known.joined(queue)
        return Topology(namespace=self.namespace, queues=tuple(queues.values()))

    def untaken(self, commands: Iterable[str]) -> tuple[str, ...]:
        """Those of the commands that no queue of this topology takes, sorted.

        They are an error only where every participant runs in this process; elsewhere another process takes them.
        """
        exchange = commands_exchange(self.namespace)
        return tuple(sorted(name for name in commands if not self.bound_to(exchange, name)))

    def _namespace_problems(self) -> Iterable[str]:
        if not NAMESPACE.fullmatch(self.namespace):
            yield (
                f"namespace {self.namespace!r}: must be a lower-case letter followed by at most 30 lower-case "
                "letters, digits or underscores; correct ANTIPHON_NAMESPACE"
            )

    def _name_problems(self) -> Iterable[str]:
        names = [queue.name for queue in self.queues]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"queue {name}: described twice; merge its bindings into one description"
        keys = {binding.routing_key for queue in self.queues for binding in queue.bindings}
        for name in sorted({*names, *keys}):
            if not 0 < len(name.encode()) <= NAME_LIMIT:
                yield f"name {name[:40]!r}: {len(name.encode())} bytes long; names have 1 to {NAME_LIMIT} bytes"
        for key in sorted(key for key in keys if WILDCARDS & set(key)):
            yield f"message name {key!r}: `*` and `#` are wildcards to a topic exchange; rename the message"

    def _command_problems(self) -> Iterable[str]:
        takers: dict[str, list[str]] = {}
        for queue in self.queues:
            for binding in queue.bindings:
                if binding.exchange == commands_exchange(self.namespace):
                    takers.setdefault(binding.routing_key, []).append(queue.name)
        for command, queues in sorted(takers.items()):
            if len(queues) > 1:
                yield (
                    f"command {command}: taken by {' and '.join(sorted(queues))}; a command has exactly one taker, "
                    "so let one of them go"
                )


def _bound(exchange: str, names: Iterable[str]) -> frozenset[Binding]:
    return frozenset(Binding(exchange=exchange, routing_key=name) for name in names)
