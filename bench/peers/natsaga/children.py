"""Child processes that are spoken to in JSON lines over standard input and output, and end when that input ends."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PATIENCE = 8.0
LINE_LIMIT = 1 << 28  # a ledger is one line


class ChildLost(RuntimeError):  # noqa: N818 - names the situation
    """A child ended by itself; the text has the end of what it logged."""


class Child:
    """One running child; its errors go to `<folder>/<name>.log`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._log = log

    @classmethod
    async def start(cls, name: str, module: str, given: Sequence[str], folder: Path) -> Child:
        """Start a module of this folder in an interpreter of its own."""
        log = folder / f"{name}.log"
        with log.open("wb") as written:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                module,
                *given,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=written,
                limit=LINE_LIMIT,
                start_new_session=True,  # a signal for the driver's group is the driver's to handle
            )
        return cls(name, process, log)

    def tell(self, said: object) -> None:
        """Write one line to it."""
        assert self._process.stdin  # noqa: S101 - started with a pipe
        self._process.stdin.write(orjson.dumps(said) + b"\n")

    async def line(self) -> bytes:
        """The next line it writes.

        Raises:
            ChildLost: it ended instead.
        """
        assert self._process.stdout  # noqa: S101 - started with a pipe
        if line := await self._process.stdout.readline():
            return line
        ended = await self._process.wait()
        raise ChildLost(f"{self.name} ended with {ended}: {self._log.read_text(errors='replace')[-2000:]}")

    def hang_up(self) -> None:
        """Close its input, for which it ends."""
        assert self._process.stdin  # noqa: S101 - started with a pipe
        self._process.stdin.close()

    async def end(self) -> None:
        """See it end, and kill it if it does not."""
        self.hang_up()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
