"""Timeouts, retries and deadlines set where the application is put together, without touching the class."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from messages.errors import DefinitionError
from sagas.digests import with_policy_documented
from sagas.keywords import is_span, retry_problems
from sagas.problems import listed, suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from sagas.definition import Call, Definition, Retry, StepDefinition


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """What replaces the timeout and the retry of one step or compensation; None leaves what the class says."""

    timeout: timedelta | None = None
    retry: Retry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """What replaces the policy of one saga type: its deadline, by name the patience of steps and compensations, and by
    name the timeout of waits that have one."""

    deadline: timedelta | None = None
    calls: Mapping[str, Patience] = field(default_factory=dict)
    waits: Mapping[str, timedelta] = field(default_factory=dict)


def with_policies(definition: Definition, overrides: Policies) -> Definition:
    """The definition with another policy; its shape, state and code, and so its version, stay.

    Raises:
        DefinitionError: a name is no step, compensation or wait of this saga, or a time or a retry is not a sensible
            one. A wait that the class lets wait for ever has no timeout to replace: the class must say what follows.
    """
    _check(definition, overrides)
    steps = {name: _step(step, overrides.calls) for name, step in definition.steps.items()}
    waits = {
        name: replace(wait, timeout=overrides.waits.get(name, wait.timeout)) for name, wait in definition.waits.items()
    }
    return with_policy_documented(
        replace(
            definition,
            steps=MappingProxyType(steps),
            waits=MappingProxyType(waits),
            deadline=overrides.deadline or definition.deadline,
        )
    )


def _step(step: StepDefinition, calls: Mapping[str, Patience]) -> StepDefinition:
    return replace(step, do=_call(step.do, calls), undo=_call(step.undo, calls) if step.undo else None)


def _call(call: Call, calls: Mapping[str, Patience]) -> Call:
    patience = calls.get(call.name, Patience())
    return replace(
        call,
        timeout=patience.timeout or call.timeout,
        timed=call.timed or patience.timeout is not None,
        retry=patience.retry or call.retry,
    )


def _check(definition: Definition, overrides: Policies) -> None:
    known = [call.name for step in definition.steps.values() for call in (step.do, step.undo) if call]
    problems = [
        f"no step or compensation is called {name!r}{suggestion(name, known)}; there are {listed(known)}"
        for name in overrides.calls
        if name not in known
    ]
    times = {"deadline": overrides.deadline} | {
        f"{name}: timeout": one.timeout for name, one in overrides.calls.items()
    }
    times |= {f"{name}: timeout": timeout for name, timeout in overrides.waits.items()}
    timed = [name for name, wait in definition.waits.items() if wait.timeout is not None]
    problems += [
        f"no wait with a timeout is called {name!r}{suggestion(name, timed)}; there are {listed(timed)}"
        for name in overrides.waits
        if name not in timed
    ]
    for where, time in times.items():
        if time is not None and not is_span(time):
            problems.append(f"{where}={time!r} will not do; give a positive timedelta of at most 100 years")
    for name, patience in overrides.calls.items():
        problems += [f"{name}: {problem}" for problem in (retry_problems(patience.retry) if patience.retry else ())]
    if problems:
        raise DefinitionError("\n".join(f"{definition.type}: {problem}" for problem in problems))
