"""A private Restate server: its configuration, its start and the registration of services at it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

BINARIES = "@restatedev/restate-server-*/bin/restate-server"

CONFIGURATION = """
node-name = "bench"
cluster-name = "bench"
base-dir = "{base}"
listen-mode = "tcp"
bind-address = "127.0.0.1:{fabric}"
advertised-address = "http://127.0.0.1:{fabric}/"
default-num-partitions = 1
disable-telemetry = true
disable-prometheus = true
rocksdb-perf-level = "disable"
log-filter = "warn,octocrab=off"
log-format = "compact"
log-disable-ansi-codes = true

[admin]
bind-address = "127.0.0.1:{admin}"
disable-web-ui = true

[ingress]
bind-address = "127.0.0.1:{ingress}"

[log-server]  # rocksdb-disable-wal-fsync stays at its default, false: every batch is flushed before it counts
rocksdb-disable-statistics = true
rocksdb-disable-wal-compression = true
rocksdb-disable-l0-l1-compression = true

[worker]
max-command-batch-size = 256

[worker.storage]
rocksdb-disable-statistics = true
rocksdb-disable-l0-l1-compression = true

[worker.invoker]
concurrent-invocations-limit = 10000
http2-streams-per-connection-limit = 1000
"""

START = 60.0  # seconds
END = 10.0


class CannotRun(Exception):  # noqa: N818 - names the situation
    """The server is not there, or did not start."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def executable(node_modules: Path) -> Path | None:
    """The server for this kind of machine, where npm has installed one."""
    return next((found for found in node_modules.glob(BINARIES) if os.access(found, os.X_OK)), None)


def die_with_parent() -> None:
    """Ask the kernel to end this process when the one that started it is gone."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class RestateServer:
    """The running server."""

    def __init__(self, process: asyncio.subprocess.Process, admin: int, ingress: int) -> None:
        self.ingress = ingress
        self.pid = process.pid
        self._process = process
        self._admin = admin

    @classmethod
    async def start(cls, node_modules: Path, folder: Path) -> RestateServer:
        """Start it with its data in `folder` and wait until it answers.

        Raises:
            CannotRun: there is none for this machine, or it did not start.
        """
        binary = executable(node_modules)
        if binary is None:
            raise CannotRun(f"no restate-server in {node_modules}")
        fabric, admin, ingress = free_ports(3)
        settings = folder / "restate.toml"
        settings.write_text(
            CONFIGURATION.format(base=folder / "restate-data", fabric=fabric, admin=admin, ingress=ingress)
        )
        log = folder / "restate.log"
        try:
            with log.open("wb") as written:
                process = await asyncio.create_subprocess_exec(
                    *(str(binary), "--config-file", str(settings), "--no-logo"),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=written,
                    stderr=written,
                    preexec_fn=die_with_parent,
                )
        except OSError as e:
            raise CannotRun(f"restate-server cannot be executed: {e}") from e
        server = cls(process, admin, ingress)
        try:
            async with asyncio.timeout(START):
                while not await server._answers():
                    if process.returncode is not None:
                        words = " ".join(log.read_text(errors="replace").split())
                        raise CannotRun(f"restate-server ended with {process.returncode}: {words[-300:]}")
                    await asyncio.sleep(0.1)
        except TimeoutError:
            await server.kill()
            raise CannotRun(f"restate-server was not ready within {START:g} s") from None
        except asyncio.CancelledError:
            await server.kill()
            raise
        return server

    async def register(self, port: int) -> None:
        """Tell it of the services at a port."""
        await asyncio.to_thread(self._ask, self._admin, "/deployments", {"uri": f"http://127.0.0.1:{port}"})

    async def end(self) -> None:
        """SIGTERM, then SIGKILL when it does not listen."""
        if self._process.returncode is None:
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), END)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def _answers(self) -> bool:
        try:
            await asyncio.to_thread(self._ask, self._admin, "/health")
            await asyncio.to_thread(self._ask, self.ingress, "/restate/health")
        except OSError:
            return False
        return True

    @staticmethod
    def _ask(port: int, path: str, body: Any = None) -> None:  # noqa: ANN401 - any JSON value
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            answer.read()
