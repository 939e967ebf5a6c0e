"""Two sidecars at work and everything against them at once, drawn from a seed: `ANTIPHON_TEST_SEED`, or a fixed one.

A run that missed a window it aimed at is invalid: it fails, and says what it missed.
"""

from __future__ import annotations

import os
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from tests.crash.driver import Setup
from tests.crash.nemesis.customers import Customers
from tests.crash.nemesis.deeds import KINDS, Kind, dealt
from tests.crash.script import Script
from tests.crash.soak.report import written
from tests.crash.soak.run import Plan, Soak

if TYPE_CHECKING:
    from pathlib import Path

    from tests.crash.laboratory import Laboratory

SEED = int(os.environ.get("ANTIPHON_TEST_SEED", "1"))
ROUNDS = 4  # deeds on each of four wires: with two to each server, every kind once


@pytest.mark.long(40)
async def test_everything_at_once_loses_nothing_and_does_nothing_twice(laboratory: Laboratory) -> None:
    """`make soak` does the same for half an hour."""
    plan = Plan(
        minutes=1,
        starts=8,
        sidecars=2,
        seed=SEED,
        folder=laboratory.setup.folder,
        rounds=ROUNDS,
        pauses=(0.05, 0.5),
        longest=1.5,
        timeout=2.0,
        broken="7$",
    )
    print(f"ANTIPHON_TEST_SEED={SEED}")
    findings = await Soak(plan).on(laboratory)
    print(written(findings))
    assert findings.missed == 0, f"invalid: these windows were not hit: {findings.never_hit}"
    assert {kind for kind in Kind if not findings.faults[kind]} == set(), "invalid: these faults were not tried"
    assert findings.books["dead letters replayed"], "invalid: nothing was there to be replayed"
    assert findings.wrong == []


def test_an_order_whose_saga_is_yet_to_be_mended_does_not_go_through(tmp_path: Path) -> None:
    setup = Setup(folder=tmp_path, database_url="")
    customers = Customers(setup=setup, script=Script(), per_second=1, broken="7$")
    assert customers.goes_through("o-0000146")
    assert not customers.goes_through("o-0000147")
    assert not customers.goes_through("o-0000143"), "it is placed by way of the database"
    assert not customers.goes_through("o-0000146~payment=late:1")


def test_a_seed_deals_the_same_deeds_for_ever_and_every_kind_in_one_round() -> None:
    lanes = [(name, server) for name in ("one", "other") for server in KINDS]
    deal = {lane: list(islice(deeds, ROUNDS)) for lane, deeds in dealt(7, lanes).items()}
    again = {lane: list(islice(deeds, ROUNDS)) for lane, deeds in dealt(7, lanes).items()}
    other = {lane: list(islice(deeds, ROUNDS)) for lane, deeds in dealt(8, lanes).items()}
    assert deal == again
    assert deal != other
    for server, kinds in KINDS.items():
        assert {deed.kind for name in ("one", "other") for deed in deal[name, server]} == set(kinds)
