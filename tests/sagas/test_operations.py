"""What an operator may do to an instance, state by state."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

import pytest

from messages import Command, Event
from messages.errors import OperationRefused
from sagas import Retry, Saga, start, step
from sagas.instance import CallStatus
from testkit import Harness

BROKEN: set[str] = set()


class Ordered(Event, name="operations.Ordered"):
    order: str


class Reserve(Command, name="operations.Reserve"):
    order: str


class Reserved(Event, name="operations.Reserved"):
    order: str


class Release(Command, name="operations.Release"):
    order: str


class Released(Event, name="operations.Released"):
    order: str


class Broken(Event, name="operations.Broken"):
    order: str


class Pay(Command, name="operations.Pay"):
    order: str


class Paid(Event, name="operations.Paid"):
    order: str


class Refused(Event, name="operations.Refused"):
    order: str


class Busy(Event, name="operations.Busy"):
    order: str


class Buy(Saga, key="order", version=1, deadline=timedelta(days=1)):
    """Reserve, then pay; what was reserved is released."""

    order: str

    @start
    def ordered(cls, event: Ordered) -> Self:
        return cls(order=event.order)

    @step(success=Reserved, timeout=timedelta(seconds=10), retry=Retry(attempts=2))
    def reserve(self) -> Reserve:
        return Reserve(order=self.order)

    @reserve.compensation(success=Released, failure=Broken, retry=Retry(attempts=1, cap=timedelta(hours=1)))
    def release(self) -> Release:
        if "release" in BROKEN:
            raise ValueError("not today")
        return Release(order=self.order)

    @step(success=Paid, failure=Refused, transient=Busy, timeout=timedelta(seconds=10), retry=Retry(attempts=2))
    def pay(self) -> Pay:
        if "pay" in BROKEN:
            raise ValueError("not today")
        return Pay(order=self.order)


class Lend(Saga, key="order", version=1):
    """Reserve, and remember that it was done."""

    order: str

    @start
    def ordered(cls, event: Ordered) -> Self:
        return cls(order=event.order)

    @step(failure=Refused, timeout=timedelta(seconds=10), retry=Retry(attempts=1))
    def lend(self) -> Reserve:
        return Reserve(order=self.order)

    @lend.on_success
    def lent(self, reply: Reserved) -> None:
        if "lent" in BROKEN:
            raise ValueError(f"not {reply.order}")

    @lend.compensation(success=Released)
    def give_back(self) -> Release:
        return Release(order=self.order)


@pytest.fixture
def story() -> Harness:
    BROKEN.clear()
    return Harness(Buy).given(Ordered(order="o-1"))


def undoing(story: Harness) -> Harness:
    return story.receives(Reserved(order="o-1")).receives(Refused(order="o-1"))


def test_a_cancelled_instance_undoes_what_it_did_and_says_who_wanted_it(story: Harness) -> None:
    story.receives(Reserved(order="o-1")).operator("cancel", reason="the customer called")
    acted = next(entry for entry in story.history if entry.kind == "operator_acted")
    assert (acted.detail["actor"], acted.detail["reason"]) == ("operator", "the customer called")
    story.advance(timedelta(minutes=5)).receives(Released(order="o-1"))
    assert (story.status, story.instance.end_reason) == ("compensated", "cancelled")


def test_what_is_being_undone_or_has_ended_is_not_cancelled(story: Harness) -> None:
    undoing(story)
    with pytest.raises(OperationRefused, match="being compensated already"):
        story.operator("cancel")
    story.receives(Released(order="o-1"))
    with pytest.raises(OperationRefused, match="it is compensated, and what has ended is not cancelled"):
        story.operator("cancel")


def test_a_paused_instance_arms_no_timer_and_goes_on_where_it_stood(story: Harness) -> None:
    due = dict(story.instance.timers)
    story.operator("pause").advance(timedelta(days=30))
    assert (story.instance.paused, story.sent, story.status) == (True, [], "running")
    assert story.instance.waiting_for is not None
    assert "an operator (paused)" in story.instance.waiting_for
    with pytest.raises(OperationRefused, match="paused already"):
        story.operator("pause")
    story.operator("resume")
    assert dict(story.instance.armed) == due
    with pytest.raises(OperationRefused, match="not paused"):
        story.operator("resume")


def test_a_paused_instance_that_is_cancelled_sends_its_undos_on_resume(story: Harness) -> None:
    story.receives(Reserved(order="o-1")).operator("pause").operator("cancel")
    assert story.sent == []
    assert story.instance.phase == "compensating"
    with pytest.raises(OperationRefused, match="it is paused; resume it first"):
        story.operator("retry")
    story.operator("resume").advance(timedelta(minutes=5))
    assert Release(order="o-1") in story.sent


def test_a_step_that_pauses_before_its_next_attempt_is_retried_at_once(story: Harness) -> None:
    story.receives(Reserved(order="o-1")).receives(Busy(order="o-1")).operator("retry")
    assert story.sent == [Pay(order="o-1")]
    assert story.log[-1].message_id != story.log[-2].message_id


def test_a_command_without_reply_is_sent_again_under_its_id(story: Harness) -> None:
    story.operator("retry", "reserve")
    assert [each.message_id for each in story.log[:1]] * 2 == [each.message_id for each in story.log]


def test_a_failed_undo_is_retried_as_a_new_generation_with_a_new_key(story: Harness) -> None:
    undoing(story).receives(Broken(order="o-1"))
    assert (story.status, list(story.attention)) == ("parked", ["compensation_failed"])
    story.operator("retry")
    assert (story.status, story.attention) == ("compensating", {})
    first, second = story.log[-2:]
    assert first.idempotency_key.endswith("/1/undo")
    assert second.idempotency_key.endswith("/2/undo")
    assert first.compensates == second.compensates
    assert story.receives(Released(order="o-1")).status == "compensated"


def test_an_undo_that_goes_on_unanswered_is_sent_at_once(story: Harness) -> None:
    undoing(story).advance(timedelta(minutes=2))
    assert story.attention["compensation_exhausted"]
    story.operator("retry")
    assert story.sent == [Release(order="o-1")]


def test_a_skipped_undo_is_counted_and_ends_the_compensation(story: Harness) -> None:
    undoing(story).receives(Broken(order="o-1")).operator("skip", reason="lost in the post")
    assert (story.status, story.instance.skipped, story.attention) == ("compensated", 1, {})
    assert story.receives(Released(order="o-1")).reason == "skipped"


def test_a_resolved_undo_counts_as_done_by_hand(story: Harness) -> None:
    undoing(story).receives(Broken(order="o-1")).operator("resolve", "reserve")
    assert (story.status, story.instance.skipped) == ("compensated", 1)
    assert next(entry for entry in story.history if entry.kind == "step_compensated").detail == {"by": "operator"}


def test_an_undo_that_cannot_be_built_is_skipped_before_it_was_ever_sent(story: Harness) -> None:
    BROKEN.add("release")
    undoing(story)
    assert list(story.attention) == ["method_raised"]
    story.operator("retry")
    assert list(story.attention) == ["method_raised"], "it raises still"
    assert story.operator("skip").status == "compensated"


def test_a_step_that_cannot_be_built_is_skipped_and_the_flow_goes_on(story: Harness) -> None:
    BROKEN.add("pay")
    story.receives(Reserved(order="o-1"))
    assert story.status == "parked"
    assert story.operator("skip", "pay").status == "completed"
    assert story.instance.skipped == 1


def test_a_skipped_step_that_was_sent_is_undone_when_the_instance_turns_back(story: Harness) -> None:
    story.operator("skip", "reserve").receives(Refused(order="o-1"))
    assert story.sent == [Release(order="o-1")]


def test_a_success_that_comes_after_the_step_was_skipped_is_kept(story: Harness) -> None:
    story.operator("skip", "reserve").receives(Reserved(order="o-1"))
    assert story.instance.steps["reserve"].do.status is CallStatus.SUCCEEDED
    assert story.attention == {}


def test_an_orphaned_effect_is_undone_on_request_although_all_is_over(story: Harness) -> None:
    story.receives(Reserved(order="o-1"))
    undone = story.receives(Refused(order="o-1")).receives(Released(order="o-1"))
    assert undone.status == "compensated"
    story.receives(Paid(order="o-1"))
    assert story.attention == {"orphaned_effect": "succeeded late, and nothing will undo it: pay"}
    with pytest.raises(OperationRefused, match="pay has no compensation; undo it by hand, then resolve it"):
        story.operator("undo")
    assert story.operator("resolve", "pay").attention == {}
    assert (story.status, story.instance.skipped) == ("compensated", 0)
    resolved = story.history[-1]
    assert (resolved.kind, resolved.step) == ("effect_resolved", "pay")


def test_an_undo_that_is_asked_for_is_sent_although_another_copy_of_the_late_success_has_parked_the_instance() -> None:
    story = Harness(Lend).given(Ordered(order="o-1")).receives(Refused(order="o-1"))
    assert story.status == "compensated"
    story.receives(Reserved(order="o-1"))
    assert set(story.attention) == {"orphaned_effect"}
    BROKEN.add("lent")
    story.receives(Reserved(order="o-1"))
    assert set(story.attention) == {"orphaned_effect", "method_raised"}
    assert story.operator("undo").sent == [Release(order="o-1")]
    assert set(story.attention) == {"method_raised"}
    BROKEN.clear()


@pytest.mark.parametrize("later", [timedelta(seconds=9), timedelta(hours=6)])
def test_a_retry_after_a_method_raised_asks_again_for_the_reply_that_it_could_not_take(later: timedelta) -> None:
    BROKEN.add("lent")
    story = Harness(Lend).given(Ordered(order="o-1")).receives(Reserved(order="o-1"))
    assert story.status == "parked"
    story.advance(later)
    BROKEN.clear()
    story.operator("retry")
    assert (story.status, story.sent) == ("running", [Reserve(order="o-1")])
    story.advance(timedelta(seconds=9))
    assert (story.status, story.sent) == ("running", [])
    assert story.receives(Reserved(order="o-1")).status == "completed"


def test_what_cannot_be_done_is_said_with_what_can(story: Harness) -> None:
    with pytest.raises(OperationRefused, match=r"Buy 'o-1': step 'pya' cannot be retried now; possible: reserve"):
        story.operator("retry", "pya")
    with pytest.raises(OperationRefused, match="there is nothing to undo; antiphon sagas show"):
        story.operator("undo")
    with pytest.raises(OperationRefused, match="cancel concerns the whole instance; leave the step out"):
        story.operator("cancel", "reserve")
    assert [entry.kind for entry in story.history].count("operator_acted") == 0
