"""Loops: again and again, until it is enough, and what becomes of each time."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

import pytest

from messages import Command, Event
from messages.errors import DefinitionError
from sagas import Saga, alternative, decision, definition_of, repeat, sleep, start, step, wait
from sagas.definition import LoopNode, SequenceNode, StepNode
from sagas.difference import difference
from sagas.instance import Phase
from sagas.outcome import Disposition
from testkit.harness import Harness
from tests.sagas.test_branches import Booked, Do, Done, Failed, answered, sent


class Ask(Command, name="repeat.Ask"):
    key: str


class Told(Event, name="repeat.Told"):
    left: int


class Draw(Command, name="repeat.Draw"):
    number: int


class Drawn(Event, name="repeat.Drawn"):
    number: int


class NotDrawn(Event, name="repeat.NotDrawn"):
    pass


class PutBack(Command, name="repeat.PutBack"):
    number: int


class PutBackNow(Event, name="repeat.PutBackNow"):
    number: int


class Nod(Event, name="repeat.Nod"):
    key: str


class Base(Saga, abstract=True):
    key: str

    @start
    def booked(cls, event: Booked) -> Self:
        return cls(key=event.key)

    @step(success=Done, failure=Failed)
    def last(self) -> Do:
        return Do(what="last")


class Asks(Base, abstract=True):
    left: int = 9

    @step
    def ask(self) -> Ask:
        return Ask(key=self.key)

    @ask.on_success
    def told(self, reply: Told) -> None:
        self.left = reply.left

    @decision
    def ready(self) -> bool:
        return self.left == 0


class Draws(Base, abstract=True):
    drawn: tuple[int, ...] = ()

    @step(failure=NotDrawn)
    def draw(self) -> Draw:
        return Draw(number=len(self.drawn) + 1)

    @draw.on_success
    def take(self, reply: Drawn) -> None:
        self.drawn = (*self.drawn, reply.number)

    @draw.compensation(success=PutBackNow)
    def put_back(self) -> PutBack:
        return PutBack(number=len(self.drawn))

    @decision
    def enough(self) -> bool:
        return len(self.drawn) >= 3


class Polling(Asks, key="key", version=1):
    @sleep
    def rest(self) -> timedelta:
        return timedelta(hours=1)

    flow = repeat(Asks.ask >> rest, until=Asks.ready, most=3) >> Base.last


class Drawing(Draws, key="key", version=1):
    flow = repeat(Draws.draw, until=Draws.enough, most=5) >> Base.last


def polling() -> Harness:
    return Harness(Polling).given(Booked(key="k"))


def drawing(times: int) -> Harness:
    saga = Harness(Drawing).given(Booked(key="k"))
    for number in range(times):
        saga.receives(Drawn(number=number + 1))
    return saga


def test_the_body_is_done_again_until_it_is_enough() -> None:
    saga = polling()
    assert saga.sent == [Ask(key="k")]
    saga.receives(Told(left=2))
    assert saga.advance(timedelta(hours=1)).sent == [Ask(key="k")]
    saga.receives(Told(left=0))
    assert sent(saga.advance(timedelta(hours=1))) == ["do last"]
    assert len({each.message_id for each in saga.log if isinstance(each.command, Ask)}) == 2
    assert [each.path for each in saga.log if isinstance(each.command, Ask)] == ["ask[0]", "ask[1]"]
    assert saga.instance.choices["repeat/enough"] == "2"


def test_a_loop_that_is_done_in_vain_has_failed() -> None:
    saga = polling()
    for _ in range(3):
        saga.receives(Told(left=2)).advance(timedelta(hours=1))
    assert (saga.instance.phase, saga.instance.end_reason) == (Phase.COMPENSATED, "failed")
    assert saga.kinds.count("decision_made") == 3
    assert "loop_exhausted" in saga.kinds


def test_what_needs_no_undo_is_kept_only_as_long_as_it_counts() -> None:
    saga = polling().receives(Told(left=2)).advance(timedelta(hours=1)).receives(Told(left=1))
    assert list(saga.instance.steps) == ["ask[1]"]
    assert set(saga.instance.choices) == {"repeat", "rest[1]"}


def test_each_time_is_undone_the_last_first() -> None:
    saga = drawing(3)
    assert sent(saga) == ["do last"]
    answered(saga, "last", Failed)
    undos: list[str] = []
    for _ in range(3):
        undos += [each.path for each in saga.log if isinstance(each.command, PutBack)][len(undos) :]
        saga.receives(PutBackNow(number=1))
    assert undos == ["draw[2]", "draw[1]", "draw[0]"]
    assert len({each.idempotency_key for each in saga.log if isinstance(each.command, PutBack)}) == 3
    compensated = [each.compensates for each in saga.log if isinstance(each.command, PutBack)]
    assert compensated == [
        each.idempotency_key for each in reversed([one for one in saga.log if isinstance(one.command, Draw)])
    ]


def test_a_failure_in_the_loop_turns_the_saga_back() -> None:
    saga = drawing(1).receives(NotDrawn())
    assert saga.instance.phase is Phase.COMPENSATING
    assert saga.sent == [PutBack(number=1)]


def test_a_loop_done_in_vain_is_replaced_by_its_alternative() -> None:
    class Either(Draws, key="key", version=1):
        flow = alternative(repeat(Draws.draw, until=Draws.enough, most=2), Base.last)

    saga = Harness(Either).given(Booked(key="k")).receives(Drawn(number=1)).receives(Drawn(number=2))
    assert saga.sent == [PutBack(number=2)]
    assert saga.receives(PutBackNow(number=2)).sent == [PutBack(number=2)]
    assert sent(saga.receives(PutBackNow(number=1))) == ["do last"]
    assert saga.instance.phase is Phase.RUNNING


def test_loops_within_loops_and_a_wait_in_each() -> None:
    class Nested(Draws, key="key", version=1):
        @decision
        def seven(self) -> bool:
            return len(self.drawn) >= 7

        @wait
        def nod(self, event: Nod) -> None: ...

        flow = repeat(repeat(Draws.draw, until=Draws.enough, most=4) >> nod, until=seven, most=2) >> Base.last

    saga = Harness(Nested).given(Booked(key="k"))
    for number in (1, 2, 3):
        saga.receives(Drawn(number=number))
    assert [each.path for each in saga.log] == ["draw[0][0]", "draw[0][1]", "draw[0][2]"]
    saga.hears(Nod(key="k"))
    assert saga.log[-1].path == "draw[1][0]"
    saga.hears(Nod(key="k"))
    assert saga.disposition is Disposition.HELD
    saga.receives(Drawn(number=4))
    assert saga.instance.choices["nod[1]"] == "answered"
    assert (saga.instance.phase, saga.instance.end_reason) == (Phase.COMPENSATING, "failed")
    assert saga.log[-1].path == "draw[1][0]"


def test_a_loop_is_part_of_the_shape_and_how_often_is_policy() -> None:
    definition = definition_of(Drawing)
    assert definition.flow == SequenceNode(
        (
            LoopNode(path="repeat", body=StepNode("draw"), until="enough", most=5),
            StepNode("last"),
        )
    )
    assert {"repeat": "draw", "until": "enough"} in definition.document["shape"]["flow"]
    assert definition.document["policy"]["repeats"] == {"repeat": 5}

    class Other(Draws, key="key", version=1, name="Drawing"):
        flow = Base.last >> repeat(Draws.draw, until=Draws.enough, most=9)

    changes = difference(definition.document, definition_of(Other).document)
    assert changes.refused
    assert "repeat(draw, until=enough)" in str(changes)


def wrong(make: object) -> str:
    with pytest.raises(DefinitionError) as caught:
        make()  # type: ignore[operator]
    return str(caught.value)


def test_wrong_loops_are_told() -> None:
    def never() -> None:
        class X(Draws, key="key"):
            flow = repeat(Draws.draw, until=Draws.enough, most=0) >> Base.last

    assert "repeat(most=0) will not do; write a whole number from 1 to 1000" in wrong(never)

    def undecided() -> None:
        class X(Draws, key="key"):
            flow = repeat(Draws.draw, until=Draws.take, most=2) >> Base.last  # type: ignore[arg-type]

    assert "stands in repeat() and lacks @decision; write it over the method" in wrong(undecided)

    def nothing() -> None:
        class X(Draws, key="key"):
            flow = repeat(Draws.draw, until=True, most=2) >> Base.last  # type: ignore[arg-type]

    assert "repeat() asks True; until= names a method of this class with @decision" in wrong(nothing)

    def behind_the_pivot() -> None:
        class X(Asks, key="key"):
            @step(reply=False, pivot=True)
            def sign(self) -> Ask:
                return Ask(key=self.key)

            flow = sign >> repeat(Asks.ask, until=Asks.ready, most=2) >> Base.last

    assert "flow holds a repeat() behind the pivot 'sign' that may be done in vain" in wrong(behind_the_pivot)
