"""`sagas list` and `sagas show`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from messages.errors import OperationRefused
from runtime.database import opened
from runtime.exits import OK
from runtime.printing import STATUS_STYLES, console, print_json, shown, table
from runtime.settings import load
from runtime.timeline import ATTENTION, after, duration, moments, steps
from storage.queries import Queries, SagaFilter

if TYPE_CHECKING:
    from rich.console import Console

    from storage.queries import SagaDetail, SagaPage, SagaSummary


async def list_instances(*, status: str, saga_type: str, limit: int, as_json: bool) -> int:
    """Print the newest instances."""
    async with opened(load().settings) as storage:
        wanted = SagaFilter(saga_type=saga_type or None, status=status or None)
        page = await Queries(storage.database).sagas(wanted, limit=limit)
    if as_json:
        print_json([asdict(saga) for saga in page.sagas])
    else:
        _print_page(page)
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
        print_json(asdict(found))
    else:
        print_instance(console(), found)
    return OK


def print_instance(out: Console, found: SagaDetail) -> None:
    """Everything about one instance: where it stands first, then its steps, what happened, what is still to come."""
    _print_head(out, found.saga)
    for reason in found.attention:
        out.print(Text(f"  attention    {reason.reason} since {shown(reason.since)}: {reason.detail}", style="red"))
        if reason.reason in ATTENTION:
            out.print(Text(f"               {ATTENTION[reason.reason]}"))
    out.print(Text(f"  state        {', '.join(f'{name}: {value}' for name, value in found.state.items())}"))
    _print_section(out, "Steps", table(("step", "state", "sends", "last moved"), _step_rows(found)))
    columns = ("time", "after", "what", "step", "message", "detail")
    _print_section(out, "What happened", table(columns, _moment_rows(found)))
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
    if found.dead_letters:
        rows_dead = [(each.dead_letter_id, each.name, each.reason, each.error) for each in found.dead_letters]
        _print_section(out, "Dead letters", table(("id", "message", "reason", "error"), rows_dead))


def _print_page(page: SagaPage) -> None:
    out = console()
    if not page.sagas:
        out.print("no instances")
        return
    columns = ("saga", "key", "status", "waiting for", "attention", "started", "saga id")
    rows = [
        (
            saga.saga_type,
            saga.business_key,
            saga.status,
            saga.waiting_for or saga.end_reason,
            saga.attention,
            saga.started_at,
            saga.saga_id,
        )
        for saga in page.sagas
    ]
    out.print(table(columns, rows))
    if page.following is not None:
        out.print(f"and more; the newest {len(rows)} are shown, --limit shows more")


def _print_head(out: Console, saga: SagaSummary) -> None:
    status = Text(f"{saga.saga_type} {saga.business_key}  ", style="bold")
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
        ("because", (saga.end_reason or "").replace("_", " ")),
        ("waiting for", saga.waiting_for or ""),
        ("deadline", "" if saga.ended_at else shown(saga.deadline_at)),
        ("skipped", f"{saga.skipped} steps" if saga.skipped else ""),
    ]
    for name, value in facts:
        if value:
            out.print(Text(f"  {name:<12} {value}"))


def _print_section(out: Console, title: str, content: object) -> None:
    out.print()
    out.print(Text(title, style="bold"))
    out.print(content)


def _step_rows(found: SagaDetail) -> list[tuple[object, ...]]:
    return [(line.step, line.state, line.sends, line.at) for line in steps(found.events)]


def _moment_rows(found: SagaDetail) -> list[tuple[object, ...]]:
    return [
        (
            moment.at.astimezone().strftime("%H:%M:%S.%f")[:-3],
            after(moment.after),
            moment.kind,
            moment.step,
            moment.message,
            moment.detail,
        )
        for moment in moments(found.events)
    ]
