"""A saga that is known by more than its key, as its people see it: published events, lists, what `check` says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runtime.conftest import Command
    from tests.runtime.processes import Process

PARCELS = '''
"""An order becomes a parcel, which its carrier knows by a number of its own."""
from messages import Event
from sagas import Alias, Saga, signal, start, step, wait
from messages import Command

class Ordered(Event, name="parcels.Ordered"):
    order: str

class Packed(Event, name="parcels.Packed"):
    order: str
    parcel: str

class Scanned(Event, name="parcels.Scanned"):
    parcel_no: str

class Paid(Event, name="parcels.Paid"):
    reference: str

class Thank(Command, name="parcels.Thank"):
    order: str

class Parcel(
    Saga,
    key="order",
    keys={
        Paid: lambda event: event.reference.split("/")[1],
        Scanned: Alias("parcel", at="parcel_no"),
    },
    aliases=("parcel",),
):
    order: str
    parcel: str | None = None
    scans: int = 0

    @start
    def ordered(cls, event: Ordered) -> "Parcel":
        return cls(order=event.order)

    @wait
    def payment(self, event: Paid) -> None: ...

    @signal
    def packed(self, event: Packed) -> None:
        self.parcel = event.parcel

    @signal
    def scanned(self, event: Scanned) -> None:
        self.scans += 1

    @step(reply=False)
    def thank(self) -> Thank:
        return Thank(order=self.order)

    flow = payment >> thank

from handlers import Participant

letters = Participant("letters")

@letters.handles
async def thanking(command: Thank) -> None: ...
'''


@pytest.fixture
def parcels(folder: Path, started: Callable[..., Process]) -> Process:
    """A process that runs the saga on SQLite."""
    (folder / "parcels.py").write_text(PARCELS)
    process = started("run", modules="parcels")
    process.until("process.ready")
    return process


def publish(antiphon: Command, name: str, **body: object) -> None:
    done = antiphon("publish", name, json.dumps(body), modules="parcels")
    assert done.returncode == 0, done.stderr


def shown(antiphon: Command, *asked: str) -> Any:  # noqa: ANN401 - JSON
    return json.loads(antiphon("sagas", *asked, "--json", modules="parcels").stdout)


def test_a_saga_is_found_by_what_others_call_it(antiphon: Command, parcels: Process) -> None:
    publish(antiphon, "parcels.Scanned", parcel_no="P-1")
    parcels.until("message.held")
    publish(antiphon, "parcels.Ordered", order="o-1")
    publish(antiphon, "parcels.Ordered", order="o-2")
    parcels.until("saga.wait_began", key="o-1")
    publish(antiphon, "parcels.Packed", order="o-1", parcel="P-1")
    parcels.until("saga.aliased", key="o-1")
    publish(antiphon, "parcels.Packed", order="o-2", parcel="P-1")
    parcels.until("saga.aliased", key="o-2")

    found = shown(antiphon, "show", "P-1")
    assert (found["saga"]["business_key"], found["aliases"], found["state"]["scans"]) == ("o-1", {"parcel": "P-1"}, 1)
    page = antiphon("sagas", "show", "P-1", modules="parcels").stdout
    assert "aliases" in page
    assert "parcel P-1" in page
    [refused] = shown(antiphon, "show", "o-2")["attention"]
    assert refused["reason"] == "alias_refused"
    assert "'P-1' is that of the instance of 'o-1'" in refused["detail"]
    assert "see which instance has it" in antiphon("sagas", "show", "o-2", modules="parcels").stdout

    assert [each["business_key"] for each in shown(antiphon, "list", "--key", "P-1")] == ["o-1"]
    assert [each["business_key"] for each in shown(antiphon, "list", "--key", "o-2")] == ["o-2"]
    assert shown(antiphon, "list", "--key", "nobody") == []

    publish(antiphon, "parcels.Paid", reference="bank/o-1")
    parcels.until("saga.completed", key="o-1")
    publish(antiphon, "parcels.Paid", reference="bank")
    parcels.until("message.dead_lettered")
    [letter] = json.loads(antiphon("dead", "list", "--json", modules="parcels").stdout)
    assert letter["reason"] == "method_raised"
    assert "Parcel.keys[Paid]: IndexError: list index out of range (parcels.py:" in letter["error"]


def test_an_author_is_told_of_an_alias_that_is_misspelt(folder: Path, antiphon: Command) -> None:
    (folder / "parcels.py").write_text(PARCELS.replace('aliases=("parcel",)', 'aliases=("parcle",)'))
    done = antiphon("run", modules="parcels")
    assert done.returncode == 78
    assert "aliases= names 'parcle', which is no field (did you mean 'parcel'?)" in done.stdout + done.stderr
    assert "Parcel has no alias 'parcel' (did you mean 'parcle'?)" in done.stdout + done.stderr
