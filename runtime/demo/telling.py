"""What the demo tells: how it is set up, how the orders ended, one order in order of time, and what to try next."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from runtime.demo.orders import DECLINED, LATE, SILENT, SMOOTH, SOLD_OUT, STORIES
from runtime.demo.staging import ADDRESS, DATABASE, POLICIES, SAGA
from runtime.printing import STATUS_STYLES, table
from runtime.timeline import moments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from rich.console import Console

    from runtime.demo.file import Found, Standing
    from runtime.demo.orders import Order
    from runtime.loading import Known
    from runtime.timeline import Moment
    from storage.queries import SagaDetail, SagaSummary

_UNDONE_EXAMPLES = (SILENT, LATE, DECLINED, SOLD_OUT)
_DONE_EXAMPLES = (SMOOTH,)

_LINES: Mapping[str, tuple[str, str]] = {
    "started": ("", "order placed"),
    "command sent": ("→", "{step}"),
    "command resent": ("→", "{step} once more"),
    "reply received": ("←", "{step}"),
    "reply transient": ("←", "{step}: not now, try again"),
    "step timed out": ("", "{step} timed out, in doubt"),
    "late success": ("←", "{step}, too late"),
    "compensation started": ("", "turn back, in reverse order"),
    "compensation sent": ("→", "undo {step}"),
    "compensation failed": ("←", "undo {step}: refused"),
    "completed": ("", "completed"),
    "compensated": ("", "compensated"),
    "parked": ("", "parked"),
}
"""What the timeline says of a kind of event; the others repeat what stands there already."""

_ASCII = {"→": "->", "←": "<-", "": ""}


def introduce(out: Console, placed: Sequence[Order], unfinished: Sequence[Order], known: Known) -> None:
    """What is about to happen, and what is not as it would be in earnest."""
    title = f"[bold]Antiphon demo[/]  one process, SQLite, no server; its file is {DATABASE}"
    out.print(Text.from_markup(title))
    if placed:
        text = (
            f"{_orders(len(placed))} of run {placed[0].run}: reserve stock, pay, print a label; what fails is undone."
        )
        out.print(Text(text))
    if unfinished:
        runs = " and ".join(str(run) for run in sorted({order.run for order in unfinished}))
        beside = "beside them " if placed else ""
        text = f"Run {runs} was stopped with {_orders(len(unfinished))} under way: {beside}these are finished now."
        out.print(Text(text, style="yellow"))
    elif not placed:
        text = "An earlier run was stopped before its first order was taken up: what it had begun is finished now."
        out.print(Text(text, style="yellow"))
    out.print(Text(f"Timeouts are shortened for the demo: {_shortened(known)}."))


def nothing_to_resume(out: Console, found: Found) -> None:
    """Everything that was begun has ended, or nothing was begun."""
    if found.orders:
        text = f"Nothing to resume: {_orders(len(found.orders))} in {DATABASE}, and all have ended. The latest run:"
    else:
        text = f"Nothing to resume: no order was begun in {DATABASE}. {called()} demo begins some."
    out.print(Text(text))


def finished(out: Console, stood: Sequence[Standing], resumed: Sequence[Order], *, seconds: float) -> None:
    """How many have ended, and how many of those that an earlier process had begun."""
    done = {each.order.key for each in stood if not each.under_way}
    text = f"{len(done)} of {_orders(len(stood))} have ended, after {seconds:.1f} s."
    if resumed:
        again = sum(order.key in done for order in resumed)
        text = f"{again} of {_orders(len(resumed))} under way when it was stopped have been finished. {text}"
    out.print(Text(text))


def outcomes(out: Console, stood: Sequence[Standing]) -> None:
    """How the orders ended, a row for each story and status."""
    groups: dict[tuple[str, str], list[Standing]] = {}
    for each in sorted(stood, key=lambda each: STORIES.index(each.order.story)):
        groups.setdefault((each.order.story.plot, each.saga.status), []).append(each)
    rows = [(f"{len(group):>6}", status, group[0].order.key, plot) for (plot, status), group in groups.items()]
    out.print()
    out.print(table(("orders", "ended", "such as", "what happened"), rows))


def examples(stood: Sequence[Standing]) -> list[SagaSummary]:
    """One completed order and one compensated one, as far as there are any: those with the most to tell."""
    chosen = []
    for status, stories in (("completed", _DONE_EXAMPLES), ("compensated", _UNDONE_EXAMPLES)):
        fitting = [each for each in stood if each.saga.status == status and each.order.story in stories]
        chosen += sorted(fitting, key=lambda each: stories.index(each.order.story))[:1]
    return [each.saga for each in chosen]


def timeline(out: Console, detail: SagaDetail) -> None:
    """One order in order of time."""
    saga = detail.saga
    out.print()
    out.print(Text.assemble((saga.business_key, "bold"), "  ", (saga.status, STATUS_STYLES.get(saga.status, ""))))
    grid = Table.grid(padding=(0, 2))
    for justify in ("right", "left", "left", "left"):
        grid.add_column(justify=justify)
    undone: set[str] = set()
    for moment in moments(detail.events):
        if moment.kind == "compensation sent":
            undone.add(moment.step)
        if moment.kind in _LINES:
            grid.add_row(*_line(out, moment, undone=moment.step in undone))
    out.print(grid)


def unexpected(out: Console, stood: Sequence[Standing], missing: Sequence[str], *, interrupted: bool) -> None:
    """What has not ended, or not as it had to."""
    left = [each.order.key for each in stood if each.under_way] + list(missing)
    if left:
        which = f"{', '.join(left[:3])}{', ...' if len(left) > 3 else ''}"
        out.print()
        out.print(Text(f"{_orders(len(left))} under way, and nothing is lost: {which}", style="yellow"))
        out.print(Text(f"To finish: {called()} demo --resume", style="yellow"))
    elif interrupted:
        out.print(Text("Stopped before every order was placed; those that were have ended.", style="yellow"))
    for each in stood:
        if not each.under_way and not each.as_expected:
            reason = f" ({each.saga.end_reason.replace('_', ' ')})" if each.saga.end_reason else ""
            text = f"{each.order.key} was to be {each.order.story.status}, and is {each.saga.status}{reason}."
            out.print(Text(text, style="red"))


def onward(out: Console, example: SagaSummary | None) -> None:
    """What to try next: commands that work as they stand."""
    antiphon = called()
    commands = [
        (f"export ANTIPHON_DATABASE_URL={ADDRESS}", "the demo's file"),
        (f"{antiphon} sagas list", "every order"),
        *([(f"{antiphon} sagas show {example.business_key}", "all about one")] if example else []),
        (f"{antiphon} demo --orders 200", "kill it, and then:"),
        (f"{antiphon} demo --resume", "it goes on"),
    ]
    width = max(len(command) for command, _ in commands)
    out.print()
    out.print(Text("What to try next", style="bold"))
    for command, why in commands:
        out.print(Text.assemble("  ", (f"{command:<{width}}", "cyan"), f"  # {why}"))


def called() -> str:
    """How this program was called, as people can type it again here."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return f"{sys.executable} -m runtime"
    found = shutil.which(program.name)
    return program.name if found and Path(found).absolute() == program.absolute() else sys.argv[0]


def _line(out: Console, moment: Moment, *, undone: bool) -> tuple[str | Text, ...]:
    arrow, words = _LINES[moment.kind]
    text = words.format(step=moment.step)
    if undone and moment.kind == "reply received":
        text += " undone"
    style = STATUS_STYLES.get(
        moment.kind, "yellow" if moment.kind in ("step timed out", "compensation started") else ""
    )
    message = "" if moment.kind == "step timed out" else moment.message
    return f"{moment.after:10.3f} s", arrow if _unicode(out) else _ASCII[arrow], Text(text, style=style), message


def _unicode(out: Console) -> bool:
    return out.encoding.lower().startswith("utf")


def _shortened(known: Known) -> str:
    """Each timeout that the demo sets, and what the class says."""
    versions = known.sagas[SAGA]
    calls = {
        call.name: call.timeout
        for step in versions[max(versions)].steps.values()
        for call in (step.do, step.undo)
        if call is not None
    }
    hurried = {name: patience.timeout for name, patience in POLICIES[SAGA].calls.items() if patience.timeout}
    return ", ".join(f"{name} {_span(calls[name])} to {_span(timeout)}" for name, timeout in hurried.items())


def _span(time: timedelta) -> str:
    seconds = time.total_seconds()
    return f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:g} min"


def _orders(count: int) -> str:
    return "1 order" if count == 1 else f"{count} orders"
