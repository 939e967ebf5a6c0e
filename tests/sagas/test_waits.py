"""How long to wait, for every number that a class may be given."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from sagas import Retry, definition_of
from sagas.catalog.ordering import PlaceOrder
from sagas.waits import backoff_wait, reply_wait

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


@pytest.mark.parametrize("factor", [1.0, 2.0, 1e9, float("inf")])
def test_a_wait_grows_up_to_its_cap_and_no_further(factor: float) -> None:
    retry = Retry(attempts=10_000, backoff=SECOND, factor=factor, cap=MINUTE, jitter=0.0)
    call = replace(definition_of(PlaceOrder).steps["reserve"].do, timeout=SECOND, retry=retry)
    waits = [reply_wait(call, sends) for sends in (1, 2, 3, 5_000)]
    assert waits == [backoff_wait(retry, transients, "any id") for transients in (1, 2, 3, 5_000)]
    assert waits[0] == SECOND
    assert waits == sorted(waits)
    assert waits[-1] == (SECOND if factor == 1.0 else MINUTE)
