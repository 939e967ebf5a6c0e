"""`dead groups`, `dead list`, `dead show` and `dead export`."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from messages.codec import DEFAULT_LIMITS
from messages.errors import MalformedMessage, OperationRefused
from messages.strict_json import check_json_object
from runtime.commands.letters import filter_of
from runtime.database import opened
from runtime.exits import OK
from runtime.printing import console, line, plain, print_facts, print_json, print_onward, shown, table
from runtime.settings import load
from storage.exported import exported
from storage.letters import LetterQueries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from rich.console import Console

    from runtime.wanted import Wanted
    from storage.letters import DeadLetterDetail, DeadLetterEvent, DeadLetterSummary


async def groups(wanted: Wanted, *, limit: int, as_json: bool) -> int:
    """Print dead letters that are alike as one line each, the largest group first.

    Raises:
        OperationRefused: there is no such instance.
    """
    async with opened(load().settings) as storage:
        found = await LetterQueries(storage.database).groups(await filter_of(wanted, storage.database), limit=limit)
    if as_json:
        print_json([asdict(group) for group in found])
    elif found:
        columns = ("letters", "copies", "reason", "error class", "message", "consumer", "oldest", "newest")
        rows = [
            (
                each.letters,
                each.copies,
                each.reason,
                each.error_class,
                each.name,
                each.consumer,
                each.oldest,
                each.newest,
            )
            for each in found
        ]
        console().print(table(columns, rows))
    else:
        console().print("no such dead letters" if wanted.filters else "no dead letters")
    return OK


async def list_letters(wanted: Wanted, *, limit: int, after: int | None, as_json: bool) -> int:
    """Print a page of dead letters, the newest first, and where the next begins.

    Raises:
        OperationRefused: there is no such instance or letter.
    """
    async with opened(load().settings) as storage:
        chosen = await filter_of(wanted, storage.database)
        page = await LetterQueries(storage.database).page(chosen, limit=limit, following=after)
    if as_json:
        print_json([asdict(letter) for letter in page.dead_letters])
        return OK
    out = console()
    if page.dead_letters:
        _print_list(out, page.dead_letters)
    else:
        out.print(
            "no more dead letters" if after else "no such dead letters" if _narrowed(wanted) else "no dead letters"
        )
    if page.following is not None:
        status = () if wanted.status == "open" else ("--status", wanted.status or "all")
        onward = (
            *map(str, wanted.ids),
            *wanted.filters,
            *status,
            "--limit",
            str(limit),
            "--after",
            str(page.following),
        )
        print_onward(out, "antiphon dead list", *onward)
    return OK


async def show(dead_letter_id: int, *, body: bool, as_json: bool) -> int:
    """Print one dead letter; with `body` the bytes of its body alone.

    Raises:
        OperationRefused: there is none of that id.
    """
    async with opened(load().settings) as storage:
        found = await LetterQueries(storage.database).detail(dead_letter_id)
    if found is None:
        raise OperationRefused(f"no dead letter has the id {dead_letter_id}; antiphon dead list shows them")
    if body:
        sys.stdout.buffer.write(found.raw.body)
        sys.stdout.buffer.flush()
    elif as_json:
        print_json(asdict(found))
    else:
        _print_letter(found)
    return OK


async def export(wanted: Wanted, *, limit: int | None, output: str) -> int:
    """Write dead letters as JSON lines, in the order of their arrival. A file is there as a whole, or not at all.

    Raises:
        OperationRefused: there is no such instance or letter, nothing matches, or the file cannot be written.
    """
    async with opened(load().settings) as storage:
        letters = LetterQueries(storage.database)
        ids = await letters.ids(await filter_of(wanted, storage.database), limit=limit)
        if not ids:
            raise OperationRefused("no such dead letters; antiphon dead list --status all shows every one")
        with _written(output) as out:
            for each in ids:
                if (found := await letters.detail(each)) is not None:
                    out.write(json.dumps(plain(exported(found)), allow_nan=False) + "\n")
    return OK


@contextmanager
def _written(output: str) -> Iterator[TextIO]:
    """Where to write: stdout, or a file that takes its name when it is complete."""
    if not output:
        yield sys.stdout
        return
    target = Path(output)
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            yield file
        part.replace(target)
    except OSError as error:
        raise OperationRefused(f"{output} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _narrowed(wanted: Wanted) -> bool:
    return bool(wanted.ids or wanted.filters) or wanted.status != "open"


def _print_list(out: Console, letters: Sequence[DeadLetterSummary]) -> None:
    columns = ("id", "status", "reason", "message", "consumer", "copies", "first seen", "error class", "error")
    rows = [
        (
            each.dead_letter_id,
            each.status,
            each.reason,
            each.name,
            each.consumer,
            each.copies,
            each.first_seen_at,
            each.error_class,
            each.error,
        )
        for each in letters
    ]
    out.print(table(columns, rows))


def _print_letter(found: DeadLetterDetail) -> None:
    out, letter, raw = console(), found.summary, found.raw
    out.print(line(f"dead letter {letter.dead_letter_id}  {letter.name}  {letter.status}", "bold"))
    facts = [
        ("reason", letter.reason),
        ("error class", letter.error_class),
        ("error", letter.error),
        ("consumer", letter.consumer),
        ("from queue", letter.queue),
        ("saga id", letter.saga_id),
        ("history no.", letter.replayed_seq),
        ("message id", letter.message_id),
        ("sent by", found.source or raw.user_id or raw.app_id),
        ("copies", letter.copies),
        ("first seen", letter.first_seen_at),
        ("last seen", letter.last_seen_at),
        ("replaces", letter.replaces),
        ("routing key", raw.routing_key),
        ("correlation", raw.correlation_id),
        ("reply to", raw.reply_to),
        *((f"header {name}", _header(value)) for name, value in raw.headers.items()),
    ]
    print_facts(out, facts)
    print_facts(out, [(shown(event.at), _told(event)) for event in found.events])
    out.print()
    for text in body_text(raw.body).splitlines():
        out.print(line(text))


def _header(value: object) -> str:
    """A header's value: text as it is, anything else as JSON."""
    simple = plain(value)
    return simple if isinstance(simple, str) else json.dumps(simple, ensure_ascii=False)


def _told(event: DeadLetterEvent) -> str:
    """What was done with a letter, by whom and why, and what came of it, each said once."""
    done = event.outcome if event.kind == "replayed" and event.outcome else event.kind
    parts = dict.fromkeys((f"{done.replace('_', ' ')} by {event.actor}", event.why, event.detail))
    return ": ".join(part for part in parts if part)


def body_text(body: bytes) -> str:
    """The body as it reads best: indented where JSON has one reading for it, anything else as the text that came."""
    try:
        check_json_object(body, max_depth=DEFAULT_LIMITS.max_depth)
    except MalformedMessage:
        return body.decode("utf-8", errors="backslashreplace")
    return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
