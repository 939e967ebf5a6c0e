"""Policies that are set where the application is put together."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

import pytest

from messages import Command, Event
from messages.errors import DefinitionError
from sagas import Patience, Policies, Retry, Saga, definition_of, start, step, wait, with_policies
from sagas.catalog.ordering import PlaceOrder

ORDER = definition_of(PlaceOrder)


class Asked(Event, name="policies_of_sagas.Asked"):
    leave_id: str


class Granted(Event, name="policies_of_sagas.Granted"):
    leave_id: str


class Returned(Event, name="policies_of_sagas.Returned"):
    leave_id: str


class Book(Command, name="policies_of_sagas.Book"):
    leave_id: str


class Leave(Saga, key="leave_id", version=1):
    leave_id: str

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(leave_id=event.leave_id)

    @wait(timeout=timedelta(days=3))
    def decided(self, event: Granted) -> None: ...

    @step(reply=False)
    def book(self) -> Book:
        return Book(leave_id=self.leave_id)

    @wait
    def returned(self, event: Returned) -> None: ...

    flow = decided >> book >> returned


LEAVE = definition_of(Leave)


def test_a_step_gets_another_timeout_and_keeps_its_retry() -> None:
    pay = with_policies(ORDER, Policies(calls={"pay": Patience(timeout=timedelta(seconds=1))})).steps["pay"].do
    assert pay.timeout == timedelta(seconds=1)
    assert pay.retry == ORDER.steps["pay"].do.retry


def test_a_compensation_gets_another_retry() -> None:
    undo = with_policies(ORDER, Policies(calls={"refund": Patience(retry=Retry(attempts=99))})).steps["pay"].undo
    assert undo is not None
    assert undo.retry.attempts == 99


def test_the_saga_gets_another_deadline() -> None:
    assert with_policies(ORDER, Policies(deadline=timedelta(hours=1))).deadline == timedelta(hours=1)


def test_the_class_keeps_its_own_policy() -> None:
    with_policies(ORDER, Policies(deadline=timedelta(hours=1)))
    assert definition_of(PlaceOrder).deadline == timedelta(days=3)


def test_only_the_policy_digest_changes() -> None:
    other = with_policies(ORDER, Policies(calls={"pay": Patience(timeout=timedelta(seconds=1))}))
    assert other.digests.policy != ORDER.digests.policy
    assert (other.digests.shape, other.digests.state, other.digests.code) == (
        ORDER.digests.shape,
        ORDER.digests.state,
        ORDER.digests.code,
    )
    assert other.document["policy"]["steps"]["pay"]["do"]["timeout"] == 1.0


def test_a_wait_gets_another_timeout() -> None:
    other = with_policies(LEAVE, Policies(waits={"decided": timedelta(days=9)}))
    assert other.waits["decided"].timeout == timedelta(days=9)
    assert LEAVE.waits["decided"].timeout == timedelta(days=3)
    assert other.document["policy"]["waits"]["decided"]["timeout"] == 9 * 86400
    assert other.digests.shape == LEAVE.digests.shape


def test_a_wait_that_waits_for_ever_has_no_timeout_to_replace() -> None:
    with pytest.raises(DefinitionError) as caught:
        with_policies(LEAVE, Policies(waits={"returned": timedelta(days=9), "decided": timedelta(0)}))
    assert str(caught.value).splitlines() == [
        "Leave: no wait with a timeout is called 'returned'; there are decided",
        "Leave: decided: timeout=datetime.timedelta(0) will not do; give a positive timedelta of at most 100 years",
    ]


def test_no_override_changes_nothing() -> None:
    assert with_policies(ORDER, Policies()).digests == ORDER.digests


def test_unknown_names_and_senseless_values_are_told_together() -> None:
    overrides = Policies(
        deadline=timedelta(0),
        calls={"payy": Patience(), "label": Patience(timeout=timedelta(seconds=-1), retry=Retry(attempts=0))},
    )
    with pytest.raises(DefinitionError) as caught:
        with_policies(ORDER, overrides)
    assert str(caught.value).splitlines() == [
        "PlaceOrder: no step or compensation is called 'payy' (did you mean 'pay'?); "
        "there are reserve, release, pay, refund, label and void",
        "PlaceOrder: deadline=datetime.timedelta(0) will not do; give a positive timedelta of at most 100 years",
        "PlaceOrder: label: timeout=datetime.timedelta(days=-1, seconds=86399) will not do; "
        "give a positive timedelta of at most 100 years",
        "PlaceOrder: label: Retry(attempts=0); write how many sends in all, at least 1",
    ]
