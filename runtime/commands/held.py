"""`held list`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from runtime.database import opened
from runtime.exits import OK
from runtime.printing import console, print_json, print_onward, table
from runtime.settings import load
from storage.queries import Queries

if TYPE_CHECKING:
    from collections.abc import Iterable

    from storage.queries import HeldFilter

_WAITS_FOR = {
    "early": "the instance it is for",
    "unawaited": "its instance to come to it",
    "awaited": "to be applied",
    "paused": "antiphon sagas resume",
    "version": "a process that knows the version",
}


async def list_held(wanted: HeldFilter, *, limit: int, after: int | None, as_json: bool) -> int:
    """Print a page of the messages that wait until they can be applied, the oldest first."""
    async with opened(load().settings) as storage:
        page = await Queries(storage.database).held(wanted, limit=limit, following=after)
    if as_json:
        print_json([asdict(each) for each in page.held])
        return OK
    out = console()
    if page.held:
        columns = ("id", "key", "reason", "message", "saga", "since", "expires", "message id", "waits for")
        rows = [
            (
                each.held_id,
                each.business_key or each.saga_id,
                each.reason,
                each.name,
                each.saga_type,
                each.received_at,
                each.expires_at or "never",
                each.message_id,
                _WAITS_FOR.get(each.reason, ""),
            )
            for each in page.held
        ]
        out.print(table(columns, rows))
    else:
        out.print("no more held messages" if after else "no held messages")
    if page.following is not None:
        chosen = tuple(_options(wanted))
        print_onward(out, "antiphon held list", *chosen, "--limit", str(limit), "--after", str(page.following))
    return OK


def _options(wanted: HeldFilter) -> Iterable[str]:
    if wanted.saga_type is not None:
        yield from ("--type", wanted.saga_type)
    if wanted.reason is not None:
        yield from ("--reason", wanted.reason)
