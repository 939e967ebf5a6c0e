"""`config show` and `version`."""

from __future__ import annotations

import platform
from collections import Counter
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING

from rich.text import Text

from messages.errors import ConfigurationError
from runtime.durations import named
from runtime.exits import OK
from runtime.loading import known_to
from runtime.policies import calls_of
from runtime.printing import console, print_json, table
from runtime.settings import load, variable
from sagas.compile import definition_of
from sagas.definition import Retry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.settings import Loaded
    from sagas.definition import Definition

_STANDS_ON = ("aio-pika", "asyncpg", "sqlalchemy", "pydantic", "fastapi", "uvicorn")

_POLICY = ("deadline", "timeout", *(field.name for field in fields(Retry)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The policy of a saga, or of one of its steps or compensations: what holds, and what the class says."""

    saga: str
    version: int
    call: str
    effective: Mapping[str, str]
    of_class: Mapping[str, str]

    @property
    def replaced(self) -> Mapping[str, str]:
        """What the class says and does not hold."""
        return {name: said for name, said in self.of_class.items() if said != self.effective[name]}


def show(*, as_json: bool) -> int:
    """Print every setting with its value and source, and the policies that follow for the sagas.

    Raises:
        ConfigurationError: the sagas cannot be loaded, or the policies do not fit them; the settings were printed.
    """
    loaded = load()
    policies, problem = _policies(loaded)
    if as_json:
        _print_json(loaded, policies)
    else:
        _print(loaded, policies)
    if problem is not None:
        raise problem
    return OK


def _policies(loaded: Loaded) -> tuple[list[Policy], ConfigurationError | None]:
    """The policies of all sagas; none, and why, when they cannot be told."""
    try:
        known = known_to(loaded.settings)
    except ConfigurationError as error:
        return [], error
    return [
        policy for versions in known.sagas.values() for definition in versions.values() for policy in _of(definition)
    ], None


def _of(definition: Definition) -> Iterator[Policy]:
    own = _written(definition_of(definition.saga_class))
    for call, effective in _written(definition).items():
        yield Policy(
            saga=definition.type, version=definition.version, call=call, effective=effective, of_class=own[call]
        )


def _written(definition: Definition) -> dict[str, dict[str, str]]:
    """The policies as a policy file would have them; that of the saga itself under no name."""
    return (
        {"": {"deadline": named(definition.deadline)}}
        | {
            call.name: {
                "timeout": named(call.timeout),
                "attempts": str(call.retry.attempts),
                "backoff": named(call.retry.backoff),
                "factor": f"{call.retry.factor:g}",
                "cap": named(call.retry.cap),
                "jitter": f"{call.retry.jitter:g}",
            }
            for call in calls_of(definition)
        }
        | {
            name: {"timeout": named(wait.timeout) if wait.timeout else "never"}
            for name, wait in definition.waits.items()
        }
    )


def _print(loaded: Loaded, policies: Sequence[Policy]) -> None:
    out = console()
    rows = [(variable(name), loaded.sources[name], value) for name, value in loaded.shown().items()]
    out.print(table(("setting", "source", "value"), rows))
    if not policies:
        return
    versions = Counter(saga for saga, _ in {(each.saga, each.version) for each in policies})
    out.print()
    out.print(Text("Policies", style="bold"))
    out.print(
        table(
            ("saga or step", *_POLICY, "instead of the class's"),
            [
                (
                    _name(each, numbered=versions[each.saga] > 1),
                    *(each.effective.get(name) for name in _POLICY),
                    ", ".join(f"{name} {said}" for name, said in each.replaced.items()),
                )
                for each in policies
            ],
        )
    )


def _name(policy: Policy, *, numbered: bool) -> str:
    path = f"{policy.saga}.{policy.call}" if policy.call else policy.saga
    return f"{path} (version {policy.version})" if numbered else path


def _print_json(loaded: Loaded, policies: Sequence[Policy]) -> None:
    values = loaded.shown()
    told: dict[str, dict[str, object]] = {
        variable(name): {"value": values[name], "source": loaded.sources[name]} for name in values
    }
    told[variable("policies")]["effective"] = [
        {
            "saga": each.saga,
            "version": each.version,
            "step": each.call or None,
            **{name: {"value": value, "class": each.of_class[name]} for name, value in each.effective.items()},
        }
        for each in policies
    ]
    print_json(told)


def version(*, as_json: bool) -> int:
    """Print our version, Python's and those of the libraries that matter in a report of a problem."""
    versions = {name: _installed(name) for name in ("antiphon", *_STANDS_ON)}
    versions["python"] = platform.python_version()
    if as_json:
        print_json(versions)
    else:
        for name, number in versions.items():
            console().print(f"{name} {number}")
    return OK


def _installed(distribution: str) -> str:
    try:
        return version_of(distribution)
    except PackageNotFoundError:
        return "not installed"
