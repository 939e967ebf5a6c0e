"""The page for writers of participants shows messages that the codec takes, and tables that say what it does."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import messages.catalog.ordering  # noqa: F401 - makes the page's messages known
from messages import DEFAULT_LIMITS, REGISTRY, Envelope, Message, NotStarted, Raw, headers_of, open_envelope, parse
from messages.errors import MalformedMessage, MessageError
from messages.strict_json import check_json_object
from sagas.instance import idempotency_key, message_id, saga_id
from transport.topology import QUEUE_ARGUMENTS, commands_exchange, dead_exchange, events_exchange, saga_queue

PAGE = (Path(__file__).parents[2] / "docs" / "wire-contract.md").read_text(encoding="utf-8")
SAGA = saga_id("antiphon", "PlaceOrder", "order-1042")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A message on the page: how it is published, and its body as written."""

    publish: dict[str, Any]
    body: str

    @property
    def raw(self) -> Raw:
        properties = {name: value for name, value in self.publish["properties"].items() if name != "delivery_mode"}
        if "timestamp" in properties:
            properties["timestamp"] = datetime.fromtimestamp(properties["timestamp"], UTC)
        return Raw(
            body=self.body.encode(),
            routing_key=self.publish["routing_key"],
            headers=self.publish["headers"],
            **properties,
        )

    @property
    def envelope(self) -> Envelope:
        return open_envelope(self.raw)

    @property
    def message(self) -> Message:
        return parse(self.envelope, REGISTRY.find(self.envelope.name, self.envelope.schema_version))


def shown() -> list[Shown]:
    blocks = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) % 2 == 0
    return [
        Shown(publish=json.loads(publish), body=body) for publish, body in zip(blocks[::2], blocks[1::2], strict=True)
    ]


COMMAND, REPLY, UNDO, START, CANCEL = shown()


def table(heading: str) -> dict[str, str]:
    """The rows of the first table behind a heading: first cell without its backticks, second cell."""
    rows = PAGE[PAGE.index(heading) :].split("\n\n")
    lines = next(block for block in rows if block.startswith("|")).splitlines()[2:]
    cells = [re.fullmatch(r"\| (.+?) \| (.+?)(?: \| .+)? \|", line) for line in lines]
    return {match[1].strip("`"): match[2] for match in cells if match}


@pytest.mark.parametrize("example", shown(), ids=lambda example: example.envelope.name)
def test_an_example_is_taken_by_the_codec_and_says_nothing_that_is_ignored(example: Shown) -> None:
    fields = type(example.message).model_fields
    assert set(json.loads(example.body)) == set(fields)
    assert json.loads(example.message.model_dump_json()) == json.loads(example.body)
    assert {"schema-version": 1} | example.publish["headers"] == headers_of(example.envelope)
    assert example.publish["properties"]["delivery_mode"] == 2


@pytest.mark.parametrize("example", shown(), ids=lambda example: example.envelope.name)
def test_an_example_goes_where_its_kind_goes(example: Shown) -> None:
    where = (example.publish["exchange"], example.publish["routing_key"])
    if example.envelope.name == CANCEL.envelope.name:
        assert where == ("", saga_queue("antiphon", "Delivery"))
    elif example is REPLY or example.publish["exchange"] == "":
        assert where == ("", COMMAND.envelope.reply_to)
    elif example.message.message_kind == "command":
        assert where == (commands_exchange("antiphon"), example.envelope.name)
    else:
        assert where == (events_exchange("antiphon"), example.envelope.name)


def test_the_commands_carry_the_ids_that_the_engine_gives_them() -> None:
    for command, purpose in ((COMMAND, "do"), (UNDO, "undo")):
        assert command.envelope.message_id == message_id(SAGA, "reserve", 1, 1, purpose)
        assert command.envelope.idempotency_key == idempotency_key(SAGA, "reserve", 1, purpose)
        assert command.envelope.correlation_id == str(SAGA)
        assert command.envelope.reply_to == saga_queue("antiphon", "PlaceOrder")
    assert COMMAND.envelope.causation_id == START.envelope.message_id


def test_the_reply_answers_the_command_and_the_undo_names_what_it_undoes() -> None:
    assert REPLY.envelope.causation_id == COMMAND.envelope.message_id
    assert REPLY.envelope.correlation_id == COMMAND.envelope.correlation_id
    assert UNDO.envelope.compensates == COMMAND.envelope.idempotency_key
    assert json.loads(UNDO.body)["reservation_id"] == json.loads(REPLY.body)["reservation_id"]


def test_the_cancel_of_a_child_names_its_start() -> None:
    assert CANCEL.envelope.compensates == json.loads(CANCEL.body)["start"]
    [told] = re.findall(r"`antiphon.NotStarted`, `({.*?})`", PAGE)
    assert json.loads(NotStarted.model_validate_json(told).model_dump_json()) == json.loads(told)


def test_the_table_of_headers_holds_every_header_that_is_sent() -> None:
    everything = Envelope(
        message_id="m",
        name="a.B",
        body=b"{}",
        idempotency_key="k",
        compensates="c",
        causation_id="i",
        traceparent="p",
        tracestate="s",
    )
    assert list(table("The **headers**")) == list(headers_of(everything))


def test_the_bodies_that_are_refused_are_refused() -> None:
    refused = table("Parsers disagree")
    assert len(refused) > 5
    for body in refused:
        with pytest.raises(MalformedMessage):
            check_json_object(body.encode(), max_depth=DEFAULT_LIMITS.max_depth)


def test_the_limits_are_those_of_the_codec() -> None:
    assert DEFAULT_LIMITS.max_body == 1024 * 1024
    assert "at most 1 MiB" in PAGE
    assert f"nested deeper than {DEFAULT_LIMITS.max_depth}" in PAGE


def test_the_reasons_are_those_of_the_errors() -> None:
    reasons = {error.reason for error in MessageError.__subclasses__()}
    assert set(table("## When a message is wrong")) == reasons - {"method_raised", "handler_raised"}


def test_the_queue_arguments_are_those_that_are_declared() -> None:
    declared = PAGE[PAGE.index("Declare your queue") :].split("\n\n")[0].replace("\n", " ")
    for name, value in {**QUEUE_ARGUMENTS, "x-dead-letter-exchange": dead_exchange("antiphon")}.items():
        shown_value = f"`{value}`" if isinstance(value, str) else str(value)
        assert f"`{name}` {shown_value}" in declared
