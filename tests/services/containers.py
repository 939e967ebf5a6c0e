"""The two servers from a Docker engine, where one answers; a client without an engine is common and costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import docker.errors
import psycopg
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from tests.services.management import Management
from tests.services.offer import Offer
from tests.services.waiting import until

if TYPE_CHECKING:
    from contextlib import ExitStack

POSTGRES_IMAGE = "postgres:16"
RABBITMQ_IMAGE = "rabbitmq:4-management"
_ENGINE_TIMEOUT = 3
_START_TIMEOUT = 120.0


def engine_answers() -> bool:
    """Whether a Docker engine, that of the current Docker context if there is one, answers within three seconds."""
    try:
        client = DockerClient(timeout=_ENGINE_TIMEOUT).client
    except (docker.errors.DockerException, OSError):
        return False
    try:
        return bool(client.ping())
    except (docker.errors.DockerException, OSError):
        return False
    finally:
        client.close()


def start_postgres(ending: ExitStack) -> Offer:
    """Start PostgreSQL for as long as `ending` stays open."""
    container = DockerContainer(POSTGRES_IMAGE, command="postgres -c fsync=off -c max_connections=200")
    container.with_env("POSTGRES_HOST_AUTH_METHOD", "trust").with_exposed_ports(5432)
    ending.enter_context(container)
    url = f"postgresql://postgres@{_address(container, 5432)}/postgres"
    until(lambda: _connects(url), timeout=_START_TIMEOUT, what=f"{POSTGRES_IMAGE} at {url}")
    return Offer(url=url, source=f"Docker container of {POSTGRES_IMAGE}")


def start_rabbitmq(ending: ExitStack) -> Offer:
    """Start RabbitMQ with its management API for as long as `ending` stays open."""
    container = DockerContainer(RABBITMQ_IMAGE)
    container.with_env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1").with_exposed_ports(5672, 15672)
    ending.enter_context(container)
    management_url = f"http://guest:guest@{_address(container, 15672)}"
    management = Management(management_url)
    until(lambda: management.listens(5672), timeout=_START_TIMEOUT, what=f"{RABBITMQ_IMAGE} at {management_url}")
    return Offer(
        url=f"amqp://guest:guest@{_address(container, 5672)}/%2F",
        source=f"Docker container of {RABBITMQ_IMAGE}",
        management_url=management_url,
    )


def _address(container: DockerContainer, port: int) -> str:
    return f"{container.get_container_host_ip()}:{container.get_exposed_port(port)}"


def _connects(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True
