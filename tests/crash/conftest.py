"""The laboratory of the tests with PostgreSQL and RabbitMQ: a migrated database and empty queues for every test.

All tests of a worker share a namespace, so that the schema is made once and copied.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.crash.driver import Setup
from tests.crash.forking import ROOT
from tests.crash.laboratory import Laboratory
from tests.services import leftovers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: at the end of a run it would leave all workers but one without work."""

    def seconds(item: pytest.Item) -> float:
        long = item.get_closest_marker("long")
        return float(long.args[0]) if long else 0.0

    items.sort(key=seconds, reverse=True)


@dataclass(frozen=True, slots=True)
class Template:
    """A migrated database to be copied, and the namespace that its schema bears."""

    server: str
    name: str
    namespace: str

    @property
    def url(self) -> str:
        """Where it is."""
        return urlsplit(self.server)._replace(path=f"/{self.name}").geturl()

    def copy(self) -> tuple[str, str]:
        """Name and URL of a copy."""
        name = f"{self.name}_{uuid.uuid4().hex[:8]}"
        self.execute(f"create database {name} template {self.name}")
        return name, urlsplit(self.server)._replace(path=f"/{name}").geturl()

    def drop(self, name: str) -> None:
        """Drop a copy, or itself, whoever is still connected."""
        self.execute(f"drop database if exists {name} with (force)")

    def execute(self, statement: str) -> None:
        """Run a statement on the server."""
        with psycopg.connect(self.server, autocommit=True, connect_timeout=10) as connection:
            connection.execute(statement.encode())


@pytest.fixture(scope="session")
def template(postgres_server: str) -> Iterator[Template]:
    """One for each worker."""
    unique = uuid.uuid4().hex[:12]
    made = Template(postgres_server, f"crash_{unique}", f"c{unique}")
    made.execute(f"create database {made.name}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
    environment |= {"ANTIPHON_DATABASE_URL": made.url, "ANTIPHON_NAMESPACE": made.namespace, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "runtime", "migrate"], env=environment, cwd=ROOT, check=True)
    yield made
    made.drop(made.name)


@pytest.fixture
def migrated_database(template: Template) -> Iterator[Callable[[], str]]:
    """Makes copies of the migrated database, as URLs; they are dropped after the test."""
    with ExitStack() as drops:

        def create() -> str:
            name, url = template.copy()
            drops.callback(template.drop, name)
            return url

        yield create


@pytest.fixture
async def setup(
    migrated_database: Callable[[], str], template: Template, rabbitmq_url: str, tmp_path: Path
) -> AsyncIterator[Setup]:
    """Where a run takes place, with nothing running yet; its queues go after the test."""
    url = migrated_database()
    yield Setup(folder=tmp_path, database_url=url, broker_url=rabbitmq_url, namespace=template.namespace)
    await leftovers.clear(rabbitmq_url, template.namespace)


@pytest.fixture
async def laboratory(setup: Setup) -> AsyncIterator[Laboratory]:
    """A migrated database and nothing running yet."""
    async with Laboratory(setup=setup, migrated=True) as made:
        yield made
