"""Our own contenders in one process complete every order once, and say when they do not."""

from __future__ import annotations

import pytest

from bench.embedded.contenders import EMBEDDED, OneProcess
from bench.embedded.pipe import problems
from bench.ground import Files
from bench.rounds import Plan, run_round

BRIEF = Plan(in_flight=[4], seconds=0.2, warm_up=0.1, idle_orders=3, idle_seconds=5)


@pytest.mark.parametrize("name", [name for name, each in EMBEDDED.items() if isinstance(each, OneProcess)])
async def test_a_contender_in_one_process_completes_every_order_once(name: str) -> None:
    done = await run_round(EMBEDDED[name], Files(), BRIEF, 1)
    assert list(done.problems) == []
    assert len(done.idle) == 3
    (level,) = done.steady
    assert level.sagas >= 1
    assert level.work.commits >= 1
    assert (level.work.statements or 0) > level.sagas


def test_an_order_that_is_missing_or_seen_twice_is_a_problem() -> None:
    assert problems(["a", "b"], ["b", "a"], {"stock": {"a": 1, "b": 1}}) == []
    assert problems(["a", "b"], ["a"], {}) == ["1 sagas are completed of 2 orders"]
    assert problems(["a"], ["a"], {"stock": {"a": 2}}) == ["stock did not see every order once"]
    assert problems(["a"], ["a"], {"stock": {}}) == ["stock did not see every order once"]
