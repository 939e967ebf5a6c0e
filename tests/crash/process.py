"""A child process of the crash tests: its output in a file, its end awaited with a bound, never outliving the tests."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.crash.forking import Forked, Program

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

LEASH = Path(__file__).parents[1] / "services" / "leash.py"
STARTED, ENDED = 90.0, 90.0  # seconds; only ever reached when something is broken, or a machine is drowned in work
GLANCE = 0.05  # seconds between two looks at something that cannot tell us of its change


class ChildError(AssertionError):
    """A child did not do what the test needs it to do; the end of its output is in the message."""


class Child:
    """One running child. As an async context it is dead, and reaped, when the block ends."""

    def __init__(self, name: str, process: asyncio.subprocess.Process | Forked, output: Path) -> None:
        self.name, self.output, self._process = name, output, process

    @classmethod
    async def start(cls, name: str, command: Sequence[str] | Program, *, folder: Path, env: Mapping[str, str]) -> Self:
        """Start `command` in `folder`; its output goes to `<name>.log` there, behind what is in it already.

        A `Program` is forked, which spares the machine its imports; a command line begins from nothing.
        """
        output = folder / f"{name}.log"
        if isinstance(command, Program):
            output.touch()
            return cls(name, Forked(command, folder=folder, env=env, output=output), output)
        with output.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *leashed(command), cwd=folder, env=dict(env), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
        return cls(name, process, output)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet, as far as we have been told."""
        return self._process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; none if it has ended."""
        if self.running:
            os.kill(self.pid, number)

    async def kill(self) -> int:
        """`kill -9`, and wait for the end. Returns the exit code it really had."""
        self.signal(signal.SIGKILL)
        return await self.ended()

    async def ended(self, timeout: float = ENDED) -> int:  # noqa: ASYNC109 - a bound for tests
        """Wait for the end and return the exit code; a signal's number, negative, if one ended it.

        Raises:
            ChildError: it goes on running.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._process.wait()
        except TimeoutError:
            raise ChildError(f"{self.name} still runs after {timeout} s\n{self.tail()}") from None

    async def says(self, text: str, timeout: float = STARTED) -> None:  # noqa: ASYNC109 - a bound for tests
        """Wait until `text` stands in its output.

        Raises:
            ChildError: it ended, or `timeout` seconds passed, without it.
        """

        async def said() -> bool:
            return text in self.text()

        await self.until(said, f"said {text!r}", timeout)

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str, timeout: float) -> None:  # noqa: ASYNC109
        """Wait for something only this child can bring about.

        Raises:
            ChildError: it ended, or `timeout` seconds passed, before.
        """
        try:
            async with asyncio.timeout(timeout):
                while not await condition():
                    if not self.running:
                        raise ChildError(f"{self.name} ended before it had {what}\n{self.tail()}")
                    await asyncio.sleep(GLANCE)
        except TimeoutError:
            raise ChildError(f"{self.name} has not {what} within {timeout} s\n{self.tail()}") from None

    def text(self) -> str:
        """All its output so far."""
        return self.output.read_text(errors="replace")

    def tail(self, lines: int = 40) -> str:
        """The end of its output, for a failure's message."""
        return "\n".join(self.text().splitlines()[-lines:])


def leashed(command: Sequence[str]) -> list[str]:
    """The command such that the kernel kills it when we die; its process id is still the command's own."""
    words = [signal.SIGKILL.value, os.getuid(), os.getgid(), os.getpid()]
    return [sys.executable, str(LEASH), *map(str, words), *command]
