"""Settings: what the operator may choose, read from the environment, checked as a whole, never half accepted.

`load` is the only place that reads `ANTIPHON_*`. An error lists everything that is wrong at once and echoes no secret.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, SecretStr, ValidationError

from messages.codec import Limits
from messages.errors import ConfigurationError
from runtime.addresses import DEFAULT_DATABASE, IN_PROCESS, broker_address, concealed, database_address, is_sqlite
from runtime.durations import age, seconds, written
from runtime.policies import PolicyText

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PREFIX = "ANTIPHON_"
CATALOGS = ("messages.catalog", "sagas.catalog", "handlers.catalog")

DEAD_LETTER_HORIZON = 8 * 86400.0
"""Seconds after which no copy of a message is expected any more: a week in a queue or among the broker's dead letters,
and a day of being held."""

_SIZES = {"": 1, "b": 1, "kib": 1024, "mib": 1024**2}
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_NAMESPACE = re.compile(r"[a-z][a-z0-9_]{0,30}")
_KUBERNETES = re.compile(r"ANTIPHON_(SERVICE_(HOST|PORT).*|PORT(_\d+_.*)?)")


def _bytes(value: object) -> object:
    """A size in bytes: a bare number, or one with KiB or MiB."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+)\s*([a-z]*)", value.strip().lower())
    if match is None or match[2] not in _SIZES:
        raise ValueError("is not a size; write bytes, or a number with KiB or MiB (1048576, 1MiB)")
    return int(match[1]) * _SIZES[match[2]]


def _modules(value: object) -> object:
    """A comma list of module names."""
    if not isinstance(value, str):
        return value
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    wrong = [name for name in names if not _MODULE.fullmatch(name)]
    if wrong or not names:
        raise ValueError(
            f"is not a comma list of module names ({', '.join(map(repr, wrong)) or 'it is empty'}); "
            "write shop.messages,shop.sagas"
        )
    return names


def _policies(value: object) -> object:
    """The path of a TOML file, or TOML."""
    return PolicyText.read(value) if isinstance(value, str) else value


def _namespace(value: object) -> object:
    """The name of a schema, and the beginning of the names of queues."""
    if isinstance(value, str) and not _NAMESPACE.fullmatch(value):
        raise ValueError("is no namespace; write a lower-case letter and after it at most 30 of a-z, 0-9 and _")
    return value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _address(check: Callable[[str], str]) -> BeforeValidator:
    """A secret whose text `check` accepts; only then is it hidden."""
    return BeforeValidator(lambda value: SecretStr(check(value)) if isinstance(value, str) else value)


Seconds = Annotated[float, BeforeValidator(seconds)]
Age = Annotated[float, BeforeValidator(age)]
Bytes = Annotated[int, BeforeValidator(_bytes)]


class Settings(BaseModel):
    """Every setting, with its default. Durations are seconds, sizes are bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=False)

    database_url: Annotated[SecretStr, _address(database_address)] = Field(
        SecretStr(DEFAULT_DATABASE),
        description="The database: `postgresql://user:password@host/database` or `sqlite:///file.db`.",
    )
    broker_url: Annotated[SecretStr, _address(broker_address)] = Field(
        SecretStr(IN_PROCESS),
        description="The broker: `amqp://user:password@host/vhost`, or `in-process` (then participants run inside).",
    )
    modules: Annotated[tuple[str, ...], BeforeValidator(_modules)] = Field(
        CATALOGS, description="Comma list of modules and packages with messages, sagas and participants."
    )
    policies: Annotated[InstanceOf[PolicyText] | None, BeforeValidator(_policies)] = Field(
        None,
        description="Timeouts, retries and deadlines in place of those of the classes: a TOML file's path, or TOML.",
    )
    namespace: Annotated[str, BeforeValidator(_namespace)] = Field(
        "antiphon",
        description="Prefix of every exchange and queue and name of the PostgreSQL schema: one namespace, one tenant.",
    )
    http_host: str = Field("127.0.0.1", min_length=1, description="Where `/livez` and `/readyz` listen.")
    http_port: int = Field(8080, ge=0, le=65535, description="Their port; 0 takes any free one and logs it.")
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="The least level that is logged."
    )
    log_format: Annotated[Literal["auto", "json", "console"], BeforeValidator(_lower)] = Field(
        "auto", description="`json` lines, `console` for people; `auto` is console on a terminal, else json."
    )
    batch: int = Field(200, ge=1, le=10_000, description="Most messages in one transaction.")
    prefetch: int = Field(
        400, ge=2, le=65535, description="Deliveries held unacknowledged per queue; at least twice the batch."
    )
    lease: Seconds = Field(
        15.0, ge=3, le=3600, description="How long an outbox row belongs to the process that publishes it."
    )
    confirm_timeout: Seconds = Field(5.0, gt=0, le=3600, description="How long to wait for the broker's confirm.")
    sweep: Seconds = Field(1.0, ge=0.01, le=3600, description="Pause between looks for rows that others left behind.")
    watchdog_interval: Seconds = Field(
        15.0, ge=0.1, le=15, description="Pause between looks for instances that wait in vain; at most 15s."
    )
    startup_timeout: Seconds = Field(
        60.0, ge=0, le=86400, description="How long to wait for broker and database at the start; then exit 69."
    )
    drain_timeout: Seconds = Field(25.0, gt=0, le=86400, description="How long a stop may take; then exit 75.")
    max_body: Bytes = Field(1024**2, ge=1024, le=64 * 1024**2, description="Longest message body, in bytes.")
    inbox_window: Age = Field(
        DEAD_LETTER_HORIZON,
        description="How long the ids of handled messages are kept; at least 8d.",
    )
    retention_sagas: Age = Field(
        30 * 86400.0, description="How long an instance is kept after its end, with its history."
    )
    retention_dead_letters: Age = Field(
        90 * 86400.0, description="How long a dead letter is kept after its replay or discard; open ones stay."
    )
    retention_participants: Age = Field(
        math.inf,
        description="How long a Python participant remembers what it has done: longer than any saga may take.",
    )

    @property
    def database(self) -> str:
        """The database's address with its password: for the engine, never for people."""
        return self.database_url.get_secret_value()

    @property
    def broker(self) -> str:
        """The broker's address with its password: for the transport, never for people."""
        return self.broker_url.get_secret_value()

    @property
    def limits(self) -> Limits:
        """What a message may be, both ways."""
        return Limits(max_body=self.max_body)

    @property
    def sqlite(self) -> bool:
        """Whether the database is an SQLite file."""
        return is_sqlite(self.database)

    @property
    def in_process(self) -> bool:
        """Whether the broker lives in this process, and the participants with it."""
        return self.broker == IN_PROCESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The settings, and where each came from: `default`, `environment` or the path of a file."""

    settings: Settings
    sources: Mapping[str, str]

    def shown(self) -> dict[str, str]:
        """Every setting as people may see it: secrets masked, lists with commas."""
        return {name: _shown(getattr(self.settings, name)) for name in Settings.model_fields}


def variable(field: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{field.upper()}"


def load(environment: Mapping[str, str] | None = None) -> Loaded:
    """Read and check the settings.

    An empty variable counts as not set, because compose files write those.

    Raises:
        ConfigurationError: With every problem, one per line; several stand under a heading.
    """
    environment = os.environ if environment is None else environment
    values, sources, problems = _gather(environment)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(_text([*problems, *_explained(error, values)])) from None
    problems += _contradictions(settings)
    if problems:
        raise ConfigurationError(_text(problems))
    return Loaded(settings=settings, sources={name: sources.get(name, "default") for name in Settings.model_fields})


def _secrets() -> frozenset[str]:
    return frozenset(name for name, field in Settings.model_fields.items() if field.annotation is SecretStr)


def _gather(environment: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """The values by field, their sources, and what is wrong with the names and the files."""
    fields = {variable(name): name for name in Settings.model_fields}
    files = {f"{variable(name)}_FILE": name for name in _secrets()}
    values: dict[str, str] = {}
    sources: dict[str, str] = {}
    problems: list[str] = []
    for name, value in sorted(environment.items()):
        if not name.startswith(PREFIX) or name.startswith(f"{PREFIX}TEST_"):
            continue
        if name not in fields and name not in files:
            problems.append(_unknown(name, [*fields, *files]))
        elif value and name in fields:
            values[fields[name]], sources[fields[name]] = value, "environment"
        elif value and environment.get(variable(files[name])):
            problems.append(f"{name}: {variable(files[name])} is set too; set only one of them")
        elif value:
            content, problem = _content(name, value)
            if problem is None:
                values[files[name]], sources[files[name]] = content, value
            else:
                problems.append(problem)
    return values, sources, problems


def _content(name: str, path: str) -> tuple[str, str | None]:
    """What stands in the file of a secret, or what is wrong with it."""
    try:
        content = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        return "", f"{name}: cannot read {path} ({reason}); it names a file that holds the value"
    return content, None if content else f"{name}: {path} is empty; it names a file that holds the value"


def _unknown(name: str, known: list[str]) -> str:
    if _KUBERNETES.fullmatch(name):
        return (
            f"{name}: unknown setting; Kubernetes sets it because a Service is named antiphon: "
            "set enableServiceLinks: false on the pod"
        )
    near = difflib.get_close_matches(name.removeprefix(PREFIX), [other.removeprefix(PREFIX) for other in known], n=1)
    remedy = f"did you mean {PREFIX}{near[0]}?" if near else "antiphon config show lists the settings"
    return f"{name}: unknown setting; {remedy}"


def _explained(error: ValidationError, values: Mapping[str, str]) -> list[str]:
    """One line per wrong value: the variable, what it says unless that is secret, and what to write."""
    lines = []
    for problem in error.errors(include_url=False, include_context=True, include_input=False):
        field = str(problem["loc"][0])
        said = "" if field in _secrets() else f" {values.get(field, '')!r}"
        cause = problem.get("ctx", {}).get("error")
        lines.append(f"{variable(field)}:{said} {cause or 'is wrong: ' + problem['msg'].lower()}")
    return lines


def _contradictions(settings: Settings) -> list[str]:
    """Values that are right alone and wrong together."""
    problems = []
    if settings.prefetch < 2 * settings.batch:
        problems.append(
            f"ANTIPHON_PREFETCH: {settings.prefetch} is less than twice ANTIPHON_BATCH ({settings.batch}), so a batch "
            f"would wait for the one before it; set it to {2 * settings.batch} or more, or lower ANTIPHON_BATCH"
        )
    if settings.sweep >= settings.lease:
        problems.append(
            f"ANTIPHON_SWEEP: {written(settings.sweep)} is not shorter than ANTIPHON_LEASE "
            f"({written(settings.lease)}), so leftovers would wait for two leases; lower it"
        )
    return [*problems, *_forgetful(settings)]


def _forgetful(settings: Settings) -> list[str]:
    """What would be forgotten too early: the inbox before a message can come again, all else before the inbox."""
    window = settings.inbox_window
    if window < DEAD_LETTER_HORIZON:
        least = written(DEAD_LETTER_HORIZON)
        return [
            f"ANTIPHON_INBOX_WINDOW: {written(window)} is shorter than {least}; a copy that comes after a week in a "
            "queue or among dead letters, or after a day of being held, would be taken for a new message; set it to "
            f"{least} or more"
        ]
    harm = {
        "retention_sagas": "a late reply would find its instance gone, and an effect that nobody undid would show "
        "nowhere",
        "retention_dead_letters": "nothing would tell any more that a message which comes again was replayed or "
        "discarded",
        "retention_participants": "a command that comes again would be carried out a second time",
    }
    return [
        f"{variable(name)}: {written(age)} is shorter than ANTIPHON_INBOX_WINDOW ({written(window)}); {what}; "
        f"set it to {written(window)} or more"
        for name, what in harm.items()
        if (age := getattr(settings, name)) < window
    ]


def _text(problems: list[str]) -> str:
    return problems[0] if len(problems) == 1 else "\n".join([f"{len(problems)} settings are wrong", *problems])


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return concealed(value.get_secret_value())
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    if value is None:
        return "none"
    return written(value) if isinstance(value, float) else str(value)
