"""A service process as the driver sees it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import orjson

Ledger = dict[str, dict[str, int]]  # participant -> order -> how often

START = 30.0  # seconds
END = 8.0
LONGEST_LINE = 2**28


class Child:
    """A process of Restate services, and the pipe that keeps it alive."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self._process = process

    @classmethod
    async def start(cls, role: str, port: int, folder: Path) -> Child:
        """Start it and wait until it listens."""
        with (folder / f"{role}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(Path(__file__).with_name("service.py")), "--role", role, "--port", str(port)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LONGEST_LINE,
            )
        child = cls(process)
        try:
            async with asyncio.timeout(START):
                while not await listens(port):
                    if process.returncode is not None:
                        raise RuntimeError(f"the process of {role} ended; see {role}.log")
                    await asyncio.sleep(0.05)
        except BaseException:
            await child.kill()
            raise
        return child

    async def end(self) -> Ledger:
        """Close its input, take its ledger, wait for its end."""
        assert self._process.stdin is not None  # noqa: S101 - asked for
        assert self._process.stdout is not None  # noqa: S101 - asked for
        self._process.stdin.close()
        ledger: Ledger = {}
        try:
            async with asyncio.timeout(END):
                ledger = orjson.loads(await self._process.stdout.readline() or b"{}")
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        return ledger

    async def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


async def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
