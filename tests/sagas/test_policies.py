"""Policies that are set where the application is put together."""

from __future__ import annotations

from datetime import timedelta

import pytest

from messages.errors import DefinitionError
from sagas import Patience, Policies, Retry, definition_of, with_policies
from sagas.catalog.ordering import PlaceOrder

ORDER = definition_of(PlaceOrder)


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
