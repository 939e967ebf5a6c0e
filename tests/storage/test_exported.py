"""What an export says of a message is the whole message."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given

from messages.envelope import Raw
from storage.exported import message_of, raw_of
from storage.properties import packed, unpacked
from tests.handlers.test_dead_letter_import import raws

if TYPE_CHECKING:
    from collections.abc import Mapping


@given(raws)
def test_a_message_comes_back_from_a_line_as_it_was_kept(message: Raw) -> None:
    kept = unpacked(message.body, packed(message))
    assert raw_of(json.loads(json.dumps(message_of(kept)))) == kept


def test_people_may_write_the_body_as_it_is_and_the_headers_as_an_object() -> None:
    raw = raw_of({"routing_key": "a.B", "body": {"caf\u00e9": [1]}, "headers": {"schema-version": 2}})
    assert raw == Raw(body='{"caf\u00e9": [1]}'.encode(), routing_key="a.B", headers={"schema-version": 2})


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"body": "{}"},
        {"body": "{}", "routing_key": 5},
        {"body": {"$bytes": "?"}, "routing_key": "a"},
        {"body": "{}", "routing_key": "a", "priority": "high"},
        {"body": "{}", "routing_key": "a", "headers": "x"},
        {"body": "\ud800", "routing_key": "a"},
    ],
)
def test_what_is_no_message_is_refused(wrong: Mapping[str, object]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        raw_of(wrong)
