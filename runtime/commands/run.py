"""`run` and `participant`: the two commands that stay."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

from messages.errors import ConfigurationError
from running import AsyncioRunner
from runtime import logs
from runtime.app import App
from runtime.engine import PARTS, Engine
from runtime.loading import known_to
from runtime.settings import load
from runtime.telemetry import Telemetry

if TYPE_CHECKING:
    import socket
    from collections.abc import Collection, Sequence

    from runtime.engine import Part
    from runtime.loading import Known
    from runtime.settings import Settings


async def run(only: Collection[str]) -> int:
    """Run the sagas until a signal; with the in-process broker the participants too."""
    return await _sagas(only, http=not only or "http" in only)


async def one_of_several(parts: Collection[str], process: int, parent: socket.socket) -> int:
    """The same, as that process of a parent, which serves the health endpoints: until it says so, or is gone."""
    return await _sagas(parts, http=False, process=process, parent=parent)


async def _sagas(
    only: Collection[str], *, http: bool, process: int | None = None, parent: socket.socket | None = None
) -> int:
    settings = load().settings
    known = known_to(settings)
    parts = tuple(part for part in PARTS if not only or part in only)
    hosted = tuple(known.participants) if settings.in_process else ()
    if not known.sagas and not hosted and {"consumer", "timers"} & set(parts):
        raise ConfigurationError(
            f"ANTIPHON_MODULES: {', '.join(settings.modules)} defines no saga, so there is nothing to run; "
            "name the modules that hold yours"
        )
    return await _live(settings, known, parts=parts, participants=hosted, http=http, process=process, parent=parent)


async def participant(names: Sequence[str]) -> int:
    """Run participants, and the relay that publishes their replies, until a signal.

    Health endpoints are served only when their port was set: several participants live on one machine.
    """
    loaded = load()
    settings = loaded.settings
    if settings.in_process:
        raise ConfigurationError(
            "with the in-process broker the participants run inside `antiphon run`; "
            "name a RabbitMQ in ANTIPHON_BROKER_URL to run them as processes"
        )
    known = known_to(settings)
    chosen = tuple(known.chosen(names))
    http = loaded.sources["http_port"] != "default"
    parts: tuple[Part, ...] = ("relay",)
    return await _live(settings, known, parts=parts, participants=chosen, http=http)


async def _live(
    settings: Settings,
    known: Known,
    *,
    parts: Collection[Part],
    participants: Collection[str],
    http: bool,
    process: int | None = None,
    parent: socket.socket | None = None,
) -> int:
    logs.configure(log_format=settings.log_format, level=settings.log_level, stream=sys.stdout, process=process)
    report, runner = Telemetry(settings.log_level), AsyncioRunner()
    engine = Engine(settings, known, runner=runner, report=report, parts=parts, participants=participants)
    _collect_seldom()
    return await App(engine, settings, http=http, runner=runner, report=report, parent=parent).run()


def _collect_seldom() -> None:
    """What was loaded so far stays for good, and a batch makes thousands of small values that die by themselves.

    Measured, the collector's default thresholds cost about a twentieth of the message path.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
