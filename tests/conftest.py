"""Real servers for every test that asks for one, each worker and each test with a place of its own in them.

A service that cannot be had is a failure that says what to install, never a skip. `tests/services` finds or starts
the servers; see CONTRIBUTING.md.
"""

from __future__ import annotations

import json
import os
import re
import urllib.parse
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from tests.services import leftovers
from tests.services.keeping import POSTGRES, RABBITMQ, TALLY, ask, kept, used
from tests.services.management import Management
from tests.services.private import PrivatePostgres, PrivateRabbitMQ
from tests.storage.databases import ASYNCPG, PSYCOPG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

pytest_plugins = ["testkit.plugin"]

# How busy the machine is says nothing about the code, so no generated test fails for being slow.
settings.register_profile("antiphon", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("antiphon")

_KEEPER = pytest.StashKey[ExitStack]()
_CRASH_TESTS = Path(__file__).parent / "crash"
_PRIVATE = {"_private_postgres", "_private_rabbitmq"}
_SERVERS = {"postgres_server", "rabbitmq_url", *_PRIVATE}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what `make integration` and `make soak` ask for."""
    parser.addoption("--both-drivers", action="store_true", help="run each test on PostgreSQL over asyncpg and psycopg")


def pytest_configure(config: pytest.Config) -> None:
    """Have a keeper of services; it starts nothing before the first test that asks. Workers use the controller's."""
    if not _is_worker(config):
        keeper = config.stash[_KEEPER] = ExitStack()
        keeper.enter_context(kept())


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what was started, after Ctrl-C too."""
    keeper = config.stash.get(_KEEPER, None)
    if keeper is not None:
        keeper.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which servers the tests ran on, and add the counts to those of the other runs of `make test`."""
    if _is_worker(config):
        return
    for service, source in used().items():
        terminalreporter.write_line(f"services: {service}: {source}")
    if TALLY in os.environ:
        with Path(os.environ[TALLY]).open("a") as tally:
            tally.write(json.dumps(_counts(terminalreporter)) + "\n")


def _counts(terminalreporter: pytest.TerminalReporter) -> dict[str, int]:
    outcomes = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
    return {name: len(found) for name in outcomes if (found := terminalreporter.stats.get(name))}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test by what it needs, so that `make unit`, `property`, `integration` and `crash` find theirs.

    Those that share a server to kill are one group, so that `--dist loadgroup` starts that server for one worker only.
    """
    for item in items:
        marks = list(_marks(item))
        for mark in marks or ["unit"]:
            item.add_marker(mark)
        if "crash" not in marks:
            for server in _PRIVATE & set(getattr(item, "fixturenames", ())):
                item.add_marker(pytest.mark.xdist_group(server))


def _on_postgresql(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and not {ASYNCPG, PSYCOPG}.isdisjoint(
        value for name, value in callspec.params.items() if name in ("database", "postgresql")
    )


def _marks(item: pytest.Item) -> Iterator[str]:
    if _CRASH_TESTS in item.path.parents:
        yield "crash"
    elif _SERVERS & set(getattr(item, "fixturenames", ())) or _on_postgresql(item):
        yield "integration"
    if item.get_closest_marker("hypothesis"):
        yield "property"


@pytest.fixture(scope="session")
def postgres_server() -> str:
    """The URL of a superuser's maintenance database; tests make databases of their own."""
    return ask(POSTGRES).url


@pytest.fixture(scope="session")
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A database of this worker's own, empty when the run begins."""
    name = _unique("antiphon_test")
    yield _create_database(postgres_server, name)
    _drop_database(postgres_server, name)


@pytest.fixture
def fresh_database(postgres_server: str) -> Iterator[Callable[[], str]]:
    """Makes empty databases, as URLs; they are dropped after the test, whoever is still connected."""
    with ExitStack() as drops:

        def create() -> str:
            name = _unique("antiphon_test")
            drops.callback(_drop_database, postgres_server, name)
            return _create_database(postgres_server, name)

        yield create


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """A vhost of this worker's own; on a broker given by URL, without a management API, that URL itself."""
    broker = ask(RABBITMQ)
    if broker.management_url is None:
        yield broker.url
        return
    management, vhost = Management(broker.management_url), _unique("test")
    management.create_vhost(vhost)
    yield urllib.parse.urlsplit(broker.url)._replace(path=f"/{vhost}").geturl()
    management.delete_vhost(vhost)


@pytest.fixture
async def namespace(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A namespace no other test uses, fit for `ANTIPHON_NAMESPACE`; its queues and exchanges go after the test."""
    name = f"t{uuid.uuid4().hex[:16]}"
    yield name
    if "rabbitmq_url" in request.fixturenames:
        await leftovers.clear(request.getfixturevalue("rabbitmq_url"), name)


@pytest.fixture(scope="session")
def _private_postgres() -> Iterator[PrivatePostgres]:
    with PrivatePostgres() as server:
        yield server


@pytest.fixture(scope="session")
def _private_rabbitmq() -> Iterator[PrivateRabbitMQ]:
    with PrivateRabbitMQ() as server:
        yield server


@pytest.fixture
def private_postgres(_private_postgres: PrivatePostgres) -> PrivatePostgres:
    """A server to kill, restart or cut; up again, with its data, when the next test begins."""
    return _private_postgres.start()


@pytest.fixture
def private_rabbitmq(_private_rabbitmq: PrivateRabbitMQ) -> PrivateRabbitMQ:
    """A broker to kill, restart or cut; up again, with its durable queues, when the next test begins."""
    return _private_rabbitmq.start()


def _is_worker(config: pytest.Config) -> bool:
    """Whether this is a process of pytest-xdist, beside which a controller counts and keeps."""
    return hasattr(config, "workerinput")


def _unique(prefix: str) -> str:
    worker = re.sub(r"\W", "", os.environ.get("PYTEST_XDIST_WORKER", "main"))
    return f"{prefix}_{worker}_{uuid.uuid4().hex[:12]}"


def _create_database(server: str, name: str) -> str:
    _execute(server, f"create database {name}")
    return urllib.parse.urlsplit(server)._replace(path=f"/{name}").geturl()


def _drop_database(server: str, name: str) -> None:
    _execute(server, f"drop database if exists {name} with (force)")


def _execute(server: str, statement: str) -> None:
    with psycopg.connect(server, autocommit=True, connect_timeout=10) as connection:
        connection.execute(statement.encode())
