"""The subscription of the catalog as its people see it: published events, the state it is in, when its time is over."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.runtime.conftest import Command
    from tests.runtime.processes import Process


@pytest.fixture
def running(started: Callable[..., Process]) -> Process:
    """A process that runs the catalogs on SQLite."""
    process = started("run")
    process.until("process.ready")
    return process


def publish(antiphon: Command, name: str, **body: object) -> None:
    done = antiphon("publish", f"subscription.{name}", json.dumps(body))
    assert done.returncode == 0, done.stderr


def subscribe(antiphon: Command, key: str) -> None:
    publish(antiphon, "Subscribed", subscription_id=key, customer="Ada", plan="basic", price="9.90")


def test_a_state_is_told_with_the_events_that_lead_on_and_the_time_at_which_it_is_over(
    antiphon: Command, running: Process
) -> None:
    subscribe(antiphon, "s-1")
    running.until("saga.state_opened", key="s-1")
    page = antiphon("sagas", "show", "s-1").stdout
    [line] = re.findall(r"^  waiting for  (.*)$", page, re.MULTILINE)
    assert line.startswith("subscription.PlanChanged or subscription.Unsubscribed (state trial) since ")
    assert re.search(r"; the time of its state is over \(trial_is_over\) at \S+ \S+ \(in 1[34] d \d+ h\)$", line)
    assert re.search(r"^lifecycle +in the state trial ", page, re.MULTILINE)


def test_plans_are_changed_asked_for_and_left(antiphon: Command, running: Process) -> None:
    publish(antiphon, "PlanChanged", subscription_id="s-1", plan="gold", price="20")
    subscribe(antiphon, "s-1")
    running.until("saga.event_received", key="s-1")
    done = antiphon("sagas", "query", "s-1", "account")
    assert json.loads(done.stdout) == {"plan": "gold", "price": "20", "period": 0, "paid": 0}
    publish(antiphon, "Unsubscribed", subscription_id="s-1")
    running.until("saga.completed", key="s-1")
    subscribe(antiphon, "s-2")
    publish(antiphon, "Annulled", subscription_id="s-2")
    running.until("saga.compensated", key="s-2")
    subscribe(antiphon, "s-3-no-access")
    running.until("saga.compensated", key="s-3-no-access")
    told = json.loads(antiphon("sagas", "list", "--json").stdout)
    ends = {saga["business_key"]: (saga["status"], saga["end_reason"]) for saga in told}
    assert ends == {
        "s-1": ("completed", None),
        "s-2": ("compensated", "cancelled"),
        "s-3-no-access": ("compensated", "failed"),
    }
