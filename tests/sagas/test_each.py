"""A step for each item of a list: so many at once, some may fail, and all are undone, the last first."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

import pytest
from pydantic import BaseModel, Field

from messages import Command, Event
from messages.errors import DefinitionError, MethodRaised
from sagas import Retry, Saga, alternative, decision, definition_of, each, parallel, query, repeat, start, step, when
from sagas.instance import CallStatus, Phase, pack_progress
from testkit.harness import Harness
from tests.sagas.test_definition_errors import PLACE


class Line(BaseModel):
    sku: str
    amount: int = 1


class Ordered(Event, name="each.Ordered"):
    key: str
    lines: list[Line]


class Reserve(Command, name="each.Reserve"):
    sku: str


class Reserved(Event, name="each.Reserved"):
    sku: str


class OutOf(Event, name="each.OutOf"):
    sku: str


class Release(Command, name="each.Release"):
    sku: str


class Released(Event, name="each.Released"):
    pass


class Bill(Command, name="each.Bill"):
    lines: int


class Billed(Event, name="each.Billed"):
    pass


class NotBilled(Event, name="each.NotBilled"):
    pass


class Base(Saga, abstract=True):
    key: str
    lines: list[Line]
    reserved: int = 0
    missing: list[str] = Field(default_factory=list)

    @start
    def ordered(cls, event: Ordered) -> Self:
        return cls(key=event.key, lines=event.lines)

    @step(success=Billed, failure=NotBilled)
    def bill(self) -> Bill:
        return Bill(lines=len(self.lines))


class Order(Base, key="key", version=1):
    @each("lines", at_once=3, timeout=timedelta(seconds=10), retry=Retry(attempts=1))
    def reserve(self, line: Line) -> Reserve:
        return Reserve(sku=line.sku)

    @reserve.on_success
    def got(self, reply: Reserved, line: Line) -> None:
        assert reply.sku == line.sku
        self.reserved += 1

    @reserve.on_failure
    def out(self, reply: OutOf, line: Line) -> None:
        self.missing = [*self.missing, line.sku]

    @reserve.compensation(success=Released)
    def release(self, line: Line) -> Release:
        return Release(sku=line.sku)

    flow = reserve >> Base.bill


class Tolerant(Base, key="key", version=1):
    @each("lines", at_once=3, tolerate=0.5, timeout=timedelta(seconds=10), retry=Retry(attempts=1))
    def reserve(self, line: Line) -> Reserve:
        return Reserve(sku=line.sku)

    @reserve.on_success
    def got(self, reply: Reserved, line: Line) -> None:
        self.reserved += 1

    @reserve.on_failure
    def out(self, reply: OutOf, line: Line) -> None:
        self.missing = [*self.missing, line.sku]

    @reserve.compensation(success=Released)
    def release(self, line: Line) -> Release:
        return Release(sku=line.sku)

    flow = reserve >> Base.bill


def ordering(saga: type[Saga], items: int) -> Harness:
    return Harness(saga).given(Ordered(key="k", lines=[Line(sku=f"s{number}") for number in range(items)]))


def reserve(saga: Harness, *numbers: int, kind: type[Reserved] | type[OutOf] = Reserved) -> Harness:
    for number in numbers:
        asked = next(one for one in saga.log if one.path == f"reserve[{number}]")
        saga.receives(kind(sku=f"s{number}"), to=asked)
    return saga


def release(saga: Harness, *numbers: int) -> Harness:
    for number in numbers:
        of = [one for one in saga.log if one.path == f"reserve[{number}]"]
        asked = next(one for one in of if isinstance(one.command, Release))
        saga.receives(Released(), to=asked)
    return saga


def undos(saga: Harness) -> list[str]:
    return [one.command.sku for one in saga.log if isinstance(one.command, Release)]


def test_so_many_are_under_way_at_once_and_the_next_begins_when_one_is_done() -> None:
    saga = ordering(Order, 5)
    assert saga.sent == [Reserve(sku="s0"), Reserve(sku="s1"), Reserve(sku="s2")]
    assert reserve(saga, 1).sent == [Reserve(sku="s3")]
    assert reserve(saga, 0, 3).sent == []
    assert set(saga.instance.steps) == {"reserve[2]", "reserve[4]"}
    assert "reserve: 3 of 5 done" in (saga.instance.waiting_for or "")
    assert reserve(saga, 4, 2).sent == [Bill(lines=5)]
    assert saga.state.reserved == 5
    assert saga.receives(Billed()).status == "completed"


def test_a_list_without_items_is_done_at_once() -> None:
    assert ordering(Order, 0).sent == [Bill(lines=0)]


def test_the_row_keeps_what_is_under_way_and_the_state_is_without_the_list() -> None:
    saga = ordering(Order, 200)
    for number in range(150):
        reserve(saga, number)
    assert len(saga.instance.steps) == 3
    assert len(pack_progress(saga.instance)) < 700
    assert b"s17" not in saga.instance.state
    assert len(saga.state.lines) == 200


def test_an_item_that_fails_turns_the_saga_back_and_what_is_done_is_undone_the_last_first() -> None:
    saga = ordering(Order, 30)
    reserve(saga, *range(20))
    reserve(saga, 20, kind=OutOf)
    assert saga.instance.phase is Phase.COMPENSATING
    reserve(saga, 21)
    assert undos(saga) == ["s21"]
    reserve(saga, 22)
    assert set(undos(saga)) >= {"s21", "s22"}
    assert len(saga.instance.steps) <= 3
    for _ in range(60):
        open_ = [one for one in saga.instance.steps if saga.instance.steps[one].undo is not None]
        for path in open_:
            release(saga, int(path[8:-1]))
    assert saga.status == "compensated"
    assert sorted(undos(saga)) == sorted(f"s{number}" for number in (*range(20), 21, 22))
    assert undos(saga).index("s19") < undos(saga).index("s0")


def test_what_was_begun_after_another_was_done_is_undone_before_it() -> None:
    saga = ordering(Order, 8)
    reserve(saga, *range(8))
    saga.receives(NotBilled())
    begun, ended = {}, {}
    while saga.status != "compensated":
        path = next(path for path, one in saga.instance.steps.items() if one.undo is not None)
        release(saga, int(path[8:-1]))
    for entry in saga.history:
        if entry.kind == "compensation_sent":
            begun[entry.step] = entry.seq
        elif entry.kind == "step_compensated":
            ended[entry.step] = entry.seq
    sent = {entry.step: entry.seq for entry in saga.history if entry.kind == "command_sent"}
    done = {entry.step: entry.seq for entry in saga.history if entry.kind == "step_completed"}
    for earlier, undone in begun.items():
        for later, over in ended.items():
            if sent[later] > done[earlier]:
                assert over < undone, (earlier, later)


def test_some_may_fail_and_the_flow_goes_on_with_the_others() -> None:
    saga = ordering(Tolerant, 4)
    reserve(saga, 0)
    reserve(saga, 1, 2, kind=OutOf)
    assert saga.instance.phase is Phase.RUNNING
    assert reserve(saga, 3).sent == [Bill(lines=4)]
    assert saga.state.missing == ["s1", "s2"]
    [completed] = [one for one in saga.history if one.kind == "step_completed" and one.step == "reserve"]
    assert completed.detail == {"done": 2, "failed": 2}


def test_too_many_failures_turn_the_saga_back() -> None:
    saga = ordering(Tolerant, 4)
    reserve(saga, 0)
    reserve(saga, 1, 2, 3, kind=OutOf)
    assert saga.instance.phase is Phase.COMPENSATING
    assert saga.sent == [Release(sku="s0")]


def test_an_item_in_doubt_that_is_gone_on_without_is_undone() -> None:
    saga = ordering(Tolerant, 4)
    reserve(saga, 0, 1, 2)
    saga.advance(timedelta(seconds=11))
    assert saga.sent == [Release(sku="s3")]
    assert saga.instance.phase is Phase.RUNNING
    assert release(saga, 3).sent == [Bill(lines=4)]


def test_a_cancel_stops_what_is_not_begun_and_awaits_what_is() -> None:
    saga = ordering(Order, 9)
    reserve(saga, 0)
    saga.operator("cancel")
    reserve(saga, 1, 2)
    assert not [one for one in saga.log if one.path == "reserve[4]"]
    reserve(saga, 3)
    for number in (3, 2, 1, 0):
        release(saga, number)
    assert saga.status == "compensated"


def test_beside_other_branches_and_in_an_alternative() -> None:
    class Both(Order, key="key", version=1):
        @step(success=Billed, failure=NotBilled)
        def check(self) -> Bill:
            return Bill(lines=0)

        flow = parallel(alternative(Order.reserve, Base.bill), check)

    saga = ordering(Both, 4)
    reserve(saga, 0)
    reserve(saga, 1, kind=OutOf)
    reserve(saga, 2, 3)
    assert saga.instance.phase is Phase.RUNNING
    for number in (3, 2, 0):
        release(saga, number)
    assert saga.sent == [Bill(lines=4)]


def test_a_decision_may_read_the_list() -> None:
    class Chosen(Order, key="key", version=1):
        @decision
        def many(self) -> bool:
            return len(self.lines) > 3

        flow = Order.reserve >> when(many, Base.bill)

    assert reserve(ordering(Chosen, 3), 0, 1, 2).status == "completed"
    assert reserve(ordering(Chosen, 4), 0, 1, 2, 3).sent == [Bill(lines=4)]


def test_a_query_may_read_the_list_by_its_name() -> None:
    class Asked(Order, key="key", version=1):
        @query
        def skus(self) -> list[str]:
            return [line.sku for line in self.lines]

        @query
        def slyly(self) -> int:
            return len(getattr(self, "lin" + "es"))

        flow = Order.reserve >> Base.bill

    saga = ordering(Asked, 3)
    assert saga.asks("skus") == ["s0", "s1", "s2"]
    with pytest.raises(MethodRaised, match=r"self\.lines is worked off item by item and is not here"):
        saga.asks("slyly")


def test_an_operator_may_go_on_without_an_item() -> None:
    saga = ordering(Order, 2)
    saga.operator("skip", "reserve[0]")
    assert reserve(saga, 1).sent == [Bill(lines=2)]
    assert saga.instance.skipped == 1


def test_an_operator_may_go_on_without_an_item_whose_command_cannot_be_built() -> None:
    class Picky(Base, key="key", version=1):
        @each("lines", at_once=1)
        def reserve(self, line: Line) -> Reserve:
            if line.sku == "s1":
                raise ValueError("nobody sells that")
            return Reserve(sku=line.sku)

        @reserve.on_success
        def got(self, reply: Reserved, line: Line) -> None: ...

        flow = reserve >> Base.bill

    saga = reserve(ordering(Picky, 3), 0)
    assert saga.status == "parked"
    saga.operator("skip", "reserve[1]")
    assert reserve(saga, 2).sent == [Bill(lines=3)]


def test_what_earlier_rounds_of_a_loop_did_is_undone_too() -> None:
    class Rounds(Order, key="key", version=2, name="Order"):
        @decision
        def enough(self) -> bool:
            return self.reserved == 4

        flow = repeat(Order.reserve, until=enough, most=5) >> Base.bill

    saga = ordering(Rounds, 2)
    for path in ("reserve[0][0]", "reserve[0][1]", "reserve[1][0]", "reserve[1][1]"):
        asked = next(one for one in saga.log if one.path == path)
        saga.receives(Reserved(sku=f"s{path[-2]}"), to=asked)
    saga.receives(NotBilled())
    undone = []
    while saga.status == "compensating":
        asked = next(one for one in reversed(saga.log) if one.path not in undone)
        saga.receives(Released(), to=asked)
        undone.append(asked.path)
    assert sorted(undone[:2]) == ["reserve[1][0]", "reserve[1][1]"]
    assert sorted(undone[2:]) == ["reserve[0][0]", "reserve[0][1]"]
    assert saga.status == "compensated"


def test_an_item_that_is_asked_until_it_answers_turns_the_saga_back_as_a_step_does() -> None:
    class Sure(Base, key="key", version=1):
        @each("lines", at_once=3, in_doubt="wait", timeout=timedelta(seconds=10), retry=Retry(attempts=1))
        def reserve(self, line: Line) -> Reserve:
            return Reserve(sku=line.sku)

        @reserve.on_success
        def got(self, reply: Reserved, line: Line) -> None: ...

        @reserve.compensation(success=Released)
        def release(self, line: Line) -> Release:
            return Release(sku=line.sku)

        flow = reserve >> Base.bill

    saga = ordering(Sure, 2).advance(timedelta(seconds=11))
    assert saga.instance.phase is Phase.COMPENSATING
    assert saga.attention["in_doubt"].endswith("reserve[0], reserve[1]")
    release(reserve(saga, 0, 1), 1, 0)
    assert saga.status == "compensated"


@pytest.mark.parametrize("how", ["longer", "otherwise"])
def test_a_hook_that_changes_the_list_parks_the_saga(how: str) -> None:
    class Changing(Base, key="key", version=1):
        @each("lines")
        def reserve(self, line: Line) -> Reserve:
            return Reserve(sku=line.sku)

        @reserve.on_success
        def got(self, reply: Reserved, line: Line) -> None: ...

        @step
        def count(self) -> Bill:
            return Bill(lines=0)

        @count.on_success
        def counted(self, reply: Billed) -> None:
            if how == "longer":
                self.lines.append(Line(sku="one more"))
            else:
                self.lines[0].amount += 1

        flow = count >> reserve >> Base.bill

    saga = ordering(Changing, 2).receives(Billed())
    assert "changed self.lines, which is worked off item by item" in saga.attention["method_raised"]


def test_many_without_a_reply_are_told_and_untold_at_once() -> None:
    class Told(Base, key="key", version=1):
        @each("lines", reply=False, at_once=5)
        def tell(self, line: Line) -> Reserve:
            return Reserve(sku=line.sku)

        @tell.compensation(reply=False)
        def untell(self, line: Line) -> Release:
            return Release(sku=line.sku)

        flow = tell >> Base.bill

    saga = ordering(Told, 450).receives(NotBilled())
    assert saga.status == "compensated"
    assert undos(saga) == [f"s{number}" for number in reversed(range(450))]


def test_a_late_reply_of_an_item_that_rests_changes_nothing() -> None:
    saga = ordering(Order, 5)
    reserve(saga, 0)
    reserve(saga, 0, kind=OutOf)
    assert saga.reason == "unknown_command"
    assert saga.instance.phase is Phase.RUNNING


def test_each_is_part_of_the_shape_and_a_method() -> None:
    definition = definition_of(Order)
    assert definition.document["shape"]["steps"]["reserve"]["each"] == "lines"
    assert definition.document["policy"]["steps"]["reserve"]["at_once"] == 3
    assert Order(key="k", lines=[]).reserve(Line(sku="s")) == Reserve(sku="s")


def told(make: object) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        make()  # type: ignore[operator]
    return PLACE.sub("", str(caught.value)).splitlines()


def test_wrong_eaches_are_told() -> None:
    def make() -> None:
        class X(Base, key="key"):
            few: list[Line] = Field(default_factory=list, min_length=1)

            @each("line", at_once=0, tolerate=1.5)
            def reserve(self, line: Line) -> Reserve:
                return Reserve(sku=line.sku)

            @reserve.on_success  # type: ignore[arg-type]
            def got(self, reply: Reserved) -> None: ...

            @each("key", success=Reserved)
            def again(self, line: Line) -> Reserve:
                return Reserve(sku=line.sku)

            @each("few", success=Reserved)
            def once(self, line: Line) -> Reserve:
                return Reserve(sku=self.few[0].sku)

            @once.compensation(success=Released)  # type: ignore[arg-type]
            def never(self) -> Release:
                return Release(sku="")

            flow = reserve >> again >> once >> Base.bill

    found = told(make)
    assert "X.reserve: works off 'line', which is no field (did you mean 'lines'?); name a list of the state" in found
    assert "X.reserve: at_once=0 will not do; write a whole number from 1 to 1000" in found
    assert "X.reserve: tolerate=1.5 will not do; write how many items may fail, or a fraction below 1" in found
    assert "X.got: takes (self, reply); write def got(self, reply, item)" in found
    assert "X.again: works off key, which is no list; annotate key: list[…]" in found
    assert "X.never: takes (self); write def never(self, item)" in found
    assert "X.once: reads self.few for every item of it; it gets its own item" in found
    assert any(line.startswith("X.once: works off few, which may not be empty") for line in found)


def test_a_method_that_finds_the_list_not_there_says_so() -> None:
    class Sly(Base, key="key", version=1):
        @each("lines", success=Reserved)
        def reserve(self, line: Line) -> Reserve:
            return Reserve(sku=str(len(getattr(self, "lin" + "es"))))

        flow = reserve >> Base.bill

    saga = ordering(Sly, 1)
    assert saga.status == "parked"
    assert "self.lines is worked off item by item and is not here" in saga.attention["method_raised"]


def test_in_flight_items_are_open_commands() -> None:
    saga = ordering(Order, 2)
    assert saga.instance.steps["reserve[0]"].do.status is CallStatus.PENDING
