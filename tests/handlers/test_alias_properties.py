"""Aliases taken, changed, clashed over and given up, with events by key and by alias in any order and batching.

One by one, everything is as in a model of a few lines. In batches, and in two processes at once, every event that comes
by an alias still ends where that was had, or is kept for whoever gets it; and whoever does not get what it is given is
told.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field
from pydantic_core import from_json

import migrations
from handlers.handle import Attempt, Overtaken
from handlers.held import HeldMessages
from handlers.saga_types import SagaType
from messages import Command, Event
from messages.errors import DatabaseBusy
from outbox.unit import SqlStorage
from running import AsyncioRunner
from sagas import Alias, Saga, definition_of, signal, start, step
from sagas.aliases import REFUSED, aliases_of
from sagas.patch import rebuild
from storage import Database
from tests.handlers.house import LIMITS, NAMESPACE, House, rows
from tests.storage.databases import storage_on

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from messages.envelope import Raw

KEYS, VALUES = ("1", "2", "3"), ("x", "y")


class Began(Event, name="things.Began"):
    key: str
    alias: str | None


class Named(Event, name="things.Named"):
    key: str
    alias: str | None


class Hit(Event, name="things.Hit"):
    alias: str
    number: int


class Do(Command, name="things.Do"):
    key: str


class Did(Event, name="things.Did"):
    key: str


class Thing(Saga, key="key", version=1, deadline=timedelta(days=30), aliases=("alias",), keys={Hit: Alias("alias")}):
    """Is called this or that, and is hit."""

    key: str
    alias: str | None
    hits: list[int] = Field(default_factory=list)

    @start
    def began(cls, event: Began) -> Self:
        return cls(key=event.key, alias=event.alias)

    @signal
    def named(self, event: Named) -> None:
        self.alias = event.alias

    @signal
    def hit(self, event: Hit) -> None:
        self.hits.append(event.number)

    @step(success=Did)
    def do(self) -> Do:
        return Do(key=self.key)


THING = definition_of(Thing)
Told = Began | Named | Hit


@dataclass(slots=True)
class Model:
    """What becomes of events that come one by one."""

    wanted: dict[str, str | None] = field(default_factory=dict)
    has: dict[str, str] = field(default_factory=dict)
    hits: dict[str, list[int]] = field(default_factory=dict)
    early: dict[str, list[Any]] = field(default_factory=dict)

    def take(self, event: Told) -> None:
        """One event."""
        if isinstance(event, Hit):
            owner = next((key for key, value in self.has.items() if value == event.alias), None)
            if owner is None:
                self.early.setdefault(event.alias, []).append(event.number)
                return
            self.hits[owner].append(event.number)
            self._settle(owner)
        elif isinstance(event, Began):
            self._begin(event)
        elif event.key in self.wanted:
            self.wanted[event.key] = event.alias
            self._settle(event.key)
        else:
            self.early.setdefault(event.key, []).append(event)

    def _begin(self, event: Began) -> None:
        if event.key not in self.wanted:
            self.wanted[event.key], self.hits[event.key] = event.alias, []
            for named in self.early.pop(event.key, ()):
                self._settle(event.key)
                self.wanted[event.key] = named.alias
        self._settle(event.key)

    def _settle(self, key: str) -> None:
        wanted = self.wanted[key]
        if self.has.get(key) != wanted:
            self.has.pop(key, None)
            if wanted is not None and wanted not in self.has.values():
                self.has[key] = wanted
                self.hits[key] += self.early.pop(wanted, ())


def _stories() -> st.SearchStrategy[list[Told]]:
    keys, values = st.sampled_from(KEYS), st.sampled_from(VALUES)
    maybe = st.one_of(st.none(), values)
    acts = st.one_of(
        st.builds(Began, key=keys, alias=maybe),
        st.builds(Named, key=keys, alias=maybe),
        st.builds(Named, key=keys, alias=maybe),
        st.builds(Hit, alias=values, number=st.just(0)),
        st.builds(Hit, alias=values, number=st.just(0)),
    )
    return st.lists(acts, min_size=4, max_size=24).map(_numbered)


def _numbered(events: Iterable[Told]) -> list[Told]:
    return [
        event.model_copy(update={"number": number}) if isinstance(event, Hit) else event
        for number, event in enumerate(events)
    ]


playing = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    file = tmp_path_factory.mktemp("aliases") / "empty.db"

    async def make() -> None:
        database = Database(f"sqlite:///{file}", AsyncioRunner())
        await migrations.up(database)
        await database.close()

    asyncio.run(make())
    return file


@playing
@given(story=_stories())
def test_one_by_one_all_is_as_in_the_model(template: Path, tmp_path: Path, story: list[Told]) -> None:
    model = Model()
    for event in story:
        model.take(event)
    asyncio.run(_play(template, tmp_path, [[event] for event in story], model))


@playing
@given(story=_stories(), cuts=st.sets(st.integers(1, 23)))
def test_in_whatever_batches_each_event_ends_where_its_alias_was_had(
    template: Path, tmp_path: Path, story: list[Told], cuts: set[int]
) -> None:
    places = [0, *sorted(cut for cut in cuts if cut < len(story)), len(story)]
    batches = [story[begin:end] for begin, end in pairwise(places)]
    asyncio.run(_play(template, tmp_path, batches, None))


async def _play(template: Path, folder: Path, batches: Sequence[Sequence[Told]], model: Model | None) -> None:
    for name in ("story.db", "story.db-wal", "story.db-shm"):
        (folder / name).unlink(missing_ok=True)
    database = Database(f"sqlite:///{shutil.copy(template, folder / 'story.db')}", AsyncioRunner())
    try:
        storage = SqlStorage(database)
        house = await House(storage, THING).open()
        for batch in batches:
            await house.take(*map(house.message, batch))
        await _check(storage, [event for batch in batches for event in batch])
        if model is not None:
            found = await _instances(storage)
            assert {key: each.hits for key, (each, _) in found.items()} == model.hits
            assert {key: has["alias"] for key, (_, has) in found.items() if has} == model.has
    finally:
        await database.close()


async def _instances(storage: SqlStorage) -> dict[str, tuple[Thing, dict[str, str]]]:
    """The instances by key: their states, and the aliases that they know of."""
    found = {}
    for row in await rows(storage, "select key, saga_id from saga"):
        patches = await rows(
            storage,
            "select patch from saga_event where saga_id = :id and patch is not null order by seq",
            {"id": row.saga_id},
        )
        instance = rebuild(bytes(each.patch) for each in patches)
        found[row.key] = Thing(**from_json(instance.state)), aliases_of(instance)
    return found


async def _check(storage: SqlStorage, events: Iterable[Told]) -> None:
    """What holds whatever has happened."""
    instances = await _instances(storage)
    stored = await rows(
        storage, "select a.value, s.key from saga_alias a join saga s on s.saga_id = a.saga_id where a.alias = 'alias'"
    )
    assert Counter((row.key, row.value) for row in stored) == Counter(
        (key, has["alias"]) for key, (_, has) in instances.items() if has
    )
    attention = {row.key for row in await rows(storage, _ATTENTION, {"reason": REFUSED})}
    for key, (state, has) in instances.items():
        assert has.get("alias") in (None, state.alias)
        assert (key in attention) == (state.alias is not None and not has)
    held = await rows(storage, "select business_key, alias, reason from held")
    assert {row.reason for row in held} <= {"early"}
    waiting = Counter(row.business_key for row in held if row.alias is not None)
    assert not waiting.keys() & {row.value for row in stored}
    hits = [number for state, _ in instances.values() for number in state.hits]
    sent = {event.number: event.alias for event in events if isinstance(event, Hit)}
    assert len(hits) == len(set(hits))
    assert Counter(sent.values()) == Counter(sent[number] for number in hits) + waiting
    for key in instances:
        await _check_history(storage, key)


_ATTENTION = "select s.key from attention a join saga s on s.saga_id = a.saga_id where a.reason = :reason"


async def _check_history(storage: SqlStorage, key: str) -> None:
    """At each hit the instance had the alias by which that came."""
    has: dict[str, str] = {}
    found = await rows(
        storage,
        "select e.kind, e.message_name, e.body, e.detail from saga_event e join saga s on s.saga_id = e.saga_id "
        "where s.key = :key order by e.seq",
        {"key": key},
    )
    for row in found:
        detail = from_json(row.detail) if isinstance(row.detail, str) else row.detail
        if row.kind == "aliased":
            has = detail["aliases"]
        elif row.message_name == "things.Hit":
            assert has == {"alias": from_json(bytes(row.body))["alias"]}


@pytest.mark.parametrize("seed", range(6))
async def test_two_processes_at_once_never_lead_an_event_astray(postgresql: Database, seed: int) -> None:
    chance = random.Random(seed)
    storage = storage_on(postgresql)
    houses = [await House(storage, THING).open() for _ in range(2)]
    events = [_drawn(chance, number) for number in range(120)]
    await asyncio.gather(*(_work(house, events[part::2], chance) for part, house in enumerate(houses)))
    saga = SagaType({1: THING}, NAMESPACE)
    sweep = HeldMessages(
        [saga],
        storage=storage,
        relay=houses[0].relay,
        runner=houses[0].runner,
        report=houses[0].facts.append,
        limits=LIMITS,
    )
    for _ in range(5):
        await sweep.sweep()
    await _check(storage, events)


def _drawn(chance: random.Random, number: int) -> Told:
    alias = chance.choice((*VALUES, None))
    match chance.randrange(4):
        case 0:
            return Began(key=chance.choice(KEYS), alias=alias)
        case 1:
            return Named(key=chance.choice(KEYS), alias=alias)
        case _:
            return Hit(alias=chance.choice(VALUES), number=number)


async def _work(house: House, events: Sequence[Told], chance: random.Random) -> None:
    """As a consumer does it: what is deferred comes first in the next batch, what was overtaken is done again."""
    left: list[Raw] = [house.message(event) for event in events]
    while left:
        size = chance.randint(1, 6)
        batch, left = left[:size], left[size:]
        attempt, wait = Attempt(token=uuid4()), False
        while True:
            with suppress(DatabaseBusy, Overtaken):
                prepared = await house.handler.handle(house.decoded(batch), attempt, wait=wait)
                break
            wait = True
        await house.handler.finish(prepared, len(batch))
        left[:0] = [batch[index] for index in sorted(prepared.deferred)]
        await asyncio.sleep(0)
