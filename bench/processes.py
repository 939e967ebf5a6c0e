"""Processes that a round starts: each with a log of its own, a bounded start, and a polite end that is checked."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

ROOT = Path(__file__).parent.parent
POLITE = 30.0  # seconds to end after SIGTERM


class DidNotStart(RuntimeError):  # noqa: N818 - names the situation
    """A process of the round ended or was not ready in time; the text has the end of what it wrote."""


class Child:
    """One running process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._log = log

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], *, folder: Path, environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start it in the root of the repository; what it writes goes to `<folder>/<name>.log`."""
        log = folder / f"{name}.log"
        with log.open("wb") as written:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=written, stderr=written
            )
        return cls(name, process, log)

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    @property
    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])

    async def line(self, word: str, patience: float) -> None:
        """Wait until it has written this line.

        Raises:
            DidNotStart: it ended first, or took longer than `patience` seconds.
        """

        async def written() -> bool:
            return word in self._log.read_text(errors="replace").splitlines()

        await self.until(written, patience)

    async def until(self, ready: Callable[[], Awaitable[bool]], patience: float) -> None:
        """Wait until `ready`; raises as `line` does, after ending the process."""
        try:
            async with asyncio.timeout(patience):
                while not await ready():
                    if not self.running:
                        raise DidNotStart(f"{self.name} ended with {self._process.returncode}:\n{self.last_words}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            await self.end()
            raise DidNotStart(f"{self.name} was not ready within {patience:g} s:\n{self.last_words}") from None

    async def end(self) -> int:
        """SIGTERM, then SIGKILL for one that does not listen; returns how it ended."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(POLITE):
                return await self._process.wait()
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()


async def run_once(
    name: str, command: Sequence[str], *, folder: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Run to the end.

    Raises:
        DidNotStart: it ended with anything but 0.
    """
    child = await Child.start(name.replace(" ", "-"), command, folder=folder, environment=environment)
    ended = await child._process.wait()
    if ended:
        raise DidNotStart(f"{name} ended with {ended}:\n{child.last_words}")
