"""The checker bites: a sound picture has no violations, and each thing that can go wrong is named."""

from __future__ import annotations

import sqlite3
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.crash.checker import CHECKS, Expected, stalls, violations
from tests.crash.ledger import Arrival, Effect, Ledger
from tests.crash.script import EVERY_TRADE
from tests.crash.views import (
    VIEWS,
    DeadRow,
    HeldRow,
    HistoryRow,
    InboxRow,
    OutboxRow,
    Picture,
    SagaRow,
    TimerRow,
    read_postgres,
    read_sqlite,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEPS = {"reserve": "stock", "pay": "payment", "label": "warehouse"}
START = "start-1"
EXPECTED = Expected(starts={"o-1": START})


@dataclass(slots=True)
class Story:
    """Tells a saga's life the way an orchestrator would record it, and the participants would."""

    saga_type: str = "PlaceOrder"
    order: str = "o-1"
    history: list[HistoryRow] = field(default_factory=list)
    inbox: list[InboxRow] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)

    def note(self, kind: str, step: str | None = None, message_id: str | None = None, name: str | None = None) -> None:
        seq = len(self.history) + 1
        self.history.append(
            HistoryRow(saga_id="s", seq=seq, kind=kind, step=step, message_id=message_id, message_name=name)
        )

    def take(self, kind: str, step: str | None, message_id: str) -> None:
        self.note(kind, step, message_id)
        self.inbox.append(InboxRow(consumer=self.saga_type, source="", message_id=message_id, disposition="applied"))

    def send(self, step: str, purpose: str, *, effect: bool = True) -> None:
        participant = STEPS.get(step, step)
        trade, key = EVERY_TRADE[participant], f"s/{step}/1/"
        name, at = trade.do if purpose == "do" else trade.undo, len(self.arrivals)
        message_id = f"{step}-{purpose}"
        self.note("command_sent" if purpose == "do" else "compensation_sent", step, message_id, name)
        arrival = Arrival(
            participant=participant,
            at=at,
            message_id=message_id,
            name=name,
            purpose=purpose,
            order_id=self.order,
            idempotency_key=key + purpose,
            compensates=key + "do" if purpose == "undo" else "",
            correlation_id="s",
            body_hash=f"hash of {message_id}",
            redelivered=0,
            disposition="applied",
        )
        self.arrivals.append(arrival)
        if effect:
            self.effects.append(
                Effect(
                    participant=participant,
                    at=at,
                    purpose=purpose,
                    order_id=self.order,
                    idempotency_key=arrival.idempotency_key,
                    compensates=arrival.compensates,
                    message_id=message_id,
                )
            )

    def do(self, step: str) -> None:
        self.send(step, "do")
        self.take("reply_received", step, f"{step}-done")
        self.note("step_completed", step)

    def undo(self, step: str) -> None:
        self.send(step, "undo")
        self.take("reply_received", step, f"{step}-undone")
        self.note("step_compensated", step)

    def picture(self, phase: str) -> Picture:
        saga = SagaRow(saga_id="s", saga_type=self.saga_type, business_key=self.order, status=phase, phase=phase)
        return Picture(
            sagas=[saga],
            history=self.history,
            inbox=self.inbox,
            arrivals=self.arrivals,
            effects=self.effects,
        )


def completed() -> Picture:
    story = Story()
    story.take("started", None, START)
    for step in STEPS:
        story.do(step)
    story.note("completed")
    return story.picture("completed")


def compensated(undone: tuple[str, ...] = ("pay", "reserve")) -> Picture:
    story = Story()
    story.take("started", None, START)
    story.do("reserve")
    story.do("pay")
    story.send("label", "do", effect=False)
    story.take("reply_received", "label", "label-refused")
    story.note("step_failed", "label")
    story.note("compensation_started")
    for step in undone:
        story.undo(step)
    story.note("compensated")
    return story.picture("compensated")


def contradicted() -> Picture:
    """The label was refused, and then it was there: when that is known the first undo is on its way."""
    story = Story()
    story.take("started", None, START)
    story.do("reserve")
    story.do("pay")
    story.send("label", "do")
    story.take("reply_received", "label", "label-refused")
    story.note("step_failed", "label")
    story.note("compensation_started")
    story.send("pay", "undo")
    story.take("late_success", "label", "label-done")
    story.send("label", "undo")
    for step in ("pay", "label"):
        story.take("reply_received", step, f"{step}-undone")
        story.note("step_compensated", step)
    story.undo("reserve")
    story.note("compensated")
    return story.picture("compensated")


def withdrawn() -> Picture:
    """The label was taken back before anybody had heard of it."""
    story = Story()
    story.take("started", None, START)
    story.do("reserve")
    story.do("pay")
    story.note("command_sent", "label", "label-do", "warehouse.CreateShippingLabel")
    story.note("compensation_started")
    story.note("command_withdrawn", "label")
    for step in ("pay", "reserve"):
        story.undo(step)
    story.note("compensated")
    return story.picture("compensated")


@pytest.mark.parametrize("sound", [completed(), compensated(), contradicted(), withdrawn()])
def test_a_sound_picture_has_no_violations(sound: Picture) -> None:
    assert violations(sound, EXPECTED) == []
    assert stalls(sound) == []


def with_saga(picture: Picture, **changes: object) -> Picture:
    return replace(picture, sagas=[replace(picture.sagas[0], **changes)])  # type: ignore[arg-type]


def without_history(picture: Picture, kind: str) -> Picture:
    """Without the rows of a kind, numbered anew, so that only their absence shows."""
    kept = [row for row in picture.history if row.kind != kind]
    return replace(picture, history=[replace(row, seq=seq) for seq, row in enumerate(kept, 1)])


def with_history(picture: Picture, **row: object) -> Picture:
    seq = len(picture.history) + 1
    return replace(picture, history=[*picture.history, HistoryRow(saga_id="s", seq=seq, **row)])  # type: ignore[arg-type]


def effect_again(picture: Picture, at: int, **changes: object) -> Picture:
    copy = replace(picture.effects[at], **{"idempotency_key": "another", **changes})  # type: ignore[arg-type]
    return replace(picture, effects=[*picture.effects, copy])


def arrival_again(picture: Picture, **changes: object) -> Picture:
    return replace(picture, arrivals=[*picture.arrivals, replace(picture.arrivals[0], **changes)])  # type: ignore[arg-type]


WRONGS: dict[str, tuple[Callable[[], Picture], str]] = {
    "the saga was lost": (lambda: replace(completed(), sagas=[]), "order o-1 has 0 sagas"),
    "the saga exists twice": (
        lambda: replace(completed(), sagas=[*completed().sagas, *completed().sagas]),
        "order o-1 has 2 sagas",
    ),
    "a saga came from nowhere": (
        lambda: replace(completed(), sagas=[*completed().sagas, replace(completed().sagas[0], business_key="o-2")]),
        "o-2 was never placed",
    ),
    "a saga never ended": (lambda: with_saga(completed(), status="running", phase="running"), "is running"),
    "a saga is parked": (
        lambda: with_saga(compensated(), status="parked", phase="compensating", attention="compensation_failed"),
        "is parked (attention: compensation_failed)",
    ),
    "row and history disagree": (lambda: with_saga(completed(), phase="compensated"), "but its history says"),
    "a saga ended twice": (lambda: with_history(completed(), kind="completed"), "but its history says"),
    "an outbox row is left": (
        lambda: replace(completed(), outbox=[OutboxRow(message_id="m", saga_id="s", name="n", state="claimed")]),
        "outbox: n m is still claimed",
    ),
    "a message is left held": (
        lambda: replace(completed(), held=[HeldRow(message_id="m", name="n", reason="early")]),
        "held: n m",
    ),
    "a timer outlived its saga": (
        lambda: replace(completed(), timers=[TimerRow(saga_id="s", name="deadline")]),
        "still has the timer deadline",
    ),
    "a command was lost": (
        lambda: replace(completed(), arrivals=completed().arrivals[1:]),
        "stock.ReserveStock reserve-do was decided and never arrived",
    ),
    "a command was lost that was not withdrawn": (
        lambda: without_history(withdrawn(), "command_withdrawn"),
        "warehouse.CreateShippingLabel label-do was decided and never arrived",
    ),
    "a command is a ghost": (lambda: arrival_again(completed(), message_id="ghost"), "no saga decided to send it"),
    "an effect happened twice": (lambda: effect_again(completed(), 0), "two effects 'do' in a row"),
    "an undo happened twice": (lambda: effect_again(compensated(), -1), "two effects 'undo' in a row"),
    "an undo without a do": (
        lambda: replace(compensated(), effects=compensated().effects[2:]),
        "undid what it had not done",
    ),
    "a reply was applied twice": (
        lambda: with_history(completed(), kind="reply_received", message_id="pay-done"),
        "message pay-done was applied 2 times",
    ),
    "a command changed its body": (lambda: arrival_again(completed(), body_hash="other"), "2 different bodies"),
    "a command changed its key": (lambda: arrival_again(completed(), idempotency_key="other"), "idempotency keys"),
    "a command had no key": (lambda: arrival_again(completed(), idempotency_key=""), "idempotency keys"),
    "completed but not done everywhere": (
        lambda: replace(completed(), effects=completed().effects[:2]),
        "warehouse has a net effect of 0 instead of 1",
    ),
    "compensated but something is left": (
        lambda: replace(compensated(), effects=compensated().effects[:3]),
        "stock has a net effect of 1 instead of 0",
    ),
    "undone first in, first out, at the participants": (
        lambda: compensated(("reserve", "pay")),
        "not undone in reverse",
    ),
    "undone first in, first out, in the history": (
        lambda: compensated(("reserve", "pay")),
        "reserve was undone before pay",
    ),
    "done after undoing began": (
        lambda: effect_again(compensated(), 0, participant="warehouse"),
        "done after undoing began",
    ),
    "the next undo did not wait": (
        lambda: replace(
            compensated(),
            history=[replace(row, seq={14: 15, 15: 14}.get(row.seq, row.seq)) for row in compensated().history],
        ),
        "was undone before",
    ),
    "forward after turning back": (
        lambda: with_history(without_history(compensated(), "compensated"), kind="command_sent", message_name="x.Y"),
        "x.Y was sent after compensation had begun",
    ),
    "a command after the end": (
        lambda: with_history(completed(), kind="compensation_sent", message_name="x.Y"),
        "x.Y was sent after the saga had completed",
    ),
    "a completed step was never undone": (
        lambda: compensated(("pay",)),
        "step reserve was completed and never undone",
    ),
    "the history has a gap": (
        lambda: replace(completed(), history=[row for row in completed().history if row.seq != 3]),
        "numbered [1, 2, 4",
    ),
    "there is no history": (lambda: replace(completed(), history=[]), "has no history"),
    "two clocks decided": (
        lambda: replace(
            completed(),
            history=[replace(row, at=f"12:{5 if row.seq < 4 else row.seq:02}") for row in completed().history],
        ),
        "at 12:04 is told after reply_received at 12:05",
    ),
    "an applied message is not in the inbox": (
        lambda: replace(completed(), inbox=completed().inbox[:-1]),
        "reply_received of label-done, but the inbox says None",
    ),
    "the inbox invents an application": (
        lambda: replace(
            completed(),
            inbox=[
                *completed().inbox,
                InboxRow(consumer="PlaceOrder", source="", message_id="x", disposition="applied"),
            ],
        ),
        "x was applied to PlaceOrder, but stands in no history",
    ),
    "a dead letter vanished": (
        lambda: replace(
            completed(),
            inbox=[
                *completed().inbox,
                InboxRow(consumer="PlaceOrder", source="", message_id="x", disposition="dead_lettered"),
            ],
        ),
        "there is no letter",
    ),
    "a start was not taken": (
        lambda: replace(without_history(completed(), "started"), inbox=completed().inbox[1:]),
        "the start start-1 of order o-1 was never taken",
    ),
    "something was dead-lettered": (
        lambda: replace(
            completed(),
            dead=[DeadRow(consumer="PlaceOrder", message_id="x", name="n", reason="malformed", status="open")],
        ),
        "1 open dead letters instead of 0: n x (malformed)",
    ),
}


@pytest.mark.parametrize("wrong", WRONGS)
def test_what_is_wrong_is_named(wrong: str) -> None:
    make, sentence = WRONGS[wrong]
    found = violations(make(), EXPECTED)
    assert any(sentence in each for each in found), found


def test_no_check_is_idle() -> None:
    """Each check alone finds at least one of the wrongs."""
    idle = [check.__name__ for check in CHECKS if not any(list(check(make(), EXPECTED)) for make, _ in WRONGS.values())]
    assert idle == []


def test_an_order_may_end_only_as_the_test_allows() -> None:
    strict = Expected(starts={"o-1": START}, allowed={"o-1": {"compensated"}})
    assert violations(completed(), strict) == [
        "saga PlaceOrder o-1 is completed (attention: None); allowed: compensated"
    ]


def test_a_live_saga_without_anything_to_wake_it_is_a_stall() -> None:
    asleep = with_saga(completed(), status="running", phase="running")
    assert stalls(asleep) == [
        "saga PlaceOrder o-1 is running and waits for nothing: no timer, no outgoing message, none held"
    ]
    assert stalls(replace(asleep, timers=[TimerRow(saga_id="s", name="reserve")])) == []
    assert stalls(with_saga(asleep, attention="timer_overdue")) == []
    assert stalls(with_saga(asleep, paused=True)) == []


def test_what_the_published_statement_finds_is_a_stall() -> None:
    late = replace(with_saga(completed(), status="running", phase="running"), timers=[TimerRow(saga_id="s", name="a")])
    assert stalls(replace(late, stalled=["s"])) == [
        "saga PlaceOrder o-1 is running and waits in vain: rule 16's statement finds it"
    ]


# Reading the views.

SAGA = uuid.UUID("0d3d9c56-4f43-5a0e-8d5f-0d8f2c0b7b6a")
COLUMNS = {
    "v_saga": "saga_id, saga_type, business_key, version, status, phase, paused, attention, waiting_for, started_at,"
    " updated_at, deadline_at, ended_at, end_reason, skipped, revision",
    "v_saga_event": "saga_id, seq, at, kind, step, message_id, message_name, detail",
    "v_outbox": "message_id, saga_id, name, state, created_at, attempts, next_attempt_at, stuck, error",
    "v_timer": "saga_id, name, generation, due_at",
    "v_held": "saga_id, saga_type, business_key, message_id, name, reason, received_at, expires_at",
    "v_inbox": "consumer, source, message_id, received_at, disposition",
    "v_dead_letter": "dead_letter_id, consumer, message_id, name, reason, error, saga_id, first_seen_at, copies,"
    " status",
}


def view(name: str, saga_id: str, schema: str = "") -> str:
    """A view of one row under all the columns of the contract: each a word, an id or a number."""
    times = ("started_at", "updated_at", "due_at", "next_attempt_at", "created_at", "expires_at")
    values = dict.fromkeys(times, "current_timestamp")
    values |= {"saga_id": saga_id, "seq": "1", "skipped": "0", "attention": "null", "paused": "(1 = 0)"}
    columns = [f"{values.get(column, repr(column))} as {column}" for column in COLUMNS[name].split(", ")]
    return f"create view {schema}{name} as select {', '.join(columns)}"


def assert_read(picture: Picture) -> None:
    assert picture.sagas == [
        SagaRow(
            saga_id=str(SAGA),
            saga_type="saga_type",
            business_key="business_key",
            status="status",
            phase="phase",
            end_reason="end_reason",
        )
    ]
    assert picture.history[0].saga_id == str(SAGA)
    assert picture.history[0].seq == 1
    parts = (picture.outbox, picture.timers, picture.held, picture.inbox, picture.dead)
    assert [len(part) for part in parts] == [1] * 5


def test_every_view_of_the_contract_is_looked_at() -> None:
    assert {name for name, _ in VIEWS.values()} == set(COLUMNS)


def test_the_views_are_read_from_sqlite(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as db:
        for name in COLUMNS:
            db.execute(view(name, f"'{SAGA}'"))
    db.close()
    assert_read(read_sqlite(tmp_path / "a.db", Ledger(tmp_path)))


async def test_the_views_are_read_from_postgresql(fresh_database: Callable[[], str], tmp_path: Path) -> None:
    url = fresh_database()
    connection = await asyncpg.connect(url)
    await connection.execute("create schema other")
    for name in COLUMNS:
        await connection.execute(view(name, f"'{SAGA}'::uuid", "other."))
    await connection.close()
    assert_read(await read_postgres(url, Ledger(tmp_path), namespace="other"))
