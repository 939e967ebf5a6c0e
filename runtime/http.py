"""The health endpoints, served by uvicorn inside our own event loop.

`/livez` says that the event loop turns, nothing else; `/readyz` says whether work can be done, check by check.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from messages.errors import ConfigurationError
from runtime.addresses import masked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.readiness import Health

CLOSING = 2
"""Seconds open connections get when the server stops."""


def application(health: Health) -> FastAPI:
    """The routes. FastAPI's own telemetry is off: it would record exception messages and inputs."""
    app = FastAPI(
        title="Antiphon",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        findings = await health.findings()
        ready = all(finding.ok for finding in findings.values())
        checks = {name: {"ok": found.ok, "detail": masked(found.detail)} for name, found in findings.items()}
        return JSONResponse({"ready": ready, "checks": checks}, status_code=200 if ready else 503)

    return app


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: it would raise SIGTERM again after serving. Signals are the app's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """A component that serves an ASGI application until it is stopped.

    `open` binds the port, so that a port that is taken is an error before anything else starts.
    """

    name = "http"

    def __init__(self, app: FastAPI, *, host: str, port: int) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._listening: socket.socket | None = None
        self._server: _Server | None = None
        self._stopped = False

    @property
    def address(self) -> str:
        """Where it listens; the real port once `open` has run."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def open(self) -> None:
        """Bind the port. A second call does nothing while the first one's socket is open.

        Raises:
            ConfigurationError: The port is taken or the host is not ours.
        """
        if self._listening is not None and self._listening.fileno() >= 0:
            return
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((self._host, self._port))
        except OSError as error:
            listening.close()
            raise ConfigurationError(
                f"cannot listen on {self.address} ({error.strerror or error}); stop what listens there, or set "
                "ANTIPHON_HTTP_PORT to another port (0: any free one) or ANTIPHON_HTTP_HOST to an address of this host"
            ) from None
        listening.setblocking(False)
        self._listening, self._port = listening, listening.getsockname()[1]

    async def run(self) -> None:
        """Serve until `stop`."""
        if self._stopped:
            self.close()
            return
        self.open()
        assert self._listening is not None  # noqa: S101 - `open` has just bound it
        config = uvicorn.Config(
            self._app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=CLOSING
        )
        self._server = _Server(config)
        await self._server.serve(sockets=[self._listening])

    def stop(self) -> None:
        """Answer what has been asked, then return from `run`."""
        self._stopped = True
        if self._server is not None:
            self._server.should_exit = True

    def close(self) -> None:
        """Give up the port, for a server that was opened and never ran."""
        if self._listening is not None:
            self._listening.close()
