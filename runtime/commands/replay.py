"""`dead replay`, `dead discard` and `dead jobs`."""

from __future__ import annotations

import sys
import uuid
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from handlers.discard import Discarder
from handlers.editing import edited, replacing
from handlers.verdict import DISCARDED, FAILED_AGAIN, NOT_TAKEN, UNSETTLED, Request, Verdict
from messages.errors import OperationRefused, Trouble
from runtime.commands.letters import filter_of
from runtime.commands.operate import actor
from runtime.database import opened
from runtime.exits import FAILED, OK
from runtime.loading import known_to
from runtime.printing import console, counted, line, print_json, print_onward, table
from runtime.replaying import replaying
from runtime.settings import load
from storage import dead_letters
from storage.letters import DeadLetterFilter, LetterQueries
from storage.replay_jobs import DONE, RUNNING, STOPPED, ReplayJobs, begin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from uuid import UUID

    from outbox.unit import SqlStorage
    from runtime.loading import Known
    from runtime.replaying import Replaying
    from runtime.wanted import Wanted
    from storage.dead_letters import Letter
    from storage.replay_jobs import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line asks for: which letters, at most how many, why, and who asks (the user logged in)."""

    wanted: Wanted
    limit: int | None
    reason: str
    actor: str

    @property
    def who(self) -> str:
        """Who it is recorded to be."""
        return self.actor or actor()


NOT_TRIED = "not_tried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A letter and the verdict on it."""

    dead_letter_id: int
    name: str
    message_id: str
    outcome: str
    detail: str
    saga_id: UUID | None
    seq: int | None


async def replay(asked: Asked, *, rate: float | None, as_json: bool) -> int:
    """Replay the letters as a new job, and print the verdict on each.

    Raises:
        OperationRefused: there is no such letter or instance; nothing was replayed.
        Trouble: the database is away; the text names the job to go on with.
    """
    settings = load().settings
    known = known_to(settings)
    async with opened(settings) as storage:
        ids = await _chosen(storage, asked)
        parts = replaying(settings, known, storage)
        said = {"ids": asked.wanted.ids, "filter": asked.wanted.filters, "limit": asked.limit, "rate": rate}
        job_id = await parts.jobs.begin(ids, actor=asked.who, why=asked.reason, wanted=said)
        return await _run(parts, job_id, rate=rate, as_json=as_json)


async def resume(job_id: int, *, rate: float | None, as_json: bool) -> int:
    """Go on with a job where it ended, try what failed in it once more, and print the verdict on each of its letters.

    Raises:
        OperationRefused: there is no such job.
        Trouble: the database is away; the text names the job to go on with.
    """
    settings = load().settings
    known = known_to(settings)
    async with opened(settings) as storage:
        parts = replaying(settings, known, storage)
        await parts.jobs.retract(job_id, FAILED_AGAIN)
        return await _run(parts, job_id, rate=rate, as_json=as_json)


async def foresee(asked: Asked, *, as_json: bool) -> int:
    """Print what would become of each letter if it were the next to be replayed, and change nothing.

    Raises:
        OperationRefused: there is no such letter or instance.
    """
    settings = load().settings
    known = known_to(settings)
    async with opened(settings) as storage:
        ids = await _chosen(storage, asked)
        replays = replaying(settings, known, storage).replays
        with _progress(len(ids)) as told:
            verdicts = [told(await replays.replay(_request(each, asked), dry_run=True)) for each in ids]
        judged = await _judged(storage, verdicts)
    return _print(judged, as_json=as_json, would=True)


async def replay_edited(asked: Asked, given: bytes, *, dry_run: bool, as_json: bool) -> int:
    """Replay one letter as what was given: a message of its own, in the place of the letter.

    Raises:
        OperationRefused: there is no such letter, it is not open, or edited it would fail again; nothing was changed.
    """
    settings = load().settings
    known = known_to(settings)
    async with opened(settings) as storage:
        database = storage.database
        letter = await _open_letter(storage, asked.wanted.ids[0])
        parts, request = replaying(settings, known, storage), _request(letter.dead_letter_id, asked)
        raw = edited(letter, given, message_id=str(uuid.uuid4()), answers=_answers(known, letter))
        write = replacing(letter, raw, settings.limits, actor=asked.who, why=asked.reason, now=database.runner.now())
        new = replace(letter, raw=raw, name=raw.type or raw.routing_key, message_id=raw.message_id or "")
        verdict = await parts.replays.foresee(request, new, write)
        if not verdict.settled:
            raise OperationRefused(f"edited like this it would fail again, so nothing was changed: {verdict.detail}")
        if dry_run:
            [judged] = await _judged(storage, [replace(verdict, dead_letter_id=letter.dead_letter_id)])
            return _print([replace(judged, name=new.name)], as_json=as_json, would=True)
        async with storage.transaction() as unit:
            ids = [await write(unit)]
            said = {"ids": asked.wanted.ids, "edited": True}
            now = database.runner.now()
            job_id = await begin(unit.session, ids, actor=asked.who, why=asked.reason, wanted=said, now=now)
        return await _run(parts, job_id, rate=None, as_json=as_json)


async def discard(asked: Asked, *, dry_run: bool, as_json: bool) -> int:
    """Discard the letters, and print what became of each; with `dry_run` what would, changing nothing.

    Raises:
        OperationRefused: there is no such letter or instance; nothing was discarded.
    """
    async with opened(load().settings) as storage:
        ids = await _chosen(storage, asked)
        discarder = Discarder(storage, storage.database.runner)
        with _progress(len(ids)) as told:
            verdicts = [told(await discarder.discard(_request(each, asked), dry_run=dry_run)) for each in ids]
        judged = await _judged(storage, verdicts)
    return _print(judged, as_json=as_json, would=dry_run, good=lambda outcome: outcome == DISCARDED)


async def jobs(*, limit: int, after: int | None, as_json: bool) -> int:
    """Print a page of the replays, the newest first."""
    async with opened(load().settings) as storage:
        page = await ReplayJobs(storage.database).page(limit=limit + 1, following=after)
    if as_json:
        print_json([asdict(each) for each in page[:limit]])
        return OK
    out = console()
    if page:
        columns = ("job", "state", "judged", "by", "begun", "last verdict", "ended", "why")
        rows = [
            (job.job_id, job.state, _share(job), job.actor, job.created_at, job.judged_at, job.ended_at, job.why)
            for job in page[:limit]
        ]
        out.print(table(columns, rows))
    else:
        out.print("no more replays" if after else "no replays")
    if len(page) > limit:
        print_onward(out, "antiphon dead jobs", "--limit", str(limit), "--after", str(page[limit - 1].job_id))
    return OK


async def job(job_id: int, *, as_json: bool) -> int:
    """Print a replay with the verdict on each of its letters.

    Raises:
        OperationRefused: there is none of that id.
    """
    async with opened(load().settings) as storage:
        await _print_job(ReplayJobs(storage.database), job_id, as_json=as_json)
    return OK


async def _run(parts: Replaying, job_id: int, *, rate: float | None, as_json: bool) -> int:
    job = await _found(parts.jobs, job_id)
    left = job.letters - job.judged
    onward = f"antiphon dead replay --resume {job_id}"
    if left and job.letters > 1:
        sys.stderr.write(
            f"job {job_id}: {counted(left, 'dead letter', 'dead letters')}; should it end early: {onward}\n"
        )
    if left or await _unfinished(parts.jobs, job):
        try:
            with _progress(left) as told:
                await parts.job.run(job, rate=rate or job.wanted.get("rate"), told=told)
        except Trouble as error:
            raise type(error)(f"{error}; go on with {onward}: nothing is done twice") from error
    return await _print_job(parts.jobs, job_id, as_json=as_json)


async def _unfinished(jobs: ReplayJobs, job: Job) -> bool:
    """Whether its process died behind the last verdict, or the broker had not taken something at its end."""
    return job.state != DONE or any(item.outcome == NOT_TAKEN for item in await jobs.items(job.job_id))


async def _found(jobs: ReplayJobs, job_id: int) -> Job:
    found = await jobs.find(job_id)
    if found is None:
        raise OperationRefused(f"no replay has the id {job_id}; antiphon dead jobs lists them")
    return found


async def _chosen(storage: SqlStorage, asked: Asked) -> Sequence[int]:
    """The letters asked for, in the order of their arrival; those named by id whatever became of them."""
    wanted = await filter_of(replace(asked.wanted, status=None) if asked.wanted.ids else asked.wanted, storage.database)
    ids = await LetterQueries(storage.database).ids(wanted, limit=asked.limit)
    if not ids:
        raise OperationRefused("no open dead letter is like that; antiphon dead groups shows what there is")
    return ids


async def _open_letter(storage: SqlStorage, dead_letter_id: int) -> Letter:
    async with storage.database.read() as session:
        letter = await dead_letters.find(session, dead_letter_id)
    if letter is None:
        raise OperationRefused(f"no dead letter has the id {dead_letter_id}; antiphon dead list shows them")
    if letter.status != dead_letters.OPEN:
        raise OperationRefused(
            f"dead letter {dead_letter_id} is not open: {letter.status} by {letter.resolved_by}"
            + (f": {letter.resolved_why}" if letter.resolved_why else "")
        )
    return letter


def _answers(known: Known, letter: Letter) -> bool:
    """Whether it is an event that starts no saga: it may answer a command, which its `causation-id` names then."""
    versions = known.sagas.get(letter.consumer)
    return versions is not None and letter.name not in versions[max(versions)].starts


def _request(dead_letter_id: int, asked: Asked) -> Request:
    return Request(
        dead_letter_id=dead_letter_id, actor=asked.who, reason=asked.reason, request_id=f"{asked.who} {uuid.uuid4()}"
    )


@contextmanager
def _progress(letters: int) -> Iterator[Callable[[Verdict], Verdict]]:
    """What is to be told of every verdict; on a terminal it moves a bar there."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("dead letters", total=letters)

        def told(verdict: Verdict) -> Verdict:
            bar.advance(task)
            return verdict

        yield told


async def _judged(storage: SqlStorage, verdicts: Sequence[Verdict]) -> list[Judged]:
    """The verdicts with what their letters say, or said: retention may have removed one meanwhile."""
    ids = [verdict.dead_letter_id for verdict in verdicts]
    page = await LetterQueries(storage.database).page(DeadLetterFilter(ids=ids, status=None), limit=len(ids))
    named = {letter.dead_letter_id: (letter.name, letter.message_id) for letter in page.dead_letters}
    judged = []
    for verdict in verdicts:
        name, message_id = named.get(verdict.dead_letter_id, ("", ""))
        judged.append(
            Judged(
                dead_letter_id=verdict.dead_letter_id,
                name=name,
                message_id=message_id,
                outcome=verdict.outcome,
                detail=verdict.detail,
                saga_id=verdict.saga_id,
                seq=verdict.seq,
            )
        )
    return judged


async def _print_job(jobs: ReplayJobs, job_id: int, *, as_json: bool) -> int:
    found = await _found(jobs, job_id)
    judged = [
        Judged(
            dead_letter_id=item.dead_letter_id,
            name=item.name or "",
            message_id=item.message_id or "",
            outcome=item.outcome or NOT_TRIED,
            detail=item.detail or "",
            saga_id=item.saga_id,
            seq=item.seq,
        )
        for item in await jobs.items(job_id)
    ]
    return _print(judged, as_json=as_json, job=found)


def _print(
    judged: Sequence[Judged],
    *,
    as_json: bool,
    job: Job | None = None,
    would: bool = False,
    good: Callable[[str], bool] = lambda outcome: outcome not in {*UNSETTLED, NOT_TRIED},
) -> int:
    """Print the verdict on each letter and what they come to; returns the exit code."""
    counts = Counter(each.outcome for each in judged)
    code = OK if all(good(outcome) for outcome in counts) else FAILED
    if as_json:
        print_json(
            {
                "job": None if job is None else job.job_id,
                "state": None if job is None else job.state,
                "dry_run": would,
                "counts": counts,
                "verdicts": [asdict(each) for each in judged],
            }
        )
        return code
    out = console()
    columns = ("id", "would be" if would else "verdict", "message", "")
    rows = [(each.dead_letter_id, _words(each.outcome), each.name, each.detail) for each in judged]
    out.print(table(columns, rows))
    out.print()
    summary = ", ".join(f"{number} {_words(outcome)}" for outcome, number in counts.most_common())
    out.print(line(f"{'would be: ' if would else ''}{summary}", "bold"))
    if job is not None and job.state == STOPPED:
        out.print(line("stopped there, because everything so far failed again; mend what is broken and go on with"))
    elif job is not None and job.state == RUNNING and counts[NOT_TRIED]:
        out.print(line("it has ended early, unless somebody is at it; go on with"))
    if job is not None and counts[NOT_TRIED]:
        out.print(Text(f"  antiphon dead replay --resume {job.job_id}"))
    return code


def _share(job: Job) -> str:
    return f"{job.judged} of {job.letters}"


def _words(outcome: str) -> str:
    return outcome.replace("_", " ")
