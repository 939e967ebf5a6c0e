"""Where log lines go and what they look like: ours and the libraries', in one format, without a password in any.

JSON, one event per line, or for people when the output is a terminal.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Literal

import structlog

from messages.printable import in_words, printable
from runtime.addresses import masked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

    from structlog.typing import EventDict, Processor, WrappedLogger

Format = Literal["auto", "json", "console"]
Level = Literal["debug", "info", "warning", "error"]

LONGEST = 2_000
"""Characters of the longest value that people are shown."""

_SECRET_NAMES = ("password", "passwd", "secret", "authorization", "cookie")

_LIBRARIES: Mapping[str, int] = {
    # Tracebacks on every ordinary reconnect; the transport reports those as facts.
    "aio_pika": logging.CRITICAL,
    "aiormq": logging.CRITICAL,
    "aiosqlite": logging.WARNING,
    "alembic": logging.WARNING,
    "asyncio": logging.WARNING,
    "sqlalchemy": logging.WARNING,
    "uvicorn": logging.WARNING,
    "uvicorn.access": logging.CRITICAL,
}


def configure(*, log_format: Format, level: Level, stream: TextIO, process: int | None = None) -> None:
    """Send everything that is logged to `stream`. May be called again, also with another stream.

    `process` says in every line which of several processes it is from.
    """
    people = log_format == "console" or (log_format == "auto" and stream.isatty())
    shared = _shared(people)
    if process is not None:
        shared.insert(0, _numbered(process))
    structlog.configure(
        processors=[*shared, _renderer(people, stream)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    _bridge(shared, _renderer(people, stream), level, stream)


def redacted(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The last processor before the renderer: no credentials of an address, no value of a field named like a secret."""
    return {name: "***" if _secret(name) else _clean(value) for name, value in event.items()}


def spoken(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """For people: which saga and which step of how many in words, before the other fields.

    What came from outside is made harmless to a terminal; in JSON it is escaped anyway.
    """
    event = {name: _harmless(name, value) for name, value in event.items()}
    if "saga_type" not in event or "key" not in event:
        return event
    subject = f"{event.pop('saga_type')} {event.pop('key')}"
    if "step_number" in event:
        subject += f", step {event.pop('step_number')} of {event.pop('step_total')}: {event.pop('step', '')}"
    return {**event, "event": f"{event['event']:<26} {subject}"}


def _numbered(process: int) -> Processor:
    """Which of several processes a line is from. One that is about a process says so itself."""

    def numbered(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {"process": process, **event}

    return numbered


def _shared(people: bool) -> list[Processor]:
    clock = (
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False, key="time")
        if people
        else structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")
    )
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        clock,
        structlog.processors.format_exc_info,
        redacted,
        *([spoken] if people else []),
    ]


def _renderer(people: bool, stream: TextIO) -> Processor:
    if not people:
        return structlog.processors.JSONRenderer(default=str)
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty() and not os.environ.get("NO_COLOR"),
        exception_formatter=structlog.dev.plain_traceback,
        sort_keys=False,
        timestamp_key="time",
        pad_event_to=26,
    )


def _bridge(shared: list[Processor], renderer: Processor, level: Level, stream: TextIO) -> None:
    """Give the standard library's loggers the same lines."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shared, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, least in _LIBRARIES.items():
        library = logging.getLogger(name)
        library.handlers[:] = []
        library.propagate = True
        library.setLevel(max(least, logging.getLevelName(level.upper())))


def _harmless(name: str, value: object) -> object:
    return printable(value, LONGEST) if isinstance(value, str) and name != "exception" else value


def _secret(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET_NAMES)


def _clean(value: object) -> object:
    """`value` without credentials, however deep they stand."""
    if isinstance(value, str):
        return masked(value) if "://" in value else value
    if isinstance(value, dict):
        return _clean_mapping(value)
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    if isinstance(value, BaseException):
        return masked(in_words(value, LONGEST))
    return value


def _clean_mapping(value: Mapping[object, object]) -> dict[str, object]:
    return {str(name): "***" if _secret(str(name)) else _clean(item) for name, item in value.items()}
