"""`definitions migrate`: live instances of a version go on under a newer one, or it is told why they cannot yet."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.text import Text

from handlers.migrations import Migrations, Move, Moved, foresee
from messages.errors import OperationRefused, Trouble
from running import AsyncioRunner
from runtime.commands.operate import actor
from runtime.database import opened
from runtime.exits import OK, TRY_AGAIN
from runtime.loading import known_to
from runtime.printing import console, counted, line, print_folded, print_json
from runtime.settings import load
from sagas.difference import difference
from sagas.passage import passage
from sagas.problems import listed, suggestion
from sagas.prospect import Flaw
from storage import definitions
from storage.living import Living

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from outbox.unit import SqlStorage
    from runtime.loading import Known
    from runtime.settings import Settings
    from sagas.definition import Definition
    from sagas.instance import Instance
    from sagas.passage import Passage
    from storage.definitions import RecordedDefinition

BATCH = 50
"""So many are locked at once, at most: whoever sends one of them a message waits as long."""

EXAMPLES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line asks for. What is empty was not given."""

    saga_type: str
    old: int
    new: int | None
    dry_run: bool
    limit: int | None
    reason: str
    actor: str


@dataclass(slots=True, kw_only=True)
class Cause:
    """What keeps instances from being moved, how many, and some of them."""

    flaw: Flaw
    amount: int = 0
    examples: list[Instance] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Came:
    """What it came to: so many moved, why others were not, and how many still stand on the old version."""

    moved: int = 0
    causes: dict[tuple[str, str], Cause] = field(default_factory=dict)
    remaining: int = 0

    def add(self, batch: Moved) -> None:
        """Count a batch in."""
        self.moved += batch.moved
        for instance, flaw in batch.left:
            cause = self.causes.setdefault((flaw.code, flaw.place), Cause(flaw=flaw))
            cause.amount += 1
            cause.examples += [instance] if len(cause.examples) < EXAMPLES else []

    @property
    def left(self) -> list[Cause]:
        """The causes, the most frequent first."""
        return sorted(self.causes.values(), key=lambda each: -each.amount)


async def migrate(request: Request, *, as_json: bool) -> int:
    """Move what can be moved, and print what was and what was not. 75: something still stands on the old version.

    Raises:
        OperationRefused: there are no such versions, the class does not say how, or it must not run on this database.
        Trouble: the database is away; what was moved is moved, and asking again goes on with the rest.
    """
    settings = load().settings
    known = known_to(settings)
    async with opened(settings) as storage:
        way = _way(request, known, await definitions.load(storage.database))
        came = await _moved(request, way, settings, known, storage)
    if as_json:
        print_json(_as_json(request, way, came))
    else:
        _print(request, way, came)
    return TRY_AGAIN if came.remaining else OK


def _way(request: Request, known: Known, recorded: Mapping[tuple[str, int], RecordedDefinition]) -> Passage:
    name, old = request.saga_type, recorded.get((request.saga_type, request.old))
    definition = _definition(request, known)
    if old is None:
        versions = listed(str(number) for saga, number in recorded if saga == name)
        raise OperationRefused(
            f"saga {name} was never recorded in version {request.old} on this database; recorded: {versions}"
        )
    new = recorded.get((name, definition.version))
    if new is None:
        raise OperationRefused(
            f"{name} version {definition.version} never ran on this database, so nobody would go on with what is moved "
            "to it; start antiphon run with its code first"
        )
    refused = [change.text for change in difference(new.document, definition.document).changes if change.refused]
    if refused:
        raise OperationRefused(
            f"{name} version {definition.version} is not here as it was recorded: {'; '.join(refused)}; run this with "
            "the code that the sidecars run"
        )
    return passage(request.old, old.document, definition)


def _definition(request: Request, known: Known) -> Definition:
    versions = known.sagas.get(request.saga_type)
    if versions is None:
        hint = suggestion(request.saga_type, known.sagas)
        raise OperationRefused(
            f"no saga is called {request.saga_type!r} here{hint}; is the module that defines it in ANTIPHON_MODULES?"
        )
    number = request.new or max(versions)
    if number not in versions:
        there = listed(str(version) for version in sorted(versions))
        raise OperationRefused(f"no module of this process defines {request.saga_type} version {number}, only {there}")
    return versions[number]


async def _moved(request: Request, way: Passage, settings: Settings, known: Known, storage: SqlStorage) -> Came:
    living, came = Living(storage.database), Came()
    wanted = Move(passage=way, actor=request.actor or actor(), reason=request.reason)
    migrations = Migrations(
        known.sagas,
        namespace=settings.namespace,
        storage=storage,
        runner=AsyncioRunner(),
        report=lambda _: None,
        limits=settings.limits,
    )
    most = request.limit if request.limit is not None else math.inf
    try:
        async for found in living.instances_of(request.saga_type, request.old, BATCH):
            rest = found
            while rest and came.moved < most:
                few = rest[: int(min(most - came.moved, BATCH))]
                rest = rest[len(few) :]
                if request.dry_run:
                    came.add(_foreseen(wanted, few, storage.database.runner.now()))
                else:
                    came.add(await migrations.carry_out(wanted, [instance.saga_id for instance in few]))
            if came.moved >= most:
                break
    except Trouble as error:
        done = counted(came.moved, "instance was", "instances were")
        raise type(error)(f"{error}; {done} moved, and asking again goes on with the rest") from error
    live = (await living.needed(request.saga_type, request.old, examples=0)).live
    came.remaining = live - came.moved if request.dry_run else live
    return came


def _foreseen(wanted: Move, instances: Sequence[Instance], now: datetime) -> Moved:
    found = [(instance, foresee(wanted, instance, now)) for instance in instances]
    left = [(instance, each) for instance, each in found if isinstance(each, Flaw)]
    return Moved(moved=len(found) - len(left), left=left)


# -- what is printed


def _as_json(request: Request, way: Passage, came: Came) -> dict[str, object]:
    return {
        "type": request.saga_type,
        "from": request.old,
        "to": way.new.version,
        "dry_run": request.dry_run,
        "moved": came.moved,
        "remaining": came.remaining,
        "left": [
            {
                "code": each.flaw.code,
                "place": each.flaw.place,
                "text": each.flaw.text,
                "amount": each.amount,
                "examples": [{"id": one.saga_id, "business_key": one.key} for one in each.examples],
            }
            for each in came.left
        ],
    }


def _print(request: Request, way: Passage, came: Came) -> None:
    out = console()
    name = f"{request.saga_type} version {request.old} to {way.new.version}"
    would = "would be moved" if request.dry_run else "moved"
    left = f"{came.remaining or 'none'} {'would stay' if request.dry_run else 'left'} on version {request.old}"
    out.print(line(f"{name}: {counted(came.moved, 'instance', 'instances')} {would}, {left}", "bold"))
    for each in came.left:
        amount = counted(each.amount, "instance", "instances")
        print_folded(out, Text.assemble("  ", (each.flaw.code, "yellow"), f"  {amount}: "), line(each.flaw.text))
        print_folded(out, Text("    "), line(", ".join(f"{one.key} ({one.saga_id})" for one in each.examples)))
    for advice in _advice(request, came):
        print_folded(out, Text(""), Text(advice))


def _advice(request: Request, came: Came) -> list[str]:
    told = []
    if came.left:
        told.append("what was left goes on under its old version, where a process knows that: ask again later")
    if request.dry_run and came.moved:
        told.append("nothing was changed; without --dry-run it is")
    if not came.remaining and not request.dry_run:
        told.append(f"antiphon definitions drain {request.saga_type} {request.old} says whether its class may go")
    return told
