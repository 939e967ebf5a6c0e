"""Which servers a test run uses: given ones, else a Docker engine's, else private ones from local programs.

Servers that merely happen to run on this machine are never touched: the suite creates and drops what it likes.
"""

from __future__ import annotations

import os
import socket
import sys
import urllib.parse
from typing import TYPE_CHECKING

import psycopg

from tests.services import containers
from tests.services.offer import Offer
from tests.services.private import PrivatePostgres, PrivateRabbitMQ

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

DATABASE_VARIABLE = "ANTIPHON_TEST_DATABASE_URL"
BROKER_VARIABLE = "ANTIPHON_TEST_BROKER_URL"


class UnreachableError(AssertionError):
    """A server named in the environment does not answer; the text names the variable."""


def offer_postgres(ending: ExitStack) -> Offer:
    """Find or start PostgreSQL; what was started stops when `ending` closes.

    Raises:
        UnreachableError: the given one does not answer.
        NotInstalledError: there is no way to get one; the text says what to install.
    """
    given = os.environ.get(DATABASE_VARIABLE)
    if given:
        return _given_postgres(given)
    return _from_docker(containers.start_postgres, ending) or _private_postgres(ending)


def offer_rabbitmq(ending: ExitStack) -> Offer:
    """The same for RabbitMQ."""
    given = os.environ.get(BROKER_VARIABLE)
    if given:
        return _given_rabbitmq(given)
    return _from_docker(containers.start_rabbitmq, ending) or _private_rabbitmq(ending)


def _given_postgres(url: str) -> Offer:
    url = url.replace("postgres://", "postgresql://", 1)
    try:
        psycopg.connect(url, connect_timeout=10).close()
    except psycopg.Error as error:
        raise UnreachableError(_unreachable(DATABASE_VARIABLE, str(error))) from None
    return Offer(url=url, source=f"given by {DATABASE_VARIABLE}")


def _given_rabbitmq(url: str) -> Offer:
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
        socket.create_connection((parts.hostname or "127.0.0.1", port), timeout=10).close()
    except (OSError, ValueError) as error:
        raise UnreachableError(_unreachable(BROKER_VARIABLE, str(error))) from None
    return Offer(url=url, source=f"given by {BROKER_VARIABLE}")


def _unreachable(variable: str, why: str) -> str:
    return (
        f"{variable} is set, but there is no connection: {why.strip()}. Correct it, or unset it for a private server."
    )


def _from_docker(start: Callable[[ExitStack], Offer], ending: ExitStack) -> Offer | None:
    """None without an engine, and, with a line that says so, when the engine cannot run the image."""
    if not containers.engine_answers():
        return None
    with type(ending)() as attempt:
        try:
            offer = start(attempt)
        except Exception as error:
            print(f"tests: Docker could not help, trying local programs: {error}", file=sys.stderr, flush=True)
            return None
        ending.push(attempt.pop_all())
    return offer


def _private_postgres(ending: ExitStack) -> Offer:
    server = ending.enter_context(PrivatePostgres(durable=False))
    return Offer(url=server.url, source=f"private PostgreSQL {server.version} from {server.programs}")


def _private_rabbitmq(ending: ExitStack) -> Offer:
    server = ending.enter_context(PrivateRabbitMQ(management=True))
    return Offer(
        url=server.url,
        source=f"private RabbitMQ {server.version} from {server.programs}",
        management_url=server.management_url,
    )
