"""`timers list`."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from runtime.arguments import timer_place
from runtime.commands.instances import instance_of
from runtime.database import opened
from runtime.exits import OK
from runtime.printing import console, print_json, print_onward, table
from runtime.settings import load
from runtime.timeline import duration
from sagas.backward import DEADLINE, OVERDUE
from storage.queries import Queries, TimerFilter, TimerPlace

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from storage.queries import SagaDetail, TimerPage

_WHOLE = {DEADLINE: "the instance turns back", OVERDUE: "people are told that it takes long"}
_OF_A_STEP = {
    "do": "its command is sent again, or given up",
    "undo": "its compensation is sent again",
    "sleep": "the rest is over",
    "timeout": "the wait is given up",
}


async def list_timers(identity: str, saga_type: str, *, limit: int, after: str, as_json: bool) -> int:
    """Print a page of timers, those first that are due first, and where the next page begins.

    Raises:
        OperationRefused: there is no instance of that id or key, or instances of several types have the key.
    """
    place = None
    if after:
        due_at, saga_id, name = timer_place(after)
        place = TimerPlace(due_at=due_at, saga_id=saga_id, name=name)
    async with opened(load().settings) as storage:
        found = await instance_of(storage.database, identity, saga_type=saga_type) if identity else None
        wanted = TimerFilter(saga_type=saga_type or None, saga_id=None if found is None else found.saga.saga_id)
        page = await Queries(storage.database).timers(wanted, limit=limit, following=place)
    if as_json:
        print_json([{**asdict(each), "what": what(each.name), "place": str(each.place)} for each in page.timers])
        return OK
    out = console()
    if page.timers:
        columns = ("due", "in", "timer", "key", "what happens", "saga", "saga id")
        out.print(table(columns, _rows(page)))
    elif found is not None:
        out.print(Text(_why_none(found)))
    else:
        out.print("no more timers" if after else "no timers")
    if page.following is not None:
        chosen = (*([identity] if identity else []), *(("--type", saga_type) if saga_type else ()))
        print_onward(out, "antiphon timers list", *chosen, "--limit", str(limit), "--after", str(page.following))
    return OK


def what(name: str) -> str:
    """What a timer does when it is due, as far as its name says it."""
    _, slash, purpose = name.rpartition("/")
    return _OF_A_STEP.get(purpose, f"{purpose} is sent") if slash else _WHOLE.get(name, "")


def _rows(page: TimerPage) -> Iterable[tuple[object, ...]]:
    for each in page.timers:
        yield (
            each.due_at,
            _until(each.due_at, page.read_at),
            each.name,
            each.business_key,
            what(each.name),
            each.saga_type,
            each.saga_id,
        )


def _until(due_at: datetime, now: datetime) -> str:
    seconds = round((due_at - now).total_seconds())
    return duration(seconds) if seconds >= 0 else f"overdue by {duration(-seconds)}"


def _why_none(found: SagaDetail) -> str:
    saga = found.saga
    key = shlex.quote(saga.business_key)
    if saga.ended_at is not None:
        return f"{saga.saga_type} {saga.business_key} is {saga.status}, and has no timers any more"
    if saga.paused:
        return (
            f"{saga.saga_type} {saga.business_key} is paused; its timers stand still until antiphon sagas resume {key}"
        )
    if any(each.reason == "method_raised" for each in found.attention):
        still = f"{saga.saga_type} {saga.business_key} is parked, because a method raised; its timers stand still"
        return f"{still} until antiphon sagas retry {key}"
    return "no timers"
