"""`sagas list` and `sagas show`."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from rich.text import Text

from runtime.attention import ADVICE
from runtime.commands.instances import instance_of
from runtime.database import opened
from runtime.exits import OK
from runtime.items import told
from runtime.outlook import outlook
from runtime.printing import (
    STATUS_STYLES,
    console,
    counted,
    line,
    print_facts,
    print_json,
    print_onward,
    shown,
    table,
)
from runtime.settings import load
from runtime.timeline import after, duration, moments
from sagas.backward import DEADLINE
from storage.queries import Queries, SagaFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from uuid import UUID

    from rich.console import Console

    from runtime.timeline import StepLine
    from storage.queries import Event, SagaDetail, SagaPage, SagaSummary


async def list_instances(wanted: SagaFilter, *, limit: int, after: UUID | None, as_json: bool) -> int:
    """Print a page of instances, the newest first, and where the next page begins.

    Raises:
        OperationRefused: there is no instance `after`.
    """
    async with opened(load().settings) as storage:
        queries = Queries(storage.database)
        page = await queries.sagas(wanted, limit=limit, following=after)
        if wanted.key is not None and not page.sagas:
            page = await queries.sagas(replace(wanted, aliased=True), limit=limit, following=after)
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
        found = await instance_of(storage.database, identity, saga_type=saga_type)
    if as_json:
        how = outlook(found)
        print_json({**asdict(found), "outlook": None if how is None else asdict(how)})
    else:
        print_instance(console(), found)
    return OK


def print_instance(out: Console, found: SagaDetail) -> None:
    """Everything about one instance: where it stands first, then its steps, what happened, what is still to come."""
    _print_head(out, found)
    for title, columns, rows in _sections(found):
        if rows:
            out.print()
            out.print(Text(title, style="bold"))
            out.print(table(columns, rows))


def _sections(found: SagaDetail) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[object]]]]:
    by_step = told(found.events)
    yield "Steps", ("step", "state", "sends", "undo sends", "last moved"), _step_rows(by_step.steps)
    own = [event for event in found.events if event.step not in by_step.counted]
    title = f"What happened{_without(len(found.events) - len(own), 'event', 'events')}"
    yield title, ("time", "after", "what", "step", "message", "detail"), _moment_rows(own)
    columns: tuple[str, ...] = ("saga", "key", "status", "because", "started", "saga id")
    yield "Children", columns, _child_rows(found)
    yield "State", ("field", "value"), _state_rows(found)
    timers = [each for each in found.timers if each.name.rpartition("/")[0] not in by_step.counted]
    title = f"Timers{_without(len(found.timers) - len(timers), 'timer', 'timers')}"
    yield title, ("timer", "due"), [(each.name, each.due_at) for each in timers]
    columns = ("message", "state", "", "attempts", "since", "message id", "error")
    yield "Waiting for the broker", columns, _outbox_rows(found)
    yield "Held", ("message", "reason", "received", "expires", "message id"), _held_rows(found)
    yield "Dead letters", ("id", "status", "reason", "message", "last seen", "error"), _letter_rows(found)


def _options(wanted: SagaFilter) -> Iterable[str]:
    """The options that ask for these instances."""
    if wanted.status is not None:
        yield from ("--status", wanted.status)
    if wanted.saga_type is not None:
        yield from ("--type", wanted.saga_type)
    if wanted.key is not None:
        yield from ("--key", wanted.key)
    if wanted.attention:
        yield "--attention"
    if wanted.parent is not None:
        yield from ("--parent", str(wanted.parent))
    if wanted.children:
        yield "--children"


def _print_page(out: Console, page: SagaPage) -> None:
    columns: dict[str, Callable[[SagaSummary], object]] = {
        "key": lambda saga: saga.business_key,
        "status": _status,
        "because": lambda saga: _in_prose(saga.end_reason),
        "attention": lambda saga: saga.attention,
        "saga": lambda saga: saga.saga_type,
        "started": lambda saga: saga.started_at,
        "saga id": lambda saga: saga.saga_id,
        "waiting for": lambda saga: saga.waiting_for,
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
        ("aliases", ", ".join(f"{name} {value}" for name, value in found.aliases.items())),
        ("parent", _parent(found)),
        ("started", saga.started_at),
        ("ended", f"{shown(saga.ended_at)}, after {took}" if saga.ended_at else ""),
        ("because", _in_prose(saga.end_reason)),
        ("waiting for", None if how is None else how.line),
        ("deadline", None if saga.ended_at else _deadline(found)),
        ("skipped", counted(saga.skipped, "step", "steps") if saga.skipped else ""),
    ]
    print_facts(out, facts)
    for reason in found.attention:
        print_facts(out, [("attention", f"{reason.reason} since {shown(reason.since)}: {reason.detail}")], "red")
        if (advice := ADVICE.get(reason.reason)) is not None:
            print_facts(out, [("", f"{advice.meaning}; {advice.remedy_for(saga.business_key)}")])


def _parent(found: SagaDetail) -> str | None:
    """The instance that started it; where that is there no more, its id."""
    if found.parent is None:
        return None if found.saga.parent_id is None else str(found.saga.parent_id)
    return f"{found.parent.saga_type} {found.parent.business_key}, {found.parent.status} ({found.parent.saga_id})"


def _deadline(found: SagaDetail) -> str:
    """When it turns back by itself, if an operator has not seen to it that it never does."""
    last = [each.kind for each in found.events if each.detail.get("timer") == DEADLINE]
    return "cancelled" if last[-1:] == ["timer_cancelled"] else shown(found.saga.deadline_at)


def _without(left_out: int, one: str, many: str) -> str:
    """What a title says of what stands nowhere below it: the items that are only counted are too many to read."""
    return (
        f", without {counted(left_out, one, many)} of items that are only counted (--json has them)" if left_out else ""
    )


def _step_rows(lines: Iterable[StepLine]) -> list[tuple[object, ...]]:
    return [(each.step, each.state, each.sends, each.undo_sends or "", each.at) for each in lines]


def _child_rows(found: SagaDetail) -> list[tuple[object, ...]]:
    return [
        (each.saga_type, each.business_key, _status(each), _in_prose(each.end_reason), each.started_at, each.saga_id)
        for each in found.children
    ]


def _moment_rows(events: Iterable[Event]) -> list[tuple[object, ...]]:
    happened = moments(events)
    days = {moment.at.astimezone().date() for moment in happened}
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
        for moment in happened
    ]


def _state_rows(found: SagaDetail) -> list[tuple[object, ...]]:
    return [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in found.state.items()
    ]


def _outbox_rows(found: SagaDetail) -> list[tuple[object, ...]]:
    """Without the time of the next attempt: a destination that takes nothing is tried with whatever waits for it."""
    return [
        (
            each.name,
            each.state,
            "stuck" if each.stuck else "",
            each.attempts,
            each.created_at,
            each.message_id,
            each.error,
        )
        for each in found.outbox
    ]


def _held_rows(found: SagaDetail) -> list[tuple[object, ...]]:
    return [
        (each.name, each.reason, each.received_at, each.expires_at or "never", each.message_id) for each in found.held
    ]


def _letter_rows(found: SagaDetail) -> list[tuple[object, ...]]:
    return [
        (each.dead_letter_id, each.status, each.reason, each.name, each.last_seen_at, each.error)
        for each in found.dead_letters
    ]
