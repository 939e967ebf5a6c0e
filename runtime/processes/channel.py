"""What a parent and one of its processes say to each other: JSON lines over a pair of sockets.

| who | says | and means |
|---|---|---|
| parent | `{"path": […], "parts": […]}` | the first line: where modules are found, and what to run |
| parent | `{"ask": "findings"}` | how are you? The next question follows the answer to this one |
| parent | `{"stop": true}` | finish what you have begun, and end |
| process | `{"ready": true}` | everything runs |
| process | `{"findings": {"broker": {"ok": true, "detail": "ok"}}}` | the answer |

The end of the lines says that the other one is gone, however it died: only the two of them hold the ends.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

LONGEST_LINE = 2**20
"""Bytes; the findings of a process are far shorter."""


class Channel:
    """One end, inside an event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Channel:
        """Take an end over; it is closed with the channel."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=LONGEST_LINE))

    def say(self, message: dict[str, Any]) -> None:
        """Send one line; one for somebody who is gone is lost."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def hear(self) -> dict[str, Any] | None:
        """The next line; None when the other one is gone."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        if not line.endswith(b"\n"):  # it died in the middle of it
            return None
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        """Be gone for the other one."""
        self._writer.close()
