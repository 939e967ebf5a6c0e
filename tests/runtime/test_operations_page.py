"""The operator's page names every setting with its default and every command."""

import re
from pathlib import Path

import pytest
import typer

from handlers.inspection import REMEDIES
from runtime import exits
from runtime.cli import app
from runtime.policies import PolicyText, tuned
from runtime.settings import Settings, load, variable
from sagas import definition_of
from sagas.catalog.ordering import PlaceOrder
from sagas.watching import WATCHED
from storage.stalls import POSTGRESQL_STALLS, SQLITE_STALLS
from tests.crash.views import published_statement

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()


def commands(group: typer.Typer, prefix: str = "antiphon") -> list[str]:
    own = [
        f"{prefix} {command.name or str(command.callback.__name__)}"
        for command in group.registered_commands
        if command.callback
    ]
    return own + [
        name
        for sub in group.registered_groups
        if sub.typer_instance is not None
        for name in commands(sub.typer_instance, f"{prefix} {sub.name}")
    ]


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_there_with_its_default(field: str) -> None:
    default = load({}).shown()[field]
    row = re.search(rf"^\| `{variable(field)}` \| `(.*?)` \| (.+) \|$", PAGE, re.MULTILINE)
    assert row is not None
    assert row[1] == default
    assert row[2].startswith((Settings.model_fields[field].description or "?").rstrip("."))


def test_no_setting_is_there_that_does_not_exist() -> None:
    named = set(re.findall(r"^\| `(ANTIPHON_\w+)`", PAGE, re.MULTILINE))
    assert named == {variable(field) for field in Settings.model_fields}


def test_the_policies_that_are_shown_are_right() -> None:
    [shown] = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    [inline] = re.findall(r"^ANTIPHON_POLICIES='(.*?)' antiphon run$", PAGE, re.MULTILINE)
    own = definition_of(PlaceOrder)
    assert [tuned([own], PolicyText.read(text)) == [own] for text in (shown, inline)] == [False, False]


@pytest.mark.parametrize("command", commands(app))
def test_every_command_is_there(command: str) -> None:
    assert re.search(rf"^\| `{command}[ `]", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("database", "statement"), [("PostgreSQL", POSTGRESQL_STALLS), ("SQLite", SQLITE_STALLS)])
def test_the_statement_that_finds_stalls_is_there_word_for_word(database: str, statement: str) -> None:
    assert published_statement(database) == statement


@pytest.mark.parametrize("reason", WATCHED)
def test_every_reason_of_the_watchdog_is_there(reason: str) -> None:
    assert re.search(rf"^\| `{reason}` \|", PAGE, re.MULTILINE)


def test_every_exit_code_is_there() -> None:
    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    named = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert named == codes


@pytest.mark.parametrize("code", REMEDIES)
def test_every_finding_of_a_check_is_there(code: str) -> None:
    assert re.search(rf"^\| `{code}` \|", PAGE, re.MULTILINE)
