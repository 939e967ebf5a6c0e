"""Commands, run to their end or kept running, in a folder of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from tests.runtime.office import large, office, small
from tests.runtime.processes import Ended, Process
from tests.runtime.shop import SAGA
from tests.storage.databases import empty_sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["antiphon", "empty_sqlite", "folder", "large", "office", "servers", "small", "started"]

Settings = dict[str, str]


class Command(Protocol):
    """Runs `antiphon` with arguments, and settings named in lower case without their prefix."""

    def __call__(self, *arguments: str, stdin: str = "", **settings: str) -> Ended: ...


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder in which commands run: their SQLite file is there."""
    return tmp_path


@pytest.fixture
def antiphon(folder: Path) -> Command:
    """Runs a command to its end."""

    def run(*arguments: str, stdin: str = "", **settings: str) -> Ended:
        return Process(arguments, settings, folder, stdin).result()

    return run


@pytest.fixture
def started(folder: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Process]]:
    """Starts a long-running command, with JSON logs, a free port and short pauses; killed after the test if it runs."""
    if "servers" in request.fixturenames:
        request.getfixturevalue("servers")  # first, so that nobody declares queues when they are cleared away
    processes: list[Process] = []

    def start(*arguments: str, **settings: str) -> Process:
        process = Process(arguments, {"http_port": "0", "log_format": "json", "sweep": "200ms", **settings}, folder)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()


@pytest.fixture
def servers(antiphon: Command, folder: Path, postgres_url: str, rabbitmq_url: str, namespace: str) -> Settings:
    """Settings for a migrated namespace on PostgreSQL and on RabbitMQ, with a saga of one step that nobody answers."""
    (folder / "shop.py").write_text(SAGA)
    settings = {
        "modules": "shop",
        "database_url": postgres_url,
        "broker_url": rabbitmq_url,
        "namespace": namespace,
        "http_port": "0",
        "log_format": "json",
    }
    done = antiphon("migrate", **settings)
    assert done.returncode == 0, done.stderr
    return settings
