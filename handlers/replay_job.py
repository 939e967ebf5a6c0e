"""Many dead letters replayed as one job, in the order of their arrival, that survives its process.

It begins with one letter, then ten, then all the rest, and stops after the first of these stages in which everything
failed again: what is broken for one is likely broken for ten thousand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.verdict import GIVEN_BACK, NOT_TAKEN, UNSETTLED, Request, Verdict
from messages.errors import DatabaseBusy, DatabaseExhausted
from storage.replay_jobs import DONE, RUNNING, STOPPED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from handlers.give_back import GiveBack
    from handlers.replays import Replays
    from running import Runner
    from storage.replay_jobs import Item, Job, ReplayJobs

STAGES = (1, 10)
"""How many letters the first stages of a job have; the last stage has all the rest."""

MOST_BUSY = 5
"""Instances that somebody may hold; where more cannot be had, it is the database that is busy with other things."""

PATIENCE = 10.0
"""Seconds in which the broker may take what was given back, at the end of a job."""


class ReplayJob:
    """Carries out jobs. Several processes may work on one job: each letter is replayed once."""

    def __init__(
        self, replays: Replays, jobs: ReplayJobs, give_back: GiveBack, runner: Runner, *, patience: float = PATIENCE
    ) -> None:
        self._replays = replays
        self._jobs = jobs
        self._give_back = give_back
        self._runner = runner
        self._patience = patience

    async def run(self, job: Job, *, rate: float | None, told: Callable[[Verdict], object]) -> str:
        """Replay what has no verdict yet, at most `rate` letters per second, and return the state of the job then.

        `told` hears of every verdict once it is written down. A letter that the database is busy with (somebody holds
        its instance) is left for the end, with those behind it of the same instance; the others go on.

        Raises:
            Trouble: the database is away, or still busy at the end; run the job again to go on.
        """
        left = [item for item in await self._jobs.items(job.job_id) if item.outcome is None]
        await self._jobs.turn(job.job_id, RUNNING)
        state, pace = DONE, _Pace(self._runner, rate)
        busy: list[Item] = []
        for stage in stages(left):
            outcomes = []
            for item in stage:
                await pace.keep()
                verdict = await self._replay_now(job, item, busy)
                if verdict is not None:
                    outcomes.append(verdict.outcome)
                    told(verdict)
            if outcomes and all(outcome in UNSETTLED for outcome in outcomes) and stage[-1] is not left[-1]:
                state = STOPPED
                break
        for item in busy if state == DONE else ():
            told(await self._replay(job, item))
        await self._see_given_back(job)
        await self._jobs.turn(job.job_id, state)
        return state

    async def _replay_now(self, job: Job, item: Item, busy: list[Item]) -> Verdict | None:
        """The verdict, or None when the database is busy with this letter, or with one before it of its instance."""
        held = {each.saga_id for each in busy}
        if item.saga_id is None or item.saga_id not in held:
            try:
                return await self._replay(job, item)
            except DatabaseExhausted:
                raise
            except DatabaseBusy:
                if len(held) >= MOST_BUSY:
                    raise
        busy.append(item)
        return None

    async def _replay(self, job: Job, item: Item) -> Verdict:
        request = Request(
            dead_letter_id=item.dead_letter_id, actor=job.actor, reason=job.why, request_id=f"job-{job.job_id}"
        )
        verdict = await self._replays.replay(request)
        await self._jobs.judge(job.job_id, item.position, verdict.outcome, verdict.detail)
        return verdict

    async def _see_given_back(self, job: Job) -> None:
        """Judge what was given back once more, now that the broker has had the time to take it."""
        given = [item for item in await self._jobs.items(job.job_id) if item.outcome in (GIVEN_BACK, NOT_TAKEN)]
        if not given:
            return
        ids = [item.message_id for item in given if item.message_id is not None]
        untaken = await self._give_back.untaken(ids, patience=self._patience)
        for item in given:
            said, _, _ = (item.detail or "").partition(";")
            why = untaken.get(item.message_id or "")
            outcome, detail = (
                (GIVEN_BACK, "the broker has taken it") if why is None else (NOT_TAKEN, f"still in the outbox: {why}")
            )
            await self._jobs.judge(job.job_id, item.position, outcome, f"{said}; {detail}")


def stages(left: Sequence[Item]) -> Sequence[Sequence[Item]]:
    """The letters that are left, as one, then ten, then all the rest."""
    found, begin = [], 0
    for size in (*STAGES, len(left)):
        if begin < len(left):
            found.append(left[begin : begin + size])
        begin += size
    return found


class _Pace:
    """So many per second, and no more after a pause than without one."""

    def __init__(self, runner: Runner, rate: float | None) -> None:
        self._runner = runner
        self._between = 1 / rate if rate else 0.0
        self._next = runner.monotonic()

    async def keep(self) -> None:
        """Wait until it is time for the next one."""
        wait = self._next - self._runner.monotonic()
        if wait > 0:
            await self._runner.sleep(wait)
        self._next = max(self._next, self._runner.monotonic()) + self._between
