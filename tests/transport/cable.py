"""A TCP cable to the broker that tests may cut, hold and plug in again."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from yarl import URL

if TYPE_CHECKING:
    from types import TracebackType


class Cable:
    """Forwards connections to the broker of `url`; `self.url` is the same broker through the cable."""

    def __init__(self, url: str) -> None:
        self._target = URL(url)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers = asyncio.Event()
        self._answers.set()
        self._questions = asyncio.Event()
        self._questions.set()
        self.connections = 0

    @property
    def url(self) -> str:
        return str(self._target.with_host("127.0.0.1").with_port(self._port))

    async def plug_in(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def pull_out(self) -> None:
        """Cut everything and refuse new connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Reset all connections; new ones are accepted."""
        for writer in list(self._writers):
            writer.transport.abort()

    def hold_answers(self) -> None:
        """Let nothing more through from the broker."""
        self._answers.clear()

    def release_answers(self) -> None:
        self._answers.set()

    def hold_questions(self) -> None:
        """Read nothing more from us, until the sockets are full."""
        self._questions.clear()

    def release_questions(self) -> None:
        self._questions.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, back = await asyncio.open_connection(self._target.host, self._target.port or 5672)
        self._writers |= {writer, back}
        pumps = [self._pump(reader, back, self._questions), self._pump(there, writer, self._answers)]
        self._tasks |= {asyncio.create_task(pump) for pump in pumps}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await gate.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
        self._writers.discard(writer)

    async def __aenter__(self) -> Self:
        await self.plug_in()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.pull_out()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
