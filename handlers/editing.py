"""An edited dead letter: a message of its own, with a new id, in the place of the one that could not be processed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from handlers.letter import name_of
from messages import codec
from messages.errors import MessageError, OperationRefused
from storage import dead_letters
from storage.exported import raw_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from messages.codec import Limits
    from messages.envelope import Raw
    from outbox.unit import SqlUnit
    from storage.dead_letters import Letter

Replacing: TypeAlias = "Callable[[SqlUnit], Awaitable[int]]"
"""Writes an edited letter within a transaction and returns its id."""


def edited(letter: Letter, given: bytes, *, message_id: str, answers: bool) -> Raw:
    """The message of a letter, edited.

    `given` is the new body, or the letter as `antiphon dead export` writes it with whatever was changed of its message.
    The new message is caused by the old one, unless it `answers` a command: then its `causation-id` says which, and
    stays as it is.

    Raises:
        OperationRefused: it is another letter's export, or none at all.
    """
    raw = _given(letter, given)
    headers = {name: each for name, each in raw.headers.items() if not name.startswith("x-")}
    if not answers and letter.raw.message_id:
        headers["causation-id"] = letter.raw.message_id
    return replace(raw, message_id=message_id, headers=headers)


def replacing(letter: Letter, raw: Raw, limits: Limits, *, actor: str, why: str, now: datetime) -> Replacing:
    """What writes the edited message in the place of the letter, within a transaction; returns the new letter's id.

    Calling it raises OperationRefused when the letter is not open any more.
    """
    try:
        envelope = codec.open_envelope(raw, limits)
    except MessageError:
        envelope = None

    async def write(unit: SqlUnit) -> int:
        new = await dead_letters.replace_by(
            unit.session,
            letter.dead_letter_id,
            raw,
            name=name_of(raw, envelope),
            source=envelope.source if envelope else "",
            body_hash=codec.body_hash(raw.body),
            actor=actor,
            why=why,
            now=now,
        )
        if new is None:
            raise OperationRefused(f"dead letter {letter.dead_letter_id} is not open any more; somebody was faster")
        return new

    return write


def _given(letter: Letter, given: bytes) -> Raw:
    try:
        parsed: Any = json.loads(given)
    except ValueError:
        parsed = None
    if not (isinstance(parsed, dict) and {"dead_letter_id", "message"} <= parsed.keys()):
        return replace(letter.raw, body=given)
    if parsed["dead_letter_id"] != letter.dead_letter_id:
        raise OperationRefused(
            f"what was given is dead letter {parsed['dead_letter_id']}, not {letter.dead_letter_id}; export that one"
        )
    try:
        return raw_of(parsed["message"])
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise OperationRefused(f"what was given is no message as antiphon dead export writes it: {error!r}") from error
