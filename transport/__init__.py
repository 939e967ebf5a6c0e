"""The way to a broker and back: bursts of deliveries in, bursts of publications out, over RabbitMQ or in process.

Knows no database, no saga and no message class. The concrete transports are imported by name
(`transport.rabbitmq`, `transport.in_process`) by whoever composes the application.
"""

from transport.interface import Consumer, Delivery, Outcome, Publication, Publisher, Transport, Verdict
from transport.topology import (
    Binding,
    Queue,
    Topology,
    commands_exchange,
    dead_exchange,
    dead_queue,
    events_exchange,
    participant_queue,
    saga_queue,
)

__all__ = [
    "Binding",
    "Consumer",
    "Delivery",
    "Outcome",
    "Publication",
    "Publisher",
    "Queue",
    "Topology",
    "Transport",
    "Verdict",
    "commands_exchange",
    "dead_exchange",
    "dead_queue",
    "events_exchange",
    "participant_queue",
    "saga_queue",
]
