"""What travels between the saga and its participants: message classes, envelope, registry, codec and errors."""

from messages.children import CancelSaga, NotStarted
from messages.codec import DEFAULT_LIMITS, Limits, body_hash, encode, headers_of, open_envelope, parse
from messages.envelope import Envelope, Raw
from messages.keys import business_key
from messages.message import Command, Event, Message
from messages.registry import REGISTRY, Registry
from messages.upcasting import upcast

__all__ = [
    "DEFAULT_LIMITS",
    "REGISTRY",
    "CancelSaga",
    "Command",
    "Envelope",
    "Event",
    "Limits",
    "Message",
    "NotStarted",
    "Raw",
    "Registry",
    "body_hash",
    "business_key",
    "encode",
    "headers_of",
    "open_envelope",
    "parse",
    "upcast",
]
