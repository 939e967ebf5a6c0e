"""`definitions drain`: whether the class of a version may be removed, or what still needs it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from messages.errors import OperationRefused
from runtime.database import opened
from runtime.exits import OK, TRY_AGAIN
from runtime.printing import console, counted, line, print_folded, print_json, table
from runtime.settings import load
from runtime.shell import complain
from sagas.problems import listed, suggestion
from storage import definitions
from storage.living import Living

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from running import Runner
    from storage.living import Needed

PAUSE = 2.0
"""Seconds from one look to the next, at least."""

_REST = 9.0
"""Times as long as the look before: where very much lives, looking takes a tenth of the time at most."""


async def drain(saga_type: str, version: int, *, within: float | None, as_json: bool) -> int:
    """Print what needs a version; with `within` wait so many seconds at most until nothing does. 75: something does.

    Raises:
        OperationRefused: there never was such a version.
    """
    async with opened(load().settings) as storage:
        living = Living(storage.database)

        def look() -> Awaitable[Needed]:
            return living.needed(saga_type, version)

        recorded, needed = await definitions.load(storage.database), await look()
        if (saga_type, version) not in recorded and needed.nothing:
            raise OperationRefused(_unknown(saga_type, version, recorded))
        if within is not None:
            name = f"{saga_type} version {version}"
            needed = await _until_nothing(look, needed, storage.database.runner, within=within, name=name)
    starts = version >= max((number for name, number in recorded if name == saga_type), default=version)
    if as_json:
        said = {"type": saga_type, "version": version, "removable": needed.nothing, "highest": starts}
        print_json({**said, **asdict(needed)})
    else:
        _print(saga_type, version, needed, starts=starts)
    return OK if needed.nothing else TRY_AGAIN


async def _until_nothing(
    look: Callable[[], Awaitable[Needed]], needed: Needed, runner: Runner, *, within: float, name: str
) -> Needed:
    """Look again and again, and say on stderr whenever it has changed."""
    end, pause = runner.monotonic() + within, PAUSE
    while not needed.nothing and (left := end - runner.monotonic()) > 0:
        await runner.sleep(min(pause, left))
        began, before = runner.monotonic(), needed
        needed = await look()
        pause = max(PAUSE, _REST * (runner.monotonic() - began))
        if _told(name, needed) != _told(name, before):
            complain(_told(name, needed))
    return needed


def _unknown(saga_type: str, version: int, recorded: Collection[tuple[str, int]]) -> str:
    numbers = sorted(number for name, number in recorded if name == saga_type)
    if numbers:
        return f"saga {saga_type} was never recorded in version {version}, only in {listed(map(str, numbers))}"
    hint = suggestion(saga_type, {name for name, _ in recorded})
    return f"no saga {saga_type!r} was ever recorded in this database{hint}; antiphon definitions list shows them"


def _told(name: str, needed: Needed) -> str:
    if needed.nothing:
        return f"nothing needs {name}"
    some = (
        counted(needed.live, "live instance", "live instances"),
        counted(needed.held, "held message", "held messages"),
        counted(needed.letters, "open dead letter", "open dead letters"),
    )
    return f"{name} is needed by {listed(some)}"


def _print(saga_type: str, version: int, needed: Needed, *, starts: bool) -> None:
    out, name = console(), f"{saga_type} version {version}"
    out.print(line(f"{_told(name, needed)}: its class {'may be removed' if needed.nothing else 'must stay'}", "bold"))
    if needed.oldest:
        columns = ("key", "status", "started", "saga id", "waiting for")
        rows = [
            (each.business_key, each.status, each.started_at, each.saga_id, each.waiting_for) for each in needed.oldest
        ]
        out.print(table(columns, rows))
    for advice in _advice(saga_type, version, needed, starts=starts):
        print_folded(out, Text(""), Text(advice))


def _advice(saga_type: str, version: int, needed: Needed, *, starts: bool) -> list[str]:
    told = []
    if starts:
        told.append("no higher version was ever recorded: until one runs, new instances start on this one")
    if needed.held:
        told.append("held messages are applied when their instance goes on: antiphon held list")
    if needed.letters:
        told.append("replay or discard the dead letters: antiphon dead list")
    if needed.live:
        told.append("live instances end by themselves, or are cancelled: antiphon sagas list; --wait waits for them")
    if needed.live and not starts:
        told.append(
            f"a newer class with @migrate({version}) takes them over: "
            f"antiphon definitions migrate {saga_type} {version} --dry-run"
        )
    return told
