"""Lifecycles: named states, ways between them by events and by time, and what is done on entering them."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Literal, Self

import pytest

from messages import Command, Event
from messages.errors import DefinitionError
from sagas import Saga, cancel, definition_of, lifecycle, on, start, step, wait
from sagas.difference import difference
from sagas.instance import Phase
from sagas.outcome import Disposition
from testkit.harness import Harness
from tests.sagas.test_definition_errors import PLACE


class Standing(StrEnum):
    ACTIVE = "active"
    PAST_DUE = "past_due"
    SUSPENDED = "suspended"
    ENDED = "ended"


class Subscribed(Event, name="sub.Subscribed"):
    sub: str


class Paid(Event, name="sub.Paid"):
    sub: str


class PaymentFailed(Event, name="sub.PaymentFailed"):
    sub: str


class Ended(Event, name="sub.Ended"):
    sub: str


class Used(Event, name="sub.Used"):
    sub: str
    amount: int


class GivenUp(Event, name="sub.GivenUp"):
    sub: str


class Block(Command, name="sub.Block"):
    sub: str


class Blocked(Event, name="sub.Blocked"):
    pass


class NotBlocked(Event, name="sub.NotBlocked"):
    pass


class Unblock(Command, name="sub.Unblock"):
    sub: str


class Remind(Command, name="sub.Remind"):
    times: int


class Bill(Command, name="sub.Bill"):
    used: int


class Billed(Event, name="sub.Billed"):
    pass


class Base(Saga, abstract=True):
    sub: str
    used: int = 0
    reminded: int = 0

    @start
    def subscribed(cls, event: Subscribed) -> Self:
        return cls(sub=event.sub)


class Subscription(Base, key="sub", version=1, deadline=timedelta(days=36_500)):
    @on(Standing.ACTIVE, elsewhere="ignore")
    def payment_failed(self, event: PaymentFailed) -> Literal[Standing.PAST_DUE]:
        self.reminded = 0
        return Standing.PAST_DUE

    @on(Standing.ACTIVE, Standing.PAST_DUE, Standing.SUSPENDED)
    def used_up(self, event: Used) -> None:
        self.used += event.amount

    @on(Standing.PAST_DUE, after=timedelta(days=7))
    def remind_or_suspend(self) -> Literal[Standing.PAST_DUE, Standing.SUSPENDED]:
        self.reminded += 1
        return Standing.SUSPENDED if self.reminded == 3 else Standing.PAST_DUE

    @on(Standing.PAST_DUE, Standing.SUSPENDED, elsewhere="keep")
    def paid(self, event: Paid) -> Literal[Standing.ACTIVE]:
        return Standing.ACTIVE

    @on(Standing.ACTIVE, Standing.PAST_DUE, Standing.SUSPENDED)
    def ended(self, event: Ended) -> Literal[Standing.ENDED]:
        return Standing.ENDED

    @cancel
    def given_up(self, event: GivenUp) -> None: ...

    @step(reply=False)
    def remind(self) -> Remind:
        return Remind(times=self.reminded)

    @step(success=Blocked, failure=NotBlocked)
    def block(self) -> Block:
        return Block(sub=self.sub)

    @block.compensation(reply=False)
    def unblock(self) -> Unblock:
        return Unblock(sub=self.sub)

    @step(success=Billed)
    def bill(self) -> Bill:
        return Bill(used=self.used)

    flow = (
        lifecycle(
            Standing.ACTIVE,
            entering={Standing.PAST_DUE: remind, Standing.SUSPENDED: block},
            final=[Standing.ENDED],
        )
        >> bill
    )


def subscribed() -> Harness:
    return Harness(Subscription).given(Subscribed(sub="s"))


def state_of(saga: Harness) -> str:
    return saga.instance.choices["lifecycle"]


def test_events_lead_from_state_to_state_and_what_is_behind_the_last_is_done_at_the_end() -> None:
    saga = subscribed()
    assert state_of(saga) == "active"
    assert saga.instance.waiting_for == ("sub.PaymentFailed or sub.Used or sub.Ended (state active)")
    assert saga.hears(PaymentFailed(sub="s")).sent == [Remind(times=0)]
    assert state_of(saga.hears(Paid(sub="s"))) == "active"
    assert saga.hears(Ended(sub="s")).sent == [Bill(used=0)]
    assert saga.receives(Billed()).status == "completed"


def test_a_way_that_stays_changes_the_fields_alone() -> None:
    saga = subscribed().hears(Used(sub="s", amount=3)).hears(Used(sub="s", amount=4))
    assert saga.state.used == 7
    assert saga.kinds.count("state_entered") == 1
    assert saga.instance.choices["lifecycle/entry"] == "0"


def test_time_leads_on_too_and_a_state_may_be_entered_again() -> None:
    saga = subscribed().hears(PaymentFailed(sub="s"))
    assert saga.advance(timedelta(days=7)).sent == [Remind(times=1)]
    assert saga.advance(timedelta(days=7)).sent == [Remind(times=2)]
    assert saga.advance(timedelta(days=7)).sent == [Block(sub="s")]
    assert state_of(saga) == "suspended"
    assert [each.path for each in saga.log] == ["remind[1]", "remind[2]", "remind[3]", "block[4]"]
    assert set(saga.instance.timers) == {"deadline", "block[4]/do"}


def test_the_time_of_a_state_counts_from_its_entry() -> None:
    saga = subscribed().advance(timedelta(days=100)).hears(PaymentFailed(sub="s"))
    assert saga.advance(timedelta(days=6)).sent == []
    saga.hears(Paid(sub="s")).hears(PaymentFailed(sub="s"))
    assert saga.advance(timedelta(days=6)).sent == []
    assert saga.advance(timedelta(days=1)).sent == [Remind(times=1)]


def test_events_are_taken_when_what_is_done_on_entering_is_done() -> None:
    saga = subscribed().hears(PaymentFailed(sub="s")).advance(timedelta(days=21))
    saga.hears(Paid(sub="s"))
    assert saga.disposition is Disposition.HELD
    assert state_of(saga) == "suspended"
    assert state_of(saga.receives(Blocked())) == "active"


def test_what_was_done_in_a_state_that_was_left_stays_done() -> None:
    saga = subscribed().hears(PaymentFailed(sub="s")).advance(timedelta(days=21)).receives(Blocked())
    saga.hears(Paid(sub="s"))
    assert saga.instance.steps == {}
    saga.hears(GivenUp(sub="s"))
    assert (saga.status, saga.instance.end_reason) == ("compensated", "cancelled")
    assert saga.sent == []
    assert saga.instance.timers == {}


def test_what_was_done_on_entering_is_undone_when_it_turns_back() -> None:
    saga = subscribed().hears(PaymentFailed(sub="s")).advance(timedelta(days=21)).receives(Blocked())
    assert saga.hears(GivenUp(sub="s")).sent == [Unblock(sub="s")]


def test_what_fails_on_entering_turns_the_saga_back() -> None:
    saga = subscribed().hears(PaymentFailed(sub="s")).advance(timedelta(days=21)).receives(NotBlocked())
    assert (saga.instance.phase, saga.instance.end_reason) == (Phase.COMPENSATED, "failed")


def test_an_event_that_no_way_takes_in_this_state_is_what_the_class_says() -> None:
    saga = subscribed().hears(PaymentFailed(sub="s")).hears(PaymentFailed(sub="s"))
    assert (saga.disposition, saga.reason) == (Disposition.IGNORED, "not_in_state_past_due")
    saga = subscribed().hears(Paid(sub="s"))
    assert saga.disposition is Disposition.HELD
    saga.hears(PaymentFailed(sub="s"))
    assert state_of(saga) == "active"


def test_an_event_that_is_kept_again_counts_once() -> None:
    saga = subscribed().hears(Paid(sub="s")).hears(Paid(sub="s"))
    assert saga.instance.choices["kept/early"] == "2"
    saga.hears(PaymentFailed(sub="s"))
    assert (saga.instance.choices["kept/early"], state_of(saga)) == ("1", "active")
    assert saga.kinds.count("message_held") == 2


@pytest.mark.parametrize("last", [Ended(sub="s"), GivenUp(sub="s")])
def test_an_event_that_is_kept_for_a_state_which_is_never_entered_is_ignored_at_the_end(last: Event) -> None:
    saga = subscribed().hears(Paid(sub="s")).hears(last)
    if isinstance(last, Ended):
        assert saga.receives(Billed()).status == "completed"
    assert saga.kinds[-1] == "message_ignored"
    assert "kept/early" not in saga.instance.choices


def test_an_event_is_kept_for_a_wait_in_a_state_that_may_still_be_entered() -> None:
    class Asking(Base, key="sub"):
        @on("open", elsewhere="ignore")
        def ended(self, event: Ended) -> Literal["closing"]:
            return "closing"

        @wait
        def last_word(self, event: Used) -> None: ...

        @on("closing", after=timedelta(days=1))
        def over(self) -> Literal["over"]:
            return "over"

        @step(success=Billed)
        def bill(self) -> Bill:
            return Bill(used=self.used)

        flow = lifecycle("open", entering={"closing": last_word}, final=["over"]) >> bill

    saga = Harness(Asking).given(Subscribed(sub="s")).hears(Used(sub="s", amount=1))
    assert saga.disposition is Disposition.HELD
    saga.hears(Ended(sub="s"))
    assert saga.kinds[-2:] == ["event_received", "state_opened"]
    assert "kept/early" not in saga.instance.choices


class Strict(Base, key="sub"):
    @on("open", elsewhere="ignore")
    def ended(self, event: Ended) -> Literal["closed"]:
        return "closed"

    @on("open", elsewhere="dead_letter")
    def paid(self, event: Paid) -> None: ...

    @on("closed", elsewhere="keep")
    def used_up(self, event: Used) -> Literal["over"]:
        raise ValueError(f"{event.amount} is too much")

    @step(success=Billed)
    def bill(self) -> Bill:
        return Bill(used=self.used)

    flow = lifecycle("open", entering={"closed": bill}, final=["over"])


@pytest.mark.parametrize(
    ("event", "told"), [(Paid(sub="s"), "message_dead_lettered"), (Used(sub="s", amount=1), "parked")]
)
def test_an_event_that_was_kept_and_is_refused_then_is_kept_no_longer(event: Event, told: str) -> None:
    saga = Harness(Strict).given(Subscribed(sub="s")).hears(Ended(sub="s")).hears(event)
    assert (saga.disposition, saga.instance.choices["kept/early"]) == (Disposition.HELD, "1")
    saga.receives(Billed())
    assert (saga.kinds[-1], saga.history[-1].message_name) == (told, event.message_name if told != "parked" else None)
    assert "kept/early" not in saga.instance.choices


def test_for_years_the_row_stays_small() -> None:
    saga = subscribed()
    for _ in range(200):
        saga.hears(PaymentFailed(sub="s")).advance(timedelta(days=8)).hears(Paid(sub="s"))
    assert saga.instance.steps == {}
    assert set(saga.instance.choices) == {"lifecycle", "lifecycle/entry", "lifecycle/open"}
    assert saga.instance.choices["lifecycle/entry"] == "600"


def test_a_way_that_says_what_it_did_not_announce_parks_the_saga() -> None:
    class Wrong(Base, key="sub"):
        @on("open")
        def used_up(self, event: Used) -> Literal["closed"]:
            return "ajar"  # type: ignore[return-value]

        @step(success=Billed)
        def bill(self) -> Bill:
            return Bill(used=self.used)

        flow = lifecycle("open", final=["closed"]) >> bill

    saga = Harness(Wrong).given(Subscribed(sub="s")).hears(Used(sub="s", amount=1))
    assert saga.disposition is Disposition.DEAD_LETTERED
    assert "which is none of the states that its annotation lists" in saga.attention["method_raised"]


def test_states_and_ways_are_part_of_the_shape() -> None:
    shape = definition_of(Subscription).document["shape"]
    assert shape["ways"]["past_due: remind_or_suspend"] == ["past_due", "suspended"]
    assert shape["ways"]["active: used_up"] == ["stay"]
    assert shape["flow"][0]["lifecycle"]["entering"] == {"past_due": "remind", "suspended": "block"}
    assert definition_of(Subscription).document["policy"]["after"] == {"remind_or_suspend": 604_800.0}

    class Other(Base, key="sub", version=1, name="Subscription"):
        @on("active")
        def ended(self, event: Ended) -> Literal["ended"]:
            return "ended"

        @step(success=Billed)
        def bill(self) -> Bill:
            return Bill(used=self.used)

        flow = lifecycle("active", final=["ended"]) >> bill

    assert "way past_due: ended is gone" in str(
        difference(definition_of(Subscription).document, definition_of(Other).document)
    )


def told(make: object) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        make()  # type: ignore[operator]
    return PLACE.sub("", str(caught.value)).splitlines()


def test_an_incomplete_lifecycle_is_told() -> None:
    def make() -> None:
        class X(Base, key="sub"):
            @on(Standing.ACTIVE)
            def payment_failed(self, event: PaymentFailed) -> Literal[Standing.PAST_DUE]:
                return Standing.PAST_DUE

            @step(success=Billed)
            def bill(self) -> Bill:
                return Bill(used=self.used)

            flow = lifecycle(Standing.ACTIVE, final=[Standing.ENDED]) >> bill

    assert told(make) == [
        "X: the state 'ended' is never reached; lead to it, or remove it",
        "X: the state 'suspended' is never reached; lead to it, or remove it",
        "X: the state 'past_due' is never left; write an @on for it, or name it in final=",
        "X.payment_failed: does not say what becomes of PaymentFailed in past_due; "
        'add an @on, or elsewhere="ignore", "keep" or "dead_letter"',
    ]


def test_ways_that_cannot_be_are_told() -> None:
    def make() -> None:
        class X(Base, key="sub"):
            @on("open")
            def used_up(self, event: Used) -> str:
                return "closed"

            @on("open")
            def used_again(self, event: Used) -> Literal["closed"]:
                return "closed"

            @on("closed")
            def reopened(self, event: Paid) -> Literal["opn"]:
                return "opn"

            @on()
            def nowhere(self, event: PaymentFailed) -> Literal["closed"]:
                return "closed"

            @on("open", after=timedelta(days=1))
            def timed(self, event: Ended) -> Literal["closed"]:
                return "closed"

            @step(success=Billed)
            def bill(self) -> Bill:
                return Bill(used=self.used)

            flow = lifecycle("open", final=["closed"]) >> bill

    found = told(make)
    assert "X.used_up: does not list the states that it leads to; annotate -> Literal[Standing.PAST_DUE]" in found
    assert "X.used_again: takes Used in the state 'open', as 'used_up' does; keep one" in found
    assert "X.reopened: leads out of 'closed', which is final; remove one or the other" in found
    assert "X.timed: takes (self, event); write def timed(self)" in found
    assert any(line.startswith("X.nowhere: does not say in which states") for line in found)


def test_a_lifecycle_stands_on_the_main_line_and_once() -> None:
    def without() -> None:
        class X(Base, key="sub"):
            @on("open")
            def used_up(self, event: Used) -> Literal["closed"]:
                return "closed"

            @step(success=Billed)
            def bill(self) -> Bill:
                return Bill(used=self.used)

    assert told(without) == [
        "X.used_up: leads from a state, and no lifecycle() stands on the main line of the flow; write it there"
    ]
