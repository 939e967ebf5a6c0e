"""The judge of lists bites: a sound ship has no violations, and each thing that can go wrong with one is named."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.crash.loads import CRATES, PAPERS, load
from tests.crash.tallyman import SAGA_TYPE, VERDICTS, Cargo, Rested, Ship
from tests.crash.views import HistoryRow, SagaRow

if TYPE_CHECKING:
    from collections.abc import Callable

SAILED, TURNED = "plain-1", "overloaded-1"
DONE, FAILED, UNDONE = (
    Rested(do="succeeded", undo=None, owed=True),
    Rested(do="failed", undo=None, owed=False),
    Rested(do="succeeded", undo="succeeded", owed=False),
)


def crate(order: str, number: int) -> str:
    return load(order).items(order, "load")[number]


def told(*words: tuple[str, str], name: str = "") -> list[HistoryRow]:
    return [
        HistoryRow(saga_id="s", seq=seq, kind=kind, step=step, message_name=name)
        for seq, (kind, step) in enumerate(words, start=1)
    ]


def sailed() -> Ship:
    """Every crate but the two that were refused is on board, and every paper is stamped."""
    refused = {number for number in range(CRATES) if "crane=fail" in crate(SAILED, number)}
    items = {("crates", number): crate(SAILED, number) for number in range(CRATES)}
    papers = load(SAILED).items(SAILED, "clear")
    history = []
    for number in range(CRATES):
        history.append(("command_sent", f"load[{number}]"))
        history.append(("step_failed" if number in refused else "step_completed", f"load[{number}]"))
    history += [(kind, f"clear[{at}]") for at in range(PAPERS) for kind in ("command_sent", "step_completed")]
    rows = told(*history)
    rows += [
        HistoryRow(saga_id="s", seq=1000 + at, kind="reply_received", step=f"load[{at}]", message_name="travel.Failed")
        for at in sorted(refused)
    ]
    done = [piece for (_, number), piece in items.items() if number not in refused] + papers
    rested = {("load", number): FAILED if number in refused else DONE for number in range(CRATES)}
    return Ship(
        saga=SagaRow(saga_id="s", saga_type=SAGA_TYPE, business_key=SAILED, status="completed", phase="completed"),
        history=rows,
        cargo=Cargo(
            state={"loaded": 22, "refused": 2, "unloaded": 0, "stamped": PAPERS, "voided": 0},
            at_hand=[],
            tallies={"load": "succeeded 1 24 22 2 22 50", "clear": f"succeeded 1 {PAPERS} {PAPERS} 0 {PAPERS} 60"},
            items=items | {("papers", at): piece for at, piece in enumerate(papers)},
            rested=rested | {("clear", at): DONE for at in range(PAPERS)},
        ),
        done=dict.fromkeys(done, 1),
        undone={},
    )


def turned(*undone: int) -> Ship:
    """Two crates, one after the other, are undone in this order."""
    history = [("command_sent", "load[0]"), ("step_completed", "load[0]")]
    history += [("command_sent", "load[1]"), ("step_completed", "load[1]"), ("compensation_started", "")]
    for number in undone or (1, 0):
        history += [("compensation_sent", f"load[{number}]"), ("step_compensated", f"load[{number}]")]
    ship = sailed()
    at = {crate(TURNED, number): 10 + moment for moment, number in enumerate(undone or (1, 0))}
    items = {("crates", number): crate(TURNED, number) for number in range(CRATES)}
    items |= {("papers", number): piece for number, piece in enumerate(load(TURNED).items(TURNED, "clear"))}
    return replace(
        ship,
        saga=replace(ship.saga, business_key=TURNED, phase="compensated", status="compensated"),
        history=told(*history),
        cargo=replace(
            ship.cargo,
            state={"loaded": 2, "refused": 0, "unloaded": 2, "stamped": 0, "voided": 0},
            tallies={"load": "failed 1 2 2 0 0 0", "clear": ""},
            items=items,
            rested={("load", number): UNDONE for number in (0, 1)},
        ),
        done={crate(TURNED, 0): 1, crate(TURNED, 1): 2},
        undone=at,
    )


def with_cargo(ship: Ship, **changes: object) -> Ship:
    return replace(ship, cargo=replace(ship.cargo, **changes))  # type: ignore[arg-type]


def verdict(ship: Ship) -> list[str]:
    return [sentence for each in VERDICTS for sentence in each(ship)]


@pytest.mark.parametrize("ship", [sailed(), turned()], ids=["sailed", "turned back"])
def test_a_sound_ship_has_no_violations(ship: Ship) -> None:
    assert verdict(ship) == []


def without(ship: Ship, *pieces: str) -> Ship:
    return replace(ship, done={piece: at for piece, at in ship.done.items() if piece not in pieces})


WRONGS: dict[str, tuple[Callable[[], Ship], str]] = {
    "a crate is left on the quay": (lambda: without(sailed(), "plain-1/c0"), "is completed without plain-1/c0, "),
    "a crate stays on board": (
        lambda: replace(turned(), undone={crate(TURNED, 1): 10}),
        "is compensated, and of load is left overloaded-1/c0",
    ),
    "a method counted twice": (
        lambda: with_cargo(sailed(), state={**sailed().cargo.state, "loaded": 23}),
        "loaded is 23 and happened 22 times",
    ),
    "an item is lost": (lambda: with_cargo(sailed(), items={}), "its items are {} instead of"),
    "an item is still at hand": (
        lambda: with_cargo(sailed(), at_hand=["load[3]"]),
        "is completed, and still has at hand: load[3]",
    ),
    "a row says what is not so": (
        lambda: with_cargo(turned(), rested={("load", 0): DONE, ("load", 1): UNDONE}),
        "overloaded-1/c0 is not left, and its row says",
    ),
    "what was done is not owed": (
        lambda: with_cargo(sailed(), rested={**sailed().cargo.rested, ("load", 0): replace(DONE, owed=False)}),
        "plain-1/c0 is not owed, and its row says",
    ),
    "a row is missing": (
        lambda: with_cargo(turned(), rested={("load", 1): UNDONE}),
        "overloaded-1/c0 was done and has no row",
    ),
    "a tally does not add up": (
        lambda: with_cargo(sailed(), tallies={**sailed().cargo.tallies, "load": "succeeded 1 24 23 2 22 50"}),
        "load has succeeded with 23 done and 2 failed, and has 24 rows",
    ),
    "a tally owes too much": (
        lambda: with_cargo(turned(), tallies={"load": "failed 1 2 2 0 1 0", "clear": ""}),
        "load owes 1, and its rows 0",
    ),
    "too many at once": (
        lambda: replace(sailed(), history=told(*[("command_sent", f"load[{number}]") for number in range(6)])),
        "of load 6 were under way at 6",
    ),
    "an item is left out": (
        lambda: replace(sailed(), history=told(("command_sent", "load[0]"), ("command_sent", "load[2]"))),
        "load began [0, 2]",
    ),
    "the first is undone first": (lambda: turned(0, 1), "load[0] was undone before load[1], which had come after it"),
    "the first is let go first": (
        lambda: replace(turned(), undone={crate(TURNED, 0): 10, crate(TURNED, 1): 11}),
        "load[0] was taken back before load[1]",
    ),
}


@pytest.mark.parametrize(("wrong", "sentence"), WRONGS.values(), ids=WRONGS)
def test_what_is_wrong_is_named(wrong: Callable[[], Ship], sentence: str) -> None:
    assert any(sentence in each for each in verdict(wrong())), verdict(wrong())
