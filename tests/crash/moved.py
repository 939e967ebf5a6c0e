"""The judge of moving instances from `court` to `reform`: each is wholly in the one version or wholly in the other.

It is asked after every kill, and at the end, beside the jury. How an instance is stored is no public contract: its row
and its timers are read as they are, for a half-moved one may look sound in every view.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from tests.crash.jury import APPLIED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from tests.crash.views import HistoryRow, Picture

INSTANCES = """
    select s.saga_id::text, s.key, s.version, s.phase, s.state, s.progress,
           array(select name from {0}.timer t where t.saga_id = s.saga_id) as timers,
           (select count(*) from {0}.saga_event e where e.saga_id = s.saga_id and e.kind = 'migrated') as moves
    from {0}.saga s where s.saga_type = 'CourtCase'
"""
FIELDS = {1: ("votes", "notes"), 2: ("ballots", "remarks")}
PLACES = {1: "vote", 2: "ballot"}
"""What is called otherwise in the versions: how often somebody voted, how often something was noted; the wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One instance as it stands in the database."""

    saga_id: str
    key: str
    version: int
    phase: str
    state: Mapping[str, object]
    choices: Collection[str]
    armed: Collection[str]
    timers: Collection[str]
    moves: int


async def instances(database_url: str, namespace: str) -> Sequence[Moved]:
    """All of them, in one snapshot."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(INSTANCES.format(namespace))
    finally:
        await connection.close()
    found = []
    for row in rows:
        progress = json.loads(row["progress"])
        found.append(
            Moved(
                saga_id=row["saga_id"],
                key=row["key"],
                version=row["version"],
                phase=row["phase"],
                state=json.loads(row["state"]),
                choices=list(progress.get("choices", ())),
                armed=list(progress.get("timers", ())),
                timers=list(row["timers"]),
                moves=row["moves"],
            )
        )
    return found


def torn(found: Sequence[Moved], born: Collection[str]) -> list[str]:
    """What is not wholly in one version, in sentences; `born` are the cases that began under the first."""
    return [f"case {each.key} of version {each.version} {what}" for each in found for what in _torn(each, born)]


def _torn(each: Moved, born: Collection[str]) -> Iterator[str]:
    other = 3 - each.version
    if wrong := [field for field in FIELDS[other] if field in each.state]:
        yield f"has {', '.join(wrong)} in its state"
    if wrong := [name for name in (*each.choices, *each.armed, *each.timers) if name.startswith(PLACES[other])]:
        yield f"keeps {', '.join(wrong)}"
    if sorted(each.armed) != sorted(each.timers):
        yield f"knows the timers {', '.join(sorted(each.armed))}, and armed are {', '.join(sorted(each.timers))}"
    if each.moves != each.version - (1 if each.key in born else 2):
        yield f"was moved {each.moves} times"


def miscounted(found: Sequence[Moved], picture: Picture) -> list[str]:
    """Whose state does not say what its history does: a word was lost from it, or counted twice."""
    histories, sentences = _histories(picture), []
    for each in found:
        rows = [row for row in histories[each.saga_id] if row.kind in APPLIED]
        votes, notes = FIELDS[each.version]
        happened = {
            votes: sum(row.kind == "event_received" and row.message_name == "court.Voted" for row in rows),
            notes: sum(row.kind == "signal_received" and row.message_name == "court.Noted" for row in rows),
        }
        for field, amount in happened.items():
            if (counted := each.state.get(field)) != amount:
                sentences.append(f"case {each.key}: {field} is {counted} and happened {amount} times")
    return sentences


def out_of_place(found: Sequence[Moved], picture: Picture) -> Iterator[str]:
    """Whoever completed under the new version has been with the scribe, once; nobody else has."""
    written: dict[str, int] = defaultdict(int)
    for effect in picture.effects:
        written[effect.order_id] += effect.participant == "scribe"
    for each in found:
        due = 1 if each.version == 2 and each.phase == "completed" else 0
        if written[each.key] != due:
            text = f"is {each.phase}, and was written down {written[each.key]} times"
            yield f"case {each.key} of version {each.version} {text}"


def _histories(picture: Picture) -> Mapping[str, list[HistoryRow]]:
    histories: dict[str, list[HistoryRow]] = defaultdict(list)
    for row in sorted(picture.history, key=lambda each: each.seq):
        histories[row.saga_id].append(row)
    return histories
