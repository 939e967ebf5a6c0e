"""Wrong waits, signals, cancels and queries: what their authors read."""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

from datetime import timedelta

import pytest

from messages import Command, Event
from messages.errors import DefinitionError
from sagas import cancel, query, signal, step, wait
from tests.sagas.test_branches import Booking, Do, Done
from tests.sagas.test_definition_errors import ADDRESS, PLACE, Wrong

GALLERY: dict[Wrong, tuple[str, ...]] = {}


def reads(*lines: str):
    def hang(wrong: Wrong) -> Wrong:
        GALLERY[wrong] = lines
        return wrong

    return hang


class Yes(Event, name="errors.Yes"):
    key: str
    by: str = ""


class No(Event, name="errors.No"):
    key: str


class Keyless(Event, name="errors.Keyless"):
    pass


class Nudge(Command, name="errors.Nudge"):
    key: str


@reads("X.yes: is not in the flow and would never be; add it or remove it")
def a_wait_that_is_not_in_the_flow() -> None:
    class X(Booking, key="key"):
        @wait
        def yes(self, event: Yes) -> None: ...

        flow = Booking.a >> Booking.b >> Booking.c >> Booking.d


@reads(
    "X: Keyless has no field 'key', so it cannot be routed by key; "
    'name the field in keys={Keyless: "…"} or add it to the event'
)
def a_signal_without_the_key() -> None:
    class X(Booking, key="key"):
        @signal
        def told(self, event: Keyless) -> None: ...


@reads("X: Done is waited for or a signal, and a reply to a command, too; use an event of its own for one of them")
def a_signal_that_is_a_reply() -> None:
    class X(Booking, key="key", keys={Done: "what"}):
        @signal
        def told(self, event: Done) -> None: ...


@reads("X.told: Yes is taken by 'yes' already; an event is for one thing in a saga, keep one")
def one_event_for_two_things() -> None:
    class X(Booking, key="key"):
        @wait
        def yes(self, event: Yes) -> None: ...

        @signal
        def told(self, event: Yes) -> None: ...

        flow = yes >> Booking.a >> Booking.b >> Booking.c >> Booking.d


@reads(
    "X.yes: unknown keyword timout= (did you mean 'timeout'?); "
    "there are timeout, failure, by, because, missing, unexpected",
    "X.yes: timeout=5 will not do; write a positive timedelta of at most 100 years, e.g. timedelta(minutes=5)",
    'X.yes: missing=\'drop\' will not do; write "keep", "ignore" or "dead_letter"',
)
def a_wait_with_wrong_keywords() -> None:
    class X(Booking, key="key"):
        @wait(timout=5, timeout=5, missing="drop")
        def yes(self, event: Yes) -> None: ...

        flow = yes >> Booking.a >> Booking.b >> Booking.c >> Booking.d


@reads('X.told: unexpected=\'keep\' will not do; write "ignore" or "dead_letter"')
def a_signal_that_would_be_kept_for_ever() -> None:
    class X(Booking, key="key"):
        @signal(unexpected="keep")
        def told(self, event: Yes) -> None: ...


@reads("X.yes: says because='why', and none of its events has that field")
def a_wait_whose_events_never_say_why() -> None:
    class X(Booking, key="key"):
        @wait(by="by", because="why", failure=No)
        def yes(self, event: Yes) -> None: ...

        flow = yes >> Booking.a >> Booking.b >> Booking.c >> Booking.d


@reads("X.late: is called when 'yes' times out, and that has no timeout=; write one, or remove this")
def a_default_without_a_timeout() -> None:
    class X(Booking, key="key"):
        @wait
        def yes(self, event: Yes) -> None: ...

        @yes.on_timeout
        def late(self) -> None: ...

        flow = yes >> Booking.a >> Booking.b >> Booking.c >> Booking.d


@reads("X.later: is a second on_timeout of 'yes' beside 'late'; keep one")
def two_defaults() -> None:
    class X(Booking, key="key"):
        @wait(timeout=timedelta(hours=1))
        def yes(self, event: Yes) -> None: ...

        @yes.on_timeout
        def late(self) -> None: ...

        @yes.on_timeout
        def later(self) -> None: ...

        flow = yes >> Booking.a >> Booking.b >> Booking.c >> Booking.d


@reads(
    "X.nudge: is sent after 2:00:00, when 'yes' has timed out already, after 1:00:00; be earlier",
    "X.timeout: is called 'timeout', as something that the engine keeps there is; choose another name",
)
def notices_that_cannot_be() -> None:
    class X(Booking, key="key"):
        @wait(timeout=timedelta(hours=1))
        def yes(self, event: Yes) -> None: ...

        @yes.reminder(after=timedelta(hours=2))
        def nudge(self) -> Nudge: ...

        @yes.escalation(after=timedelta(minutes=2))
        def timeout(self) -> Nudge: ...

        flow = yes >> Booking.a >> Booking.b >> Booking.c >> Booking.d


@reads(
    "X.nudge: returns Yes, which is no Command; annotate the command it builds, e.g. def nudge(self) -> ReserveStock"
)
def a_reminder_that_is_no_command() -> None:
    class X(Booking, key="key"):
        @wait
        def yes(self, event: Yes) -> None: ...

        @yes.reminder(after=timedelta(hours=2))
        def nudge(self) -> Yes: ...

        flow = yes >> Booking.a >> Booking.b >> Booking.c >> Booking.d


@reads("X.shout: assigns self.key, which is lost: it works on a copy; assign in a reply hook, or pass it to cls(...)")
def a_query_that_assigns() -> None:
    class X(Booking, key="key"):
        @query
        def shout(self) -> str:
            self.key = "x"
            return self.key


@reads("X.yes: assigns self.who, which is no field; declare it in the class body, e.g. who: str | None = None")
def a_wait_that_assigns_no_field() -> None:
    class X(Booking, key="key"):
        @wait
        def yes(self, event: Yes) -> None:
            self.who = event.by

        flow = yes >> Booking.a >> Booking.b >> Booking.c >> Booking.d


@reads(
    "X.yes: takes (self); write def yes(self, event)", "X.told: takes (self, event, more); write def told(self, event)"
)
def methods_with_other_parameters() -> None:
    class X(Booking, key="key"):
        @wait
        def yes(self) -> None: ...

        @cancel
        def told(self, event: No, more) -> None: ...

        flow = yes >> Booking.a >> Booking.b >> Booking.c >> Booking.d


@reads(
    "X.yes: comes after the pivot 'sign' and may fail, but nothing is undone there; move it before, "
    "give it an on_timeout and no failure, or an alternative()"
)
def a_wait_that_may_fail_behind_the_pivot() -> None:
    class X(Booking, key="key"):
        @step(reply=False, pivot=True)
        def sign(self) -> Do: ...

        @wait(timeout=timedelta(hours=1))
        def yes(self, event: Yes) -> None: ...

        flow = Booking.a >> Booking.b >> Booking.c >> Booking.d >> sign >> yes


@reads("X: flow holds the wait 'yes' twice; write a second one with a name of its own")
def a_wait_that_is_twice_in_the_flow() -> None:
    class X(Booking, key="key"):
        @wait
        def yes(self, event: Yes) -> None: ...

        flow = yes >> Booking.a >> Booking.b >> yes >> Booking.c >> Booking.d


@reads("X.model_dump: the name 'model_dump' is Saga's own; choose another")
def a_signal_under_a_reserved_name() -> None:
    class X(Booking, key="key"):
        @signal
        def model_dump(self, event: Yes) -> None: ...


@reads("X: @query stands over a plain method, not over object; remove what is between them")
def a_query_over_a_property() -> None:
    class X(Booking, key="key"):
        @query
        @property
        def shout(self) -> str: ...


@pytest.mark.parametrize("wrong", GALLERY, ids=lambda wrong: wrong.__name__)
def test_the_author_reads(wrong: Wrong) -> None:
    with pytest.raises(DefinitionError) as caught:
        wrong()
    text = ADDRESS.sub(" object", PLACE.sub("", str(caught.value)))
    assert text.replace("<property object>", "object").splitlines() == list(GALLERY[wrong])
