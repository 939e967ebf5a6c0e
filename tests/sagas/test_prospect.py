"""What a new release would make of the instances of an old one: the old class brings them where they are, the new one
is asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Self

import pytest

from messages import Command, Event
from sagas import Saga, alternative, decision, definition_of, sleep, start, step, when
from sagas.instance import Instance, Timer
from sagas.outcome import Arrived
from sagas.prospect import Flaw, Prospect, failure, failure_of_start, prospect
from testkit import Harness


class Asked(Event, name="prospect.Asked"):
    key: str


class Book(Command, name="prospect.Book"):
    key: str
    note: str


class Booked(Event, name="prospect.Booked"):
    key: str
    place: str = ""


class Full(Event, name="prospect.Full"):
    key: str


class Free(Command, name="prospect.Free"):
    key: str
    place: str | None


class Freed(Event, name="prospect.Freed"):
    key: str


class Pay(Command, name="prospect.Pay"):
    key: str
    place: str


class Paid(Event, name="prospect.Paid"):
    key: str


class Old(Saga, key="key", name="Visit"):
    """What runs today."""

    key: str
    note: str = "quiet"
    place: str | None = None

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(key=event.key)

    @step(failure=Full)
    def book(self) -> Book:
        return Book(key=self.key, note=self.note)

    @book.on_success
    def booked(self, reply: Booked) -> None:
        self.place = reply.place

    @book.compensation(success=Freed)
    def free(self) -> Free:
        return Free(key=self.key, place=self.place)

    @step(success=Paid)
    def pay(self) -> Pay:
        return Pay(key=self.key, place=self.place or "")


def waiting(saga: type[Saga] = Old) -> Harness:
    """An instance that waits for the answer of its first step."""
    return Harness(saga).given(Asked(key="k"))


def paying(saga: type[Saga] = Old) -> Harness:
    """One that waits for that of its second."""
    return waiting(saga).receives(Booked(key="k", place="here"))


def ahead(saga: type[Saga], instance: Instance) -> Prospect:
    return prospect(definition_of(saga), instance, instance.updated_at)


def flaws(saga: type[Saga], harness: Harness) -> list[tuple[str, str]]:
    return [(flaw.code, flaw.place) for flaw in ahead(saga, harness.instance).flaws]


@pytest.mark.parametrize("harness", [waiting(), paying(), paying().operator("cancel"), paying().operator("pause")])
def test_nothing_is_wrong_with_an_instance_under_its_own_class(harness: Harness) -> None:
    before = harness.instance
    assert ahead(Old, before) == Prospect()
    assert harness.instance == before


def test_a_state_that_does_not_load_is_told_by_its_field() -> None:
    class New(Old, key="key", name="Visit"):
        guests: int

    assert flaws(New, waiting()) == [("state_does_not_load", "guests: missing")]
    [flaw] = ahead(New, waiting().instance).flaws
    assert flaw.text == "guests: Field required"


def test_a_validator_of_the_authors_that_raises_is_no_crash() -> None:
    class New(Old, key="key", name="Visit"):
        def model_post_init(self, _: object) -> None:
            if self.note == "quiet":
                raise SystemExit("not so quiet")

    assert flaws(New, waiting()) == [("state_does_not_load", "SystemExit")]


class Shorter(Saga, key="key", name="Visit"):
    key: str

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(key=event.key)

    @step(success=Paid)
    def pay(self) -> Pay:
        return Pay(key=self.key, place="")


def test_a_step_that_an_instance_has_entered_and_that_is_gone_is_named_and_nothing_is_decided_without_it() -> None:
    [flaw] = ahead(Shorter, waiting().instance).flaws
    assert flaw == Flaw(code="step_missing", place="book", text="it has entered the step book, and there is none")


def test_an_undo_under_way_that_is_gone_is_named() -> None:
    class New(Saga, key="key", name="Visit"):
        key: str

        @start
        def asked(cls, event: Asked) -> Self:
            return cls(key=event.key)

        @step(success=Booked)
        def book(self) -> Book:
            return Book(key=self.key, note="")

        @step(success=Paid)
        def pay(self) -> Pay:
            return Pay(key=self.key, place="")

    assert flaws(New, paying().operator("cancel").receives(Paid(key="k"))) == [("step_missing", "book/undo")]


def test_a_timer_that_is_for_nothing_is_named() -> None:
    instance = waiting().instance
    lost = replace(instance, timers={**instance.timers, "nap/sleep": Timer(due_at=instance.updated_at, fence=1)})
    assert [(flaw.code, flaw.place) for flaw in ahead(Old, lost).flaws] == [("timer_missing", "nap/sleep")]


class TwoWays(Saga, key="key", name="Ways"):
    key: str

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(key=event.key)

    @decision
    def is_long(self) -> bool:
        return True

    @step(success=Booked, failure=Full)
    def book(self) -> Book:
        return Book(key=self.key, note="")

    @step(success=Paid)
    def pay(self) -> Pay:
        return Pay(key=self.key, place="")

    flow = when(is_long, alternative(book, pay))


class OneWay(Saga, key="key", name="Ways"):
    key: str

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(key=event.key)

    @step(success=Booked, failure=Full)
    def book(self) -> Book:
        return Book(key=self.key, note="")

    @step(success=Paid)
    def pay(self) -> Pay:
        return Pay(key=self.key, place="")

    flow = alternative(book, pay)


def test_a_choice_that_is_gone_or_has_no_such_way_is_named() -> None:
    chosen = waiting(TwoWays)
    assert flaws(TwoWays, chosen) == []
    assert flaws(OneWay, chosen) == [("choice_missing", "is_long")]
    failed = waiting(OneWay).receives(Full(key="k"))
    assert flaws(OneWay, failed) == []
    beyond = replace(failed.instance, choices={"alternative": "2"})
    assert [(flaw.code, flaw.place) for flaw in ahead(OneWay, beyond).flaws] == [("choice_missing", "alternative")]


def test_a_command_that_cannot_be_built_once_more_is_told_with_its_line() -> None:
    class Broken(Saga, key="key", name="Visit"):
        key: str
        note: str = ""
        place: str | None = None

        @start
        def asked(cls, event: Asked) -> Self:
            return cls(key=event.key)

        @step(success=Booked, failure=Full)
        def book(self) -> Book:
            return Book(key=self.key, note={"loud": "!"}[self.note])

        @book.compensation(success=Freed)
        def free(self) -> Free:
            return Free(key=self.key, place=self.place)

        @step(success=Paid)
        def pay(self) -> Pay:
            return Pay(key=self.key, place="")

    [flaw] = ahead(Broken, waiting().instance).flaws
    assert (flaw.code, flaw.place) == ("method_raises", "Visit.book: KeyError")
    assert "Visit.book: KeyError: 'quiet' (test_prospect.py:" in flaw.text
    assert flaw.text.endswith("when step book is attempted once more")


class Visit(Saga, abstract=True):
    """What the classes below share, and what they may break."""

    key: str
    place: str | None = None

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(key=event.key)


class Kept(Visit, key="key", name="Visit"):
    @step(success=Booked, failure=Full)
    def book(self) -> Book:
        return Book(key=self.key, note="")

    @book.compensation(success=Freed)
    def free(self) -> Free:
        return Free(key=self.key, place=self.place)

    @step(success=Paid)
    def pay(self) -> Pay:
        return Pay(key=self.key, place="")


class Unpayable(Visit, key="key", name="Visit"):
    @step(success=Booked, failure=Full)
    def book(self) -> Book:
        return Book(key=self.key, note="")

    @book.compensation(success=Freed)
    def free(self) -> Free:
        return Free(key=self.key, place=self.place)

    @step(success=Paid)
    def pay(self) -> Pay:
        raise LookupError("no price")


def test_the_step_behind_an_answer_of_which_nothing_is_kept_is_built() -> None:
    [flaw] = ahead(Unpayable, waiting(Kept).instance).flaws
    assert (flaw.code, flaw.place) == ("method_raises", "Visit.pay: LookupError")
    assert flaw.text.endswith("when prospect.Booked answers book")


def test_what_follows_from_an_answer_that_is_kept_is_not_guessed() -> None:
    class New(Visit, key="key", name="Visit"):
        note: str = ""

        @step(failure=Full)
        def book(self) -> Book:
            return Book(key=self.key, note="")

        @book.on_success
        def booked(self, reply: Booked) -> None:
            self.place = reply.place

        @step(success=Paid)
        def pay(self) -> Pay:
            return Pay(key=self.key, place={"here": "there"}[self.place or ""])

    assert flaws(New, waiting()) == []


class Stuck(Visit, key="key", name="Visit"):
    @step(success=Booked, failure=Full)
    def book(self) -> Book:
        return Book(key=self.key, note="")

    @book.compensation(success=Freed)
    def free(self) -> Free:
        return Free(key=self.key, place={"here": "there"}[self.place or ""])

    @step(success=Paid)
    def pay(self) -> Pay:
        return Pay(key=self.key, place="")


def test_an_undo_that_cannot_be_built_is_found_before_anybody_cancels() -> None:
    [flaw] = ahead(Stuck, waiting(Kept).receives(Booked(key="k")).instance).flaws
    assert (flaw.code, flaw.place) == ("method_raises", "Visit.free: KeyError")
    assert flaw.text.endswith("when its timer deadline is due")


def test_an_undo_that_needs_what_only_the_reply_of_its_step_says_is_found_while_that_is_awaited() -> None:
    [flaw] = ahead(Stuck, waiting(Kept).instance).flaws
    assert (flaw.code, flaw.place) == ("undo_needs_reply", "Visit.free: KeyError")
    assert flaw.text.endswith("when step book has timed out")


def test_an_undo_under_way_is_built_once_more() -> None:
    undoing = waiting(Kept).receives(Booked(key="k")).operator("cancel").receives(Paid(key="k"))
    [flaw] = ahead(Stuck, undoing.instance).flaws
    assert flaw.text.endswith("when the undo of step book is attempted once more")


def test_behind_the_pivot_nothing_is_undone_and_no_undo_is_asked_for() -> None:
    class Before(Visit, key="key", name="Visit"):
        @step(success=Booked)
        def book(self) -> Book:
            return Book(key=self.key, note="")

        @book.compensation(success=Freed)
        def free(self) -> Free:
            return Free(key=self.key, place=self.place)

        @step(success=Paid, pivot=True)
        def pay(self) -> Pay:
            return Pay(key=self.key, place="")

        @step(success=Freed)
        def leave(self) -> Free:
            return Free(key=self.key, place="")

    class After(Visit, key="key", name="Visit"):
        @step(success=Booked)
        def book(self) -> Book:
            return Book(key=self.key, note="")

        @book.compensation(success=Freed)
        def free(self) -> Free:
            raise LookupError("never")

        @step(success=Paid, pivot=True)
        def pay(self) -> Pay:
            return Pay(key=self.key, place="")

        @step(success=Freed)
        def leave(self) -> Free:
            return Free(key=self.key, place="")

    at_the_pivot = waiting(Before).receives(Booked(key="k"))
    assert flaws(After, at_the_pivot) == [("method_raises", "Visit.free: LookupError")]
    assert flaws(After, at_the_pivot.receives(Paid(key="k"))) == []


def test_a_rest_that_ends_before_a_step_that_cannot_be_built_is_found() -> None:
    class Resting(Visit, key="key", name="Visit"):
        @sleep
        def nap(self) -> timedelta:
            return timedelta(hours=1)

        @step(success=Paid)
        def pay(self) -> Pay:
            return Pay(key=self.key, place="")

        flow = nap >> pay

    class Broken(Visit, key="key", name="Visit"):
        @sleep
        def nap(self) -> timedelta:
            return timedelta(hours=1)

        @step(success=Paid)
        def pay(self) -> Pay:
            raise LookupError("no price")

        flow = nap >> pay

    [flaw] = ahead(Broken, waiting(Resting).instance).flaws
    assert flaw.text.endswith("when its timer nap/sleep is due")


def test_the_next_branch_is_entered_when_the_first_has_timed_out() -> None:
    class Broken(Saga, key="key", name="Ways"):
        key: str

        @start
        def asked(cls, event: Asked) -> Self:
            return cls(key=event.key)

        @step(success=Booked)
        def book(self) -> Book:
            return Book(key=self.key, note="")

        @step(success=Paid)
        def pay(self) -> Pay:
            raise LookupError("no price")

        flow = alternative(book, pay)

    [flaw] = ahead(Broken, waiting(OneWay).instance).flaws
    assert flaw.text.endswith("when step book has timed out")


def test_a_paused_instance_is_asked_what_it_would_do_without_its_pause() -> None:
    paused = waiting(Kept).operator("pause")
    assert flaws(Unpayable, paused) == [("method_raises", "Visit.pay: LookupError")]


def test_of_one_that_a_method_has_parked_it_is_told_whether_this_code_would_let_it_go_on() -> None:
    parked = waiting(Unpayable).receives(Booked(key="k"))
    assert parked.status == "parked"
    assert ahead(Kept, parked.instance) == Prospect(mended=True)
    assert ahead(Unpayable, parked.instance) == Prospect(mended=False)
    assert ahead(Kept, parked.operator("pause").instance) == Prospect(mended=True)


def test_whatever_the_engine_stumbles_over_is_a_flaw_and_no_crash() -> None:
    instance = waiting(Kept).instance
    odd = replace(instance, timers={**instance.timers, "book/undo": Timer(due_at=instance.updated_at, fence=1)})
    assert [(flaw.code, flaw.place) for flaw in ahead(Kept, odd).flaws] == [("cannot_decide", "LookupError")]


def arrived(event: Event, causation_id: str | None = None) -> Arrived:
    return Arrived(message_id="m", name=event.message_name, body=b"{}", event=event, causation_id=causation_id)


def test_a_message_kept_for_an_instance_is_applied_to_see_whether_it_fails() -> None:
    class Refusing(Visit, key="key", name="Visit"):
        @step(failure=Full)
        def book(self) -> Book:
            return Book(key=self.key, note="")

        @book.on_success
        def booked(self, reply: Booked) -> None:
            raise LookupError(reply.place)

    instance = waiting(Kept).operator("pause").instance
    reply = arrived(Booked(key="k", place="here"))
    told = [failure(definition_of(saga), instance, reply, instance.updated_at) for saga in (Kept, Refusing, Unpayable)]
    assert [text and text.partition(" (")[0] for text in told] == [
        None,
        "Visit.booked: LookupError: here",
        "Visit.pay: LookupError: no price",
    ]


def test_a_message_kept_that_starts_an_instance_starts_it_to_see_whether_that_fails() -> None:
    class Unstartable(Saga, key="key", name="Visit"):
        key: str

        @start
        def asked(cls, event: Asked) -> Self:
            raise LookupError(event.key)

        @step(success=Paid)
        def pay(self) -> Pay:
            return Pay(key=self.key, place="")

    class Unenterable(Visit, key="key", name="Visit"):
        @step(success=Paid)
        def pay(self) -> Pay:
            raise LookupError("no price")

    instance = waiting().instance
    told = [
        failure_of_start(definition_of(saga), arrived(Asked(key="k")), instance.saga_id, "k", instance.updated_at)
        for saga in (Old, Unstartable, Unenterable)
    ]
    assert [text and text.partition(" (")[0] for text in told] == [
        None,
        "Visit.asked: LookupError: k",
        "Visit.pay: LookupError: no price",
    ]
