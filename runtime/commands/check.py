"""`check`: what the code of this process would make of everything that a database holds, told before it runs there."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from pydantic import SecretStr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from handlers.inspection import Inspection
from messages.errors import ConfigurationError
from runtime import schema
from runtime.addresses import shown
from runtime.database import connected
from runtime.exits import FAILED, OK
from runtime.loading import known_to
from runtime.printing import console, counted, line, print_facts, print_folded, print_json
from runtime.settings import load
from storage import definitions
from storage.living import Living

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from handlers.inspection import Finding
    from runtime.settings import Settings
    from storage import Database


async def check(against: str, *, as_json: bool) -> int:
    """Print what would break in the database of that (checked) address if this code ran on it, and change nothing.

    Raises:
        ConfigurationError: a setting, a module, or the schema of the database.
        DatabaseAway: it does not answer.
    """
    settings = load().settings.model_copy(update={"database_url": SecretStr(against)})
    known = known_to(settings)
    async with connected(settings, named="what --against names") as database:
        await _must_fit(database)
        inspection = Inspection(
            known.sagas,
            known.participants,
            await definitions.load(database),
            namespace=settings.namespace,
            limits=settings.limits,
        )
        await _inspect(database, inspection)
    if as_json:
        print_json(_as_json(settings, inspection))
    else:
        _print(settings, inspection)
    return FAILED if inspection.findings else OK


async def _must_fit(database: Database) -> None:
    """A schema that is behind is not brought up to date by a look."""
    if (missing := schema.missing_file(database)) is not None:
        raise ConfigurationError(f"there is no database file {missing}; correct what --against names")
    if (wrong := await schema.problem(database)) is not None:
        raise ConfigurationError(wrong)


async def _inspect(database: Database, inspection: Inspection) -> None:
    living, now = Living(database), database.runner.now
    total = sum(each.live for each in (await living.standing()).values())
    with _counting(total) as seen:
        async for instances in living.instances():
            inspection.instances(instances, now())
            seen(len(instances))
    async for messages in living.held():
        inspection.held(messages, now())
    async for letters in living.letters():
        inspection.letters(letters, now())


@contextmanager
def _counting(total: int) -> Iterator[Callable[[int], None]]:
    """How far the look has come, on stderr and for people only."""
    columns = (TextColumn("instances"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    quiet = not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as progress:
        task = progress.add_task("instances", total=total)
        yield lambda number: progress.advance(task, number)


def _as_json(settings: Settings, inspection: Inspection) -> dict[str, object]:
    return {
        "against": shown(settings.database),
        "checked": inspection.checked,
        "breaks": bool(inspection.findings),
        "findings": [_finding_as_json(each) for each in inspection.findings],
        "notes": [_finding_as_json(each) for each in inspection.notes],
    }


def _finding_as_json(finding: Finding) -> dict[str, object]:
    cause = finding.cause
    return {
        "code": cause.code,
        "saga_type": cause.saga_type,
        "version": cause.version,
        "text": cause.text,
        "amount": finding.amount,
        "examples": [asdict(each) for each in finding.examples],
        "remedy": cause.remedy,
    }


def _print(settings: Settings, inspection: Inspection) -> None:
    out = console()
    for each in inspection.findings:
        _print_finding(out, each, "bold red")
    for each in inspection.notes:
        _print_finding(out, each, "cyan")
    if inspection.findings or inspection.notes:
        out.print()
    checked = inspection.checked
    seen = (
        counted(checked["instances"], "live instance", "live instances"),
        counted(checked["timers"], "timer", "timers"),
        counted(checked["held"], "held message", "held messages"),
        counted(checked["dead_letters"], "open dead letter", "open dead letters"),
    )
    broken = len(inspection.findings)
    verdict = f"{counted(broken, 'thing', 'things')} would break" if broken else "nothing would break"
    print_folded(out, Text(""), line(f"{verdict}: {', '.join(seen)} in {shown(settings.database)}", "bold"))
    if checked["not_ours"]:
        some = counted(checked["not_ours"], "dead letter is", "dead letters are")
        print_folded(out, Text(""), Text(f"{some} of participants and queues that this process does not know"))


def _print_finding(out: Console, finding: Finding, style: str) -> None:
    cause = finding.cause
    version = "" if cause.version is None else f" version {cause.version}"
    head = Text.assemble((cause.code, style), f"  {cause.saga_type}{version}  ", (_amount(finding), "bold"))
    out.print(head)
    told = [each.id if each.business_key is None else f"{each.business_key} ({each.id})" for each in finding.examples]
    print_facts(out, [("what", cause.text), ("for example", ", ".join(told)), ("do", cause.remedy)])


def _amount(finding: Finding) -> str:
    one, many = _WORDS.get(finding.cause.code.partition("_")[0], ("instance", "instances"))
    return counted(finding.amount, one, many) if finding.amount else "no live instance"


_WORDS = {"held": ("held message", "held messages"), "letter": ("open dead letter", "open dead letters")}
"""What is counted, by how the code of a finding begins."""
