"""A step that another saga does: what it means in a class, how it goes and goes back, and what its authors read."""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import types
from dataclasses import replace
from datetime import timedelta
from typing import Self

import pytest

from messages import CancelSaga, Command, Event, NotStarted
from messages.errors import DefinitionError, OperationRefused
from sagas import (
    Patience,
    Policies,
    Registry,
    Saga,
    alternative,
    announce,
    child,
    decision,
    definition_of,
    migrate,
    parallel,
    repeat,
    start,
    step,
    with_policies,
)
from sagas.difference import difference
from sagas.instance import CallStatus
from sagas.names import PARENT
from sagas.prospect import prospect
from testkit import Harness
from tests.sagas.test_definition_errors import PLACE


class Booked(Event, name="child.Booked"):
    key: str


class Do(Command, name="child.Do"):
    step: str


class Done(Event, name="child.Done"):
    step: str


class Failed(Event, name="child.Failed"):
    step: str


class Booking(Saga, abstract=True):
    """The start of every parent."""

    key: str

    @start
    def booked(cls, event: Booked) -> Self:
        return cls(key=event.key)


class Wanted(Event, name="child.Wanted"):
    key: str


class Arranged(Event, name="child.Arranged"):
    key: str


class Impossible(Event, name="child.Impossible"):
    key: str


class Other(Event, name="child.Other"):
    key: str


class Undo(Command, name="child.Undo"):
    key: str


class Undone(Event, name="child.Undone"):
    key: str


class Small(Saga, key="key"):
    """A child."""

    key: str

    @start
    def wanted(cls, event: Wanted) -> Self:
        return cls(key=event.key)

    @step(success=Done, failure=Failed)
    def work(self) -> Do:
        return Do(step="work")

    @announce("completed")
    def arranged(self) -> Arranged:
        return Arranged(key=self.key)

    @announce("compensated")
    def impossible(self) -> Impossible:
        return Impossible(key=self.key)


class Mute(Saga, key="key"):
    """One that nobody hears of."""

    key: str

    @start
    def wanted(cls, event: Wanted) -> Self:
        return cls(key=event.key)

    @step(success=Done)
    def work(self) -> Do:
        return Do(step="work")


class Ambiguous(Mute, key="key"):
    """One of which nobody hears how it has ended."""

    @announce("completed", "compensated")
    def ended(self) -> Other:
        return Other(key=self.key)


class Large(Booking, key="key"):
    """A parent."""

    said: str = ""

    @child(Small, undo=Undo)
    def small(self) -> Wanted:
        return Wanted(key=f"{self.key}/small")

    @small.on_success
    def arranged(self, reply: Arranged) -> None:
        self.said = reply.key

    @small.on_failure
    def not_begun(self, reply: Impossible | NotStarted) -> None:
        self.said = type(reply).__name__

    @small.compensation(success=Undone)
    def undo(self) -> Undo:
        return Undo(key=self.key)

    @step(success=Done, failure=Failed)
    def after(self) -> Do:
        return Do(step="after")


def begun(saga=Large) -> Harness:
    return Harness(saga).given(Booked(key="k"))


# -- how it goes


def test_what_the_child_announces_of_its_end_is_the_answer() -> None:
    story = begun()
    assert story.sent == [Wanted(key="k/small")]
    assert story.instance.waiting_for == "the end of Small 'k/small' (step small)"
    assert list(story.instance.timers) == ["deadline"]
    story.receives(Arranged(key="k/small"))
    assert (story.state.said, story.sent) == ("k/small", [Do(step="after")])
    assert story.instance.choices == {}


@pytest.mark.parametrize(
    "answer", [Impossible(key="k/small"), NotStarted(saga_type="Small", key="k/small", reason="key_taken")]
)
def test_a_child_that_was_compensated_or_not_started_fails_the_step(answer) -> None:
    story = begun().receives(answer)
    assert (story.status, story.instance.end_reason, story.state.said) == (
        "compensated",
        "failed",
        type(answer).__name__,
    )


def test_a_child_that_has_completed_is_undone_by_the_command() -> None:
    story = begun().receives(Arranged(key="k/small")).receives(Failed(step="after"))
    assert story.sent == [Undo(key="k")]
    assert story.receives(Undone(key="k")).status == "compensated"


def test_a_child_under_way_is_cancelled_once_and_awaited() -> None:
    story = begun().operator("cancel")
    [cancel] = story.sent
    assert cancel == CancelSaga(key="k/small", start=f"{story.instance.saga_id}/small/1/do")
    assert story.instance.waiting_for == "the end of Small 'k/small', which is cancelled (step small)"
    assert story.advance(timedelta(hours=1)).sent == []
    assert story.receives(Impossible(key="k/small")).status == "compensated"


def test_a_child_that_completes_although_it_is_cancelled_is_undone() -> None:
    story = begun().operator("cancel").receives(Arranged(key="k/small"))
    assert story.sent == [Undo(key="k")]


def test_the_deadline_cancels_it_too() -> None:
    story = begun().advance(timedelta(days=7))
    assert [type(each) for each in story.sent] == [CancelSaga]


def test_a_child_with_a_timeout_is_cancelled_and_fails_the_step_as_timed_out() -> None:
    class Hasty(Booking, key="key"):
        @child(Small, undo=None, timeout=timedelta(minutes=5))
        def small(self) -> Wanted:
            return Wanted(key=self.key)

    story = begun(Hasty).advance(timedelta(minutes=4))
    assert story.sent == []
    story.advance(timedelta(minutes=1))
    assert [type(each) for each in story.sent] == [CancelSaga]
    assert (story.status, list(story.instance.timers)) == ("running", ["deadline"])
    story.receives(Impossible(key="k"))
    assert (story.status, story.instance.end_reason) == ("compensated", "timed_out")
    late = begun(Hasty).advance(timedelta(minutes=5)).receives(Arranged(key="k"))
    assert late.status == "completed"


def test_a_timeout_can_be_set_where_the_application_is_put_together() -> None:
    policies = Policies(calls={"small": Patience(timeout=timedelta(minutes=1))})
    story = Harness(with_policies(definition_of(Large), policies)).given(Booked(key="k")).advance(timedelta(minutes=1))
    assert [type(each) for each in story.sent] == [CancelSaga]
    assert definition_of(Large).document["policy"]["steps"]["small"]["do"]["timeout"] is None


def test_an_operator_asks_a_child_again_as_another_attempt_at_the_same_start() -> None:
    story = begun()
    [first] = story.log
    story.operator("retry", "small")
    second = story.log[-1]
    assert second.command == first.command
    assert second.message_id != first.message_id
    assert second.idempotency_key == first.idempotency_key
    assert story.receives(Arranged(key="k/small"), to=first).state.said == "k/small"


def test_an_operator_cancels_a_child_again() -> None:
    story = begun().operator("cancel")
    story.operator("retry", "small")
    assert [type(each) for each in story.sent] == [CancelSaga]


def test_children_stand_side_by_side_and_the_one_under_way_is_cancelled() -> None:
    class Both(Booking, key="key"):
        @child(Small, undo=None)
        def left(self) -> Wanted:
            return Wanted(key="left")

        @child(Small, undo=None)
        def right(self) -> Wanted:
            return Wanted(key="right")

        flow = parallel(left, right)

    story = begun(Both)
    left, right = story.log
    assert story.sent == [Wanted(key="left"), Wanted(key="right")]
    story.receives(Impossible(key="left"), to=left)
    assert [each.key for each in story.sent] == ["right"]
    assert story.receives(Impossible(key="right"), to=right).status == "compensated"


def test_the_branch_that_is_given_up_has_its_child_cancelled_while_the_rest_goes_on() -> None:
    class First(Booking, key="key"):
        @child(Small, undo=None)
        def slow(self) -> Wanted:
            return Wanted(key="slow")

        @step(success=Done)
        def quick(self) -> Do:
            return Do(step="quick")

        @step(success=Other)
        def after(self) -> Do:
            return Do(step="after")

        flow = parallel(slow, quick, first=1) >> after

    story = begun(First).receives(Done(step="quick"))
    assert [type(each) for each in story.sent] == [Do, CancelSaga]
    story.receives(Other(key="k"))
    assert story.status == "running"
    assert story.receives(Impossible(key="slow")).status == "completed"


def test_the_alternative_begins_when_the_child_was_compensated() -> None:
    class Choosing(Booking, key="key"):
        @child(Small, undo=None)
        def small(self) -> Wanted:
            return Wanted(key="k")

        @step(success=Done)
        def instead(self) -> Do:
            return Do(step="instead")

        flow = alternative(small, instead)

    assert begun(Choosing).receives(Impossible(key="k")).sent == [Do(step="instead")]


def test_a_loop_starts_a_child_each_time() -> None:
    class Again(Booking, key="key"):
        times: int = 0

        @child(Small, undo=None)
        def small(self) -> Wanted:
            return Wanted(key=f"k/{self.times}")

        @small.on_success
        def done(self, reply: Arranged) -> None:
            self.times += 1

        @decision
        def enough(self) -> bool:
            return self.times == 2

        flow = repeat(small, until=enough, most=3)

    story = begun(Again).receives(Arranged(key="k/0"))
    assert story.sent == [Wanted(key="k/1")]
    assert story.receives(Arranged(key="k/1")).status == "completed"
    assert story.instance.choices.keys() == {"repeat", "repeat/enough"}


def test_what_alone_would_tell_of_a_child_is_not_cancelled() -> None:
    story = begun()
    with pytest.raises(OperationRefused, match="nothing else would end the child of small; reschedule it"):
        story.operator("cancel_timer", timer="deadline")
    story.operator("cancel")
    with pytest.raises(OperationRefused, match="nothing else would tell of the child of small; reschedule it"):
        story.operator("cancel_timer", timer="overdue")


def test_a_start_without_a_key_parks_the_parent() -> None:
    class Keyless(Booking, key="key"):
        @child(Small, undo=None)
        def small(self) -> Wanted:
            return Wanted(key="")

    story = begun(Keyless)
    assert story.status == "parked"
    assert "Keyless.small: MissingKey" in story.attention["method_raised"]


# -- the child's side


def test_both_may_run_each_with_a_story_of_its_own() -> None:
    parent = begun()
    small = parent.child(Small)
    assert small.sent == [Do(step="work")]
    small.receives(Done(step="work"))
    assert small.announced == [Arranged(key="k/small")]
    assert parent.answered(small).state.said == "k/small"
    assert small.kinds[-3:] == ["completed", "announced", "parent_answered"]


def test_a_child_that_nobody_started_so_answers_nobody() -> None:
    small = Harness(Small).given(Wanted(key="alone")).receives(Done(step="work"))
    assert "parent_answered" not in small.kinds
    assert PARENT not in small.instance.choices
    with pytest.raises(AssertionError, match="has not ended"):
        begun().answered(small)


def test_a_cancel_turns_back_what_the_same_parent_started_and_nothing_else() -> None:
    parent = begun()
    small = parent.child(Small)
    [cancel] = parent.operator("cancel").sent
    small.told(cancel.model_copy(update={"start": "somebody else's"}))
    assert (small.status, small.reason) == ("running", "started_by_another")
    small.told(cancel)
    assert (small.status, small.instance.end_reason) == ("compensating", "cancelled")
    small.told(cancel)
    assert small.reason == "turned_back"
    small.receives(Failed(step="work"))
    assert small.status == "compensated"
    small.told(cancel)
    assert (small.reason, small.kinds[-1]) == ("ended", "parent_answered")


def test_a_child_that_was_parked_is_cancelled_as_well() -> None:
    parent = begun()
    small = parent.child(Small)
    small._instance = replace(small.instance, attention={"method_raised": "Small.work: x"})
    small.told(parent.operator("cancel").sent[0])
    assert small.status == "compensating"


# -- what else reads a definition


class Later(Large, key="key", name="Large", version=2):
    """The next version."""

    @migrate(1)
    @classmethod
    def from_1(cls, state) -> Self:
        return cls(**state)


def test_a_parent_migrates_with_a_child_under_way() -> None:
    assert begun().migrates(Later).receives(Arranged(key="k/small")).sent == [Do(step="after")]
    assert [type(each) for each in begun().migrates(Later).operator("cancel").sent] == [CancelSaga]


def test_a_child_migrates_only_to_a_version_that_tells_its_parent_what_it_waits_for() -> None:
    class Next(Small, key="key", name="Small", version=2):
        @migrate(1)
        @classmethod
        def from_1(cls, state) -> Self:
            return cls(**state)

    class Silent(Mute, key="key", name="Small", version=2):
        @step(success=Done, failure=Failed)
        def work(self) -> Do:
            return Do(step="work")

        @migrate(1)
        @classmethod
        def from_1(cls, state) -> Self:
            return cls(**state)

    small = begun().child(Small).migrates(Next)
    assert small.receives(Done(step="work")).kinds[-1] == "parent_answered"
    with pytest.raises(AssertionError, match=r"its parent waits for child\.Arranged, which version 2"):
        begun().child(Small).migrates(Silent)
    assert Harness(Small).given(Wanted(key="k")).migrates(Silent).status == "running"


def test_the_child_is_part_of_the_shape() -> None:
    class Twin(Small, key="key", name="Twin"):
        pass

    class Changed(Booking, key="key", name="Large"):
        @child(Twin, undo=None)
        def small(self) -> Wanted:
            return Wanted(key=self.key)

    class Before(Booking, key="key", name="Large"):
        @child(Small, undo=None)
        def small(self) -> Wanted:
            return Wanted(key=self.key)

    found = difference(definition_of(Before).document, definition_of(Changed).document)
    assert [change.text for change in found.changes if change.refused] == ["step small started Small, starts Twin"]


def test_nothing_is_wrong_with_what_lies_ahead_of_parents_and_children() -> None:
    parent = begun()
    for story in (parent, parent.child(Small), begun().operator("cancel")):
        assert prospect(story.definition, story.instance, story.now).flaws == ()


def test_a_saga_that_starts_itself_through_others_is_refused() -> None:
    class A(Small, key="key", name="A"):
        pass

    class B(Booking, key="key", name="B"):
        @child(A, undo=None)
        def a(self) -> Wanted:
            return Wanted(key=self.key)

        @announce("completed")
        def good(self) -> Other:
            return Other(key=self.key)

        @announce("compensated")
        def bad(self) -> Undone:
            return Undone(key=self.key)

    class A2(Small, key="key", name="A", version=2):
        @child(B, undo=None)
        def b(self) -> Booked:
            return Booked(key=self.key)

        flow = b >> Small.work

    Registry([definition_of(A), definition_of(B)])
    with pytest.raises(DefinitionError) as caught:
        Registry([definition_of(A), definition_of(B), definition_of(A2)])
    assert str(caught.value) == (
        "A starts itself: A starts B starts A, and so on without end; "
        "let one of them do without the next, or start it with an event that it announces"
    )


def test_a_version_of_a_child_that_its_parent_does_not_understand_is_refused() -> None:
    class Newer(Mute, key="key", name="Small", version=2):
        @announce("completed")
        def arranged(self) -> Other:
            return Other(key=self.key)

        @announce("compensated")
        def impossible(self) -> Impossible:
            return Impossible(key=self.key)

    with pytest.raises(DefinitionError) as caught:
        Registry(map(definition_of, (Small, Newer, Large)))
    assert str(caught.value) == (
        "Large.small: Small version 2 announces Other when it is completed, which Large version 1 does not take; "
        "add it to success="
    )


# -- what authors read


def test_a_child_of_nothing() -> None:
    with pytest.raises(DefinitionError, match=r"@child does not say which saga, but <function .*; write @child\(Del"):

        class X(Booking, key="key"):
            @child
            def small(self) -> Wanted: ...


class Abstract(Saga, abstract=True):
    """To be extended."""


GALLERY = {
    "mute": (
        (Mute, {"undo": None}, Wanted),
        "X.small: starts Mute, which tells nobody that it has completed, so that nothing could follow from it; "
        'write a method under @announce("completed") in Mute',
        "X.small: starts Mute, which tells nobody that it was compensated, so that nothing could follow from it; "
        'write a method under @announce("compensated") in Mute',
    ),
    "ambiguous": (
        (Ambiguous, {"undo": None}, Wanted),
        "X.small: starts Ambiguous, which announces Other whether it has completed or was compensated; "
        "let it announce an event of its own for each",
    ),
    "no undo": (
        (Small, {}, Wanted),
        "X.small: does not say what undoes Small once it has completed, for what has ended is never opened again; "
        "write undo=… with the command, and a method under @small.compensation that builds it, or undo=None",
    ),
    "nothing builds the undo": (
        (Small, {"undo": Undo}, Wanted),
        "X.small: says undo=Undo, and nothing builds it; write a method under @small.compensation that returns it",
    ),
    "undo is no command": (
        (Small, {"undo": Other}, Wanted),
        "X.small: undo=Other will not do; write the Command that undoes what the child did, or None",
    ),
    "another start": (
        (Small, {"undo": None}, Other),
        "X.small: returns Other, which does not start Small; return Wanted",
    ),
    "another answer": (
        (Small, {"undo": None, "success": Other}, Wanted),
        "X.small: takes Other for its success, and Small announces Arranged when it has completed; take that",
    ),
    "abstract": (
        (Abstract, {"undo": None}, Wanted),
        "X.small: starts Abstract, which is abstract; name a class that extends it",
    ),
    "retry": (
        (Small, {"undo": None, "retry": 3}, Wanted),
        "X.small: unknown keyword retry=; there are undo, timeout, success, failure, pivot",
    ),
}


@pytest.mark.parametrize("given", GALLERY)
def test_the_author_reads(given: str) -> None:
    (saga, keywords, event), *lines = GALLERY[given]

    def small(self): ...

    small.__annotations__["return"] = event
    with pytest.raises(DefinitionError) as caught:
        types.new_class("X", (Booking,), {"key": "key"}, lambda body: body.update(small=child(saga, **keywords)(small)))
    assert PLACE.sub("", str(caught.value)).splitlines() == lines


def test_a_compensation_beside_undo_none_or_of_another_command() -> None:
    with pytest.raises(DefinitionError) as caught:

        class X(Booking, key="key"):
            @child(Small, undo=None)
            def small(self) -> Wanted: ...

            @small.compensation(reply=False)
            def undo(self) -> Undo: ...

            @child(Small, undo=Undo)
            def other(self) -> Wanted: ...

            @other.compensation(reply=False)
            def undo_other(self) -> Do: ...

    assert PLACE.sub("", str(caught.value)).splitlines() == [
        "X.small: says undo=None and has the compensation 'undo'; remove one of them",
        "X.other: says undo=Undo, and its compensation builds Do; make them the same",
    ]


def test_a_child_behind_the_pivot_may_fail_and_is_refused_there() -> None:
    with pytest.raises(DefinitionError, match="comes after the pivot 'signed' and may fail"):

        class X(Booking, key="key"):
            @step(success=Done, pivot=True)
            def signed(self) -> Do: ...

            @child(Small, undo=None)
            def small(self) -> Wanted: ...

            flow = signed >> small


def test_a_child_may_be_the_pivot() -> None:
    class Signing(Booking, key="key"):
        @child(Small, undo=None, pivot=True)
        def small(self) -> Wanted:
            return Wanted(key=self.key)

    story = begun(Signing)
    with pytest.raises(OperationRefused, match="its pivot small was sent"):
        story.operator("cancel")
    assert story.instance.steps["small"].do.status is CallStatus.PENDING
    assert story.receives(Impossible(key="k")).status == "compensated"
