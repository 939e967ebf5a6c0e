"""What commands print: for programs JSON, whatever came from outside, and for people words that agree."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import NoReturn

import pytest

from messages.envelope import Raw
from runtime.commands.dead import body_text
from runtime.printing import counted, print_json


def refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def test_headers_of_every_amqp_type_are_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    headers: dict[str, object] = {
        "decimal": Decimal("1.50"),
        "nan": float("nan"),
        "infinite": [float("inf")],
        "bytes": b"a\xff",
        "at": at,
        "table": {"inner": [None, True, 1, 1.5]},
    }
    print_json([Raw(body=b"{}", routing_key="x", headers=headers)])
    [printed] = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert printed["headers"] == {
        "decimal": "1.50",
        "nan": "nan",
        "infinite": ["inf"],
        "bytes": "a\ufffd",
        "at": at.isoformat(),
        "table": {"inner": [None, True, 1, 1.5]},
    }


@pytest.mark.parametrize(
    "body", [b'{"a":' * 100_000, b'{"order_id": "1", "order_id": "2"}', b'{"a": NaN}', b"[" * 2_000 + b"]" * 2_000]
)
def test_a_body_that_readers_disagree_on_is_shown_as_it_came(body: bytes) -> None:
    assert body_text(body) == body.decode()


def test_a_body_that_is_no_text_is_shown_with_what_is_none_escaped() -> None:
    assert body_text(b'{"a": "\xff"}') == '{"a": "\\xff"}'


def test_a_sound_body_is_indented() -> None:
    assert body_text(b'{"a": ["\xc3\xa4"]}') == '{\n  "a": [\n    "\u00e4"\n  ]\n}'


@pytest.mark.parametrize(("number", "text"), [(0, "0 queues wait"), (1, "1 queue waits"), (2, "2 queues wait")])
def test_one_thing_is_counted_as_one(number: int, text: str) -> None:
    assert counted(number, "queue waits", "queues wait") == text
