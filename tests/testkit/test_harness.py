"""What the harness shows of itself when a test fails."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

import pytest

from messages import Command, Event, upcast
from messages.catalog.ordering import OrderPlaced, OutOfStock, StockReserved
from sagas import Saga, migrate, start, step, wait
from sagas.catalog.ordering import PlaceOrder
from testkit import Harness, golden

if TYPE_CHECKING:
    from pathlib import Path

PLACED = OrderPlaced(order_id="o-1", customer_id="c-1", lines=[], total=Decimal(3))


def test_a_harness_says_that_nothing_was_started() -> None:
    assert repr(Harness(PlaceOrder)) == "<Harness PlaceOrder: not started>"


def test_a_harness_says_which_instance_it_is_how_far_and_what_it_waits_for() -> None:
    order = Harness(PlaceOrder).given(PLACED)
    assert repr(order) == (
        "<Harness PlaceOrder 'o-1': running, waits for stock.OutOfStock or stock.StockReserved "
        "(step reserve, attempt 1, send 1)>"
    )
    order.receives(StockReserved(order_id="o-1", reservation_id="r-1"))
    assert "running, waits for payment.PaymentDeclined or " in repr(order)


def test_a_harness_says_how_it_ended() -> None:
    order = Harness(PlaceOrder).given(PLACED).receives(OutOfStock(order_id="o-1"))
    assert repr(order) == "<Harness PlaceOrder 'o-1': compensated (failed)>"


class Asked(Event, name="harness.Asked", version=2):
    key: str
    urgent: bool

    @upcast(1)
    @classmethod
    def in_no_hurry(cls, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "urgent": False}


class Said(Event, name="harness.Said"):
    key: str


class Do(Command, name="harness.Do"):
    urgent: bool


class Asking(Saga, key="key"):
    key: str
    urgent: bool

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(key=event.key, urgent=event.urgent)

    @step(reply=False)
    def do(self) -> Do:
        return Do(urgent=self.urgent)


def test_an_event_may_be_given_in_an_older_version_and_is_read_as_such(tmp_path: Path) -> None:
    class Older(Event, name="harness.Asked"):
        key: str

    story = Harness(Asking).given(Older(key="k"))
    assert story.sent == [Do(urgent=False)]
    assert story.history[0].body == b'{"key":"k"}'
    golden.check(story, tmp_path / "older.json", update=True)
    golden.check(story, tmp_path / "older.json")
    [act] = json.loads((tmp_path / "older.json").read_text())["acts"]
    assert (act["message"], act["version"], act["body"]) == ("harness.Asked", 1, {"key": "k"})


class Waiting(Asking, key="key", name="Asking"):
    @wait
    def said(self, event: Said) -> None: ...

    flow = Asking.do >> said


class Hurrying(Waiting, key="key", name="Asking", version=2):
    @migrate(1)
    @classmethod
    def from_first(cls, state: dict[str, Any]) -> Self:
        if not state["urgent"]:
            raise ValueError("there is no hurry")
        return cls(**state)


def test_a_story_may_go_on_under_the_next_version_and_says_why_where_it_may_not(tmp_path: Path) -> None:
    story = Harness(Waiting).given(Asked(key="k", urgent=True)).migrates(Hurrying)
    assert (story.instance.version, story.hears(Said(key="k")).status) == (2, "completed")
    with pytest.raises(AssertionError, match="a golden tells a story of one version"):
        golden.check(story, tmp_path / "two.json", update=True)
    with pytest.raises(AssertionError, match=r"would be left on version 1: method_raises: .*there is no hurry"):
        Harness(Waiting).given(Asked(key="k", urgent=False)).migrates(Hurrying)
