"""What travels between the saga and its participants: message classes, envelope, registry, codec and errors."""

from messages.envelope import Envelope, Raw
from messages.message import Command, Event, Message
from messages.registry import REGISTRY, Registry

__all__ = ["REGISTRY", "Command", "Envelope", "Event", "Message", "Raw", "Registry"]
