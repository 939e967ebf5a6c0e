"""Wrong announcements: what their authors read."""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

import pytest

from messages import Event
from messages.errors import DefinitionError
from sagas import Saga, announce, signal, step
from tests.sagas.test_branches import Booked, Booking, Do, Done
from tests.sagas.test_definition_errors import ADDRESS, PLACE, Wrong

GALLERY: dict[Wrong, tuple[str, ...]] = {}


def reads(*lines: str):
    def hang(wrong: Wrong) -> Wrong:
        GALLERY[wrong] = lines
        return wrong

    return hang


class Told(Event, name="errors.Told"):
    key: str


class Also(Event, name="errors.Also"):
    key: str


class Kind(Event, abstract=True):
    key: str


@reads('X: @announce does not say when; write @announce("completed"), or @reserve.announce for a step')
def an_announcement_that_does_not_say_when() -> None:
    class X(Booking, key="key"):
        @announce
        def told(self) -> Told: ...


@reads('X: @announce does not say when; write @announce("completed"), or @reserve.announce for a step')
def an_announcement_of_nothing() -> None:
    class X(Booking, key="key"):
        @announce()
        def told(self) -> Told: ...


@reads(
    "X.told: announces 'complete' (did you mean 'completed'?); "
    "there are started, turned_back, compensated and completed",
    "X.told: announces 'started' twice; say it once",
)
def announcements_of_what_there_is_not() -> None:
    class X(Booking, key="key"):
        @announce("complete", "started", "started")
        def told(self) -> Told: ...


@reads("X.told: returns Do, which is no Event; annotate the event it builds, e.g. def told(self) -> OrderConfirmed")
def an_announcement_that_is_a_command() -> None:
    class X(Booking, key="key"):
        @announce("started")
        def told(self) -> Do: ...


@reads("X.told: lacks an annotation; annotate the event it builds, e.g. def told(self) -> OrderConfirmed")
def an_announcement_without_annotation() -> None:
    class X(Booking, key="key"):
        @announce("started")
        def told(self): ...  # noqa: ANN202


@reads("X.told: returns Told and Also; an announcement is one event, write a method for each")
def an_announcement_of_two_events() -> None:
    class X(Booking, key="key"):
        @announce("started")
        def told(self) -> Told | Also: ...


@reads("X.told: Kind is abstract and cannot travel; name a class that can")
def an_announcement_that_cannot_travel() -> None:
    class X(Booking, key="key"):
        @announce("started")
        def told(self) -> Kind: ...


@reads("X.told: takes (self, event); write def told(self)")
def an_announcement_that_takes_an_event() -> None:
    class X(Booking, key="key"):
        @Booking.a.announce
        def told(self, event) -> Told: ...


@reads("X.told: assigns self.key, which is lost: it works on a copy; assign in a reply hook, or pass it to cls(...)")
def an_announcement_that_assigns() -> None:
    class X(Booking, key="key"):
        @announce("started")
        def told(self) -> Told:
            self.key = "x"
            return Told(key=self.key)


@reads(
    "X.of_a_start: announces Booked, which this saga takes itself; "
    "that would go round in a circle, announce an event of its own",
    "X.of_a_reply: announces Done, which this saga takes itself; "
    "that would go round in a circle, announce an event of its own",
    "X.of_a_signal: announces Told, which this saga takes itself; "
    "that would go round in a circle, announce an event of its own",
)
def announcements_of_what_the_saga_takes_itself() -> None:
    class X(Booking, key="key"):
        @signal
        def hear(self, event: Told) -> None: ...

        @announce("started")
        def of_a_start(self) -> Booked: ...

        @Booking.a.announce
        def of_a_reply(self) -> Done: ...

        @announce("completed")
        def of_a_signal(self) -> Told: ...


@reads("X.told: belongs to 'a' of another class; write it in that class, or extend that class")
def an_announcement_of_a_step_of_another_class() -> None:
    class Apart(Saga, abstract=True):
        key: str

        @step(success=Done)
        def a(self) -> Do: ...

    class X(Booking, key="key"):
        @Apart.a.announce
        def told(self) -> Told: ...


@reads("X.told: replaces the announcement 'told' and would not be announced; write the same @….announce over it")
def an_announcement_that_is_replaced_by_a_plain_method() -> None:
    class Base(Booking, abstract=True):
        @announce("started")
        def told(self) -> Told: ...

    class X(Base, key="key"):
        def told(self) -> Told: ...


@reads("X.model_dump: the name 'model_dump' is Saga's own; choose another")
def an_announcement_under_a_reserved_name() -> None:
    class X(Booking, key="key"):
        @announce("started")
        def model_dump(self) -> Told: ...


@reads("X.told: is async; write a plain method, it does no I/O and returns at once")
def an_announcement_that_is_async() -> None:
    class X(Booking, key="key"):
        @announce("started")
        async def told(self) -> Told: ...


@reads("X: @announce stands over a plain method, not over object; remove what is between them")
def an_announcement_over_a_property() -> None:
    class X(Booking, key="key"):
        @announce("started")
        @property
        def told(self) -> Told: ...


def test_an_announcement_is_replaced_by_another_of_its_name() -> None:
    class Base(Booking, abstract=True):
        @announce("started")
        def told(self) -> Told:
            return Told(key=self.key)

    class Later(Base, key="key"):
        @announce("completed")
        def told(self) -> Told:
            return Told(key=self.key)

    announcements = Later._definition.announcements
    assert dict(announcements["told"].moments) == {"completed": "completed"}


@pytest.mark.parametrize("wrong", GALLERY, ids=lambda wrong: wrong.__name__)
def test_the_author_reads(wrong: Wrong) -> None:
    with pytest.raises(DefinitionError) as caught:
        wrong()
    text = ADDRESS.sub(" object", PLACE.sub("", str(caught.value)))
    assert text.replace("<property object>", "object").splitlines() == list(GALLERY[wrong])
