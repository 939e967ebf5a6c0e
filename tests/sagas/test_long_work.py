"""Work that takes long, and work that several answer: signs of life, and replies that are needed together."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Self

import pytest

from messages import Command, Event
from messages.errors import DefinitionError
from sagas import Retry, Saga, all_of, definition_of, start, step
from sagas.decide import decide
from sagas.difference import difference
from sagas.instance import Phase
from sagas.outcome import Disposition, GiveUp, TimerFired
from testkit.harness import Harness


class Asked(Event, name="long.Asked"):
    key: str


class Scan(Command, name="long.Scan"):
    key: str


class Scanning(Event, name="long.Scanning"):
    pages: int


class Scanned(Event, name="long.Scanned"):
    pass


class Ship(Command, name="long.Ship"):
    key: str


class Picked(Event, name="long.Picked"):
    pass


class Packed(Event, name="long.Packed"):
    box: str


class Lost(Event, name="long.Lost"):
    pass


class Unship(Command, name="long.Unship"):
    key: str


class Unshipped(Event, name="long.Unshipped"):
    pass


class Scans(Saga, abstract=True):
    key: str
    pages: int = 0
    box: str = ""

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(key=event.key)

    @step(success=Scanned, timeout=timedelta(minutes=1), retry=Retry(attempts=2))
    def scan(self) -> Scan:
        return Scan(key=self.key)

    @scan.on_heartbeat
    def scanning(self, reply: Scanning) -> None:
        self.pages = reply.pages


class Long(Scans, key="key", version=1):
    """Scan many pages, then ship what two people hand over."""

    @step(success=all_of(Picked, Packed), failure=Lost, timeout=timedelta(minutes=1), retry=Retry(attempts=1))
    def ship(self) -> Ship:
        return Ship(key=self.key)

    @ship.compensation(success=Unshipped)
    def unship(self) -> Unship:
        return Unship(key=self.key)


class Boxed(Scans, key="key", version=1):
    @step(success=all_of(Picked, Lost), timeout=timedelta(minutes=1))
    def ship(self) -> Ship:
        return Ship(key=self.key)

    @ship.on_success
    def packed(self, reply: Packed) -> None:
        self.box = reply.box


def scanning() -> Harness:
    return Harness(Long).given(Asked(key="k"))


def test_a_sign_of_life_begins_the_timeout_anew_and_shows_how_far_it_is() -> None:
    saga = scanning()
    for pages in (1, 2, 3):
        assert saga.advance(timedelta(seconds=50)).sent == []
        saga.receives(Scanning(pages=pages))
    assert saga.state.pages == 3
    assert saga.kinds.count("heartbeat") == 3
    assert "last sign of life 2026-01-01 00:02:30 UTC" in (saga.instance.waiting_for or "")
    assert saga.advance(timedelta(seconds=60)).sent == [Scan(key="k")]
    saga.receives(Scanned())
    assert saga.instance.choices == {}


def test_who_falls_silent_is_given_up_as_ever() -> None:
    saga = scanning().receives(Scanning(pages=1)).advance(timedelta(minutes=4))
    assert (saga.instance.phase, saga.instance.end_reason) == (Phase.COMPENSATED, "timed_out")
    saga.receives(Scanning(pages=2))
    assert (saga.disposition, saga.reason) == (Disposition.IGNORED, "superseded")


def test_a_marker_from_before_the_sign_of_life_gives_nothing_up() -> None:
    saga = scanning().advance(timedelta(seconds=60))
    saga.now += timedelta(seconds=120)
    fence = saga.instance.timers["scan/do"].fence
    asked = decide(saga.definition, saga.instance, TimerFired(name="scan/do", fence=fence), saga.now)
    [marker] = [send for send in asked.sends if send.marker]
    alive = saga.receives(Scanning(pages=1)).instance
    body = json.loads(marker.body or b"")
    stale = GiveUp(message_id=marker.message_id, timer=body["timer"], entry=body["entry"])
    assert decide(saga.definition, alive, stale, saga.now).instance == alive


def test_several_replies_are_needed_in_any_order() -> None:
    saga = scanning().receives(Scanned()).receives(Packed(box="b"))
    assert saga.instance.phase is Phase.RUNNING
    assert saga.instance.waiting_for is not None
    assert saga.instance.waiting_for.startswith("long.Picked or long.Lost (step ship")
    saga.receives(Packed(box="c"))
    assert (saga.disposition, saga.reason) == (Disposition.IGNORED, "already_answered")
    assert saga.receives(Picked()).status == "completed"
    assert saga.instance.choices == {}


def test_one_of_several_that_says_no_is_enough_to_turn_back() -> None:
    saga = scanning().receives(Scanned()).receives(Picked()).receives(Lost())
    assert (saga.status, saga.instance.end_reason) == ("compensated", "failed")


def test_half_an_answer_is_in_doubt_and_undone() -> None:
    saga = scanning().receives(Scanned()).receives(Picked()).advance(timedelta(seconds=61))
    assert saga.sent == [Unship(key="k")]


def test_what_is_needed_is_part_of_the_shape() -> None:
    class Single(Scans, key="key", version=1, name="Long"):
        @step(success=(Picked, Packed), failure=Lost, timeout=timedelta(minutes=1), retry=Retry(attempts=1))
        def ship(self) -> Ship:
            return Ship(key=self.key)

        @ship.compensation(success=Unshipped)
        def unship(self) -> Unship:
            return Unship(key=self.key)

    changes = difference(definition_of(Long).document, definition_of(Single).document)
    assert "step ship needed long.Packed and long.Picked, needs one reply" in str(changes)
    assert changes.refused


def test_a_hook_adds_to_what_is_needed() -> None:
    saga = Harness(Boxed).given(Asked(key="k")).receives(Scanned()).receives(Picked()).receives(Lost())
    assert saga.status == "running"
    assert saga.receives(Packed(box="b")).status == "completed"
    assert saga.state.box == "b"


def test_one_event_alone_is_not_several() -> None:
    with pytest.raises(DefinitionError, match="needs all_of Picked; name several, or leave out all_of"):

        class X(Scans, key="key"):
            @step(success=all_of(Picked))
            def ship(self) -> Ship:
                return Ship(key=self.key)
