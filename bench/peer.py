"""A contender that does not speak the wire contract: another product, in an environment of its own, behind a pipe.

Each is a folder of `bench/peers/` with a `driver.py`, which starts everything that it needs and then reads and writes
lines of JSON; `bench/peers/README.md` has the words. Knows none of the products.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contender import Unavailable
from bench.processes import DidNotStart

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from bench.contender import Place, Running

FOLDERS = Path(__file__).parent / "peers"
ENVIRONMENTS = Path(__file__).parent.parent / ".bench"
INSTALLING = 900.0  # seconds
STARTING = 120.0
ENDING = 60.0
MOMENT = 0.05
_LINE = 1 << 22  # bytes: the longest line, which names thousands of orders


class PeerEnded(ConnectionError):  # noqa: N818 - names the situation
    """Its driver has ended or says what nobody expects; the text has the end of what it wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One variant of a peer; see `bench.contender.Contender`."""

    name: str
    title: str
    folder: str
    variant: str

    @asynccontextmanager
    async def open(self, place: Place) -> AsyncIterator[Running]:
        """See `bench.contender.Contender.open`. The first time, its environment is made."""
        environment = await installed(FOLDERS / self.folder)
        command = (
            *(str(environment / "bin" / "python"), "driver.py", "--variant", self.variant),
            *("--database-url", place.database_url, "--broker-url", place.broker_url),
            *("--namespace", place.namespace, "--folder", str(place.folder)),
            *_node_arguments(environment),
        )
        async with driven(command, place, cwd=FOLDERS / self.folder) as driver:
            yield driver


@asynccontextmanager
async def driven(command: Sequence[str], place: Place, *, cwd: Path) -> AsyncIterator[Driver]:
    """Start a driver and wait until it is ready; it ends with the block."""
    log = place.folder / "driver.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=_LINE,
        )
    driver = Driver(process=process, log=log)
    try:
        await driver.start()
        yield driver
    finally:
        await driver.close()


@dataclass(slots=True, kw_only=True)
class Driver:
    """The driver of a peer in one round; see `bench.contender.Running`."""

    process: asyncio.subprocess.Process
    log: Path
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    observers: Sequence[int] = ()
    _done: list[str] = field(default_factory=list)
    _ended: dict[str, Any] | None = None
    _counted: asyncio.Queue[dict[str, int]] = field(default_factory=asyncio.Queue)
    _heard: asyncio.Event = field(default_factory=asyncio.Event)
    _listening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Wait until it is ready.

        Raises:
            DidNotStart, Unavailable: it is not going to be.
        """
        try:
            async with asyncio.timeout(STARTING):
                word = await self._read()
        except (TimeoutError, PeerEnded) as error:
            raise DidNotStart(f"the driver was not ready: {error or 'too slow'}\n{self._last_words()}") from None
        if "unavailable" in word:
            raise Unavailable(word["unavailable"])
        ready = word["ready"]
        self.versions = ready["versions"]
        groups: dict[str, Sequence[int]] = dict(ready["groups"])
        itself = any(self.process.pid in pids for pids in groups.values())
        self.groups = {**groups, "load": [] if itself else [self.process.pid]}
        self._listening = asyncio.create_task(self._listen())

    def place(self, orders: Sequence[str]) -> None:
        """See `Running.place`."""
        self._say({"place": list(orders)})

    async def glance(self, under_way: Sequence[str]) -> Sequence[str]:
        """See `Running.glance`."""
        if not self._done:
            self._heard.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(MOMENT):
                    await self._heard.wait()
        if self._listening is not None and self._listening.done():
            self._listening.result()
        waited = set(under_way)
        done, self._done = [order for order in self._done if order in waited], []
        return done

    async def counted(self) -> Mapping[str, int]:
        """See `bench.ground.Counting.counted`."""
        self._say({"count": True})
        async with asyncio.timeout(ENDING):
            return await self._counted.get()

    async def end(self, placed: Sequence[str]) -> Sequence[str]:
        """See `Running.end`. The driver knows what it was given and has counted what each participant did."""
        self._say({"stop": True})
        if self._listening is not None:
            try:
                async with asyncio.timeout(ENDING):
                    await self._listening
            except TimeoutError:
                return [f"the driver did not end within {ENDING:g} s"]
        return list((self._ended or {}).get("problems", ["the driver ended without a word"]))

    async def close(self) -> None:
        """End it, whatever it is at."""
        if self._listening is not None:
            self._listening.cancel()
            with suppress(asyncio.CancelledError, PeerEnded):
                await self._listening
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(ENDING):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()

    def _say(self, word: Mapping[str, object]) -> None:
        if self.process.stdin is not None:
            self.process.stdin.write(json.dumps(word).encode() + b"\n")

    async def _read(self) -> dict[str, Any]:
        line = await self.process.stdout.readline() if self.process.stdout is not None else b""
        if not line:
            raise PeerEnded(f"the driver has ended:\n{self._last_words()}")
        word: dict[str, Any] = json.loads(line)
        return word

    async def _listen(self) -> None:
        while self._ended is None:
            word = await self._read()
            self._ended = word.get("ended")
            self._done += word.get("done", ())
            if "counted" in word:
                self._counted.put_nowait(word["counted"])
            self._heard.set()

    def _last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])


async def installed(folder: Path) -> Path:
    """The virtual environment of a peer, made when it is missing or what it is made of has changed.

    Raises:
        Unavailable: it cannot be installed here.
    """
    environment = ENVIRONMENTS / folder.name
    wanted = [path for path in (folder / "requirements.txt", folder / "package.json") if path.exists()]
    print_of = hashlib.sha256(b"".join(path.read_bytes() for path in wanted)).hexdigest()
    mark = environment / "installed"
    if mark.exists() and mark.read_text() == print_of:
        return environment
    shutil.rmtree(environment, ignore_errors=True)
    await _run(sys.executable, "-m", "venv", "--without-pip", str(environment))
    pip = (sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"))
    await _run(*pip, "--quiet", "--disable-pip-version-check", "install", "-r", str(folder / "requirements.txt"))
    if (folder / "package.json").exists():
        for name in ("package.json", "package-lock.json"):
            if (folder / name).exists():
                shutil.copy(folder / name, environment)
        await _run("npm", "install", "--no-audit", "--no-fund", "--silent", cwd=environment)
    mark.write_text(print_of)
    return environment


def _node_arguments(environment: Path) -> Sequence[str]:
    modules = environment / "node_modules"
    return ("--node-modules", str(modules)) if modules.exists() else ()


async def _run(*command: str, cwd: Path | None = None) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env={**os.environ, "npm_config_update_notifier": "false"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except FileNotFoundError:
        raise Unavailable(f"{command[0]} is not installed here") from None
    async with asyncio.timeout(INSTALLING):
        said, _ = await process.communicate()
    if process.returncode:
        last = said.decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
        raise Unavailable(f"{' '.join(command[-3:])} failed: {last[0]}")


PEERS: Sequence[Peer] = (
    Peer(name="dbos", title="DBOS", folder="dbos", variant="service"),
    Peer(name="celery", title="Celery chain", folder="celery", variant="durable"),
    Peer(name="restate_calls", title="Restate, calls", folder="restate", variant="calls"),
    Peer(name="restate_inside", title="Restate, steps inside", folder="restate", variant="inside"),
    Peer(name="sagaz", title="sagaz", folder="sagaz", variant="calls"),
    Peer(name="natsaga", title="natsaga", folder="natsaga", variant="tuned"),
)
