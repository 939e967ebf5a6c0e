"""What is away at the start is waited for, one report per attempt, and not for ever."""

import pytest

from messages.errors import BrokerAway, ConfigurationError, DatabaseAway, Trouble
from running import AsyncioRunner
from runtime.facts import DependencyAway, DependencyReached
from runtime.startup import LONGEST_PAUSE, Patience


class SleepingRunner(AsyncioRunner):
    """Sleeping takes no time and moves the clock."""

    def __init__(self) -> None:
        self.clock = 0.0

    def monotonic(self) -> float:
        return self.clock

    def random(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        self.clock += seconds


async def test_each_attempt_is_reported_until_it_works() -> None:
    facts: list[object] = []
    answers = [DatabaseAway("refused"), DatabaseAway("refused"), None]

    async def attempt() -> None:
        if (answer := answers.pop(0)) is not None:
            raise answer

    await Patience(60, SleepingRunner(), facts.append).reach("database", "postgresql://h/d", attempt)
    assert [type(fact) for fact in facts] == [DependencyAway, DependencyAway, DependencyReached]
    first, second, reached = facts
    assert isinstance(first, DependencyAway)
    assert isinstance(second, DependencyAway)
    assert (first.error, first.attempt, second.attempt) == ("refused", 1, 2)
    assert second.retry_in > first.retry_in
    assert reached == DependencyReached(dependency="database", attempt=3)


async def test_it_gives_up_in_time_and_names_the_setting() -> None:
    runner = SleepingRunner()
    facts: list[object] = []

    async def attempt() -> None:
        raise BrokerAway("connection refused")

    with pytest.raises(
        BrokerAway, match=r"broker did not answer within 60 s: connection refused; .*BROKER_URL.*STARTUP_TIMEOUT"
    ):
        await Patience(60, runner, facts.append).reach("broker", "amqp://h/", attempt)
    assert 60 - LONGEST_PAUSE <= runner.clock <= 60
    assert all(isinstance(fact, DependencyAway) and fact.retry_in <= LONGEST_PAUSE for fact in facts)


async def test_two_dependencies_share_the_time() -> None:
    runner = SleepingRunner()
    patience = Patience(60, runner, lambda _: None)
    runner.clock = 59.9

    async def attempt() -> None:
        raise BrokerAway("refused")

    with pytest.raises(BrokerAway):
        await patience.reach("broker", "amqp://h/", attempt)
    assert runner.clock == 59.9


async def test_a_wrong_address_is_not_tried_again() -> None:
    tried = []

    async def attempt() -> None:
        tried.append(1)
        raise ConfigurationError("password authentication failed")

    with pytest.raises(ConfigurationError, match="password authentication"):
        await Patience(60, SleepingRunner(), lambda _: None).reach("database", "postgresql://h/d", attempt)
    assert tried == [1]


async def test_an_attempt_that_gets_no_answer_names_the_address() -> None:
    facts: list[object] = []

    async def attempt() -> None:
        raise TimeoutError

    with pytest.raises(Trouble, match=r"database did not answer within 1 s: postgresql://h/d: no answer in time; "):
        await Patience(1, SleepingRunner(), facts.append).reach("database", "postgresql://h/d", attempt)
    [first, *_] = facts
    assert isinstance(first, DependencyAway)
    assert first.error == "postgresql://h/d: no answer in time"
