"""The image and the compose file, checked as far as they can be without an engine: they fit the code and each other."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer.main
import yaml

from runtime.cli import app
from runtime.settings import PREFIX, load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
SIDECARS = sorted(name for name in OURS if "command" in SERVICES[name])
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
HTTP_PORT = "8080"


def instructions() -> Iterator[tuple[str, str]]:
    """Each instruction of the Dockerfile with its arguments, continued lines joined."""
    text = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            word, _, rest = line.strip().partition(" ")
            yield word, " ".join(rest.split())


def arguments(instruction: str) -> list[str]:
    return [rest for word, rest in instructions() if word == instruction]


def image_environment() -> dict[str, str]:
    """Our settings as the image presets them."""
    pairs = dict(pair.split("=", 1) for rest in arguments("ENV") for pair in shlex.split(rest))
    return {name: value for name, value in pairs.items() if name.startswith(PREFIX)}


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    """As the container sees it when nothing is set where compose runs."""
    return {
        name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)) for name, value in service.get("environment", {}).items()
    }


@pytest.mark.parametrize("name", SIDECARS)
def test_every_service_runs_a_command_that_exists(name: str) -> None:
    group = typer.main.get_command(app)
    command, *rest = SERVICES[name]["command"]
    assert isinstance(group, typer.core.TyperGroup)
    assert command in group.commands
    context = group.commands[command].make_context(command, rest)
    assert not context.args


@pytest.mark.parametrize("name", SIDECARS)
def test_every_setting_of_a_service_is_one_and_is_right(name: str) -> None:
    settings = load({**image_environment(), **environment(SERVICES[name])}).settings
    assert settings.database.startswith("postgresql")
    assert not settings.in_process


def test_addresses_name_services_of_the_file_with_the_credentials_they_are_created_with() -> None:
    database, broker = SERVICES["postgres"], SERVICES["rabbitmq"]
    ours = environment(SERVICES["antiphon"])
    created, user = environment(database), environment(broker)
    expected = f"postgresql://{created['POSTGRES_USER']}:{created['POSTGRES_PASSWORD']}@postgres:5432"
    assert ours["ANTIPHON_DATABASE_URL"] == f"{expected}/{created['POSTGRES_DB']}"
    assert ours["ANTIPHON_BROKER_URL"] == (
        f"amqp://{user['RABBITMQ_DEFAULT_USER']}:{user['RABBITMQ_DEFAULT_PASS']}@rabbitmq:5672/"
    )


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_waits_for_what_it_needs_by_a_condition_that_can_come_true(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        needed = SERVICES[other]
        if how["condition"] == "service_completed_successfully":
            assert needed["restart"] == "no"
        else:
            assert how["condition"] == "service_healthy"
            assert "test" in needed["healthcheck"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_ports_are_published_on_loopback_only(name: str) -> None:
    assert all(str(port).startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_every_volume_is_declared() -> None:
    used = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])


def test_no_password_is_written_down_but_as_a_default() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if "PASS" in name or "URL" in name:
                assert "PASSWORD:-" in str(value), name


def test_the_port_that_is_published_is_the_one_that_is_listened_on() -> None:
    assert SERVICES["antiphon"]["ports"] == [f"127.0.0.1:{HTTP_PORT}:{HTTP_PORT}"]
    assert arguments("EXPOSE") == [HTTP_PORT]
    port = environment(SERVICES["ordering"])["ORDERING_PORT"]
    assert SERVICES["ordering"]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_the_image_is_built_from_files_that_exist_and_are_sent_to_the_engine() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for copy in arguments("COPY"):
        if copy.startswith("--from="):
            continue
        *sources, _ = shlex.split(copy)
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source.partition('/')[0]}" in ignored, source


def test_the_image_holds_every_package() -> None:
    copied = {shlex.split(copy)[0] for copy in arguments("COPY")}
    assert set(WHEEL["packages"]) <= copied


def test_every_build_target_is_a_stage() -> None:
    stages = {match[1] for rest in arguments("FROM") if (match := re.search(r" AS (\w+)", rest))}
    assert {SERVICES[name]["build"]["target"] for name in OURS} <= stages


def test_the_image_runs_without_rights_and_gets_its_signals() -> None:
    assert all(user.split(":")[0].isdecimal() and user != "0" for user in arguments("USER"))
    assert arguments("STOPSIGNAL") == ["SIGTERM"]
    assert all(rest.startswith("[") for rest in arguments("ENTRYPOINT") + arguments("CMD"))
    assert arguments("HEALTHCHECK")


def test_no_setting_in_the_image_is_unknown() -> None:
    assert load(image_environment()).settings.http_port == int(HTTP_PORT)
