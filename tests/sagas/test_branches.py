"""`parallel`, `when` and `match`: what the tree becomes, and how an instance goes through it."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Literal, Self

import pytest

from messages import Command, Event
from sagas import Saga, alternative, decision, definition_of, match, parallel, start, step, when
from sagas.definition import ChoiceNode, ParallelNode, SequenceNode, StepNode
from sagas.difference import difference
from testkit.harness import Harness


class Booked(Event, name="branches.Booked"):
    key: str
    size: int = 1
    route: str = "air"


class Do(Command, name="branches.Do"):
    what: str


class Done(Event, name="branches.Done"):
    what: str


class Failed(Event, name="branches.Failed"):
    what: str


class Undo(Command, name="branches.Undo"):
    what: str


class Undone(Event, name="branches.Undone"):
    what: str


class Route(StrEnum):
    AIR = "air"
    SEA = "sea"
    ROAD = "road"


class Booking(Saga, abstract=True):
    key: str
    size: int = 1
    route: Route = Route.AIR

    @start
    def booked(cls, event: Booked) -> Self:
        return cls(key=event.key, size=event.size, route=Route(event.route))

    @step(success=Done, failure=Failed)
    def a(self) -> Do:
        return Do(what="a")

    @a.compensation(success=Undone)
    def undo_a(self) -> Undo:
        return Undo(what="a")

    @step(success=Done, failure=Failed)
    def b(self) -> Do:
        return Do(what="b")

    @b.compensation(success=Undone)
    def undo_b(self) -> Undo:
        return Undo(what="b")

    @step(success=Done, failure=Failed)
    def c(self) -> Do:
        return Do(what="c")

    @c.compensation(success=Undone)
    def undo_c(self) -> Undo:
        return Undo(what="c")

    @step(success=Done, failure=Failed)
    def d(self) -> Do:
        return Do(what="d")


class Sides(Booking, key="key", version=1):
    flow = Booking.a >> parallel(Booking.b, Booking.c) >> Booking.d


class Ways(Booking, key="key", version=1):
    @decision
    def large(self) -> bool:
        return self.size > 10

    flow = when(large, Booking.a, otherwise=Booking.b) >> Booking.c >> Booking.d


class Routes(Booking, key="key", version=1):
    @decision
    def by(self) -> Route:
        return self.route

    flow = match(by, {Route.AIR: Booking.a, Route.SEA: Booking.b >> Booking.c, Route.ROAD: None}) >> Booking.d


def sent(saga: Harness) -> list[str]:
    """What was sent by the latest input."""
    return [f"{type(each).__name__.lower()} {each.what}" for each in saga.sent]  # type: ignore[attr-defined]


def answered(saga: Harness, step: str, event: type[Event] = Done) -> Harness:
    *_, asked = [each for each in saga.log if each.path == step and not each.compensates]
    return saga.receives(event(what=step), to=asked)  # type: ignore[call-arg]


def undone(saga: Harness, step: str) -> Harness:
    *_, asked = [each for each in saga.log if each.path == step and each.compensates]
    return saga.receives(Undone(what=step), to=asked)


# -- the tree


def test_the_tree_is_what_was_written() -> None:
    assert definition_of(Sides).flow == SequenceNode(
        (StepNode("a"), ParallelNode((StepNode("b"), StepNode("c"))), StepNode("d"))
    )
    [choice, *_] = definition_of(Ways).flow.children  # type: ignore[union-attr]
    assert choice == ChoiceNode(
        path="large", decision="large", cases=(("true", StepNode("a")), ("false", StepNode("b"))), otherwise=None
    )


def test_a_decision_that_is_asked_twice_is_kept_at_two_paths() -> None:
    class Twice(Booking, key="key", version=1):
        @decision
        def large(self) -> bool:
            return self.size > 10

        flow = when(large, Booking.a) >> Booking.b >> when(large, Booking.c) >> Booking.d

    paths = [node.path for node in definition_of(Twice).flow.children if isinstance(node, ChoiceNode)]  # type: ignore[union-attr]
    assert paths == ["large", "large#2"]


def test_a_decision_stays_a_method() -> None:
    assert Ways(key="k", size=11).large()


def test_another_flow_is_another_shape_told_as_it_was_written() -> None:
    class Other(Booking, key="key", version=1, name="Sides"):
        flow = parallel(Booking.a >> Booking.b, Booking.c) >> Booking.d

    found = difference(definition_of(Sides).document, definition_of(Other).document)
    assert found.refused
    assert "shape: flow was a >> parallel(b, c) >> d, is parallel(a >> b, c) >> d" in str(found)


# -- side by side


def test_branches_begin_at_once_and_all_are_awaited() -> None:
    saga = Harness(Sides).given(Booked(key="k"))
    assert sent(answered(saga, "a")) == ["do b", "do c"]
    assert sent(answered(saga, "c")) == []
    assert saga.instance.waiting_for == "branches.Done or branches.Failed (step b, attempt 1, send 1)"
    assert sent(answered(saga, "b")) == ["do d"]
    assert answered(saga, "d").instance.status == "completed"


def test_a_branch_that_fails_takes_the_others_back_and_what_came_before_last() -> None:
    saga = answered(answered(Harness(Sides).given(Booked(key="k")), "a"), "b")
    assert sent(answered(saga, "c", Failed)) == ["undo b"]
    assert sent(undone(saga, "b")) == ["undo a"]
    assert undone(saga, "a").instance.status == "compensated"


def test_a_branch_in_flight_is_awaited_and_taken_back_too() -> None:
    saga = answered(Harness(Sides).given(Booked(key="k")), "a")
    saga.advance(timedelta(seconds=31))  # sent twice: it cannot be withdrawn
    assert sent(answered(saga, "c", Failed)) == []
    assert sent(answered(saga, "b")) == ["undo b"]


def test_both_branches_are_undone_side_by_side() -> None:
    saga = answered(Harness(Sides).given(Booked(key="k")), "a")
    answered(answered(saga, "b"), "c")
    assert sent(answered(saga, "d", Failed)) == ["undo b", "undo c"]
    assert sent(undone(saga, "c")) == []
    assert sent(undone(saga, "b")) == ["undo a"]


def test_two_branches_may_be_in_doubt_and_awaited() -> None:
    class Doubts(Booking, key="key", version=1):
        @step(success=Done, in_doubt="wait")
        def x(self) -> Do:
            return Do(what="x")

        @step(success=Done, in_doubt="wait")
        def y(self) -> Do:
            return Do(what="y")

        flow = parallel(x, y) >> Booking.a >> Booking.b >> Booking.c >> Booking.d

    saga = Harness(Doubts).given(Booked(key="k")).advance(timedelta(minutes=5))
    assert saga.instance.attention["in_doubt"].endswith(": x, y")
    assert answered(saga, "x").instance.attention["in_doubt"].endswith(": y")
    assert "in_doubt" not in answered(saga, "y").instance.attention


# -- one of several


@pytest.mark.parametrize(("size", "first"), [(11, "do a"), (10, "do b")])
def test_a_decision_says_which_way(size: int, first: str) -> None:
    saga = Harness(Ways).given(Booked(key="k", size=size))
    assert sent(saga) == [first]
    assert [entry.detail for entry in saga.history if entry.kind == "decision_made"] == [
        {"answer": "true" if size > 10 else "false"}
    ]
    assert sent(answered(saga, first[-1])) == ["do c"]


def test_what_was_chosen_is_undone_and_nothing_else() -> None:
    saga = Harness(Ways).given(Booked(key="k", size=1))
    answered(saga, "b")
    assert sent(answered(saga, "c", Failed)) == ["undo b"]
    assert undone(saga, "b").instance.status == "compensated"


@pytest.mark.parametrize(("route", "steps"), [("air", "ad"), ("sea", "bcd"), ("road", "d")])
def test_a_match_follows_the_case_of_the_answer(route: str, steps: str) -> None:
    saga = Harness(Routes).given(Booked(key="k", route=route))
    for each in steps:
        assert sent(saga) == [f"do {each}"]
        answered(saga, each)
    assert saga.instance.status == "completed"


def test_a_decision_is_made_once_whatever_becomes_of_the_state() -> None:
    class Changing(Booking, key="key", version=1):
        @step(failure=Failed)
        def grow(self) -> Do:
            return Do(what="grow")

        @grow.on_success
        def grown(self, reply: Done) -> None:
            self.size = 100

        @decision
        def large(self) -> bool:
            return self.size > 10

        flow = when(large, Booking.a, otherwise=grow) >> Booking.b >> Booking.c >> Booking.d

    saga = Harness(Changing).given(Booked(key="k", size=1))
    assert sent(answered(saga, "grow")) == ["do b"]
    assert saga.instance.choices == {"large": "false"}


def test_a_decision_that_raises_parks_the_instance_and_is_made_when_it_is_mended() -> None:
    class Raising(Booking, key="key", version=1):
        @decision
        def large(self) -> bool:
            return 1 / self.size > 0

        flow = Booking.a >> when(large, Booking.b) >> Booking.c >> Booking.d

    saga = answered(Harness(Raising).given(Booked(key="k", size=0)), "a")
    assert saga.instance.status == "parked"
    assert saga.instance.attention["method_raised"].startswith("Raising.large: ZeroDivisionError")
    assert saga.instance.choices == {}
    assert saga.operator("cancel").instance.phase == "compensating"


def test_an_answer_that_was_never_announced_parks_the_instance() -> None:
    class Lying(Booking, key="key", version=1):
        @decision
        def way(self) -> Literal["left", "right"]:
            return "straight on"  # type: ignore[return-value]

        flow = match(way, {"left": Booking.a, "right": Booking.b}) >> Booking.c >> Booking.d

    saga = Harness(Lying).given(Booked(key="k"))
    assert "'straight on'" in saga.instance.attention["method_raised"]


# -- alternatives


class Alternatives(Booking, key="key", version=1):
    flow = alternative(Booking.a >> Booking.b, Booking.c) >> Booking.d


def test_a_branch_that_fails_is_undone_before_the_next_is_tried_and_the_saga_runs_on() -> None:
    saga = answered(Harness(Alternatives).given(Booked(key="k")), "a")
    assert sent(answered(saga, "b", Failed)) == ["undo a"]
    assert saga.instance.status == "running"
    assert sent(undone(saga, "a")) == ["do c"]
    assert sent(answered(saga, "c")) == ["do d"]
    assert answered(saga, "d").instance.status == "completed"


def test_when_the_last_branch_fails_the_whole_turns_back() -> None:
    saga = answered(Harness(Alternatives).given(Booked(key="k")), "a", Failed)
    assert sent(saga) == ["do c"]
    assert answered(saga, "c", Failed).instance.status == "compensated"
    assert saga.instance.end_reason == "failed"


def test_what_was_taken_instead_is_undone_when_the_whole_turns_back() -> None:
    saga = answered(Harness(Alternatives).given(Booked(key="k")), "a", Failed)
    answered(saga, "c")
    assert sent(answered(saga, "d", Failed)) == ["undo c"]
    assert undone(saga, "c").instance.status == "compensated"


def test_silence_in_a_branch_is_undone_too_before_the_next_is_tried() -> None:
    saga = Harness(Alternatives).given(Booked(key="k")).advance(timedelta(minutes=5))
    assert "undo a" in sent(saga)
    assert sent(undone(saga, "a")) == ["do c"]


def test_a_success_that_comes_after_its_branch_was_left_is_undone_while_the_saga_runs_on() -> None:
    class Bare(Booking, key="key", version=1):
        @step(success=Done, failure=Failed)
        def x(self) -> Do:
            return Do(what="x")

        flow = alternative(parallel(x, Booking.a), Booking.b) >> Booking.c >> Booking.d

    saga = Harness(Bare).given(Booked(key="k"))
    saga.advance(timedelta(seconds=31))
    assert sent(answered(saga, "x", Failed)) == []  # a was sent twice and is awaited
    assert sent(answered(saga, "a")) == ["undo a"]
    assert sent(undone(saga, "a")) == ["do b"]


def test_an_alternative_within_a_parallel_leaves_the_other_branch_alone() -> None:
    class Beside(Booking, key="key", version=1):
        flow = parallel(alternative(Booking.a, Booking.b), Booking.c) >> Booking.d

    saga = Harness(Beside).given(Booked(key="k"))
    answered(saga, "c")
    assert sent(answered(saga, "a", Failed)) == ["do b"]
    assert sent(answered(saga, "b")) == ["do d"]
    assert sent(answered(saga, "d", Failed)) == ["undo b"]  # which was sent when c was done
    assert sent(undone(saga, "b")) == ["undo c"]


# -- the first so many


class Race(Booking, key="key", version=1):
    flow = parallel(Booking.a, Booking.b, Booking.c, first=1) >> Booking.d


def test_what_follows_begins_when_enough_are_done_and_the_others_are_undone_beside_it() -> None:
    saga = Harness(Race).given(Booked(key="k"))
    saga.advance(timedelta(seconds=31))
    assert sent(answered(saga, "b")) == ["do d"]
    assert sent(answered(saga, "a")) == ["undo a"]
    answered(saga, "d")
    assert saga.instance.status == "running"  # until the others have come to their end
    answered(saga, "c", Failed)
    assert undone(saga, "a").instance.status == "completed"


def test_a_branch_that_fails_costs_nothing_while_enough_are_left() -> None:
    saga = answered(answered(Harness(Race).given(Booked(key="k")), "a", Failed), "b", Failed)
    assert saga.instance.status == "running"
    assert sent(answered(saga, "c")) == ["do d"]


def test_when_too_few_are_left_the_whole_turns_back() -> None:
    saga = Harness(Race).given(Booked(key="k"))
    for each in "abc":
        answered(saga, each, Failed)
    assert saga.instance.status == "compensated"
