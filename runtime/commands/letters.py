"""What the commands on dead letters have in common: from the words of the command line to rows."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from messages.errors import OperationRefused
from storage.letters import DeadLetterFilter
from storage.queries import Queries

if TYPE_CHECKING:
    from runtime.wanted import Wanted
    from storage import Database

_AGO = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


async def filter_of(wanted: Wanted, database: Database) -> DeadLetterFilter:
    """The filter that the words mean.

    Raises:
        OperationRefused: something is no id or no time, or there is no such instance.
    """
    now = database.runner.now()
    return DeadLetterFilter(
        ids=[number(each) for each in wanted.ids] if wanted.ids else None,
        reason=wanted.reason or None,
        error_class=wanted.error_class or None,
        name=wanted.name or None,
        consumer=wanted.consumer or None,
        saga_id=await _saga_id(wanted.saga, database) if wanted.saga else None,
        status=wanted.status,
        since=moment(wanted.since, now) if wanted.since else None,
        until=moment(wanted.until, now) if wanted.until else None,
    )


def number(text: str) -> int:
    """A dead letter's id as the database has it.

    Raises:
        OperationRefused: there can be none of that id.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise OperationRefused(f"no dead letter has the id {text!r}; antiphon dead list shows them")
    return int(text)


def moment(text: str, now: datetime) -> datetime:
    """A time, or how long ago it was.

    Raises:
        OperationRefused: it is neither.
    """
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return now - timedelta(seconds=float(ago[1]) * _SECONDS[ago[2]])
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.astimezone()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise OperationRefused(
            f"{text!r} is no time; write how long ago (90s, 5m, 2h, 8d) or a time such as 2026-11-21T12:30, local "
            "unless it names its zone"
        ) from None


async def _saga_id(reference: str, database: Database) -> UUID:
    try:
        return UUID(reference)
    except ValueError:
        found = await Queries(database).saga(reference)
    if found is None:
        raise OperationRefused(f"no instance has the id or business key {reference!r}; antiphon sagas list shows some")
    return found.saga.saga_id
