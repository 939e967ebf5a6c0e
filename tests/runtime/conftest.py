"""Commands as processes: their arguments, output and exit codes, with nothing of this process in between."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.runtime.shop import SAGA

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator

HOME = Path(__file__).resolve().parents[2]
BOUND = 60.0
"""Seconds after which a process that should have ended or spoken is taken for stuck."""


Settings = dict[str, str]


class Command(Protocol):
    def __call__(self, *arguments: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]: ...


class Process:
    """A long-running command whose log lines are read as they come."""

    def __init__(self, command: list[str], environment: dict[str, str], cwd: Path) -> None:
        self._process = subprocess.Popen(
            command, env=environment, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._arrived: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._readers = [threading.Thread(target=self._read_out), threading.Thread(target=self._read_errors)]
        for reader in self._readers:
            reader.start()

    def _read_out(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            self._arrived.put(json.loads(text))
        self._arrived.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self.errors.extend(self._process.stderr)

    def until(self, event: str, **fields: object) -> dict[str, Any]:
        """Wait for a log line with these values; fails when the process ends or stays silent first."""
        while True:
            try:
                line = self._arrived.get(timeout=BOUND)
            except queue.Empty:
                raise AssertionError(f"no {event} within {BOUND} s; so far {self.lines} {self.errors}") from None
            assert line is not None, f"ended before {event}: {self.lines} {self.errors}"
            self.lines.append(line)
            if line["event"] == event and all(line.get(name) == value for name, value in fields.items()):
                return line

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end; the exit code."""
        code = self._process.wait(timeout=BOUND)
        for reader in self._readers:
            reader.join()
        while (line := self._arrived.get()) is not None:
            self.lines.append(line)
        return code

    @property
    def stderr(self) -> str:
        return "".join(self.errors)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(timeout=BOUND)
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


def environment(settings: dict[str, str]) -> dict[str, str]:
    """This process's environment without its settings, and with these; names as in the settings, in lower case."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
    given = {f"ANTIPHON_{name.upper()}": value for name, value in settings.items()}
    return {**kept, **given, "PYTHONPATH": str(HOME), "PYTHONWARNINGS": "error"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder in which commands run: their SQLite file is there."""
    return tmp_path


@pytest.fixture
def antiphon(folder: Path) -> Command:
    """Runs a command to its end."""

    def run(*arguments: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "runtime", *arguments],
            env=environment(settings),
            cwd=folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )

    return run


@pytest.fixture
def started(folder: Path) -> Iterator[Callable[..., Process]]:
    """Starts a long-running command, with JSON logs and a free port; killed after the test if it still runs."""
    processes: list[Process] = []

    def start(*arguments: str, **settings: str) -> Process:
        given = {"http_port": "0", "log_format": "json", **settings}
        process = Process([sys.executable, "-m", "runtime", *arguments], environment(given), folder)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()


@pytest.fixture
def servers(
    antiphon: Command, folder: Path, fresh_database: Callable[[], str], rabbitmq_url: str, namespace: str
) -> Settings:
    """Settings for a migrated PostgreSQL database and RabbitMQ, with a saga of one step that nobody answers."""
    (folder / "shop.py").write_text(SAGA)
    settings = {
        "modules": "shop",
        "database_url": fresh_database(),
        "broker_url": rabbitmq_url,
        "namespace": namespace,
        "http_port": "0",
        "log_format": "json",
    }
    done = antiphon("migrate", **settings)
    assert done.returncode == 0, done.stderr
    return settings
