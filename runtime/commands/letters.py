"""What the commands on dead letters have in common: from the words of the command line to rows."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from messages.errors import OperationRefused
from runtime.arguments import moment
from runtime.commands.instances import instance_of
from storage.letters import DeadLetterFilter, LetterQueries

if TYPE_CHECKING:
    from collections.abc import Collection

    from runtime.wanted import Wanted
    from storage import Database


async def filter_of(wanted: Wanted, database: Database) -> DeadLetterFilter:
    """The filter that the words mean.

    Raises:
        OperationRefused: there is no such instance, or no letter of one of the ids.
    """
    now = database.runner.now()
    await _refuse_unknown(wanted.ids, database)
    return DeadLetterFilter(
        ids=wanted.ids or None,
        reason=wanted.reason or None,
        error_class=wanted.error_class or None,
        name=wanted.name or None,
        consumer=wanted.consumer or None,
        saga_id=await _saga_id(wanted.saga, database) if wanted.saga else None,
        status=wanted.status,
        since=moment(wanted.since, now) if wanted.since else None,
        until=moment(wanted.until, now) if wanted.until else None,
    )


async def _refuse_unknown(ids: Collection[int], database: Database) -> None:
    """Whoever names a letter that is not there has mistyped it: do nothing with the others either."""
    if not ids:
        return
    there = await LetterQueries(database).ids(DeadLetterFilter(ids=[*ids], status=None), limit=None)
    if missing := sorted({*ids} - {*there}):
        raise OperationRefused(
            f"no dead letter has the id {', '.join(map(str, missing))}; antiphon dead list --status all shows them"
        )


async def _saga_id(reference: str, database: Database) -> UUID:
    try:
        return UUID(reference)
    except ValueError:
        return (await instance_of(database, reference)).saga.saga_id
