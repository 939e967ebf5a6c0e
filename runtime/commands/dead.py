"""`dead list` and `dead show`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from messages.codec import DEFAULT_LIMITS
from messages.errors import MalformedMessage, OperationRefused
from messages.strict_json import check_json_object
from runtime.database import opened
from runtime.exits import OK
from runtime.printing import console, line, print_json, print_onward, shown, table
from runtime.settings import load
from storage.queries import Queries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from storage.queries import DeadLetterDetail, DeadLetterSummary


async def list_letters(*, limit: int, after: str | None, as_json: bool) -> int:
    """Print a page of the dead letters that nobody has dealt with, the newest first, and where the next begins.

    Raises:
        OperationRefused: `after` is no such place.
    """
    following = None if after is None else _number(after)
    if after is not None and following is None:
        raise OperationRefused(f"{after!r} is no dead letter's id to go on from; begin with the first page")
    async with opened(load().settings) as storage:
        page = await Queries(storage.database).dead_letters(limit=limit, following=following)
    if as_json:
        print_json([asdict(letter) for letter in page.dead_letters])
        return OK
    out = console()
    if page.dead_letters:
        _print_list(out, page.dead_letters)
    else:
        out.print("no more dead letters" if after else "no dead letters")
    if page.following is not None:
        print_onward(out, "antiphon dead list", "--limit", str(limit), "--after", str(page.following))
    return OK


async def show(identity: str, *, as_json: bool) -> int:
    """Print one dead letter.

    Raises:
        OperationRefused: there is none of that id.
    """
    number = _number(identity)
    async with opened(load().settings) as storage:
        found = None if number is None else await Queries(storage.database).dead_letter(number)
    if found is None:
        raise OperationRefused(f"no dead letter has the id {identity!r}; antiphon dead list shows them")
    if as_json:
        print_json(asdict(found))
    else:
        _print_letter(found)
    return OK


def _number(identity: str) -> int | None:
    """A dead letter's id as the database has it; None when there can be none of that id."""
    return int(identity) if identity.isascii() and identity.isdigit() and len(identity) < 19 else None


def _print_list(out: Console, letters: Sequence[DeadLetterSummary]) -> None:
    columns = ("id", "message", "reason", "error", "consumer", "copies", "first seen")
    rows = [
        (each.dead_letter_id, each.name, each.reason, each.error, each.consumer, each.copies, each.first_seen_at)
        for each in letters
    ]
    out.print(table(columns, rows))


def _print_letter(found: DeadLetterDetail) -> None:
    out, letter, raw = console(), found.summary, found.raw
    out.print(line(f"dead letter {letter.dead_letter_id}  {letter.name}  {letter.status}", "bold"))
    facts = [
        ("reason", letter.reason),
        ("error", letter.error),
        ("consumer", letter.consumer),
        ("saga id", shown(letter.saga_id)),
        ("message id", letter.message_id),
        ("sent by", found.source),
        ("copies", str(letter.copies)),
        ("first seen", shown(letter.first_seen_at)),
        ("last seen", shown(found.last_seen_at)),
        ("routing key", raw.routing_key),
        ("correlation", raw.correlation_id or ""),
        ("reply to", raw.reply_to or ""),
        *((f"header {name}", str(value)) for name, value in raw.headers.items()),
    ]
    for name, value in facts:
        if value:
            out.print(line(f"  {name:<12} {value}"))
    out.print()
    for text in body_text(raw.body).splitlines():
        out.print(line(text))


def body_text(body: bytes) -> str:
    """The body as it reads best: indented where JSON has one reading for it, anything else as the text that came."""
    try:
        check_json_object(body, max_depth=DEFAULT_LIMITS.max_depth)
    except MalformedMessage:
        return body.decode("utf-8", errors="backslashreplace")
    return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
