"""A dead letter is replayed in the database: once, however often asked, even when the inbox has forgotten it."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import pytest

from handlers.editing import replacing
from handlers.operations import Operation, Operations
from handlers.replay import Replayer
from messages.catalog.ordering import PaymentCompleted, StockReserved
from messages.errors import OperationRefused
from sagas import definition_of
from sagas.catalog.ordering import PlaceOrder
from sagas.outcome import Action, Operated
from storage import dead_letters
from storage.statements import Batch, Statement
from tests.handlers.house import LIMITS, NAMESPACE, WINDOW, House, corrupted, dead, kinds, placed, rows
from tests.handlers.lossy import Lossy
from transport.topology import saga_queue

if TYPE_CHECKING:
    from handlers.operations import Outcome
    from handlers.replay import Instead
    from handlers.verdict import Verdict
    from messages.envelope import Raw
    from outbox.unit import SqlStorage
    from sagas import Definition
    from tests.storage.databases import Counter

RESERVED = StockReserved(order_id="o-1", reservation_id="r-1")


@pytest.fixture
async def house(storage: SqlStorage) -> House:
    """A process whose class is mended; the letters were made by one that was not."""
    return await House(storage).open()


def broken(whole: Definition | None = None) -> Definition:
    """The saga with a `reserved` hook and a `@start` that raise."""
    whole = whole or definition_of(PlaceOrder)
    reserve = whole.steps["reserve"]

    def raises(*_: object) -> Any:  # noqa: ANN401
        raise KeyError("reservation")

    replies = {
        name: replace(reply, hook=raises) if name == "stock.StockReserved" else reply
        for name, reply in reserve.do.replies.items()
    }
    starts = {name: replace(start, build=raises) for name, start in whole.starts.items()}
    do = replace(reserve.do, replies=replies)
    return replace(whole, steps={**whole.steps, "reserve": replace(reserve, do=do)}, starts=starts)


async def dead_lettered(house: House, *raws: Raw) -> list[int]:
    """What a process with the broken class makes of messages: their letters."""
    there = await House(house.storage, broken()).open()
    await there.take(*raws)
    return [row.dead_letter_id for row in await rows(_sql(house), "select * from v_dead_letter order by 1")]


def _sql(house: House) -> SqlStorage:
    return house.storage  # type: ignore[return-value]


async def replay(
    house: House,
    letter: int,
    *,
    request_id: str = "",
    dry_run: bool = False,
    storage: Any = None,  # noqa: ANN401
    instead: Instead | None = None,
) -> Verdict:
    replayer = Replayer(
        {house.definition.type: {house.definition.version: house.definition}},
        namespace=NAMESPACE,
        storage=storage or _sql(house),
        runner=house.runner,
        report=house.facts.append,
        limits=LIMITS,
    )
    return await replayer.replay(
        letter,
        actor="ann",
        reason="mended",
        request_id=request_id or str(uuid4()),
        dry_run=dry_run,
        instead=instead,
    )


async def status(storage: SqlStorage) -> list[str]:
    return [row.status for row in await rows(storage, "select status from v_dead_letter order by dead_letter_id")]


async def test_the_letter_of_a_parked_instance_lets_it_go_on(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(placed()))
    [letter] = await dead_lettered(house, house.answer("o-1", RESERVED, "reserve"))
    assert (await house.instance("o-1")).status == "parked"
    verdict = await replay(house, letter)
    instance = await house.instance("o-1")
    assert (verdict.outcome, verdict.saga_id) == ("processed", instance.saga_id)
    [row] = await rows(storage, f"select kind from v_saga_event where seq = {verdict.seq}")  # noqa: S608
    assert row.kind == "reply_received"
    assert (instance.status, list(instance.steps), instance.attention) == ("running", ["reserve", "pay"], {})
    assert await status(storage) == ["replayed"]


async def test_the_letter_of_an_instance_that_is_parked_and_paused_is_held(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(placed()))
    [letter] = await dead_lettered(house, house.answer("o-1", RESERVED, "reserve"))
    await _operate(house, Action.PAUSE)
    assert (await replay(house, letter)).outcome == "held"
    await _operate(house, Action.RESUME)
    assert "reserve" in (await house.instance("o-1")).steps
    assert not await rows(storage, "select * from v_held")


async def test_a_message_that_was_held_and_fails_when_its_instance_is_resumed_is_seen_everywhere(
    house: House, storage: SqlStorage
) -> None:
    await house.take(house.message(placed()))
    reply = house.answer("o-1", RESERVED, "reserve")
    [letter] = await dead_lettered(house, reply)
    await _operate(house, Action.PAUSE)
    assert (await replay(house, letter)).outcome == "held"
    house.definition = broken()
    [failed] = (await _operate(house, Action.RESUME)).failed
    assert (failed.message_id, failed.reason) == (reply.message_id, "method_raised")
    assert (await kinds(storage, house.id_of("o-1")))[-3:] == ["operator_acted", "resumed", "parked"]
    [parked] = await rows(
        storage, "select * from v_saga_event where kind = 'parked' and message_name = 'stock.StockReserved'"
    )
    assert parked.message_id == reply.message_id
    assert await status(storage) == ["open"]
    events = await rows(storage, "select kind, actor, detail from dead_letter_event order by event_id")
    assert [event.kind for event in events] == ["replayed", "reopened"]
    assert "KeyError: 'reservation'" in events[1].detail


async def _operate(house: House, action: Action) -> Outcome:
    operations = Operations(
        {house.definition.type: {house.definition.version: house.definition}},
        namespace=NAMESPACE,
        storage=house.storage,
        runner=house.runner,
        report=house.facts.append,
        limits=LIMITS,
    )
    operated = Operated(action=action, actor="ann", reason="test", request_id=str(uuid4()))
    return await operations.carry_out(Operation(saga_id=house.id_of("o-1"), operated=operated))


async def test_a_start_that_raised_is_replayed_into_an_instance(house: House, storage: SqlStorage) -> None:
    [letter] = await dead_lettered(house, house.message(placed()))
    assert (await replay(house, letter)).outcome == "processed"
    assert await kinds(storage, house.id_of("o-1")) == ["started", "command_sent"]


async def test_what_was_held_for_a_replayed_start_and_raises_is_a_letter_of_its_own(
    house: House, storage: SqlStorage
) -> None:
    [letter] = await dead_lettered(house, house.message(placed()))
    queue = saga_queue(NAMESPACE, "PlaceOrder")
    for attempt in (1, 2):
        early = house.answer("o-1", RESERVED, "reserve", attempt=attempt)
        await house.take(replace(early, routing_key=queue))
    house.definition = replace(broken(), starts=house.definition.starts)
    assert (await replay(house, letter)).outcome == "processed"
    assert (await house.instance("o-1")).status == "parked"
    assert await status(storage) == ["replayed", "open"]
    assert not await rows(storage, "select * from v_held")
    [kept] = await rows(storage, "select * from v_dead_letter where status = 'open'")
    assert (kept.reason, str(kept.saga_id)) == ("method_raised", str(house.id_of("o-1")))


async def test_an_edited_letter_is_locked_behind_its_instance_like_any_other(
    house: House, storage: SqlStorage, counter: Counter
) -> None:
    await house.take(house.message(placed()))
    [number] = await dead_lettered(house, house.answer("o-1", RESERVED, "reserve"))
    async with storage.database.read() as session:
        letter = await dead_letters.find(session, number)
    assert letter is not None
    new = replace(letter, raw=replace(letter.raw, message_id="new"))
    write = replacing(letter, new.raw, LIMITS, actor="ann", why="mended", now=house.runner.now())
    counter.reset()
    assert (await replay(house, number, dry_run=True, instead=(new, write))).outcome == "processed"
    instance = next(place for place, sql in enumerate(counter.statements) if "from saga where" in sql)
    edited = next(place for place, sql in enumerate(counter.statements) if "insert into dead_letter" in sql)
    assert instance < edited


async def test_what_a_replay_made_an_instance_do_stands_in_its_history_with_who_and_why(
    house: House, storage: SqlStorage
) -> None:
    start, _ = await dead_lettered(house, house.message(placed()), house.message(placed("o-2")))
    verdict = await replay(house, start)
    reply = house.answer("o-1", RESERVED, "reserve")
    [letter] = [each for each in await dead_lettered(house, reply) if each > start + 1]
    again = await replay(house, letter)
    for number, seq in ((start, verdict.seq), (letter, again.seq)):
        [row] = await rows(storage, f"select cast(detail as text) as detail from v_saga_event where seq = {seq}")  # noqa: S608
        said = json.loads(row.detail)
        assert (said["dead_letter"], said["actor"], said["why"]) == (number, "ann", "mended")


async def test_a_letter_made_of_one_that_parked_its_instance_lets_it_go_on(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(placed()))
    [number] = await dead_lettered(house, house.answer("o-1", RESERVED, "reserve"))
    for message_id in ("edited", "edited again"):
        async with storage.transaction() as unit:
            letter = await dead_letters.find(unit.session, number)
            assert letter is not None
            raw = replace(letter.raw, message_id=message_id)
            number = await replacing(letter, raw, LIMITS, actor="ann", why="", now=house.runner.now())(unit)
    assert (await replay(house, number)).outcome == "processed"
    instance = await house.instance("o-1")
    assert (instance.status, instance.attention) == ("running", {})


@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_second_replay_reports_the_first(house: House, storage: SqlStorage, forgotten: bool) -> None:
    await house.take(house.message(placed()))
    [letter] = await dead_lettered(house, house.answer("o-1", RESERVED, "reserve"))
    first = await replay(house, letter)
    if forgotten:
        await _change(storage, "delete from inbox")
    second = await replay(house, letter)
    assert second.outcome == "already_replayed"
    assert (second.saga_id, second.seq) == (first.saga_id, first.seq)
    assert re.fullmatch(r"by ann at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC: mended", second.detail)
    assert (await kinds(storage, house.id_of("o-1"))).count("step_completed") == 1


async def test_fifty_operators_at_once_have_one_effect(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(placed()))
    letters = await dead_lettered(house, house.answer("o-1", RESERVED, "reserve"), house.message(placed("o-2")))
    others = [await House(house.storage).open() for _ in range(5)]
    asked = [replay(each, letter) for each in others for _ in range(10) for letter in letters]
    verdicts = await asyncio.gather(*asked)
    for letter in letters:
        outcomes = [verdict.outcome for verdict in verdicts if verdict.dead_letter_id == letter]
        assert outcomes.count("processed") == 1
        assert outcomes.count("already_replayed") == 49
    assert (await kinds(storage, house.id_of("o-1"))).count("step_completed") == 1
    assert await status(storage) == ["replayed", "replayed"]
    recorded = await rows(storage, "select kind from dead_letter_event")
    assert [row.kind for row in recorded] == ["replayed", "replayed"]


async def test_a_copy_that_was_applied_meanwhile_makes_it_a_duplicate(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(placed()))
    reply = house.answer("o-1", RESERVED, "reserve")
    [letter] = await dead_lettered(house, reply)
    await house.take(reply)
    assert (await replay(house, letter)).outcome == "duplicate"
    assert await status(storage) == ["replayed"]
    assert (await kinds(storage, house.id_of("o-1"))).count("step_completed") == 1


async def test_a_start_for_a_key_that_was_taken_meanwhile_changes_nothing(house: House, storage: SqlStorage) -> None:
    [letter] = await dead_lettered(house, house.message(placed()))
    await house.take(house.message(placed()))
    verdict = await replay(house, letter)
    assert (verdict.outcome, verdict.detail) == ("ignored", "duplicate_start")
    assert await kinds(storage, house.id_of("o-1")) == ["started", "command_sent", "message_ignored"]


async def test_a_dry_run_says_what_would_be_and_changes_nothing(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(placed()))
    await dead_lettered(house, house.answer("o-1", RESERVED, "reserve"))
    letters = await dead_lettered(house, house.message(placed("o-2")))
    before = await _everything(storage)
    verdicts = [await replay(house, letter, dry_run=True) for letter in letters]
    assert [verdict.outcome for verdict in verdicts] == ["processed", "processed"]
    assert verdicts[0].detail == "reply_received, step_completed"
    assert await _everything(storage) == before
    house.definition = broken()
    assert (await replay(house, letters[0], dry_run=True)).outcome == "failed_again"
    assert await _everything(storage) == before


async def test_what_fails_again_stays_open_and_says_why_now(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(placed()))
    [letter] = await dead_lettered(house, house.answer("o-1", RESERVED, "reserve"))
    house.definition = broken()
    verdict = await replay(house, letter, request_id="r-1")
    assert verdict.outcome == "failed_again"
    assert "KeyError: 'reservation'" in verdict.detail
    [row] = await rows(storage, "select status, copies, reason from v_dead_letter")
    assert tuple(row) == ("open", 1, "method_raised")
    assert (await house.instance("o-1")).status == "parked"
    [event] = await rows(storage, "select * from dead_letter_event")
    assert (event.kind, event.actor, event.why, event.request_id) == ("failed_again", "ann", "mended", "r-1")
    house.definition = definition_of(PlaceOrder)
    assert (await replay(house, letter)).outcome == "processed"


async def test_the_same_request_after_a_failure_tries_again_and_after_a_success_changes_nothing(
    house: House, storage: SqlStorage
) -> None:
    await house.take(house.message(placed()))
    [letter] = await dead_lettered(house, house.answer("o-1", RESERVED, "reserve"))
    house.definition = broken()
    assert (await replay(house, letter, request_id="job-1")).outcome == "failed_again"
    house.definition = definition_of(PlaceOrder)
    verdict = await replay(house, letter, request_id="job-1")
    assert verdict.outcome == "processed"
    assert await replay(house, letter, request_id="job-1") == verdict
    assert (await kinds(storage, house.id_of("o-1"))).count("step_completed") == 1


async def test_a_reply_whose_instance_went_another_way_is_ignored_with_the_reason(
    house: House, storage: SqlStorage
) -> None:
    await house.take(house.message(placed()))
    late = house.answer("o-1", PaymentCompleted(order_id="o-1", payment_id="p"), "pay", attempt=7)
    await house.take(house.answer("o-1", RESERVED, "reserve"))
    await house.take(corrupted(late, headers={**late.headers, "schema-version": "none"}))
    [letter] = [row.dead_letter_id for row in await rows(storage, "select * from v_dead_letter")]
    assert (await replay(house, letter)).outcome == "failed_again"  # it is as malformed as ever
    assert await dead(storage) == [(late.message_id, "malformed")]


@pytest.mark.parametrize("when", ["after", "instead"])
async def test_a_commit_that_nobody_knows_about_is_looked_for(
    house: House, storage: SqlStorage, when: Literal["after", "instead"]
) -> None:
    await house.take(house.message(placed()))
    [letter] = await dead_lettered(house, house.answer("o-1", RESERVED, "reserve"))
    lossy = Lossy(storage)
    lossy.lose(when)
    assert (await replay(house, letter, storage=lossy)).outcome == "processed"
    assert lossy.lost == 1
    assert (await kinds(storage, house.id_of("o-1"))).count("step_completed") == 1


async def test_a_letter_that_is_not_there_or_was_discarded_is_left_alone(house: House, storage: SqlStorage) -> None:
    assert (await replay(house, 99)).outcome == "not_found"
    [letter] = await dead_lettered(house, house.message(placed()))
    batch = Batch()
    dead_letters.resolve(batch, letter, status="discarded", actor="bob", why="a test")
    async with storage.database.write() as session:
        await session.write(batch, house.runner.now())
    verdict = await replay(house, letter)
    assert (verdict.outcome, "by bob at " in verdict.detail) == ("discarded", True)
    assert not await rows(storage, "select * from v_saga")


async def test_a_letter_of_a_saga_that_is_not_known_here_is_refused(house: House) -> None:
    [letter] = await dead_lettered(house, house.message(placed()))
    house.definition = replace(house.definition, type="Other")
    with pytest.raises(OperationRefused, match=r"is for PlaceOrder, which is no saga known here; run this where"):
        await replay(house, letter)


async def test_another_body_under_a_known_id_needs_a_new_id(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(placed(), message_id="m-1"))
    await house.take(house.message(placed("o-2"), message_id="m-1"))
    [row] = await rows(storage, "select dead_letter_id from v_dead_letter")
    verdict = await replay(house, row.dead_letter_id)
    assert verdict.outcome == "failed_again"
    assert "edit it to give it a new one" in verdict.detail


async def _everything(storage: SqlStorage) -> list[list[Any]]:
    tables = ("saga_key", "saga", "saga_event", "inbox", "outbox", "timer", "attention", "dead_letter")
    return [[tuple(row) for row in await rows(storage, f"select * from {table} order by 1, 2")] for table in tables]  # noqa: S608


async def _change(storage: SqlStorage, sql: str) -> None:
    async with storage.database.write() as session:
        await session.fetch(Statement.both(sql), {})


async def test_a_letter_that_was_too_old_is_applied_because_somebody_says_so(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(placed()))
    ancient = (house.runner.now() - 2 * WINDOW).replace(microsecond=0)
    await house.take(house.message(RESERVED, correlation_id=str(house.id_of("o-1")), timestamp=ancient))
    [letter] = await rows(storage, "select dead_letter_id, reason from v_dead_letter")
    assert letter.reason == "too_old"
    await replay(house, letter.dead_letter_id)
    assert "step_completed" in await kinds(storage, house.id_of("o-1"))
