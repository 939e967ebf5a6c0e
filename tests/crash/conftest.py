"""The laboratory of the tests with PostgreSQL and RabbitMQ, in a database and a namespace of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.driver import Setup
from tests.crash.laboratory import Laboratory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture
async def laboratory(
    fresh_database: Callable[[], str], rabbitmq_url: str, namespace: str, tmp_path: Path
) -> AsyncIterator[Laboratory]:
    """A migrated database and nothing running yet."""
    setup = Setup(folder=tmp_path, database_url=fresh_database(), broker_url=rabbitmq_url, namespace=namespace)
    async with Laboratory(setup=setup) as made:
        yield made
