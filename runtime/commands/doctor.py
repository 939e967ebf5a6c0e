"""`doctor`: everything that must be right before and while a process runs, checked from outside, changing nothing."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from rich.text import Text

from messages.errors import AntiphonError, Trouble
from running import AsyncioRunner
from runtime import schema
from runtime.addresses import masked, shown
from runtime.database import connected, located, no_file
from runtime.definitions import conflicts
from runtime.engine import topology_of, transport_for, untaken
from runtime.exits import FAILED, OK
from runtime.loading import known_to
from runtime.printing import STATUS_STYLES, console, counted, print_folded, print_json
from runtime.settings import load
from runtime.timeline import duration
from storage import definitions
from storage.queries import Queries
from storage.retention import Expiry
from transport.rabbitmq import RabbitMQTransport
from transport.rabbitmq.survey import survey
from transport.topology import participant_queue, saga_queue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from runtime.loading import Known
    from runtime.settings import Settings
    from storage import Database
    from transport.rabbitmq.survey import Found

PATIENCE = 15.0
"""Seconds one check may take."""

LATE = 10.0
"""Seconds by which a timer or an outbox row may be late before it is called a problem."""


FORGETTING = 86400.0
"""Seconds by which the inbox may remember too long before that is called a problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found: `problem` with what to do about it, or empty."""

    check: str
    detail: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Wrong:
    """A check failed; the text says what is wrong and what to do."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    """A server that a check asks: its address as people may see it, and the setting that names it."""

    address: str
    setting: str


@dataclass(slots=True)
class Examination:
    """The findings so far. A check that cannot be made because an earlier one failed is left out."""

    findings: list[Finding] = field(default_factory=list)

    async def check(self, name: str, examine: Callable[[], Awaitable[str | Wrong]], at: At | None = None) -> bool:
        """Make one check: a text is its detail; `Wrong`, or an `AntiphonError`, is its problem."""
        remedy = "; try again" if at is None else f"; start it, or correct {at.setting}"
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await examine()
        except Trouble as error:
            answer = Wrong(masked(f"{error}{remedy}"))
        except AntiphonError as error:
            answer = Wrong(masked(str(error)))
        except TimeoutError:
            where = "" if at is None else f"{at.address}: "
            answer = Wrong(f"{where}no answer within {PATIENCE:g} s{remedy}")
        if isinstance(answer, Wrong):
            self.findings.append(Finding(check=name, problem=answer.text))
            return False
        self.findings.append(Finding(check=name, detail=answer))
        return True

    @contextmanager
    def refused(self, name: str) -> Iterator[None]:
        """Have an address with which nothing can be asked become the problem of the first check that would ask."""
        try:
            yield
        except AntiphonError as error:
            self.findings.append(Finding(check=name, problem=masked(str(error))))


async def doctor(*, as_json: bool) -> int:
    """Check everything and print the findings; 1 when there is a problem."""
    examination = Examination()
    settings = _settings(examination)
    if settings is not None:
        await _examine(examination, settings)
    well = not any(finding.problem for finding in examination.findings)
    if as_json:
        print_json({"ok": well, "checks": [asdict(finding) for finding in examination.findings]})
    else:
        _print(examination)
    return OK if well else FAILED


def _settings(examination: Examination) -> Settings | None:
    try:
        loaded = load()
    except AntiphonError as error:
        examination.findings.append(Finding(check="settings", problem=str(error)))
        return None
    given = sum(source != "default" for source in loaded.sources.values())
    examination.findings.append(Finding(check="settings", detail=f"{given} set, the rest by default"))
    return loaded.settings


async def _examine(examination: Examination, settings: Settings) -> None:
    known = await _modules(examination, settings)
    with examination.refused("database"):
        async with connected(settings) as database:
            await _database(examination, settings, database, known)
    if known is None:
        return
    with examination.refused("broker"):
        await (_in_process if settings.in_process else _broker)(examination, settings, known)


async def _modules(examination: Examination, settings: Settings) -> Known | None:
    found: list[Known] = []

    async def examine() -> str | Wrong:
        known = known_to(settings)
        found.append(known)
        if not known.sagas:
            return Wrong(f"{', '.join(settings.modules)} defines no saga; name the right modules in ANTIPHON_MODULES")
        return f"sagas: {', '.join(known.sagas)}; participants: {', '.join(known.participants) or 'none'}"

    await examination.check("modules", examine)
    return found[0] if found else None


async def _database(examination: Examination, settings: Settings, database: Database, known: Known | None) -> None:
    at = At(address=shown(settings.database), setting="ANTIPHON_DATABASE_URL")

    async def reach() -> str | Wrong:
        if (missing := schema.missing_file(database)) is not None:
            return Wrong(no_file(missing))
        with located(settings):
            async with database.read():
                return at.address

    async def fits() -> str | Wrong:
        if (wrong := await schema.problem(database)) is not None:
            return Wrong(wrong)
        return "up to date"

    async def same() -> str | Wrong:
        assert known is not None  # noqa: S101 - only checked when the modules could be loaded
        wanted = [each for versions in known.sagas.values() for each in versions.values()]
        if problems := conflicts(await definitions.load(database), wanted):
            return Wrong("\n".join(problems))
        return f"{counted(len(wanted), 'fits', 'fit')} the instances that are stored"

    if not await examination.check("database", reach, at) or not await examination.check("schema", fits, at):
        return
    if known is not None:
        await examination.check("definitions", same)
    await examination.check("instances", lambda: _instances(database))
    await examination.check("lag", lambda: _lag(database))
    await examination.check("retention", lambda: _retention(database, settings.inbox_window))


async def _instances(database: Database) -> str | Wrong:
    counts = await Queries(database).counts()
    wants = []
    if counts.attention:
        some = counted(sum(counts.attention.values()), "instance wants", "instances want")
        why = ", ".join(f"{amount} {reason}" for reason, amount in sorted(counts.attention.items()))
        wants.append(f"{some} an operator ({why}); antiphon sagas list --attention, then antiphon sagas show")
    if counts.stalled:
        some = counted(counts.stalled, "instance waits", "instances wait")
        wants.append(f"{some} in vain, and no process says so; is antiphon run running? antiphon sagas list")
    if counts.dead_letters:
        some = counted(counts.dead_letters, "message was", "messages were")
        wants.append(f"{some} dead-lettered; antiphon dead list, then antiphon dead show")
    if wants:
        return Wrong("\n".join(wants))
    by_status: dict[str, int] = {}
    for (_, status), amount in counts.sagas.items():
        by_status[status] = by_status.get(status, 0) + amount
    return ", ".join(f"{amount} {status}" for status, amount in sorted(by_status.items())) or "none yet"


async def _lag(database: Database) -> str | Wrong:
    counts = await Queries(database).counts()
    late = []
    if counts.outbox_stuck:
        some = counted(counts.outbox_stuck, "message is stuck", "messages are stuck")
        late.append(f"{some} in the outbox; is there a queue for each?")
    elif counts.outbox_oldest > LATE:
        late.append(
            f"a message has been in the outbox for {duration(counts.outbox_oldest)}; is a process with a relay running?"
        )
    if counts.timer_overdue > LATE:
        late.append(f"a timer is overdue by {duration(counts.timer_overdue)}; is a process with timers running?")
    if late:
        return Wrong("\n".join(late))
    messages, timers = counted(counts.outbox, "message", "messages"), counted(counts.timers, "timer", "timers")
    return f"{messages} in the outbox, {timers} set, none late"


async def _retention(database: Database, window: float) -> str | Wrong:
    oldest = await Expiry(database).oldest()
    if oldest.handled is not None and oldest.handled > window + FORGETTING:
        return Wrong(
            f"the inbox remembers an id for {duration(oldest.handled)}, and ANTIPHON_INBOX_WINDOW is "
            f"{duration(window)}; is a process with timers running?"
        )
    ages = [(oldest.ended, "ended instance"), (oldest.handled, "id in the inbox")]
    told = [f"the oldest {what} is {duration(age)} old" for age, what in ages if age is not None]
    return ", ".join(told) or "nothing to remove yet"


async def _in_process(examination: Examination, settings: Settings, known: Known) -> None:
    async def complete() -> str | Wrong:
        topology = topology_of(settings, known, sagas=True, participants=known.participants)
        if (gap := untaken(topology, known)) is not None:
            return Wrong(gap)
        return counted(len(known.commands), "has its participant", "have their participants")

    examination.findings.append(Finding(check="broker", detail="in this process, when antiphon run runs"))
    await examination.check("commands", complete)


async def _broker(examination: Examination, settings: Settings, known: Known) -> None:
    at = At(address=shown(settings.broker), setting="ANTIPHON_BROKER_URL")
    runner = AsyncioRunner()
    transport = transport_for(settings, runner, lambda _fact: None)
    assert isinstance(transport, RabbitMQTransport)  # noqa: S101 - the only other broker is the one in process

    async def reach() -> str:
        await transport.connect()
        return at.address

    async def topology() -> str | Wrong:
        wanted = topology_of(settings, known, sagas=True, participants=known.participants)
        if missing := await transport.missing(wanted):
            return Wrong(f"missing: {', '.join(missing)}; antiphon run and antiphon participant declare them")
        return f"{counted(len(wanted.queues), 'queue', 'queues')}, all there"

    async def consumers() -> str | Wrong:
        starts = _starts(settings, known)
        found = await survey(settings.broker, starts, runner=runner)
        unread = [f"{_unread(each)}; start {starts[each.queue]}" for each in found if not each.consumers]
        if unread:
            return Wrong("\n".join(unread))
        if not found:
            return "no queue is there yet"
        waiting = counted(sum(each.messages for each in found), "message waits", "messages wait")
        return f"{counted(len(found), 'queue is read', 'queues are read')}, {waiting}"

    try:
        if await examination.check("broker", reach, at):
            await examination.check("topology", topology, at)
            await examination.check("consumers", consumers, at)
    finally:
        await transport.close()


def _starts(settings: Settings, known: Known) -> dict[str, str]:
    """What starts a process that reads a queue, by the queue's name."""
    sagas = {saga_queue(settings.namespace, saga_type): "antiphon run" for saga_type in known.sagas}
    participants = {
        participant_queue(settings.namespace, name): f"antiphon participant {name}" for name in known.participants
    }
    return {**sagas, **participants}


def _unread(found: Found) -> str:
    waiting = f", where {counted(found.messages, 'message waits', 'messages wait')}" if found.messages else ""
    return f"nobody reads the queue {found.queue}{waiting}"


def _print(examination: Examination) -> None:
    out = console()
    for finding in examination.findings:
        word = "problem" if finding.problem else "ok"
        begun = Text.assemble((f"{word:<8}", STATUS_STYLES[word]), f" {finding.check:<12} ")
        print_folded(out, begun, *map(Text, (finding.problem or finding.detail).splitlines() or [""]))
