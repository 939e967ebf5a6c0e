"""`sagas show` of a live instance: one line says what it waits for, since when, what comes next, and the last error."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

import migrations
from messages.catalog.ordering import PaymentDeclined, PaymentGatewayBusy, StockReserved
from outbox.interface import Changes, RowOutcome
from outbox.unit import SqlStorage
from running import AsyncioRunner
from runtime.outlook import outlook
from sagas import Patience, Policies, Retry, definition_of, with_policies
from sagas.catalog.ordering import PlaceOrder
from sagas.instance import Phase
from storage import Database, definitions
from storage.letters import DeadLetterSummary
from storage.queries import ArmedTimer, Event, Reason, SagaDetail, SagaSummary
from tests.handlers.house import House, placed
from tests.outbox.building import CONSUMER, new_instance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from outbox.interface import ClaimedRow
    from tests.runtime.conftest import Command

WHY = ("--reason", "the customer called", "--actor", "ann")
CLOCK = r"(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d"
AGO = rf"since {CLOCK}, \d+ s ago"
RESERVE = r"stock\.OutOfStock or stock\.StockReserved \(step reserve, attempt 1, send 1\)"
RESERVED = StockReserved(order_id="o-1", reservation_id="r-1")


@pytest.fixture
async def storage(folder: Path) -> AsyncIterator[SqlStorage]:
    database = Database(f"sqlite:///{folder / 'antiphon.db'}", AsyncioRunner())
    await migrations.up(database)
    yield SqlStorage(database)
    await database.close()


@pytest.fixture
async def house(storage: SqlStorage) -> House:
    """An order whose first command waits in the outbox, in the file that the commands find."""
    house = House(storage)
    await definitions.record(storage.database, [house.definition])
    await house.take(house.message(placed()))
    return house


async def claimed(storage: SqlStorage) -> list[ClaimedRow]:
    return list(await storage.claim_outbox(token=uuid4(), lease=15, limit=9))


async def sent(storage: SqlStorage) -> None:
    """The broker has everything."""
    while rows := await claimed(storage):
        await storage.settle_outbox(confirmed=[(row.outbox_id, row.token) for row in rows])


def line(antiphon: Command, key: str = "o-1") -> str:
    """The line, as people read it; programs read the same, but for what the clock says."""
    done = antiphon("sagas", "show", key)
    assert done.returncode == 0, done.stderr
    [told] = re.findall(r"^  waiting for  (.*)$", done.stdout, re.MULTILINE)
    without_clock = re.compile(r"\((in .*?|\d+ s ago)\)|\d+ s ago")
    assert without_clock.sub("", shown(antiphon, key)["line"]) == without_clock.sub("", told)
    return str(told)


def shown(antiphon: Command, key: str = "o-1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(antiphon("sagas", "show", key, "--json").stdout)["outlook"]
    return found


async def test_a_reply_is_waited_for_until_the_command_is_sent_again(
    antiphon: Command, house: House, storage: SqlStorage
) -> None:
    await sent(storage)
    assert re.fullmatch(rf"{RESERVE} {AGO}; sent again at {CLOCK} \(in (\d+ s|1 min 0 s)\)", line(antiphon))
    told = shown(antiphon)
    due = (await house.instance("o-1")).timers["reserve/do"].due_at
    assert (told["next"], datetime.fromisoformat(told["next_at"])) == ("sent again", due)
    assert (told["remedy"], told["last_error"]) == (None, None)


async def test_a_command_that_was_sent_again_says_that_no_reply_came_and_when_it_is_given_up(
    antiphon: Command, storage: SqlStorage
) -> None:
    retry = Retry(attempts=2, backoff=timedelta(seconds=1), factor=100_000.0, cap=timedelta(hours=1), jitter=0.0)
    hurried = Policies(calls={"reserve": Patience(timeout=timedelta(milliseconds=1), retry=retry)})
    house = House(storage, with_policies(definition_of(PlaceOrder), hurried))
    await definitions.record(storage.database, [house.definition])
    await house.take(house.message(placed()))
    await sent(storage)
    due, _ = await storage.due_timers(["PlaceOrder"], 9)
    await house.timers.fire(due)
    await sent(storage)
    waits, error = RESERVE.replace("send 1", "send 2"), r"last error: no reply in time to stock\.ReserveStock"
    told = line(antiphon)
    assert re.fullmatch(rf"{waits} {AGO}; given up at {CLOCK} \(in .+\); {error}", told)
    first = (await house.instance("o-1")).started_at
    assert datetime.fromisoformat(shown(antiphon)["since"]) == first


async def test_what_an_operator_sends_again_is_no_error(antiphon: Command, house: House, storage: SqlStorage) -> None:
    await sent(storage)
    assert antiphon("sagas", "retry", "o-1", *WHY).returncode == 0
    await sent(storage)
    waits = RESERVE.replace("send 1", "send 2")
    assert re.fullmatch(rf"{waits} {AGO}; sent again at {CLOCK} \(in .+\)", line(antiphon))
    assert (await house.instance("o-1")).steps["reserve"].do.spent == 2


async def came_back(storage: SqlStorage) -> None:
    [row] = await claimed(storage)
    outcome = RowOutcome(
        outbox_id=row.outbox_id, token=row.token, state="returned", retry_in=0, error="no queue takes 'stock.Reserve'"
    )
    await storage.settle_outbox(failed=[outcome])


async def test_a_command_that_finds_no_queue_says_so_also_while_it_is_tried_again(
    antiphon: Command, house: House, storage: SqlStorage
) -> None:
    await came_back(storage)
    error = r"last error: stock\.ReserveStock: no queue takes 'stock\.Reserve'"
    said = re.compile(rf"{RESERVE} {AGO}; published again as soon as it is taken; {error}")
    assert said.fullmatch(line(antiphon))
    await claimed(storage)
    assert said.fullmatch(line(antiphon))
    told = shown(antiphon)
    assert (told["next"], told["next_at"]) == ("published again as soon as it is taken", None)
    assert house.definition.type == "PlaceOrder"


async def test_a_command_that_nobody_publishes_says_that_it_waits(antiphon: Command, house: House) -> None:
    assert re.fullmatch(rf"{RESERVE} {AGO}; published as soon as it can be", line(antiphon))
    assert (await house.instance("o-1")).status == "running"


async def test_between_two_attempts_it_says_when_the_next_one_is(
    antiphon: Command, house: House, storage: SqlStorage
) -> None:
    await house.take(house.answer("o-1", RESERVED, "reserve"))
    await house.take(house.answer("o-1", PaymentGatewayBusy(order_id="o-1"), "pay"))
    await sent(storage)
    waits = r"the next attempt at payment\.MakePayment \(step pay, attempt 1 got no further\)"
    error = r"last error: payment\.PaymentGatewayBusy \(not now\)"
    assert re.fullmatch(rf"{waits} {AGO}; tried again at {CLOCK} \((in )?\d+ s( ago)?\); {error}", line(antiphon))


async def test_a_compensation_says_what_failed_and_goes_on_for_ever(
    antiphon: Command, house: House, storage: SqlStorage
) -> None:
    await house.take(house.answer("o-1", RESERVED, "reserve"))
    await house.take(house.answer("o-1", PaymentDeclined(order_id="o-1"), "pay"))
    await sent(storage)
    waits = r"stock\.StockReleased \(compensation release of step reserve, attempt 1, send 1\)"
    error = r"last error: step failed: payment\.PaymentDeclined"
    assert re.fullmatch(rf"{waits} {AGO}; sent again at {CLOCK} \(in .+\); {error}", line(antiphon))


async def test_a_paused_instance_says_who_paused_it_and_what_is_held(
    antiphon: Command, house: House, storage: SqlStorage
) -> None:
    await sent(storage)
    assert antiphon("sagas", "pause", "o-1", *WHY).returncode == 0
    await house.take(house.answer("o-1", RESERVED, "reserve"))
    resume = r"antiphon sagas resume o-1 \(ann paused it: the customer called\)"
    assert re.fullmatch(
        rf"an operator \(paused\); {RESERVE} {AGO}; it needs an operator: {resume}; 1 message is held \(paused\)",
        line(antiphon),
    )
    told = shown(antiphon)
    assert (told["next"], told["next_at"]) == (None, None)


async def test_a_parked_instance_says_what_an_operator_can_do(antiphon: Command, storage: SqlStorage) -> None:
    raised = "PlaceOrder.reserved: KeyError: 'x' (ordering.py:42)"
    parked = new_instance(
        "order 1",
        attention={"method_raised": raised},
        timers={},
        waiting_for=f"an operator (method_raised: {raised})",
        updated_at=datetime.now(UTC),
    )
    ended = new_instance("done", phase=Phase.COMPLETED, timers={}, ended_at=datetime.now(UTC), waiting_for=None)
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER, inserted=[parked, ended]))
    told = line(antiphon, "order 1")
    assert re.fullmatch(
        rf"an operator \(method_raised: {re.escape(raised)}\) {AGO}; it needs an operator: mend the class and deploy "
        r"it, then antiphon sagas retry 'order 1'; or skip what cannot be built",
        told,
    )
    assert shown(antiphon, "order 1")["last_error"] == raised
    assert "waiting for" not in antiphon("sagas", "show", "done").stdout
    assert json.loads(antiphon("sagas", "show", "done", "--json").stdout)["outlook"] is None


# What takes days, told of instances that were made up.

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SUMMARY = SagaSummary(
    saga_id=uuid4(),
    saga_type="PlaceOrder",
    business_key="o-1",
    version=1,
    status="running",
    phase="running",
    paused=False,
    attention=None,
    waiting_for="stock.StockReserved (step reserve, attempt 1, send 1)",
    started_at=NOW - timedelta(days=2),
    updated_at=NOW - timedelta(days=2),
    deadline_at=NOW + timedelta(days=5),
    ended_at=None,
    end_reason=None,
    skipped=0,
    revision=1,
)
SENT = Event(
    seq=2,
    at=NOW - timedelta(days=2),
    kind="command_sent",
    step="reserve",
    message_id="m-1",
    message_name="stock.ReserveStock",
    detail={"purpose": "do", "generation": 1},
)
DETAIL = SagaDetail(
    saga=SUMMARY,
    read_at=NOW,
    state={},
    attention=[],
    events=[SENT],
    timers=[ArmedTimer(name="reserve/do", generation=2, due_at=NOW - timedelta(minutes=2))],
    outbox=[],
    held=[],
    dead_letters=[],
    policy=None,
)


def told(detail: SagaDetail) -> str:
    how = outlook(detail)
    assert how is not None
    return how.line


def test_what_is_overdue_and_what_began_another_day_is_told_as_such() -> None:
    late = told(DETAIL)
    assert re.fullmatch(
        rf"stock\.StockReserved \(.+\) since 2026-11-\d\d {CLOCK}, 2 d 0 h ago; its timer is due at {CLOCK} "
        r"\(2 min 0 s ago\)",
        late,
    )


def test_a_last_timeout_that_went_through_the_queue_gives_up_when_that_is_read() -> None:
    fired = replace(SENT, seq=3, kind="timer_fired", detail={"timer": "reserve/do"})
    assert "; given up when every reply before that is read" in told(replace(DETAIL, events=[SENT, fired]))


def test_what_is_waited_for_without_a_timer_is_told_by_the_deadline_or_not_at_all() -> None:
    idle = replace(DETAIL, saga=replace(SUMMARY, waiting_for=None), events=[])
    deadline = [ArmedTimer(name="deadline", generation=1, due_at=SUMMARY.deadline_at)]
    assert "nothing since" in told(replace(idle, timers=deadline))
    assert "; turned back for its deadline at 2026-11-2" in told(replace(idle, timers=deadline))
    overdue = [ArmedTimer(name="overdue", generation=1, due_at=SUMMARY.deadline_at)]
    assert "; people are told that it takes long at" in told(replace(idle, timers=overdue))
    stalled = replace(idle, timers=[], attention=[Reason(reason="stalled", detail="it waits for nothing", since=NOW)])
    assert told(stalled).endswith(
        "; it needs an operator: antiphon sagas retry or cancel o-1; last error: it waits for nothing"
    )


@pytest.mark.parametrize(
    ("timer", "said"),
    [
        ("cool_off/sleep", "it goes on at"),
        ("approval/timeout", "given up waiting at"),
        ("approval/remind", "remind is sent at"),
        ("lifecycle/long_overdue", "the time of its state is over (long_overdue) at"),
    ],
)
def test_what_the_timers_of_rests_waits_and_states_do_is_told(timer: str, said: str) -> None:
    pausing = replace(DETAIL, events=[], timers=[ArmedTimer(name=timer, generation=1, due_at=SUMMARY.deadline_at)])
    assert f"; {said} 2026-11-2" in told(pausing)


def test_a_step_in_doubt_that_is_waited_for_is_sent_again_for_ever() -> None:
    policy = {"steps": {"reserve": {"on_silence": "resend", "do": {"retry": {"attempts": 1}}, "undo": None}}}
    assert "; given up at" in told(replace(DETAIL, policy=policy))
    doubt = [Reason(reason="in_doubt", detail="step reserve has not been answered", since=NOW)]
    assert "; sent again at" in told(replace(DETAIL, policy=policy, attention=doubt))
    anew = {"steps": {"reserve": {"on_silence": "new_attempt", "do": {"retry": {"attempts": 3}}, "undo": None}}}
    assert "; a new attempt at" in told(replace(DETAIL, policy=anew))


def letter(message_id: str, first: timedelta, last: timedelta) -> DeadLetterSummary:
    """A command whose handler raised so long ago for the first time and for the last."""
    return DeadLetterSummary(
        dead_letter_id=3,
        consumer="participant.stock",
        message_id=message_id,
        name="stock.ReserveStock",
        reason="handler_raised",
        error="the shelf burned down",
        saga_id=SUMMARY.saga_id,
        first_seen_at=NOW - first,
        copies=2,
        status="open",
        error_class="RuntimeError",
        queue=None,
        replaces=None,
        last_seen_at=NOW - last,
        resolved_at=None,
        resolved_by=None,
        resolved_why=None,
        replayed_seq=None,
    )


def resent(ago: timedelta) -> Event:
    return replace(SENT, seq=3, at=NOW - ago, kind="command_resent")


@pytest.mark.parametrize(("message_id", "last"), [("m-1", timedelta(minutes=2)), ("another", timedelta(seconds=30))])
def test_a_participant_that_raises_at_every_send_is_the_error_and_not_the_silence(
    message_id: str, last: timedelta
) -> None:
    raising = replace(
        DETAIL,
        events=[SENT, resent(timedelta(minutes=1))],
        dead_letters=[letter(message_id, timedelta(days=2), last)],
    )
    assert told(raising).endswith("; last error: dead letter 3: the shelf burned down")


def test_a_letter_that_was_dealt_with_is_no_error() -> None:
    gone = replace(letter("m-1", timedelta(days=2), timedelta(0)), status="discarded")
    silent = replace(DETAIL, events=[SENT, resent(timedelta(minutes=1))], dead_letters=[gone])
    assert told(silent).endswith("; last error: no reply in time to stock.ReserveStock")


def test_an_error_as_long_as_a_page_leaves_room_for_what_to_do() -> None:
    endless = replace(
        DETAIL,
        saga=replace(SUMMARY, waiting_for=f"an operator (method_raised: {'x' * 5000}\n)"),
        timers=[],
        attention=[Reason(reason="method_raised", detail="y" * 5000, since=NOW)],
    )
    assert len(told(endless)) < 1500
    assert "\n" not in told(endless)
    assert "antiphon sagas retry o-1" in told(endless)
