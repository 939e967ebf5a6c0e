from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from outbox.interface import Changes
from storage import dead_letters
from storage.letters import DeadLetterFilter, DeadLetterPage, DeadLetterSummary, LetterQueries
from storage.statements import Batch
from tests.outbox.building import CONSUMER, dead_letter

if TYPE_CHECKING:
    from outbox.interface import DeadLetter
    from outbox.unit import SqlStorage

EVERY = DeadLetterFilter(status=None)


@pytest.fixture
def letters(storage: SqlStorage) -> LetterQueries:
    return LetterQueries(storage.database)


async def keep(storage: SqlStorage, *kept: DeadLetter) -> None:
    for letter in kept:
        async with storage.transaction() as unit:
            await unit.save(Changes(consumer=CONSUMER, dead_letters=[letter]))


async def test_dead_letters_are_listed_newest_first_and_shown_raw(storage: SqlStorage, letters: LetterQueries) -> None:
    kept = [dead_letter(f"bad-{number}") for number in range(5)]
    await keep(storage, *kept)
    seen: list[DeadLetterSummary] = []
    following: int | None = None
    while True:
        page = await letters.page(limit=2, following=following)
        seen.extend(page.dead_letters)
        following = page.following
        if following is None:
            break
    assert [letter.message_id for letter in seen] == ["bad-4", "bad-3", "bad-2", "bad-1", "bad-0"]
    shown = await letters.detail(seen[0].dead_letter_id)
    assert shown is not None
    assert shown.summary == seen[0]
    assert shown.raw == kept[4].raw
    assert shown.source == "ordering"
    assert shown.events == []
    assert await letters.detail(999_999) is None
    assert await letters.page(DeadLetterFilter(status="replayed")) == DeadLetterPage(dead_letters=[], following=None)


async def test_every_field_of_a_filter_chooses(storage: SqlStorage, letters: LetterQueries) -> None:
    saga_id = uuid4()
    chosen = replace(
        dead_letter("odd"), reason="no_key", error_class="MissingKey", name="a.B", consumer="Other", saga_id=saga_id
    )
    await keep(storage, dead_letter("plain-1"), chosen, dead_letter("plain-2"))
    last, odd, first = (await letters.page(EVERY)).dead_letters
    batch = Batch()
    dead_letters.resolve(batch, odd.dead_letter_id, status="discarded", actor="ada", why="a test")
    async with storage.transaction() as unit:
        await unit.save(Changes(consumer=CONSUMER), batch)
    moment = odd.last_seen_at
    for wanted in (
        DeadLetterFilter(status="discarded"),
        replace(EVERY, reason="no_key"),
        replace(EVERY, error_class="MissingKey"),
        replace(EVERY, name="a.B"),
        replace(EVERY, consumer="Other"),
        replace(EVERY, saga_id=saga_id),
        replace(EVERY, ids=[odd.dead_letter_id, 999]),
        replace(EVERY, since=moment, until=moment + timedelta(microseconds=1)),
        replace(EVERY, since=moment, reason="no_key", consumer="Other", status="discarded"),
    ):
        assert list(await letters.ids(wanted, limit=10)) == [odd.dead_letter_id], wanted
        [group] = await letters.groups(wanted)
        assert (group.name, group.letters) == ("a.B", 1)
    everything = [first.dead_letter_id, odd.dead_letter_id, last.dead_letter_id]
    assert list(await letters.ids(EVERY, limit=10)) == everything
    assert list(await letters.ids(EVERY, limit=2)) == everything[:2]
    assert await letters.ids(replace(EVERY, ids=[]), limit=10) == []
    assert await letters.ids(replace(EVERY, reason="no_key", consumer=CONSUMER), limit=10) == []
    assert await letters.ids(replace(EVERY, since=last.last_seen_at + timedelta(seconds=1)), limit=10) == []
    assert await letters.ids(replace(EVERY, until=first.first_seen_at), limit=10) == []


async def test_letters_that_are_alike_are_one_group_with_its_size_and_age(
    storage: SqlStorage, letters: LetterQueries
) -> None:
    await keep(storage, dead_letter("a"), dead_letter("b", reason="no_key"), dead_letter("a"), dead_letter("c"))
    rows = {letter.message_id: letter for letter in (await letters.page()).dead_letters}
    large, small = await letters.groups()
    assert (large.reason, large.letters, large.copies) == ("malformed", 2, 3)
    assert (small.reason, small.letters, small.copies) == ("no_key", 1, 1)
    assert large.oldest == rows["a"].first_seen_at
    assert large.newest == rows["c"].last_seen_at
    assert [group.reason for group in await letters.groups(limit=1)] == ["malformed"]
