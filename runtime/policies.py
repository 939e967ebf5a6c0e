"""The policies that an operator sets in TOML: read, checked against the sagas they are for, and put in their place.

    [PlaceOrder]
    deadline = "5d"

    [PlaceOrder.pay]
    timeout = "2m"
    retry = { attempts = 5, backoff = "10s" }

What is not named stays as the class says. Everything that is wrong in the text is told at once.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from messages.errors import ConfigurationError
from runtime.durations import named, span
from sagas.policies import Patience, Policies, with_policies
from sagas.problems import listed, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sagas.definition import Call, Definition, Retry, WaitDefinition

VARIABLE = "ANTIPHON_POLICIES"
T = TypeVar("T", "Call", "WaitDefinition")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyText:
    """What the setting holds: TOML that can be read, of which nobody has yet said that it makes sense.

    `said` is the setting itself, `place` what people are shown as the place of a mistake.
    """

    said: str
    place: str
    tables: Mapping[str, Any]

    def __str__(self) -> str:
        return self.said

    @classmethod
    def read(cls, said: str) -> PolicyText:
        """Read the file of this path; a text with `=` in it is TOML already.

        Raises:
            ValueError: the file cannot be read, or the text is no TOML.
        """
        inline = "=" in said
        try:
            text = said if inline else Path(said).read_text(encoding="utf-8")
            tables = tomllib.loads(text)
        except OSError as error:
            raise ValueError(f"cannot be read ({error.strerror}); write a TOML file's path, or TOML") from None
        except UnicodeDecodeError:
            raise ValueError("cannot be read (not UTF-8 text); write a TOML file's path, or TOML") from None
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f'is no TOML: {error}; write as in PlaceOrder.pay.timeout = "2m"') from None
        return cls(said=said, place="" if inline else f"{said}: ", tables=tables)


def tuned(definitions: Sequence[Definition], text: PolicyText | None) -> list[Definition]:
    """The definitions with the policies of the text. Where there is no saga, the text concerns nobody.

    A table is for all versions of its saga; a step for those that have it.

    Raises:
        ConfigurationError: with everything that is wrong in the text.
    """
    if text is None or not definitions:
        return list(definitions)
    problems: list[str] = []
    changes: dict[str, SagaChange] = {}
    for saga_type, content in text.tables.items():
        versions = [each for each in definitions if each.type == saga_type]
        if not versions:
            known = dict.fromkeys(each.type for each in definitions)
            hint = suggestion(saga_type, known)
            problems.append(f"{_path(saga_type)}: no saga is called {saga_type!r}{hint}; there are {listed(known)}")
        change, wrong = _read(content, _names(versions))
        problems += [f"{_path(saga_type, *where)}: {problem}" for where, problem in wrong]
        if change is not None:
            changes[saga_type] = change
    result = []
    for definition in definitions:
        change = changes.get(definition.type)
        if change is not None:
            problems += [
                f"{_path(definition.type, *where)}: {problem}" for where, problem in _useless(definition, change)
            ]
        result.append(definition if change is None or problems else with_policies(definition, _of(change, definition)))
    if problems:
        raise ConfigurationError(_told(text, list(dict.fromkeys(problems))))
    return result


def _names(versions: Iterable[Definition]) -> list[str]:
    """What may have a table: the steps and compensations, then the waits, of any of the versions."""
    calls = [call.name for each in versions for call in calls_of(each)]
    return list(dict.fromkeys([*calls, *(name for each in versions for name in each.waits)]))


def calls_of(definition: Definition) -> Iterator[Call]:
    """The steps and compensations of a saga, in the order written."""
    return (call for step in definition.steps.values() for call in (step.do, step.undo) if call is not None)


# -- what the text may say


def _wait(value: object) -> timedelta:
    """A time to wait, which is longer than none."""
    time = span(value)
    if not time:
        raise ValueError('is no time to wait; write more, such as "30s"')
    return time


def _attempts(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("is no number of sends; write how many in all, the first included: 1 or more")
    return value


def _number(value: object, *, least: float, most: float, remedy: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"will not do; {remedy}")
    return float(value)


_factor = partial(_number, least=1, most=float("1e9"), remedy="write what each pause is multiplied by, 1 or more")
_fraction = partial(_number, least=0, most=1, remedy="write by what fraction a pause may be longer, from 0 to 1")


class _Change(BaseModel):
    """A table of the text. What it does not name is None."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RetryChange(_Change):
    """What is other in the retry of a step or compensation."""

    attempts: Annotated[int | None, BeforeValidator(_attempts)] = None
    backoff: Annotated[timedelta | None, BeforeValidator(span)] = None
    factor: Annotated[float | None, BeforeValidator(_factor)] = None
    cap: Annotated[timedelta | None, BeforeValidator(span)] = None
    jitter: Annotated[float | None, BeforeValidator(_fraction)] = None

    def of(self, retry: Retry) -> Retry:
        """The retry of a class with these changes."""
        return replace(retry, **self.model_dump(exclude_none=True))


class CallChange(_Change):
    """What is other in the patience of a step, a compensation, or a wait, which has a timeout alone."""

    timeout: Annotated[timedelta | None, BeforeValidator(_wait)] = None
    retry: RetryChange | None = None


class SagaChange(_Change):
    """What is other in the policy of a saga: its deadline, and a table for each step, compensation or wait."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, CallChange] = Field(init=False)

    deadline: Annotated[timedelta | None, BeforeValidator(_wait)] = None

    @property
    def calls(self) -> Mapping[str, CallChange]:
        """The tables by the names of what they are about."""
        return self.__pydantic_extra__


# -- what is wrong with it

_Problem = tuple[tuple[str, ...], str]
"""Where in the table of a saga, and what."""

_KEYS = (tuple(SagaChange.model_fields), tuple(CallChange.model_fields), tuple(RetryChange.model_fields))
"""What may stand in the table of a saga beside its steps, in that of a step, and in that of a retry."""

_EXAMPLES = ('deadline = "5d"', 'timeout = "2m"', "attempts = 5")
"""One of each."""


def _read(content: object, names: Sequence[str]) -> tuple[SagaChange | None, list[_Problem]]:
    """The change that a saga's table means, None if it means none; and what is wrong. No `names`: an unknown saga."""
    problems: list[_Problem] = [
        ((name,), f"no step, compensation or wait is called that{suggestion(name, names)}; there are {listed(names)}")
        for name, table in (content.items() if isinstance(content, dict) else ())
        if names and isinstance(table, dict) and name not in names
    ]
    try:
        return SagaChange.model_validate(content), problems
    except ValidationError as error:
        found = error.errors(include_url=False)
        return None, problems + [(tuple(map(str, each["loc"])), _explained(each, names)) for each in found]


def _explained(problem: Mapping[str, Any], names: Sequence[str]) -> str:
    where, said = problem["loc"], problem["input"]
    if problem["type"] == "extra_forbidden":
        known = _KEYS[len(where) - 1]
        return f"nothing is called that{suggestion(str(where[-1]), known)}; there are {listed(known)}"
    if problem["type"] == "model_type":
        hint = suggestion(str(where[0]), [*_KEYS[0], *names]) if len(where) == 1 else ""
        return f"{_shown(said)} is no table{hint}; write a table, with {_EXAMPLES[len(where)]} in it"
    return f"{_shown(said)} {problem['ctx']['error']}"


def _useless(definition: Definition, change: SagaChange) -> Iterator[_Problem]:
    """What would not do what it says."""
    for call, table in _about(calls_of(definition), change):
        retry = _retry(table, call)
        paused = retry is not None and (retry.backoff, retry.cap) != (call.retry.backoff, call.retry.cap)
        if retry is not None and paused and retry.backoff > retry.cap:
            yield (
                (call.name, "retry"),
                f"the backoff ({named(retry.backoff)}) is longer than the cap ({named(retry.cap)}), which no pause "
                f'exceeds; set both, such as backoff = "{named(retry.backoff)}", cap = "{named(retry.backoff)}"',
            )
    for wait, table in _about(definition.waits.values(), change):
        if table.retry is not None:
            yield (wait.name, "retry"), "a wait sends nothing that could be sent again; remove it"
        if table.timeout is not None and wait.timeout is None:
            yield (wait.name, "timeout"), "this wait never ends by itself; the class must say what follows if it does"
        late = [name for name, each in wait.notices.items() if table.timeout and each.after >= table.timeout]
        if late:
            yield (wait.name, "timeout"), f"{listed(late)} would come when it is over; write a longer time"


def _of(change: SagaChange, definition: Definition) -> Policies:
    """The change as it is for one version: what the class says of a retry stays where the text is silent."""
    return Policies(
        deadline=change.deadline,
        calls={
            call.name: Patience(timeout=table.timeout, retry=_retry(table, call))
            for call, table in _about(calls_of(definition), change)
        },
        waits={
            wait.name: table.timeout
            for wait, table in _about(definition.waits.values(), change)
            if table.timeout is not None
        },
    )


def _about(things: Iterable[T], change: SagaChange) -> Iterator[tuple[T, CallChange]]:
    """Those of the calls or waits that have a table, each with it."""
    return ((each, change.calls[each.name]) for each in things if each.name in change.calls)


def _retry(table: CallChange, call: Call) -> Retry | None:
    return None if table.retry is None else table.retry.of(call.retry)


def _told(text: PolicyText, problems: Sequence[str]) -> str:
    if len(problems) == 1:
        return f"{VARIABLE}: {text.place}{problems[0]}"
    return "\n".join([f"{VARIABLE}: {text.place}{len(problems)} policies are wrong", *problems])


def _path(*keys: str) -> str:
    """The path of a value as TOML writes it."""
    return ".".join(key if _is_bare(key) else f'"{key}"' for key in keys)


def _is_bare(key: str) -> bool:
    return bool(key) and key.isascii() and key.replace("-", "").replace("_", "").isalnum()


def _shown(value: object) -> str:
    """A value in quotes as TOML has them."""
    return f'"{value}"' if isinstance(value, str) else str(value)
