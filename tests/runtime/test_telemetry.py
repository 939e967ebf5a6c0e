"""Every fact has a name and a level, and what concerns a saga says which."""

import dataclasses
import io
import json
import logging
from collections.abc import Iterator
from types import ModuleType
from uuid import UUID

import pytest
import structlog

import handlers.facts
import outbox.facts
import runtime.facts
import transport.facts
from handlers.facts import MessageDeadLettered, MessageDuplicated, SagaMoved
from messages.errors import DatabaseAway
from outbox.facts import PublicationFailed
from runtime.facts import LoopEnded
from runtime.logs import configure
from runtime.telemetry import LEVELS, NAMES, Telemetry, level_of, line_of
from sagas.outcome import HistoryEntry

SAGA = UUID("00000000-0000-0000-0000-000000000001")


def facts_of(module: ModuleType) -> set[type]:
    return {
        value
        for value in vars(module).values()
        if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__module__ == module.__name__
    }


def moved(kind: str, **entry: str) -> SagaMoved:
    return SagaMoved(
        saga_id=SAGA,
        saga_type="PlaceOrder",
        key="4711",
        entry=HistoryEntry(seq=7, kind=kind, step="pay", detail={"attempt": 2}, **entry),  # type: ignore[arg-type]
        step_number=2,
        step_total=3,
    )


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    yield io.StringIO()
    root.handlers[:], root.level = before
    structlog.reset_defaults()


@pytest.mark.parametrize(
    "module",
    [handlers.facts, outbox.facts, transport.facts, runtime.facts],
    ids=lambda m: m.__name__,
)
def test_every_fact_has_a_name_and_a_level(module: ModuleType) -> None:
    facts = facts_of(module)
    assert facts
    assert facts - set(NAMES) - {SagaMoved} == set()


def test_names_are_dotted_and_levels_exist() -> None:
    for event, level in NAMES.values():
        assert event.count(".") == 1
        assert level in LEVELS


def test_a_transition_says_which_saga_which_step_of_how_many_and_which_message() -> None:
    line = line_of(moved("step_completed", message_id="m-1", message_name="payment.PaymentCompleted"))
    assert line.event == "saga.step_completed"
    assert line.level == "info"
    assert line.fields == {
        "saga_type": "PlaceOrder",
        "key": "4711",
        "step": "pay",
        "step_number": 2,
        "step_total": 3,
        "saga_id": str(SAGA),
        "message": "payment.PaymentCompleted",
        "message_id": "m-1",
        "attempt": 2,
    }


@pytest.mark.parametrize(
    ("kind", "level"),
    [("started", "info"), ("timer_set", "debug"), ("step_timed_out", "warning"), ("parked", "error"), ("new", "info")],
)
def test_a_transition_is_as_loud_as_it_matters(kind: str, level: str) -> None:
    assert level_of(moved(kind)) == line_of(moved(kind)).level == level


def test_a_fact_nobody_named_is_logged_all_the_same() -> None:
    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class RelayStalled:
        oldest: float
        reason: str | None = None

    line = line_of(RelayStalled(oldest=1.23456))
    assert (line.event, line.level, line.fields) == ("relay_stalled", "info", {"oldest": 1.235})


def test_an_error_becomes_its_text() -> None:
    line = line_of(LoopEnded(component="relay", error=ValueError("odd"), restarts=1, retry_in=0.2))
    assert line.fields["error"] == "ValueError: odd"
    assert "error" not in line_of(LoopEnded(component="relay", error=None, restarts=1, retry_in=0.2)).fields


def test_a_loop_that_ended_by_a_mistake_shows_where(stream: io.StringIO) -> None:
    configure(log_format="json", level="info", stream=stream)
    for error in (ZeroDivisionError("odd"), DatabaseAway("gone")):
        try:
            raise error
        except Exception as raised:
            Telemetry("info")(LoopEnded(component="relay", error=raised, restarts=1, retry_in=0.2))
    mistake, trouble = (json.loads(text) for text in stream.getvalue().splitlines())
    assert "raise error" in mistake["exception"]
    assert "exception" not in trouble


def test_facts_reach_the_log_in_its_format(stream: io.StringIO) -> None:
    configure(log_format="json", level="info", stream=stream)
    report = Telemetry("info")
    report(MessageDuplicated(consumer="PlaceOrder", message_id="m", name="stock.StockReserved"))
    report(
        MessageDeadLettered(
            consumer="PlaceOrder", message_id="m-1", name="x.Y", reason="malformed", error="no JSON", saga_id=SAGA
        )
    )
    (line,) = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert line["event"] == "message.dead_lettered"
    assert (line["saga_id"], line["message_id"], line["reason"]) == (str(SAGA), "m-1", "malformed")


def test_credentials_in_a_fact_do_not_reach_the_log(stream: io.StringIO) -> None:
    configure(log_format="json", level="info", stream=stream)
    Telemetry("info")(
        PublicationFailed(
            message_id="m",
            name="x.Y",
            saga_id=None,
            verdict="unknown",
            reason="lost amqp://u:hunter2@h",
            attempts=1,
            retry_in=1,
        )
    )
    assert "amqp://u:***@h" in stream.getvalue()


def test_people_read_which_step_of_how_many_in_words(stream: io.StringIO) -> None:
    configure(log_format="console", level="info", stream=stream)
    Telemetry("info")(moved("step_completed"))
    assert "saga.step_completed        PlaceOrder 4711, step 2 of 3: pay" in stream.getvalue()


class BrokenPipe(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.usefixtures("stream")
def test_a_log_that_nobody_reads_any_more_harms_no_work() -> None:
    configure(log_format="json", level="info", stream=BrokenPipe())
    Telemetry("info")(moved("step_completed"))


def test_what_follows_from_a_message_carries_its_id() -> None:
    fact = dataclasses.replace(moved("step_completed"), cause="m-1")
    assert line_of(fact).fields["message_id"] == "m-1"
    sent = dataclasses.replace(moved("command_sent", message_id="m-2", message_name="x.Y"), cause="m-1")
    assert line_of(sent).fields["message_id"] == "m-2"
