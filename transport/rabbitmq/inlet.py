"""Puts the frames of one channel's messages together and hands them to whoever listens, without a detour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from transport.rabbitmq import frames

if TYPE_CHECKING:
    from messages.envelope import Raw


class Listener(Protocol):
    """Who hears what arrives on a channel. Called in the order of arrival; must not block and not raise."""

    def delivered(self, raw: Raw, tag: int, *, redelivered: bool) -> None:
        """A message for our consumer."""

    def returned(self, raw: Raw, exchange: str, reason: str) -> None:
        """A mandatory message that no queue takes, with the broker's words; its confirm follows."""

    def confirmed(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """The broker has taken responsibility for a publication, or (not `taken`) could not."""


class Inlet:
    """One channel's messages and confirms, while it is open."""

    def __init__(self, listener: Listener) -> None:
        self._listener: Listener | None = listener
        self._method = b""
        self._header = b""
        self._parts: list[bytes] = []
        self._missing = 0  # bytes of the body

    def mute(self) -> None:
        """Whatever still arrives is nobody's; it is taken all the same, because the library might trip over it."""
        self._listener = None

    def take(self, kind: int, payload: bytes) -> bool:
        """Take a frame of this channel, if it belongs to a message or is a confirm."""
        if kind == frames.METHOD:
            return self._take_method(payload)
        if not self._method:
            return False
        if kind == frames.HEADER:
            self._header = payload
            self._missing = frames.body_size(payload)
        else:
            self._parts.append(payload)
            self._missing -= len(payload)
        if self._missing <= 0:
            self._complete()
        return True

    def _take_method(self, payload: bytes) -> bool:
        method = payload[:4]
        if method in (frames.DELIVER, frames.RETURN):
            self._method = payload
        elif method in (frames.ACK, frames.NACK):
            if self._listener is not None:
                tag, flags = frames.tag_and_flags(payload)
                self._listener.confirmed(tag, multiple=bool(flags & 1), taken=method == frames.ACK)
        else:
            return False
        return True

    def _complete(self) -> None:
        method, header, parts = self._method, self._header, self._parts
        self._method, self._header, self._parts = b"", b"", []
        if self._listener is None:
            return
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        if method.startswith(frames.DELIVER):
            tag, redelivered, routing_key = frames.delivered(method)
            self._listener.delivered(frames.raw(header, body, routing_key), tag, redelivered=redelivered)
        else:
            reason, exchange, routing_key = frames.returned(method)
            self._listener.returned(frames.raw(header, body, routing_key), exchange, reason)
