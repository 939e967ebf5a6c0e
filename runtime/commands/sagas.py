"""`sagas list` and `sagas show`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING
from uuid import UUID

from rich.text import Text

from messages.errors import OperationRefused
from runtime.attention import ADVICE
from runtime.database import opened
from runtime.exits import OK
from runtime.outlook import outlook
from runtime.printing import STATUS_STYLES, console, counted, line, print_json, print_onward, shown, table
from runtime.settings import load
from runtime.timeline import after, duration, moments, steps
from storage.queries import Queries, SagaFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import Console

    from storage.queries import SagaDetail, SagaPage, SagaSummary


async def list_instances(wanted: SagaFilter, *, limit: int, after: str | None, as_json: bool) -> int:
    """Print a page of instances, the newest first, and where the next page begins.

    Raises:
        OperationRefused: `after` is no instance's id.
    """
    following = None if after is None else _saga_id(after)
    async with opened(load().settings) as storage:
        page = await Queries(storage.database).sagas(wanted, limit=limit, following=following)
    if as_json:
        print_json([asdict(saga) for saga in page.sagas])
        return OK
    out, chosen = console(), tuple(_options(wanted))
    if page.sagas:
        _print_page(out, page)
    else:
        out.print("no more instances" if after else "no such instances" if chosen else "no instances")
    if page.following is not None:
        print_onward(out, "antiphon sagas list", *chosen, "--limit", str(limit), "--after", str(page.following))
    return OK


async def show(identity: str, *, saga_type: str, as_json: bool) -> int:
    """Print one instance.

    Raises:
        OperationRefused: there is none of that id or key, or instances of several types have the key.
    """
    async with opened(load().settings) as storage:
        found = await Queries(storage.database).saga(identity, saga_type=saga_type or None)
    if found is None:
        raise OperationRefused(f"no instance has the id or business key {identity!r}; antiphon sagas list shows some")
    if as_json:
        how = outlook(found)
        print_json({**asdict(found), "outlook": None if how is None else asdict(how)})
    else:
        print_instance(console(), found)
    return OK


def print_instance(out: Console, found: SagaDetail) -> None:
    """Everything about one instance: where it stands first, then its steps, what happened, what is still to come."""
    _print_head(out, found)
    for reason in found.attention:
        out.print(line(f"  attention    {reason.reason} since {shown(reason.since)}: {reason.detail}", "red"))
        if (advice := ADVICE.get(reason.reason)) is not None:
            out.print(Text(f"               {advice.meaning}; {advice.remedy_for(found.saga.business_key)}"))
    _print_section(out, "Steps", table(("step", "state", "sends", "undo sends", "last moved"), _step_rows(found)))
    columns = ("time", "after", "what", "step", "message", "detail")
    _print_section(out, "What happened", table(columns, _moment_rows(found)))
    _print_section(out, "State", table(("field", "value"), _state_rows(found)))
    if found.timers:
        rows = [(timer.name, timer.due_at) for timer in found.timers]
        _print_section(out, "Timers", table(("timer", "due"), rows))
    if found.outbox:
        rows_out = [
            (each.name, each.state, each.attempts, each.next_attempt_at, "stuck" if each.stuck else "", each.message_id)
            for each in found.outbox
        ]
        columns = ("message", "state", "attempts", "next attempt", "", "message id")
        _print_section(out, "Waiting for the broker", table(columns, rows_out))
    if found.held:
        rows_held = [
            (each.name, each.reason, each.received_at, each.expires_at, each.message_id) for each in found.held
        ]
        _print_section(out, "Held", table(("message", "reason", "received", "expires", "message id"), rows_held))
    if found.dead_letters:
        rows_dead = [(each.dead_letter_id, each.name, each.reason, each.error) for each in found.dead_letters]
        _print_section(out, "Dead letters", table(("id", "message", "reason", "error"), rows_dead))


def _saga_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise OperationRefused(f"{text!r} is no saga id to go on from; begin with the first page") from None


def _options(wanted: SagaFilter) -> Iterable[str]:
    """The options that ask for these instances."""
    if wanted.status is not None:
        yield from ("--status", wanted.status)
    if wanted.saga_type is not None:
        yield from ("--type", wanted.saga_type)
    if wanted.attention:
        yield "--attention"


def _print_page(out: Console, page: SagaPage) -> None:
    columns: dict[str, Callable[[SagaSummary], object]] = {
        "key": lambda saga: saga.business_key,
        "saga": lambda saga: saga.saga_type,
        "status": _status,
        "because": lambda saga: _in_prose(saga.end_reason),
        "waiting for": lambda saga: saga.waiting_for,
        "attention": lambda saga: _in_prose(saga.attention),
        "started": lambda saga: saga.started_at,
        "saga id": lambda saga: saga.saga_id,
    }
    told = {name: [value(saga) for saga in page.sagas] for name, value in columns.items()}
    filled = {name: values for name, values in told.items() if any(value is not None for value in values)}
    out.print(table(tuple(filled), zip(*filled.values(), strict=True)))


def _status(saga: SagaSummary) -> Text:
    return Text(f"{saga.status}{', paused' if saga.paused else ''}", STATUS_STYLES.get(saga.status, ""))


def _in_prose(reason: str | None) -> str | None:
    return None if reason is None else reason.replace("_", " ")


def _print_head(out: Console, found: SagaDetail) -> None:
    saga, how = found.saga, outlook(found)
    status = line(f"{saga.saga_type} {saga.business_key}  ", "bold")
    status.append(saga.status, style=STATUS_STYLES.get(saga.status, ""))
    if saga.paused:
        status.append("  paused", style="yellow")
    out.print(status)
    until = saga.ended_at or saga.updated_at
    took = duration((until - saga.started_at).total_seconds())
    facts = [
        ("saga id", f"{saga.saga_id} (version {saga.version})"),
        ("started", shown(saga.started_at)),
        ("ended", f"{shown(saga.ended_at)}, after {took}" if saga.ended_at else ""),
        ("because", _in_prose(saga.end_reason) or ""),
        ("waiting for", "" if how is None else how.line),
        ("deadline", "" if saga.ended_at else shown(saga.deadline_at)),
        ("skipped", f"{counted(saga.skipped, 'step', 'steps')}" if saga.skipped else ""),
    ]
    for name, value in facts:
        if value:
            out.print(line(f"  {name:<12} {value}"))


def _print_section(out: Console, title: str, content: object) -> None:
    out.print()
    out.print(Text(title, style="bold"))
    out.print(content)


def _step_rows(found: SagaDetail) -> list[tuple[object, ...]]:
    return [(each.step, each.state, each.sends, each.undo_sends or "", each.at) for each in steps(found.events)]


def _moment_rows(found: SagaDetail) -> list[tuple[object, ...]]:
    told = moments(found.events)
    days = {moment.at.astimezone().date() for moment in told}
    form = "%H:%M:%S.%f" if len(days) < 2 else "%Y-%m-%d %H:%M:%S.%f"
    return [
        (
            moment.at.astimezone().strftime(form)[:-3],
            after(moment.after),
            moment.kind,
            moment.step,
            moment.message,
            moment.detail,
        )
        for moment in told
    ]


def _state_rows(found: SagaDetail) -> list[tuple[object, ...]]:
    return [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in found.state.items()
    ]
