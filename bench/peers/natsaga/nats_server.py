"""A private NATS server with JetStream, which flushes every message to its disk before it acknowledges it."""

from __future__ import annotations

import asyncio
import ctypes
import shutil
import signal
import sys
from pathlib import Path

import orjson

PATIENCE = 10.0
CONFIGURATION = """
host: 127.0.0.1
port: -1
ports_file_dir: "{folder}"
jetstream {{ store_dir: "{folder}/jetstream", sync_interval: always }}
"""
PR_SET_PDEATHSIG = 1


class Unavailable(RuntimeError):  # noqa: N818 - names the situation
    """A server that this peer needs is not there."""


def end_with_parent() -> None:
    """Have the kernel end this process when its parent is gone, however that came about."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def executable() -> str:
    """The server that was installed beside this interpreter, or the machine's."""
    beside = Path(sys.executable).with_name("nats-server")
    if found := shutil.which(beside) or shutil.which("nats-server"):
        return found
    raise Unavailable("there is no nats-server, neither beside the interpreter nor on the path")


def configured(folder: Path) -> Path:
    """The server's configuration, written down."""
    configuration = folder / "nats.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder.absolute()))
    return configuration


def told(folder: Path) -> str | None:
    """The address that the server has written down once it listens."""
    for ports in folder.glob("nats-server_*.ports"):
        return orjson.loads(ports.read_bytes())["nats"][0]
    return None


class NatsServer:
    """The running server."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, version: str) -> None:
        self.pid = process.pid
        self.url = url
        self.version = version
        self._process = process

    @classmethod
    async def start(cls, folder: Path) -> NatsServer:
        """Start it on a free port.

        Raises:
            Unavailable: there is none, or it does not come up, for instance since it is too old to flush every message.
        """
        command = executable()
        asked = await asyncio.create_subprocess_exec(command, "--version", stdout=asyncio.subprocess.PIPE)
        version = (await asked.communicate())[0].decode().rpartition("v")[2].strip()
        log = folder / "nats.log"
        with log.open("wb") as written:
            process = await asyncio.create_subprocess_exec(
                command,
                "--config",
                configured(folder),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        try:
            async with asyncio.timeout(PATIENCE):
                while not (url := told(folder)):
                    if process.returncode is not None:
                        raise Unavailable(f"nats-server {version} does not start: {log.read_text()[-500:].strip()}")
                    await asyncio.sleep(0.02)
        except BaseException as why:
            if process.returncode is None:
                process.kill()
                await process.wait()
            if isinstance(why, TimeoutError):
                raise Unavailable(f"nats-server {version} was not ready within {PATIENCE:g} s") from why
            raise
        return cls(process, url, version)

    async def end(self) -> None:
        """Stop it, by force if it takes long."""
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
