"""One format for our lines and the libraries', and no secret in any of them."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from runtime.logs import configure, redacted


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    yield io.StringIO()
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_our_events_are_json_lines(stream: io.StringIO) -> None:
    configure(log_format="json", level="info", stream=stream)
    structlog.get_logger().info("saga.started", saga_type="PlaceOrder", key="4711")
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["key"]) == ("saga.started", "info", "4711")
    assert line["time"].endswith("Z")


def test_the_libraries_speak_the_same_format(stream: io.StringIO) -> None:
    configure(log_format="json", level="info", stream=stream)
    logging.getLogger("uvicorn.error").warning("connection %s lost", "c1")
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == ("connection c1 lost", "warning", "uvicorn.error")


def test_of_several_processes_every_line_says_which(stream: io.StringIO) -> None:
    configure(log_format="json", level="info", stream=stream, process=2)
    structlog.get_logger().info("saga.started")
    structlog.get_logger().info("process.ended", process=1)
    logging.getLogger("uvicorn.error").warning("lost")
    assert [line["process"] for line in lines(stream)] == [2, 1, 2]


def test_tracebacks_of_ordinary_reconnects_are_not_logged(stream: io.StringIO) -> None:
    configure(log_format="json", level="debug", stream=stream)
    for library in ("aio_pika.robust_connection", "aiormq.connection"):
        logging.getLogger(library).error("reconnecting", exc_info=True)
    assert lines(stream) == []


def test_less_than_the_level_is_dropped(stream: io.StringIO) -> None:
    configure(log_format="json", level="warning", stream=stream)
    structlog.get_logger().info("saga.started")
    logging.getLogger("something").info("chatter")
    assert lines(stream) == []


def test_people_get_a_line_without_braces(stream: io.StringIO) -> None:
    configure(log_format="console", level="info", stream=stream)
    structlog.get_logger().info("saga.started", key="4711")
    assert "saga.started" in stream.getvalue()
    assert "key=4711" in stream.getvalue()
    assert "{" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_nothing_from_outside_plays_with_the_terminal(stream: io.StringIO) -> None:
    for log_format in ("console", "json"):
        configure(log_format=log_format, level="info", stream=stream)
        structlog.get_logger().info("message.dead_lettered", error="\x1b[2J\x9b2Jgone", key="a\u202eb")
    assert "gone" in stream.getvalue()
    assert not {"\x1b", "\x9b", "\u202e"} & set(stream.getvalue())


def test_auto_is_json_when_the_output_is_no_terminal(stream: io.StringIO) -> None:
    configure(log_format="auto", level="info", stream=stream)
    structlog.get_logger().info("saga.started")
    assert lines(stream)[0]["event"] == "saga.started"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_exceptions_are_logged_without_the_passwords_in_them(
    stream: io.StringIO, log_format: Literal["json", "console"]
) -> None:
    configure(log_format=log_format, level="info", stream=stream)
    for logger in (structlog.get_logger(), logging.getLogger("something")):
        try:
            raise ConnectionError("amqp://user:hunter2@host refused")
        except ConnectionError:
            logger.error("broker.away", exc_info=True)
    assert "ConnectionError" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


@given(depth=st.integers(0, 4), name=st.sampled_from(["password", "client_secret", "Authorization", "Cookie"]))
def test_no_secret_survives_however_deep_it_stands(depth: int, name: str) -> None:
    value: object = {name: "hunter2", "url": "postgres://u:hunter2@h/d"}
    for _ in range(depth):
        value = [{"inner": value}]
    assert "hunter2" not in repr(redacted(None, "info", {"event": "x", "value": value, name: "hunter2"}))
