"""The command line's face: names, help, usage errors, and one clear message for every error of the tree."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from messages import errors
from messages.errors import AntiphonError, ConfigurationError, OperationRefused, Trouble
from runtime.cli import app
from runtime.exits import exit_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import typer

    from tests.runtime.conftest import Command


def callbacks(group: typer.Typer) -> Iterator[Callable[..., object]]:
    yield from (command.callback for command in group.registered_commands if command.callback)
    for sub in group.registered_groups:
        assert sub.typer_instance is not None
        yield from callbacks(sub.typer_instance)


def test_no_command_is_a_coroutine_function() -> None:
    """Typer would not run one, and say nothing."""
    found = list(callbacks(app))
    assert found
    assert [callback for callback in found if inspect.iscoroutinefunction(callback)] == []


def test_help_loads_nothing_heavy(antiphon: Command) -> None:
    shown = antiphon("--help")
    assert shown.returncode == 0
    for command in ("run", "migrate", "sagas", "dead", "doctor", "config", "version"):
        assert f"\n  {command} " in shown.stdout


def loaded_by(module: str, packages: tuple[str, ...]) -> str:
    """Which of the packages a fresh interpreter has loaded once it has imported the module, or several."""
    code = f"import sys, {module}; print(*[name for name in {packages!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_heavy_packages_are_imported_only_by_the_commands_that_need_them() -> None:
    assert loaded_by("runtime.cli", ("sqlalchemy", "fastapi", "aio_pika", "structlog", "pydantic")) == ""


def test_a_web_server_is_loaded_only_by_what_serves() -> None:
    commands = ("config", "dead", "demo", "doctor", "migrate", "publish", "sagas")
    modules = ["runtime.telemetry", *(f"runtime.commands.{name}" for name in commands)]
    assert loaded_by(", ".join(modules), ("fastapi", "starlette", "uvicorn")) == ""


@pytest.mark.parametrize("arguments", [["sing"], ["run", "--loud"], ["participant"], ["sagas", "show"]])
def test_a_wrong_command_line_exits_2(antiphon: Command, arguments: list[str]) -> None:
    done = antiphon(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_config_show_tells_value_and_source_and_hides_passwords(antiphon: Command) -> None:
    done = antiphon("config", "show", "--json", database_url="postgres://u:hunter2@h/d", lease="3")
    shown = json.loads(done.stdout)
    assert done.returncode == 0
    assert shown["ANTIPHON_DATABASE_URL"] == {"value": "postgres://u:***@h/d", "source": "environment"}
    assert shown["ANTIPHON_LEASE"] == {"value": "3s", "source": "environment"}
    assert shown["ANTIPHON_SWEEP"] == {"value": "1s", "source": "default"}


def test_config_show_is_readable_too(antiphon: Command) -> None:
    done = antiphon("config", "show")
    assert "ANTIPHON_DATABASE_URL" in done.stdout
    assert "sqlite:///antiphon.db" in done.stdout


def test_wrong_settings_end_with_78_and_all_of_them(antiphon: Command) -> None:
    done = antiphon("config", "show", leese="3", lease="fast")
    assert done.returncode == 78
    assert done.stdout == ""
    assert done.stderr.splitlines()[0] == "antiphon: 2 settings are wrong"
    assert "did you mean ANTIPHON_LEASE?" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_can_be_asked_for_as_everywhere(antiphon: Command) -> None:
    asked = antiphon("--version")
    assert (asked.returncode, asked.stdout) == (0, antiphon("version").stdout)


def test_version_names_what_it_stands_on(antiphon: Command) -> None:
    assert {"antiphon", "python", "sqlalchemy"} <= set(json.loads(antiphon("version", "--json").stdout))


@pytest.mark.parametrize(
    "kind", [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, AntiphonError)]
)
def test_every_error_of_the_tree_has_its_exit_code(kind: type[AntiphonError]) -> None:
    expected = 78 if issubclass(kind, ConfigurationError) else 69 if issubclass(kind, Trouble) else 1
    assert exit_code(kind("text")) == expected


def test_a_refused_operation_failed() -> None:
    assert exit_code(OperationRefused("already cancelled")) == 1
