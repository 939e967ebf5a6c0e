"""What a hook leaves behind is kept only if it can be read again."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Self
from uuid import uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from messages import Command, Event
from messages.codec import Limits
from sagas import Saga, definition_of, start, step
from sagas.instance import message_id, saga_id
from sagas.outcome import Disposition
from testkit import Harness

ID = saga_id("antiphon", "Noted", "k")


class Asked(Event, name="turn.Asked"):
    key: str
    note: str = ""


class Write(Command, name="turn.Write"):
    note: str


class Written(Event, name="turn.Written"):
    note: str


class Noted(Saga, key="key"):
    key: str
    note: Annotated[str, Field(max_length=5)] = ""

    @start
    def asked(cls, event: Asked) -> Self:
        made = cls(key=event.key)
        made.note = event.note
        return made

    @step
    def write(self) -> Write:
        return Write(note=self.note)

    @write.on_success
    def written(self, reply: Written) -> None:
        self.note = reply.note


def test_a_hook_that_leaves_what_cannot_be_read_again_parks_the_instance() -> None:
    saga = Harness(Noted).given(Asked(key="k"))
    before = saga.instance.state
    saga.receives(Written(note="much too long"))
    assert (saga.disposition, saga.status) == (Disposition.DEAD_LETTERED, "parked")
    assert saga.instance.state == before
    assert "Noted.written" in saga.attention["method_raised"]


class Raising(Saga, key="key"):
    key: str

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(key=event.key)

    @step(success=Written)
    def write(self) -> Write:
        notes: dict[str, str] = {}
        return Write(note=notes["missing"])


def test_people_are_told_the_line_that_raised() -> None:
    saga = Harness(Raising).given(Asked(key="k"))
    assert re.fullmatch(r"Raising\.write: KeyError: 'missing' \(test_turn\.py:\d+\)", saga.attention["method_raised"])


def test_a_command_that_is_longer_than_the_process_allows_parks_the_instance() -> None:
    short = replace(definition_of(Noted), limits=Limits(max_body=10))
    saga = Harness(short).given(Asked(key="k"))
    assert re.search(r"Noted\.write: .* 10 are allowed", saga.attention["method_raised"])


def test_a_start_that_makes_what_cannot_be_read_again_makes_nothing() -> None:
    with pytest.raises(Exception, match=r"Noted\.asked"):
        Harness(Noted).given(Asked(key="k", note="much too long"))


@given(st.text(max_size=20), st.integers(1, 99), st.integers(1, 99), st.sampled_from(["do", "undo", "give-up"]))
def test_a_message_id_is_the_uuid5_that_the_contract_names(path: str, generation: int, attempt: int, what: str) -> None:
    assert message_id(ID, path, generation, attempt, what) == str(uuid5(ID, f"{path}/{generation}/{attempt}/{what}"))


def test_times_are_those_of_the_message_at_hand() -> None:
    moment = datetime(2026, 5, 1, tzinfo=UTC)
    assert Harness(Noted, now=moment).given(Asked(key="k")).state.now == moment
