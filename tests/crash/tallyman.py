"""The judge of `freight`: what the rules promise of lists that are worked off item by item.

Every piece has its effect once, or has it undone once; what came later is undone before; the rows beside an instance,
its state and its tallies say what the books of the participants say. How items are stored is no public contract: these
rows are read as they are, for a tally that lies is found nowhere else.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from tests.crash.checker import BACKWARD, FORWARD, SOUND, Expected, violations
from tests.crash.loads import AT_ONCE, LISTS, PIECES, TOLERATED, WORKERS, load
from tests.crash.script import HARBOUR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.crash.views import HistoryRow, Picture, SagaRow

    Verdict = Callable[["Ship"], Iterator[str]]

SAGA_TYPE = "Freight"
ROWS = {
    "instances": "select saga_id::text, state, progress from {}.saga where saga_type = 'Freight'",
    "items": "select saga_id::text, list_field, item, body from {}.saga_item",
    "rested": "select saga_id::text, path, item, progress, owed from {}.saga_item_step",
}
ENDS = ("step_completed", "step_failed", "step_timed_out", "command_withdrawn", "late_success")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rested:
    """How the step of an item went that was put aside, and whether it is still to be undone."""

    do: str
    undo: str | None
    owed: bool

    @property
    def stands(self) -> bool:
        """Whether it says that something was done and is left."""
        return self.do == "succeeded" and self.undo is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cargo:
    """What stands in the database of one instance and its items. `rested` is by path and number."""

    state: Mapping[str, object]
    at_hand: Sequence[str]
    tallies: Mapping[str, str]
    items: Mapping[tuple[str, int], str]
    rested: Mapping[tuple[str, int], Rested]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ship:
    """One instance: how it ended, its history, its rows, and what the participants did, by the name of each piece."""

    saga: SagaRow
    history: Sequence[HistoryRow]
    cargo: Cargo
    done: Mapping[str, int]
    undone: Mapping[str, int]

    @property
    def name(self) -> str:
        """For sentences."""
        return f"ship {self.saga.business_key}"

    def items(self, step: str) -> list[str]:
        """The names of what a step works off."""
        return load(self.saga.business_key).items(self.saga.business_key, step)

    def left(self, piece: str) -> bool:
        """Whether its effect stands in the end."""
        return piece in self.done and piece not in self.undone

    def times(self, kind: str, step: str) -> int:
        """How often this happened to an item of a step."""
        return sum(row.kind == kind and (row.step or "").startswith(f"{step}[") for row in self.history)

    def first(self, *kinds: str) -> dict[str, int]:
        """Where each step and item first has a row of one of these kinds."""
        found: dict[str, int] = {}
        for row in self.history:
            if row.kind in kinds and row.step is not None:
                found.setdefault(row.step, row.seq)
        return found


async def cargoes(database_url: str, namespace: str) -> Mapping[str, Cargo]:
    """What stands in the database, by the id of the instance, in one snapshot."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            rows = {part: await connection.fetch(text.format(namespace)) for part, text in ROWS.items()}
    finally:
        await connection.close()
    items: dict[str, dict[tuple[str, int], str]] = defaultdict(dict)
    for row in rows["items"]:
        items[row["saga_id"]][row["list_field"], row["item"]] = json.loads(row["body"])
    rested: dict[str, dict[tuple[str, int], Rested]] = defaultdict(dict)
    for row in rows["rested"]:
        do, *undo = [call[0] for call in json.loads(row["progress"])]
        aside = Rested(do=do, undo=undo[0] if undo else None, owed=row["owed"] is not None)
        rested[row["saga_id"]][row["path"], row["item"]] = aside
    found = {}
    for row in rows["instances"]:
        saga_id, progress = row["saga_id"], json.loads(row["progress"])
        found[saga_id] = Cargo(
            state=json.loads(row["state"]),
            at_hand=[path for path in progress.get("steps", ()) if "[" in path],
            tallies={step: progress.get("choices", {}).get(step, "") for step in LISTS},
            items=items[saga_id],
            rested=rested[saga_id],
        )
    return found


def judged(picture: Picture, starts: Mapping[str, str], found: Mapping[str, Cargo]) -> list[str]:
    """Everything that is wrong at the end of a run of ships."""
    expected = Expected(
        starts=starts,
        allowed={order: {load(order).ends} for order in starts},
        saga_type=SAGA_TYPE,
        participants=tuple(HARBOUR),
    )
    return [
        *violations(picture, expected, SOUND),
        *(sentence for ship in ships(picture, found) for verdict in VERDICTS for sentence in verdict(ship)),
    ]


def ships(picture: Picture, found: Mapping[str, Cargo]) -> Iterator[Ship]:
    """Every ship of a picture."""
    histories = defaultdict(list)
    for row in sorted(picture.history, key=lambda each: each.seq):
        histories[row.saga_id].append(row)
    moments: dict[str, dict[str, int]] = defaultdict(dict)
    for effect in picture.effects:
        moments[effect.purpose][effect.order_id] = effect.at
    for saga in picture.sagas:
        yield Ship(
            saga=saga,
            history=histories[saga.saga_id],
            cargo=found[saga.saga_id],
            done=moments["do"],
            undone=moments["undo"],
        )


def every_piece_is_done_or_undone(ship: Ship) -> Iterator[str]:
    """Who has sailed has everything on board but what was refused; of who has not, nothing is left."""
    for step in LISTS:
        left = [piece for piece in ship.items(step) if ship.left(piece)]
        if ship.saga.phase == "compensated" and left:
            yield f"{ship.name} is compensated, and of {step} is left {', '.join(left)}"
        if ship.saga.phase == "completed":
            missing = {piece for piece in ship.items(step) if piece not in left}
            if len(missing) > TOLERATED[step]:
                yield f"{ship.name} is completed, and of {step} {len(missing)} are missing"
            refused = {piece for piece in ship.items(step) if f"{WORKERS[step]}=fail" in piece}
            if step == "load" and missing != refused:
                yield f"{ship.name} is completed without {', '.join(sorted(missing))}"


def the_state_counts_what_happened(ship: Ship) -> Iterator[str]:
    """What the methods of the items counted is what the participants did and the history tells."""
    crates = ship.items("load")
    happened = {
        "loaded": sum(piece in ship.done for piece in crates),
        "unloaded": sum(piece in ship.undone for piece in crates),
        "refused": sum(row.message_name == "travel.Failed" and _is_of(row, "load") for row in ship.history),
        "stamped": ship.times("step_completed", "clear") + ship.times("late_success", "clear"),
        "voided": ship.times("step_compensated", "clear"),
    }
    for field, amount in happened.items():
        if (counted := ship.cargo.state.get(field)) != amount:
            yield f"{ship.name}: {field} is {counted} and happened {amount} times"


def the_rows_are_what_was_given(ship: Ship) -> Iterator[str]:
    """Each item of a list has its row, and there are no others."""
    given = {(LISTS[step], at): piece for step in LISTS for at, piece in enumerate(ship.items(step))}
    if ship.cargo.items != given:
        yield f"{ship.name}: its items are {ship.cargo.items} instead of {given}"


def the_rows_say_what_was_done(ship: Ship) -> Iterator[str]:
    """An item that was put aside as done has its effect, and is to be undone as long as its ship may turn back."""
    if ship.cargo.at_hand:
        yield f"{ship.name} is {ship.saga.phase}, and still has at hand: {', '.join(ship.cargo.at_hand)}"
    for step in LISTS:
        for at, piece in enumerate(ship.items(step)):
            aside = ship.cargo.rested.get((step, at))
            if (aside is not None and aside.stands) != ship.left(piece):
                yield f"{ship.name}: {piece} is {'' if ship.left(piece) else 'not '}left, and its row says {aside}"
            if aside is not None and aside.owed != aside.stands:
                yield f"{ship.name}: {piece} is {'' if aside.owed else 'not '}owed, and its row says {aside}"
            if aside is None and piece in ship.done:
                yield f"{ship.name}: {piece} was done and has no row"


def the_tallies_add_up(ship: Ship) -> Iterator[str]:
    """The tally of a whole counts its rows."""
    for step, tally in ship.cargo.tallies.items():
        if not tally:
            continue
        state, _, following, done, failed, owed, _ = (*tally.split(),)
        rows = [aside for (path, _), aside in ship.cargo.rested.items() if path == step]
        if int(owed) != sum(aside.owed for aside in rows):
            yield f"{ship.name}: {step} owes {owed}, and its rows {sum(aside.owed for aside in rows)}"
        if state == "succeeded" and not len(rows) == int(following) == int(done) + int(failed) == len(ship.items(step)):
            yield f"{ship.name}: {step} has succeeded with {done} done and {failed} failed, and has {len(rows)} rows"


def only_so_many_are_under_way(ship: Ship) -> Iterator[str]:
    """Forward and on the way back; and each is begun once, in the order of the list."""
    for step, most in AT_ONCE.items():
        begun = [row.step for row in ship.history if row.kind == FORWARD and _is_of(row, step)]
        numbers = [int(str(each).rpartition("[")[2].rstrip("]")) for each in dict.fromkeys(begun)]
        if numbers != list(range(len(numbers))):
            yield f"{ship.name}: {step} began {numbers}"
        for begins, ends in (((FORWARD,), ENDS), ((BACKWARD,), ("step_compensated",))):
            open_ones: set[str] = set()
            for row in ship.history:
                if row.kind in begins and _is_of(row, step):
                    open_ones.add(str(row.step))
                elif row.kind in ends:
                    open_ones.discard(str(row.step))
                if len(open_ones) > most:
                    yield f"{ship.name}: of {step} {len(open_ones)} were under way at {row.seq}"
                    break


def what_came_later_is_undone_before(ship: Ship) -> Iterator[str]:
    """Once it has turned back: what was sent after another had completed is undone before that; in deed, too."""
    turned = next((row.seq for row in ship.history if row.kind == "compensation_started"), None)
    if turned is None:
        return
    sent, completed = ship.first(FORWARD), ship.first("step_completed", "late_success")
    undo_sent, undone = ship.first(BACKWARD), ship.first("step_compensated")
    at = {path: ship.undone.get(_piece(ship, path), 0) for path in undo_sent}
    for earlier, its_undo in undo_sent.items():
        for later in undo_sent:
            if its_undo < turned or earlier not in completed or sent.get(later, 0) < completed[earlier]:
                continue
            if not undone.get(later, its_undo + 1) < its_undo:
                yield f"{ship.name}: {earlier} was undone before {later}, which had come after it"
            if at[earlier] and at[later] > at[earlier]:
                yield f"{ship.name}: {earlier} was taken back before {later}"


VERDICTS: Sequence[Verdict] = (
    every_piece_is_done_or_undone,
    the_state_counts_what_happened,
    the_rows_are_what_was_given,
    the_rows_say_what_was_done,
    the_tallies_add_up,
    only_so_many_are_under_way,
    what_came_later_is_undone_before,
)


def kinds(picture: Picture) -> Counter[str]:
    """What happened, and how often."""
    return Counter(row.kind for row in picture.history)


def _is_of(row: HistoryRow, step: str) -> bool:
    return (row.step or "").startswith(f"{step}[")


def _piece(ship: Ship, path: str) -> str:
    step, _, number = path.partition("[")
    return ship.items(step)[int(number.rstrip("]"))] if step in PIECES else ship.saga.business_key
