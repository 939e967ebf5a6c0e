"""What moving an instance to the next version of its saga comes to, and what keeps one where it is."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, Literal, Self

import pytest

from messages import Command, Event
from messages.errors import OperationRefused
from sagas import (
    Alias,
    Definition,
    Saga,
    alternative,
    decision,
    definition_of,
    each,
    lifecycle,
    migrate,
    on,
    parallel,
    repeat,
    signal,
    sleep,
    start,
    step,
    wait,
    when,
)
from sagas.instance import RESTING, WAITING
from sagas.moving import move
from sagas.outcome import Decision
from sagas.passage import passage
from sagas.patch import patch, rebuild
from sagas.prospect import Flaw
from testkit import Harness


class Asked(Event, name="moving.Asked"):
    key: str


class Do(Command, name="moving.Do"):
    key: str


class Did(Event, name="moving.Did"):
    key: str


class Failed(Event, name="moving.Failed"):
    key: str


class More(Command, name="moving.More"):
    key: str


class DidMore(Event, name="moving.DidMore"):
    key: str


class Undo(Command, name="moving.Undo"):
    key: str


class Undid(Event, name="moving.Undid"):
    key: str


class Said(Event, name="moving.Said"):
    key: str


class Nodded(Event, name="moving.Nodded"):
    key: str


class Nudge(Command, name="moving.Nudge"):
    key: str


class Both(Saga, abstract=True):
    """What all versions of all sagas here have: two steps, the first of which can be undone."""

    key: str

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(key=event.key)

    @step(success=Did, failure=Failed)
    def first(self) -> Do:
        return Do(key=self.key)

    @first.compensation(success=Undid)
    def unfirst(self) -> Undo:
        return Undo(key=self.key)


class Line(Both, key="key", name="Moving"):
    @step(success=DidMore)
    def second(self) -> More:
        return More(key=self.key)


def moved(story: Harness, to: type[Saga]) -> Decision | Flaw:
    old = story.definition
    document = json.loads(json.dumps(dict(old.document), sort_keys=True))  # as it comes from the database
    way = passage(old.version, document, definition_of(to))
    return move(way, story.instance, story.now, actor="ann", reason="why not")


def went_on(story: Harness, to: type[Saga]) -> Harness:
    """The story under the next version."""
    decided = moved(story, to)
    assert isinstance(decided, Decision), decided
    before = story.instance
    assert [rebuild([patch(None, before), patch(before, decided.instance)])] == [decided.instance]
    return story.migrates(to)


def left(story: Harness, to: type[Saga]) -> tuple[str, str]:
    flaw = moved(story, to)
    assert isinstance(flaw, Flaw), flaw
    return flaw.code, flaw.text


def begun(saga: type[Saga] | Definition) -> Harness:
    return Harness(saga).given(Asked(key="k"))


class Beside(Line, key="key", name="Moving"):
    flow = parallel(Both.first, Line.second)


def turned_back() -> Harness:
    """It was cancelled: the first step is undone, the second still awaited."""
    return begun(Beside).receives(Did(key="k")).operator("cancel").receives(Undid(key="k"))


class Renamed(Both, key="key", name="Moving", version=2):
    """The second step has another name, there is a third, and the state has grown."""

    grown: bool = False

    @migrate(1, steps={"second": "twoth"})
    @classmethod
    def from_first(cls, state: dict[str, Any]) -> Self:
        return cls(**state, grown=True)

    @step(success=DidMore)
    def twoth(self) -> More:
        return More(key=self.key)


def test_an_instance_goes_on_under_the_new_names_with_the_new_state() -> None:
    story = went_on(begun(Line), Renamed)
    assert (story.instance.version, story.instance.revision, story.state.grown) == (2, 2, True)
    [*_, row] = story.history
    assert (row.kind, row.detail) == (
        "migrated",
        {
            "from": 1,
            "to": 2,
            "actor": "operator",
            "reason": "a test",
        },
    )
    story.receives(Did(key="k")).receives(DidMore(key="k"))
    assert story.status == "completed"
    assert list(story.instance.steps) == ["first", "twoth"]


def test_a_renamed_step_is_left_while_it_is_under_way() -> None:
    code, text = left(begun(Line).receives(Did(key="k")), Renamed)
    assert (code, text) == ("under_way", "step second is under way, and it is called twoth in version 2")


class Extended(Line, key="key", name="Moving", version=3):
    """Every step of the line and one more behind them."""

    @migrate(1)
    @classmethod
    def from_first(cls, state: dict[str, Any]) -> Self:
        return cls(**state)

    @step(success=DidMore)
    def third(self) -> More:
        return More(key=self.key)

    @migrate(2, steps={"twoth": "second"})
    @classmethod
    def from_second(cls, state: dict[str, Any]) -> Self:
        del state["grown"]
        return cls(**state)


def test_what_is_new_behind_an_instance_is_done_in_its_turn() -> None:
    story = went_on(begun(Line).receives(Did(key="k")), Extended)
    (second,) = [sent for sent in story.log if sent.path == "second"]
    assert story.receives(DidMore(key="k"), to=second).sent == [More(key="k")]
    assert story.receives(DidMore(key="k")).status == "completed"


def test_a_way_may_lead_over_several_versions_or_past_one() -> None:
    assert went_on(went_on(begun(Line), Renamed), Extended).instance.version == 3
    assert went_on(begun(Line), Extended).instance.version == 3


class Inserted(Line, key="key", name="Moving", version=2):
    """One more step, before what an instance may have done already."""

    @migrate(1)
    @classmethod
    def from_first(cls, state: dict[str, Any]) -> Self:
        return cls(**state)

    @step(success=DidMore)
    def between(self) -> More:
        return More(key=self.key)

    flow = Both.first >> between >> Line.second


def test_what_is_new_before_an_instance_keeps_it_where_it_is() -> None:
    assert left(begun(Line).receives(Did(key="k")), Inserted) == (
        "other_order",
        "version 2 comes to between before second, and second has begun without it",
    )
    assert went_on(begun(Line), Inserted).receives(Did(key="k")).instance.steps.keys() == {"first", "between"}


def test_what_is_new_beside_what_is_under_way_begins_with_the_move() -> None:
    class Sooner(Line, key="key", name="Moving", version=2):
        @migrate(1)
        @classmethod
        def from_first(cls, state: dict[str, Any]) -> Self:
            return cls(**state)

        flow = parallel(Both.first, Line.second)

    story = went_on(begun(Line), Sooner)
    assert story.sent == [More(key="k")]
    assert story.kinds[-2:] == ["migrated", "command_sent"]


def test_a_parked_instance_stays_parked_and_can_be_retried() -> None:
    class Raising(Line, key="key", name="Moving"):
        @Line.second.on_failure
        def failed(self, reply: Failed) -> None: ...

        @step(success=DidMore)
        def last(self) -> More:
            raise ValueError("not yet")

    class Mended(Raising, key="key", name="Moving", version=2):
        @migrate(1)
        @classmethod
        def from_first(cls, state: dict[str, Any]) -> Self:
            return cls(**state)

        @step(success=DidMore)
        def last(self) -> More:
            return More(key=self.key)

    story = begun(Raising).receives(Did(key="k")).receives(DidMore(key="k"))
    assert story.status == "parked"
    story = went_on(story, Mended)
    assert (story.status, story.sent) == ("parked", [])
    assert story.operator("retry").sent == [More(key="k")]


def test_a_paused_instance_stays_paused() -> None:
    story = went_on(begun(Line).operator("pause"), Renamed)
    assert story.instance.paused
    assert story.operator("resume").receives(Did(key="k")).sent == [More(key="k")]


class Another(Saga, key="key", name="Moving", version=2):
    """Without the first step."""

    key: str

    @migrate(1)
    @classmethod
    def from_first(cls, state: dict[str, Any]) -> Self:
        return cls(**state)

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(key=event.key)

    @step(success=DidMore)
    def second(self) -> More:
        return More(key=self.key)


def test_a_step_that_is_gone_keeps_an_instance_while_it_may_have_to_be_undone() -> None:
    story = begun(Line)
    assert left(story, Another)[0] == "under_way"
    assert left(story.receives(Did(key="k")), Another) == (
        "may_be_undone",
        "step first may still have to be undone, and it is not in version 2",
    )


def test_a_step_that_is_gone_is_forgotten_once_nothing_of_it_can_come() -> None:
    story = turned_back()
    assert "first" in story.instance.steps
    story = went_on(story, Another)
    assert "first" not in story.instance.steps
    assert story.status == "compensating"


def test_an_undo_that_is_gone_keeps_an_instance() -> None:
    class NoUndo(Saga, key="key", name="Moving", version=2):
        key: str

        @migrate(1)
        @classmethod
        def from_first(cls, state: dict[str, Any]) -> Self:
            return cls(**state)

        @start
        def asked(cls, event: Asked) -> Self:
            return cls(key=event.key)

        @step(success=Did, failure=Failed)
        def first(self) -> Do:
            return Do(key=self.key)

        @step(success=DidMore)
        def second(self) -> More:
            return More(key=self.key)

    assert left(begun(Line).receives(Did(key="k")), NoUndo) == (
        "may_be_undone",
        "step first may still have to be undone, and has no undo in version 2",
    )


def test_another_command_keeps_an_instance_whose_own_is_under_way() -> None:
    class Another(Saga, key="key", name="Moving", version=2):
        key: str

        @migrate(1)
        @classmethod
        def from_first(cls, state: dict[str, Any]) -> Self:
            return cls(**state)

        @start
        def asked(cls, event: Asked) -> Self:
            return cls(key=event.key)

        @step(success=Did, failure=Failed)
        def first(self) -> More:
            return More(key=self.key)

        @first.compensation(success=Undid)
        def unfirst(self) -> Undo:
            return Undo(key=self.key)

        @step(success=DidMore)
        def second(self) -> More:
            return More(key=self.key)

    assert left(begun(Line), Another) == (
        "under_way",
        "step first is under way, and in version 2 step first sent moving.Do version 1, sends moving.More version 1",
    )
    assert went_on(begun(Line).receives(Did(key="k")), Another).status == "running"


def test_a_state_that_cannot_be_made_keeps_an_instance() -> None:
    class Raising(Line, key="key", name="Moving", version=2):
        @migrate(1)
        @classmethod
        def from_first(cls, state: dict[str, Any]) -> Self:
            return cls(**{**state, "more": 1})

    code, text = left(begun(Line), Raising)
    assert code == "method_raises"
    assert text.startswith("Moving.from_first: ValidationError: ")
    assert "(test_moving.py:" in text


def test_an_instance_that_has_ended_is_not_moved() -> None:
    story = begun(Line).receives(Did(key="k")).receives(DidMore(key="k"))
    assert left(story, Renamed) == ("ended", "it is completed")


# -- rests and waits


class Waiting(Both, key="key", name="Moving"):
    @sleep
    def nap(self) -> timedelta:
        return timedelta(hours=1)

    @wait(timeout=timedelta(days=1))
    def nod(self, event: Said) -> None: ...

    @nod.reminder(after=timedelta(hours=2))
    def nudge(self) -> Nudge:
        return Nudge(key=self.key)

    flow = Both.first >> nap >> nod


class Patient(Both, key="key", name="Moving", version=2):
    """The rest and the wait have other names, the wait has no timeout, and other reminders."""

    @migrate(1, places={"nap": "rest", "nod": "approval"})
    @classmethod
    def from_first(cls, state: dict[str, Any]) -> Self:
        return cls(**state)

    @sleep
    def rest(self) -> timedelta:
        return timedelta(hours=1)

    @wait
    def approval(self, event: Said) -> None: ...

    @approval.reminder(after=timedelta(hours=3))
    def remind(self) -> Nudge:
        return Nudge(key=self.key)

    flow = Both.first >> rest >> approval


def test_a_rest_under_way_goes_on_under_its_new_name() -> None:
    story = went_on(begun(Waiting).receives(Did(key="k")), Patient)
    assert story.instance.choices == {"rest": RESTING}
    assert story.instance.timers.keys() == {"deadline", "rest/sleep"}
    assert story.advance(timedelta(hours=1)).instance.choices["approval"] == WAITING


def test_a_wait_under_way_loses_the_timers_that_are_gone_and_gets_those_that_are_new() -> None:
    story = begun(Waiting).receives(Did(key="k")).advance(timedelta(hours=2))
    assert {"nod/timeout", "nod/nudge"} <= story.instance.timers.keys()
    story = went_on(story, Patient)
    assert story.instance.choices == {"rest": "rested", "approval": WAITING, "#used/nod": "1"}
    assert story.instance.timers.keys() == {"deadline", "approval/remind"}
    assert story.instance.timers["approval/remind"].due_at == story.now + timedelta(hours=3)
    assert story.hears(Said(key="k")).status == "completed"


def test_a_wait_that_gets_a_timeout_has_it_from_now_on() -> None:
    class Impatient(Waiting, key="key", name="Moving", version=3):
        @migrate(2, places={"rest": "nap", "approval": "nod"})
        @classmethod
        def from_second(cls, state: dict[str, Any]) -> Self:
            return cls(**state)

    story = begun(Patient).receives(Did(key="k")).advance(timedelta(hours=2))
    story = went_on(story, Impatient)
    assert story.instance.timers["nod/timeout"].due_at == story.now + timedelta(days=1)
    assert story.advance(timedelta(days=2)).instance.end_reason == "timed_out"


def test_a_wait_under_way_keeps_an_instance_where_it_is_gone_or_another_event_ends_it() -> None:
    class Gone(Line, key="key", name="Moving", version=2):
        @migrate(1)
        @classmethod
        def from_first(cls, state: dict[str, Any]) -> Self:
            return cls(**state)

    class Other(Both, key="key", name="Moving", version=2):
        @migrate(1)
        @classmethod
        def from_first(cls, state: dict[str, Any]) -> Self:
            return cls(**state)

        @sleep
        def nap(self) -> timedelta:
            return timedelta(hours=1)

        @wait
        def nod(self, event: DidMore) -> None: ...

        flow = Both.first >> nap >> nod

    story = begun(Waiting).receives(Did(key="k"))
    assert left(story, Gone) == ("no_such_place", "nap is under way, and is not in version 2")
    story.advance(timedelta(hours=1))
    assert left(story, Gone) == ("no_such_place", "nod is under way, and is not in version 2")
    assert left(story, Other) == ("no_such_place", "nod is under way, and moving.Said does not end it in version 2")


# -- branches, loops and states


class Branched(Both, key="key", name="Moving"):
    @step(success=DidMore, failure=Failed)
    def fly(self) -> More:
        return More(key=self.key)

    @step(success=DidMore)
    def ride(self) -> More:
        return More(key=self.key)

    flow = alternative(fly, ride) >> Both.first


class Branching(Branched, abstract=True):
    @migrate(1)
    @classmethod
    def from_first(cls, state: dict[str, Any]) -> Self:
        return cls(**state)


def test_what_was_given_up_stays_given_up() -> None:
    class Same(Branching, key="key", name="Moving", version=2):
        @step(success=DidMore)
        def last(self) -> More:
            return More(key=self.key)

        flow = alternative(Branched.fly, Branched.ride) >> Both.first >> last

    story = went_on(begun(Branched).receives(Failed(key="k")), Same)
    assert story.instance.choices == {"alternative": "1"}
    (ride,) = [sent for sent in story.log if sent.path == "ride"]
    story.receives(DidMore(key="k"), to=ride).receives(Did(key="k")).receives(DidMore(key="k"))
    assert story.status == "completed"


def test_branches_in_another_order_keep_an_instance_that_has_given_one_up() -> None:
    class Turned(Branching, key="key", name="Moving", version=2):
        flow = alternative(Branched.ride, Branched.fly) >> Both.first

    assert left(begun(Branched).receives(Failed(key="k")), Turned) == (
        "no_such_place",
        "fly stood in branch '0' of alternative, and does not in version 2",
    )
    assert went_on(begun(Branched), Turned).status == "running"


def test_a_flow_without_branches_keeps_an_instance_that_has_given_one_up() -> None:
    class Straight(Branching, key="key", name="Moving", version=2):
        flow = Branched.fly >> Branched.ride >> Both.first

    assert left(begun(Branched).receives(Failed(key="k")), Straight)[0] == "no_such_place"


class Racing(Both, key="key", name="Moving"):
    @step(success=DidMore, failure=Failed)
    def fly(self) -> More:
        return More(key=self.key)

    @step(success=DidMore)
    def ride(self) -> More:
        return More(key=self.key)

    flow = parallel(fly, ride, first=1) >> Both.first


def test_a_branch_that_was_lost_stays_lost_and_nothing_else_is_taken_for_it() -> None:
    class Raced(Racing, abstract=True):
        @migrate(1)
        @classmethod
        def from_first(cls, state: dict[str, Any]) -> Self:
            return cls(**state)

    class Same(Raced, key="key", name="Moving", version=2):
        flow = parallel(Racing.fly, Racing.ride, first=1) >> Both.first

    class Turned(Raced, key="key", name="Moving", version=2):
        flow = parallel(Racing.ride, Racing.fly, first=1) >> Both.first

    class Strict(Raced, key="key", name="Moving", version=2):
        flow = parallel(Racing.fly, Racing.ride) >> Both.first

    story = begun(Racing)
    fly, ride = story.log
    story.receives(Failed(key="k"), to=fly)
    assert story.instance.choices == {"parallel/lost": "0"}
    assert left(story, Turned) == (
        "no_such_place",
        "fly stood in branch '0' of parallel, and does not in version 2",
    )
    assert left(story, Strict) == (
        "other_order",
        "fly was in a branch that is given up, and version 2 cannot do without it",
    )
    story = went_on(story, Same).receives(DidMore(key="k"), to=ride)
    assert story.receives(Did(key="k")).status == "completed"


class Looping(Both, key="key", name="Moving"):
    times: int = 0

    @step
    def again(self) -> More:
        return More(key=self.key)

    @again.on_success
    def done(self, reply: DidMore) -> None:
        self.times += 1

    @decision
    def enough(self) -> bool:
        return self.times > 1

    flow = repeat(again, until=enough, most=9) >> Both.first


def test_a_loop_goes_on_in_its_time_and_keeps_an_instance_where_there_is_none() -> None:
    class Longer(Looping, key="key", name="Moving", version=2):
        @migrate(1)
        @classmethod
        def from_first(cls, state: dict[str, Any]) -> Self:
            return cls(**state)

        @step(success=DidMore)
        def last(self) -> More:
            return More(key=self.key)

        flow = repeat(Looping.again, until=Looping.enough, most=9) >> Both.first >> last

    class Once(Looping, key="key", name="Moving", version=2):
        @migrate(1)
        @classmethod
        def from_first(cls, state: dict[str, Any]) -> Self:
            return cls(**state)

        flow = Looping.again >> when(Looping.enough, Both.first)

    story = begun(Looping).receives(DidMore(key="k"))
    assert left(story, Once)[0] == "no_such_place"
    assert left(begun(Looping), Once) == (
        "no_such_place",
        "it has come to again[0], which version 2 has at another place",
    )
    story = went_on(story, Longer)
    assert story.instance.choices == {"repeat": "1"}
    assert story.instance.steps.keys() == {"again[1]"}


class Living(Both, key="key", name="Moving"):
    @on("trial", elsewhere="ignore")
    def paid(self, event: Said) -> Literal["active"]:
        return "active"

    @on("active", elsewhere="ignore")
    def ended(self, event: Nodded) -> Literal["over"]:
        return "over"

    flow = Both.first >> lifecycle("trial", final=["over"])


def test_a_state_stays_and_a_time_that_is_new_in_it_begins_now() -> None:
    class Timed(Both, key="key", name="Moving", version=2):
        @migrate(1)
        @classmethod
        def from_first(cls, state: dict[str, Any]) -> Self:
            return cls(**state)

        @on("trial")
        def paid(self, event: Said) -> Literal["over"]:
            return "over"

        @on("trial", after=timedelta(days=3))
        def lapsed(self) -> Literal["over"]:
            return "over"

        flow = Both.first >> lifecycle("trial", final=["over"])

    after = went_on(begun(Living).receives(Did(key="k")), Timed)
    assert after.instance.timers["lifecycle/lapsed"].due_at == after.now + timedelta(days=3)
    assert after.advance(timedelta(days=3)).status == "completed"
    story = begun(Living).receives(Did(key="k")).hears(Said(key="k"))
    assert left(story, Timed) == ("no_such_place", "it is in state active, which version 2 does not have")


# -- what a class says of it


def refused(to: type[Saga], version: int = 1) -> str:
    with pytest.raises(OperationRefused) as caught:
        passage(version, definition_of(Line).document, definition_of(to))
    return str(caught.value)


def test_a_class_that_does_not_say_how_is_refused() -> None:
    class Silent(Line, key="key", name="Moving", version=2): ...

    assert "write @migrate(1) and @classmethod over a method that makes its state" in refused(Silent)
    assert "it goes to a higher version" in refused(Renamed, version=2)


def test_a_name_that_meant_another_step_before_keeps_an_instance() -> None:
    class Again(Line, key="key", name="Moving", version=3):
        @migrate(2)
        @classmethod
        def from_second(cls, state: dict[str, Any]) -> Self:
            return cls(**state)

    story = turned_back()
    story = went_on(story, Another)
    assert story.instance.choices == {"#used/first": "1"}
    assert left(story, Again) == (
        "name_used_before",
        "it has had another first before, and messages of both would have the same ids",
    )


class Listing(Saga, key="key", name="Moving", version=2):
    key: str
    keys: list[str]

    @migrate(1)
    @classmethod
    def from_first(cls, state: dict[str, Any]) -> Self:
        return cls(**state)

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(key=event.key, keys=[event.key])

    @each("keys", success=Did)
    def first(self, key: str) -> Do:
        return Do(key=key)


def test_a_saga_whose_items_stand_beside_it_is_refused() -> None:
    assert "works off a list item by item in version 1 or 2" in refused(Listing)
    way = definition_of(Listing).document
    with pytest.raises(OperationRefused, match="keep the old class until its instances have ended"):
        passage(2, way, definition_of(Extended))


def test_names_that_the_old_version_did_not_have_are_refused() -> None:
    class Misspelt(Renamed, key="key", name="Moving", version=2):
        @migrate(1, steps={"secnd": "twoth"})
        @classmethod
        def from_first(cls, state: dict[str, Any]) -> Self:
            return cls(**state)

    class Two(Line, key="key", name="Moving", version=2):
        @migrate(1, steps={"first": "second"})
        @classmethod
        def from_first(cls, state: dict[str, Any]) -> Self:
            return cls(**state)

    assert refused(Misspelt) == (
        "Moving.from_first, @migrate(1, steps=…): version 1 has no 'secnd' (did you mean 'second'?); correct it"
    )
    assert "version 1 has second already, and what was two cannot be one" in refused(Two)


class Named(Event, name="moving.Named"):
    parcel: str


BY_PARCEL = {Named: Alias("parcel")}


class Known(Saga, abstract=True):
    """Has other names from the beginning."""

    key: str
    parcel: str | None = None
    box: str | None = None

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(key=event.key, parcel="A", box="X")

    @signal
    def named(self, event: Named) -> None: ...

    @step(success=Did)
    def do(self) -> Do:
        return Do(key=self.key)


def test_what_an_instance_is_known_by_goes_with_it_and_may_be_dropped_or_added() -> None:
    class Old(Known, key="key", name="Known", aliases=("parcel", "box"), keys=BY_PARCEL): ...

    class New(Known, key="key", name="Known", version=2, aliases=("parcel", "crate"), keys=BY_PARCEL):
        crate: str | None = None

        @migrate(1)
        @classmethod
        def from_1(cls, state: dict[str, Any]) -> Self:
            return cls(**{**state, "crate": state["box"], "parcel": "B"})

    story = Harness(Old).given(Asked(key="k"))
    assert story.aliases == {"parcel": "A", "box": "X"}
    story.migrates(New)
    assert story.aliases == {"parcel": "B", "crate": "X"}
    assert story.kinds[-2:] == ["migrated", "aliased"]
    assert story.hears(Named(parcel="B")).kinds[-1] == "signal_received"
    with pytest.raises(AssertionError, match=r"is not found by this moving.Named: its parcel is 'B', not 'A'"):
        story.hears(Named(parcel="A"))
