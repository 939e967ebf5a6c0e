"""Jobs of replays: in stages, at a pace, once, and stopped where everything fails."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.give_back import GiveBack
from handlers.replay import Replayer
from handlers.replay_command import CommandReplayer
from handlers.replay_job import ReplayJob, stages
from handlers.replays import Replays
from handlers.verdict import FAILED_AGAIN, Request, Verdict
from messages.errors import DatabaseBusy
from outbox.interface import Changes
from storage.replay_jobs import Item, ReplayJobs
from storage.statements import Statement
from tests.handlers.desk import LIMITS, NAMESPACE, Desk, asked
from tests.handlers.house import rows
from tests.handlers.test_participant_consumer import Fold, Table
from tests.outbox.building import dead_letter
from transport.topology import participant_queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from messages.envelope import Raw
    from outbox.unit import SqlStorage


def item(position: int) -> Item:
    return Item(
        position=position,
        dead_letter_id=position,
        outcome=None,
        detail=None,
        at=None,
        name=None,
        message_id=None,
        saga_id=None,
        seq=None,
    )


@given(st.integers(0, 40))
def test_a_job_begins_with_one_then_ten_then_the_rest_and_leaves_nothing_out(number: int) -> None:
    left = [item(position) for position in range(number)]
    found = stages(left)
    assert [each for stage in found for each in stage] == left
    assert [len(stage) for stage in found] == [
        size for size in (min(number, 1), min(number - 1, 10), number - 11) if size > 0
    ]


class Bench:
    """A desk with dead letters of its participant, and everything that replays them."""

    def __init__(self, desk: Desk, table: Table) -> None:
        self.desk = desk
        self.table = table
        self.storage = storage = desk.storage
        self.give_back = GiveBack(storage, desk.runner, limits=LIMITS)
        self.replays = Replays(
            storage,
            namespace=NAMESPACE,
            sagas=Replayer(
                {}, namespace=NAMESPACE, storage=storage, runner=desk.runner, report=desk.facts.append, limits=LIMITS
            ),
            participants={desk.participant.name: CommandReplayer(desk.answering, storage, desk.runner)},
            give_back=self.give_back,
        )
        self.jobs = ReplayJobs(storage.database)
        self.told: list[Verdict] = []

    async def keep(self, *raws: Raw, queue: str | None = None, consumer: str = "participant.table") -> list[int]:
        """Have these dead-lettered; the ids of all letters."""
        for raw in raws:
            letter = dead_letter(
                raw.message_id or "", raw.body, consumer=consumer, name=raw.type or "", raw=raw, queue=queue
            )
            async with self.storage.transaction() as unit:
                await unit.save(Changes(consumer="test", dead_letters=[letter]))
        found = await rows(self.storage, "select dead_letter_id from v_dead_letter order by 1")
        return [row.dead_letter_id for row in found]

    async def replay(self, letter: int, *, dry_run: bool = False) -> Verdict:
        request = Request(dead_letter_id=letter, actor="ada", reason="mended", request_id=str(uuid4()))
        return await self.replays.replay(request, dry_run=dry_run)

    async def run(self, ids: Sequence[int], *, rate: float | None = None) -> tuple[int, str]:
        """A job over these; its id and its state."""
        number = await self.jobs.begin(ids, actor="ada", why="mended", wanted={})
        return number, await self.go_on(number, rate=rate)

    async def go_on(self, number: int, *, rate: float | None = None) -> str:
        job = await self.jobs.find(number)
        assert job is not None
        worker = ReplayJob(self.replays, self.jobs, self.give_back, self.desk.runner, patience=0)
        return await worker.run(job, rate=rate, told=self.told.append)

    async def resume(self, number: int) -> str:
        """What `dead replay --resume` does."""
        await self.jobs.retract(number, FAILED_AGAIN)
        return await self.go_on(number)

    async def outcomes(self, number: int) -> list[str | None]:
        return [item.outcome for item in await self.jobs.items(number)]

    async def status(self) -> list[str]:
        found = await rows(self.storage, "select status from v_dead_letter order by dead_letter_id")
        return [row.status for row in found]


@pytest.fixture
async def bench(storage: SqlStorage) -> AsyncIterator[Bench]:
    table = Table()
    desk = Desk(table.participant, storage)
    await desk.open()
    yield Bench(desk, table)
    await desk.close()


def fold(sheet: int, **values: str) -> Raw:
    return asked(Fold(sheet=sheet), key=f"sheet/{sheet}/do", message_id=f"fold-{sheet}", **values)


async def test_a_command_is_answered_and_its_letter_marked_in_one_transaction(bench: Bench) -> None:
    [letter] = await bench.keep(fold(1))
    assert (await bench.replay(letter, dry_run=True)).outcome == "processed"
    assert await bench.desk.rows("select * from sheet") == []
    verdict = await bench.replay(letter)
    assert (verdict.outcome, verdict.detail) == ("processed", "answered with paper.Folded")
    assert (await bench.desk.reply()).headers["causation-id"] == "fold-1"
    assert await bench.status() == ["replayed"]
    assert (await bench.replay(letter)).outcome == "already_replayed"
    assert len(await bench.desk.rows("select * from sheet")) == 1


async def test_a_command_that_was_carried_out_meanwhile_is_a_duplicate(bench: Bench) -> None:
    [letter] = await bench.keep(fold(1))
    await bench.desk.take(fold(1))
    first = await bench.desk.reply()
    await bench.desk.sent()
    assert (await bench.replay(letter, dry_run=True)).outcome == "duplicate"
    assert (await bench.replay(letter)).outcome == "duplicate"
    assert await bench.desk.reply() == first
    assert await bench.status() == ["replayed"]


async def test_a_command_that_was_undone_is_not_carried_out_any_more(bench: Bench) -> None:
    [letter] = await bench.keep(fold(1))
    async with bench.storage.database.write() as session:
        tombstone = "('table', 'sheet/1/do', 'tombstone', '2026-11-21T12:00:00.000000Z')"
        sql = f"insert into participant_effect (participant, idempotency_key, status, at) values {tombstone}"  # noqa: S608
        await session.fetch(Statement.both(sql), {})
    assert (await bench.replay(letter, dry_run=True)).outcome == "ignored"
    assert (await bench.replay(letter)).outcome == "ignored"
    assert await bench.status() == ["replayed"]
    assert await bench.desk.rows("select * from sheet") == []


async def test_a_command_that_fails_again_stays_open_with_the_new_error_and_is_no_second_copy(bench: Bench) -> None:
    [letter] = await bench.keep(replace(fold(1), type="paper.Tear"))
    assert (await bench.replay(letter, dry_run=True)).outcome == "failed_again"
    assert (await bench.replay(letter)).detail.startswith("unknown_message: ")
    [row] = await bench.desk.rows("select * from v_dead_letter")
    assert (row.status, row.reason, row.error_class, row.copies) == ("open", "unknown_message", "UnknownMessage", 1)
    [event] = await bench.desk.rows("select * from dead_letter_event")
    assert (event.kind, event.outcome, event.actor) == ("failed_again", "failed_again", "ada")


async def test_what_the_broker_gave_up_on_is_answered_here_only_if_the_participant_lives_here(bench: Bench) -> None:
    queue = participant_queue(NAMESPACE, "table")
    first, _ = await bench.keep(fold(1), fold(2), queue=queue)
    away = await bench.replay(first)
    assert (away.outcome, away.detail.partition(";")[0]) == ("given_back", f"to queue {queue}")
    await bench.desk.take(fold(7))
    [_, second] = await bench.keep()
    assert (await bench.replay(second)).detail == "answered with paper.Folded"


async def test_a_job_stops_after_the_first_stage_in_which_everything_failed(bench: Bench) -> None:
    bad = [fold(number) for number in range(12)]
    ids = await bench.keep(*bad, consumer="participant.unknown")
    number, state = await bench.run(ids)
    assert (state, len(bench.told)) == ("stopped", 1)
    assert await bench.go_on(number) == "stopped"
    assert len(bench.told) == 2
    job = await bench.jobs.find(number)
    assert job is not None
    assert (job.state, job.letters, job.judged) == ("stopped", 12, 2)


async def test_a_letter_that_the_database_is_busy_with_is_left_for_the_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.repair._TRIES", 1)
    ids = await bench.keep(*(fold(number) for number in range(4)))
    bench.table.stuck = {1}
    with pytest.raises(DatabaseBusy):
        await bench.run(ids)
    [job] = await bench.jobs.page()
    assert (job.state, job.judged) == ("running", 3)
    bench.table.stuck = set()
    assert await bench.go_on(job.job_id) == "done"
    assert await bench.outcomes(job.job_id) == ["processed"] * 4


async def test_a_job_ends_early_where_the_database_is_busy_with_everything(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.repair._TRIES", 1)
    monkeypatch.setattr("handlers.replay_job.MOST_BUSY", 0)
    bench.table.stuck = {0, 1}
    with pytest.raises(DatabaseBusy):
        await bench.run(await bench.keep(fold(0), fold(1)))
    assert bench.told == []


async def test_a_job_goes_on_behind_a_failure_among_others_and_ends(bench: Bench) -> None:
    unread = [asked(Fold(sheet=n), message_id=f"n-{n}", **{"schema-version": "9"}) for n in range(9)]
    ids = await bench.keep(fold(0), *unread, fold(1), fold(2))
    number, state = await bench.run(ids)
    assert state == "done"
    assert [item.outcome for item in await bench.jobs.items(number)] == [
        "processed",
        *["failed_again"] * 9,
        "processed",
        "processed",
    ]


async def test_a_job_that_was_stopped_and_is_resumed_tries_what_failed_first_and_as_carefully(bench: Bench) -> None:
    ids = await bench.keep(*(fold(number) for number in range(12)))
    bench.table.errors = [KeyError("ink"), KeyError("ink")]
    number, state = await bench.run(ids)
    assert (state, [verdict.dead_letter_id for verdict in bench.told]) == ("stopped", ids[:1])
    assert await bench.resume(number) == "stopped"
    assert [verdict.dead_letter_id for verdict in bench.told] == [ids[0], ids[0]]
    bench.told.clear()
    assert await bench.resume(number) == "done"
    assert [verdict.dead_letter_id for verdict in bench.told] == ids
    assert await bench.outcomes(number) == ["processed"] * 12
    assert len(await bench.desk.rows("select * from sheet")) == 12


async def test_a_job_that_is_done_and_is_resumed_tries_what_failed_in_it_and_nothing_else(bench: Bench) -> None:
    unread = asked(Fold(sheet=1), message_id="n-1", **{"schema-version": "9"})
    ids = await bench.keep(fold(0), unread, fold(2))
    number, state = await bench.run(ids)
    assert (state, await bench.outcomes(number)) == ("done", ["processed", "failed_again", "processed"])
    bench.told.clear()
    assert await bench.resume(number) == "done"
    assert [verdict.dead_letter_id for verdict in bench.told] == ids[1:2]
    assert await bench.outcomes(number) == ["processed", "failed_again", "processed"]
    events = await bench.desk.rows("select kind from dead_letter_event order by event_id")
    assert [event.kind for event in events].count("replayed") == 2


async def test_a_failure_whose_process_died_before_it_was_judged_is_tried_again(bench: Bench) -> None:
    [letter] = await bench.keep(fold(1))
    number = await bench.jobs.begin([letter], actor="ada", why="mended", wanted={})
    request = Request(dead_letter_id=letter, actor="ada", reason="mended", request_id=f"job-{number}")
    bench.table.errors = [KeyError("ink")]
    assert (await bench.replays.replay(request)).outcome == "failed_again"
    assert await bench.resume(number) == "done"
    assert await bench.outcomes(number) == ["processed"]


async def test_a_verdict_that_was_reached_and_not_written_down_is_found_again(bench: Bench) -> None:
    [letter] = await bench.keep(fold(1))
    number = await bench.jobs.begin([letter], actor="ada", why="mended", wanted={})
    request = Request(dead_letter_id=letter, actor="ada", reason="mended", request_id=f"job-{number}")
    before = await bench.replays.replay(request)
    assert await bench.go_on(number) == "done"
    [verdict] = bench.told
    assert (
        (verdict.outcome, verdict.detail)
        == (before.outcome, before.detail)
        == ("processed", "answered with paper.Folded")
    )


async def test_what_the_broker_has_not_taken_is_told_and_looked_for_again(bench: Bench) -> None:
    bench.desk.relay.stop()
    ids = await bench.keep(fold(1), queue="elsewhere", consumer="elsewhere")
    number, _ = await bench.run(ids)
    [item] = await bench.jobs.items(number)
    assert (item.outcome, (item.detail or "").partition(":")[0]) == (
        "not_taken",
        "to queue elsewhere; still in the outbox",
    )
    async with bench.storage.database.write() as session:
        await session.fetch(Statement.both("delete from outbox"), {})
    await bench.go_on(number)
    [item] = await bench.jobs.items(number)
    assert (item.outcome, item.detail) == ("given_back", "to queue elsewhere; the broker has taken it")
