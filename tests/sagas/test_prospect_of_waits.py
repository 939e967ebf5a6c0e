"""What a new release would make of instances that wait for what people and other services decide."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

import pytest

from messages import Command, Event
from sagas import Saga, alternative, definition_of, start, step, wait
from sagas.prospect import Prospect, prospect
from testkit import Harness


class Asked(Event, name="prospect.waits.Asked"):
    key: str


class Approved(Event, name="prospect.waits.Approved"):
    key: str
    by: str


class Rejected(Event, name="prospect.waits.Rejected"):
    key: str
    by: str


class Remind(Command, name="prospect.waits.Remind"):
    key: str


class Do(Command, name="prospect.waits.Do"):
    key: str


class Done(Event, name="prospect.waits.Done"):
    key: str


class Request(Saga, abstract=True):
    key: str
    broken: bool = False

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(key=event.key)


class Approval(Request, key="key", name="Request"):
    """Everything is kept of what is said, but for a refusal."""

    @wait(timeout=timedelta(days=1), failure=Rejected, by="by")
    def approval(self, event: Approved) -> None:
        self.broken = False

    @approval.reminder(after=timedelta(hours=1), every=timedelta(hours=1))
    def nudge(self) -> Remind:
        return Remind(key=self.key)

    @step(success=Done)
    def do(self) -> Do:
        return Do(key=self.key)

    flow = approval >> do


class NoNudge(Request, key="key", name="Request"):
    @wait(timeout=timedelta(days=1), failure=Rejected, by="by")
    def approval(self, event: Approved) -> None:
        self.broken = False

    @approval.reminder(after=timedelta(hours=1), every=timedelta(hours=1))
    def nudge(self) -> Remind:
        raise LookupError("nobody to remind")

    @step(success=Done)
    def do(self) -> Do:
        return Do(key=self.key)

    flow = approval >> do


class NoWait(Request, key="key", name="Request"):
    @step(success=Done)
    def do(self) -> Do:
        return Do(key=self.key)


def waiting(saga: type[Saga] = Approval) -> Harness:
    return Harness(saga).given(Asked(key="k"))


def ahead(saga: type[Saga], harness: Harness) -> Prospect:
    return prospect(definition_of(saga), harness.instance, harness.now)


@pytest.mark.parametrize(
    "harness",
    [
        waiting(),
        waiting().advance(timedelta(hours=3)),
        waiting().hears(Approved(key="k", by="Ada")),
        waiting().operator("skip"),
        waiting().operator("pause"),
    ],
)
def test_nothing_is_wrong_with_one_that_waits_has_waited_or_was_reminded(harness: Harness) -> None:
    assert harness.status == "running"
    assert ahead(Approval, harness) == Prospect()


def test_a_reminder_that_cannot_be_built_is_found_before_it_is_due() -> None:
    [flaw] = ahead(NoNudge, waiting()).flaws
    assert (flaw.code, flaw.place) == ("method_raises", "Request.nudge: LookupError")
    assert flaw.text.endswith("when its timer approval/nudge is due")


def test_a_wait_that_is_gone_is_named_with_its_timers() -> None:
    assert [(flaw.code, flaw.place) for flaw in ahead(NoWait, waiting().advance(timedelta(hours=1))).flaws] == [
        ("timer_missing", "approval/timeout"),
        ("timer_missing", "approval/nudge"),
        ("choice_missing", "approval"),
        ("choice_missing", "approval/timeout"),
        ("choice_missing", "approval/nudge"),
    ]


def test_what_holds_when_nobody_says_anything_is_tried() -> None:
    class Silent(Request, key="key", name="Silent"):
        @wait(timeout=timedelta(days=1))
        def approval(self, event: Approved) -> None:
            self.broken = False

        @approval.on_timeout
        def silence(self) -> None:
            self.broken = True

        @step(success=Done)
        def do(self) -> Do:
            return Do(key=self.key)

        flow = approval >> do

    class Broken(Request, key="key", name="Silent"):
        @wait(timeout=timedelta(days=1))
        def approval(self, event: Approved) -> None:
            self.broken = False

        @approval.on_timeout
        def silence(self) -> None:
            raise LookupError("no default")

        @step(success=Done)
        def do(self) -> Do:
            return Do(key=self.key)

        flow = approval >> do

    assert ahead(Silent, waiting(Silent)) == Prospect()
    assert ahead(Silent, waiting(Silent).advance(timedelta(days=2))) == Prospect()
    [flaw] = ahead(Broken, waiting(Silent)).flaws
    assert flaw.place == "Silent.silence: LookupError"
    assert flaw.text.endswith("when its timer approval/timeout is due")


def test_what_follows_a_refusal_of_which_nothing_is_kept_is_built() -> None:
    class Quiet(Request, key="key", name="Quiet"):
        @wait(failure=Rejected, by="by")
        def approval(self, event: Approved) -> None:
            self.broken = False

        @step(success=Done)
        def do(self) -> Do:
            return Do(key=self.key)

        flow = alternative(approval, do)

    class Broken(Request, key="key", name="Quiet"):
        @wait(failure=Rejected, by="by")
        def approval(self, event: Approved) -> None:
            self.broken = False

        @step(success=Done)
        def do(self) -> Do:
            raise LookupError("nothing to do")

        flow = alternative(approval, do)

    assert ahead(Quiet, waiting(Quiet)) == Prospect()
    [flaw] = ahead(Broken, waiting(Quiet)).flaws
    assert flaw.text.endswith("when prospect.waits.Rejected ends approval")
    refused = waiting(Quiet).hears(Rejected(key="k", by="Bob"))
    assert (refused.status, ahead(Quiet, refused)) == ("running", Prospect())
