"""`run --processes`: a parent, and processes that each do what `run` does."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from messages.errors import ConfigurationError
from running import AsyncioRunner
from runtime import logs
from runtime.lines import share_output
from runtime.processes.several import Several
from runtime.settings import load
from runtime.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Collection

    from runtime.settings import Settings


async def run(processes: int, only: Collection[str]) -> int:
    """Run so many processes until a signal."""
    settings = load().settings
    _refuse_one_runner(settings, processes)
    share_output()
    logs.configure(log_format=settings.log_format, level=settings.log_level, stream=sys.stdout)
    http = not only or "http" in only
    runner, report = AsyncioRunner(), Telemetry(settings.log_level)
    return await Several(settings, processes, only, http=http, runner=runner, report=report).run()


def _refuse_one_runner(settings: Settings, processes: int) -> None:
    """What takes one runner by a lock would let the first process work and the others end."""
    if settings.sqlite:
        raise ConfigurationError(
            f"an SQLite file takes one runner, and --processes asks for {processes}; name a PostgreSQL in "
            "ANTIPHON_DATABASE_URL and a RabbitMQ in ANTIPHON_BROKER_URL, or leave --processes out"
        )
    if settings.in_process:
        raise ConfigurationError(
            f"the in-process broker takes one runner, and --processes asks for {processes}; name a RabbitMQ in "
            "ANTIPHON_BROKER_URL, or leave --processes out"
        )
