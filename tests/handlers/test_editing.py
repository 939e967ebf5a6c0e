"""An edited letter is a message of its own that says where it comes from, and says nothing else that it should not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.editing import edited
from messages import codec
from messages.errors import OperationRefused
from storage.dead_letters import Letter
from storage.exported import message_of
from tests.handlers.test_dead_letter_import import raw, raws

if TYPE_CHECKING:
    from messages.envelope import Raw


def letter(message: Raw) -> Letter:
    return Letter(
        dead_letter_id=17,
        consumer="Test",
        source="",
        message_id=message.message_id or "",
        name="",
        body_hash=codec.body_hash(message.body),
        raw=message,
        reason="malformed",
        error_class="MalformedMessage",
        error="",
        saga_id=None,
        queue=None,
        replaces=None,
        status="open",
        resolved_at=None,
        resolved_by=None,
        resolved_why=None,
        replayed_seq=None,
    )


@given(raws, st.binary(max_size=50), st.booleans())
def test_a_new_body_makes_a_message_that_keeps_all_else_its_sender_wrote(
    message: Raw, body: bytes, answers: bool
) -> None:
    made = edited(letter(message), body, message_id="new", answers=answers)
    own = {name: value for name, value in message.headers.items() if not name.startswith("x-")}
    caused = {"causation-id": message.message_id} if message.message_id and not answers else {}
    assert made == replace(message, body=body, message_id="new", headers=own | caused)


def test_a_reply_keeps_saying_which_command_it_answers() -> None:
    reply = raw(headers={"causation-id": "command-1"})
    assert edited(letter(reply), b"{}", message_id="new", answers=True).headers == {"causation-id": "command-1"}
    assert edited(letter(reply), b"{}", message_id="new", answers=False).headers == {"causation-id": "m-1"}


def test_an_edited_export_changes_properties_too_and_must_be_of_that_letter() -> None:
    given = {"dead_letter_id": 17, "message": message_of(raw()) | {"type": "a.B", "correlation_id": "c"}}
    made = edited(letter(raw()), json.dumps(given).encode(), message_id="new", answers=True)
    assert made == raw(type="a.B", correlation_id="c", message_id="new")
    for wrong in (given | {"dead_letter_id": 18}, given | {"message": 5}, given | {"message": {"body": "{}"}}):
        with pytest.raises(OperationRefused):
            edited(letter(raw()), json.dumps(wrong).encode(), message_id="new", answers=True)
