"""A loop that ends unasked is started again; one that was asked to stop is not."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from running import AsyncioRunner
from runtime.facts import LoopEnded
from runtime.supervise import STEADY, Supervised


class QuickRunner(AsyncioRunner):
    """Pauses take no time, and the clock moves only when told to."""

    def __init__(self) -> None:
        self.clock = 0.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.clock

    def random(self) -> float:
        return 0.0

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        assert seconds is not None
        self.pauses.append(seconds)
        return asyncio.timeout(0)


class Loop:
    """Does what each life is told to; after the last it works until it is stopped."""

    name = "loop"

    def __init__(self, *lives: Callable[[], Awaitable[None]]) -> None:
        self._lives = list(lives)
        self._stop = asyncio.Event()
        self.steady = asyncio.Event()

    async def run(self) -> None:
        if self._lives:
            await self._lives.pop(0)()
            return
        self.steady.set()
        await self._stop.wait()

    def stop(self) -> None:
        self._stop.set()


async def fails() -> None:
    raise RuntimeError("out of tune")


async def returns() -> None:
    await asyncio.sleep(0)


async def is_cancelled() -> None:
    raise asyncio.CancelledError


def quiet(_fact: object) -> None:
    pass


@pytest.mark.parametrize("life", [fails, returns, is_cancelled])
async def test_a_loop_that_ends_unasked_runs_again(life: Callable[[], Awaitable[None]]) -> None:
    facts: list[object] = []
    loop = Loop(life)
    supervised = Supervised(loop, QuickRunner(), facts.append)
    task = asyncio.create_task(supervised.run())
    await asyncio.wait_for(loop.steady.wait(), 10)
    assert supervised.restarts == 1
    (fact,) = facts
    assert isinstance(fact, LoopEnded)
    assert fact.component == "loop"
    supervised.stop()
    await asyncio.wait_for(task, 10)


async def test_a_loop_that_was_asked_to_stop_is_not_started_again() -> None:
    loop = Loop()
    supervised = Supervised(loop, QuickRunner(), quiet)
    task = asyncio.create_task(supervised.run())
    await asyncio.wait_for(loop.steady.wait(), 10)
    supervised.stop()
    await asyncio.wait_for(task, 10)
    assert supervised.restarts == 0


async def test_pauses_grow_while_it_fails_and_start_anew_after_it_ran_steadily() -> None:
    runner = QuickRunner()

    async def runs_long_then_fails() -> None:
        runner.clock += STEADY
        raise RuntimeError("once more")

    loop = Loop(fails, fails, fails, runs_long_then_fails)
    supervised = Supervised(loop, runner, quiet)
    task = asyncio.create_task(supervised.run())
    await asyncio.wait_for(loop.steady.wait(), 10)
    assert runner.pauses == [0.2, 0.4, 0.8, 0.2]
    supervised.stop()
    await asyncio.wait_for(task, 10)


async def test_a_loop_that_fails_again_at_once_counts_as_down_until_it_runs_steadily() -> None:
    runner = QuickRunner()

    async def fails_soon() -> None:
        runner.clock += STEADY - 1
        raise RuntimeError("again")

    loop = Loop(fails, fails_soon)
    supervised = Supervised(loop, runner, quiet)
    assert supervised.down_for == 0
    task = asyncio.create_task(supervised.run())
    await asyncio.wait_for(loop.steady.wait(), 10)
    runner.clock += STEADY - 1
    assert supervised.down_for == 2 * (STEADY - 1)
    runner.clock += 1
    assert supervised.down_for == 0
    supervised.stop()
    await asyncio.wait_for(task, 10)


async def test_cancelling_the_supervisor_ends_the_loop() -> None:
    loop = Loop()
    supervised = Supervised(loop, QuickRunner(), quiet)
    task = asyncio.create_task(supervised.run())
    await asyncio.wait_for(loop.steady.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert supervised.restarts == 0


async def test_a_loop_that_fails_for_days_is_started_again_all_the_same() -> None:
    loop = Loop(*[fails] * 1_100)
    runner = QuickRunner()
    supervised = Supervised(loop, runner, quiet)
    task = asyncio.create_task(supervised.run())
    await asyncio.wait_for(loop.steady.wait(), 30)
    assert runner.pauses[-1] == 30.0
    supervised.stop()
    await task
