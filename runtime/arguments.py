"""What stands on the command line, made into values; what cannot be one is a mistake of the command line.

Nothing heavy is imported here, so that such a mistake is told at once, and whatever the database does.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import typer

from runtime.durations import span

_AGO = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def letter_id(text: str) -> int:
    """The id of a dead letter."""
    return _number(text, f"no dead letter has the id {text!r}; antiphon dead list shows them")


def job_id(text: str) -> int:
    """The id of a replay."""
    return _number(text, f"no replay has the id {text!r}; antiphon dead jobs lists them")


def place(text: str) -> int:
    """The number that a page goes on behind."""
    return _number(text, f"{text!r} is no id to go on from; begin with the first page")


def instance_place(text: str) -> UUID:
    """The saga id that a page goes on behind."""
    try:
        return UUID(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no saga id to go on from; begin with the first page") from None


def timer_place(text: str) -> tuple[datetime, UUID, str]:
    """The timer that a page goes on behind: when it was due, whose it is, and its name."""
    due_at, _, timer = text.partition("/")
    saga_id, _, name = timer.partition("/")
    try:
        return datetime.fromisoformat(due_at).astimezone(UTC), UUID(saga_id), name
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is no timer to go on from; begin with the first page") from None


def timer_place_text(text: str) -> str:
    """The same as it was written, which `timer_place` reads."""
    if text:
        timer_place(text)
    return text


def instant(text: str) -> datetime:
    """A time of day and date."""
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.astimezone()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no time; write one such as 2026-11-21T12:30, local unless it names its zone, or say --in 2h"
        ) from None


def duration(text: str) -> timedelta:
    """How long, with its unit."""
    try:
        return span(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no duration of at most a hundred years; write a number with s, m, h or d, such as 90s or 8d"
        ) from None


def time_text(text: str) -> str:
    """A time as it was written, which `moment` reads."""
    if text:
        moment(text, datetime.now(UTC))
    return text


def seconds(text: str) -> float:
    """How long: a number with its unit, in seconds."""
    long = _AGO.fullmatch(text)
    if long is None:
        raise typer.BadParameter(f"{text!r} is no duration; write a number with s, m, h or d (90s, 5m, 2h, 8d)")
    return float(long[1]) * _SECONDS[long[2]]


def moment(text: str, now: datetime) -> datetime:
    """A time, or how long ago it was."""
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return now - timedelta(seconds=float(ago[1]) * _SECONDS[ago[2]])
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.astimezone()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no time; write how long ago (90s, 5m, 2h, 8d) or a time such as 2026-11-21T12:30, local "
            "unless it names its zone"
        ) from None


def _number(text: str, otherwise: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise typer.BadParameter(otherwise)
    return int(text)
