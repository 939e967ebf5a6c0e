"""Settings come from the environment, are checked as a whole and never show a secret."""

import math
from pathlib import Path

import pytest

from handlers.watchdog import INTERVAL
from messages.errors import ConfigurationError
from runtime.settings import Settings, load, variable

DAY = 86_400.0


def problems(environment: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(environment)
    return [line for line in str(caught.value).splitlines() if line.startswith("ANTIPHON_")]


def test_without_any_setting_everything_runs_in_one_process() -> None:
    settings = load({}).settings
    assert settings.in_process
    assert settings.sqlite
    assert settings.database == "sqlite:///antiphon.db"
    assert settings.modules == ("messages.catalog", "sagas.catalog", "handlers.catalog")
    assert (settings.lease, settings.confirm_timeout, settings.sweep) == (15, 5, 1)
    assert (settings.batch, settings.prefetch, settings.max_body) == (200, 400, 1024 * 1024)
    assert (settings.startup_timeout, settings.drain_timeout) == (60, 25)
    assert (settings.http_host, settings.http_port) == ("127.0.0.1", 8080)
    ages = (settings.inbox_window, settings.retention_sagas, settings.retention_dead_letters)
    assert ages == (8 * DAY, 30 * DAY, 90 * DAY)
    assert settings.retention_participants == math.inf


def test_durations_and_sizes_are_read_with_their_units() -> None:
    settings = load(
        {
            "ANTIPHON_LEASE": "3",
            "ANTIPHON_SWEEP": "500ms",
            "ANTIPHON_STARTUP_TIMEOUT": "1d",
            "ANTIPHON_MAX_BODY": "2MiB",
        }
    ).settings
    assert (settings.lease, settings.sweep, settings.startup_timeout, settings.max_body) == (3, 0.5, 86400, 2 * 2**20)


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load({variable(name): "" for name in Settings.model_fields}).settings == load({}).settings


def test_every_problem_is_told_at_once() -> None:
    told = problems(
        {
            "ANTIPHON_LEESE": "3",
            "ANTIPHON_LEASE": "fast",
            "ANTIPHON_HTTP_PORT": "99999",
            "ANTIPHON_NAMESPACE": "Big",
            "ANTIPHON_LOG_LEVEL": "loud",
            "ANTIPHON_MODULES": "shop-sagas",
            "ANTIPHON_DATABASE_URL": "mysql://a:hunter2@b/c",
            "ANTIPHON_BROKER_URL_FILE": "/nowhere/at/all",
        }
    )
    assert len(told) == 8
    for name in ("LEESE", "LEASE", "HTTP_PORT", "NAMESPACE", "LOG_LEVEL", "MODULES", "DATABASE_URL", "BROKER_URL_FILE"):
        assert sum(line.startswith(f"ANTIPHON_{name}:") for line in told) == 1
    assert "hunter2" not in "\n".join(told)


def test_a_misspelt_name_is_an_error_with_a_suggestion() -> None:
    assert problems({"ANTIPHON_DATABSE_URL": "x"}) == [
        "ANTIPHON_DATABSE_URL: unknown setting; did you mean ANTIPHON_DATABASE_URL?"
    ]


def test_a_name_like_no_other_points_to_the_list() -> None:
    assert "antiphon config show" in problems({"ANTIPHON_ZZZZZZZZZ": "1"})[0]


def test_names_that_kubernetes_injects_are_explained() -> None:
    assert "enableServiceLinks: false" in problems({"ANTIPHON_PORT_8080_TCP_ADDR": "10.0.0.1"})[0]


def test_names_of_the_test_suite_are_ignored() -> None:
    assert load({"ANTIPHON_TEST_DATABASE_URL": "anything", "PATH": "/bin"}).settings == load({}).settings


def test_a_secret_is_read_from_its_file(tmp_path: Path) -> None:
    secret = tmp_path / "database"
    secret.write_text("postgresql://u:hunter2@h/d\n")
    loaded = load({"ANTIPHON_DATABASE_URL_FILE": str(secret)})
    assert loaded.settings.database == "postgresql://u:hunter2@h/d"
    assert loaded.sources["database_url"] == str(secret)


def test_a_secret_given_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("amqp://h")
    told = problems({"ANTIPHON_BROKER_URL": "amqp://h", "ANTIPHON_BROKER_URL_FILE": str(tmp_path / "f")})
    assert told == ["ANTIPHON_BROKER_URL_FILE: ANTIPHON_BROKER_URL is set too; set only one of them"]


def test_an_empty_secret_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("\n")
    assert "is empty" in problems({"ANTIPHON_BROKER_URL_FILE": str(tmp_path / "f")})[0]


def test_only_secrets_may_come_from_a_file() -> None:
    assert "unknown setting" in problems({"ANTIPHON_LEASE_FILE": "/x"})[0]


def test_no_password_is_in_the_text_of_the_settings_nor_shown() -> None:
    loaded = load(
        {"ANTIPHON_DATABASE_URL": "postgres://u:hunter2@h/d", "ANTIPHON_BROKER_URL": "amqp://u:hunter2@h:5672/v"}
    )
    assert "hunter2" not in f"{loaded!r} {loaded.settings} {loaded.shown()}"
    assert loaded.shown()["broker_url"] == "amqp://u:***@h:5672/v"
    assert loaded.sources["broker_url"] == "environment"
    assert loaded.sources["lease"] == "default"


def test_a_prefetch_below_two_batches_is_refused() -> None:
    told = problems({"ANTIPHON_BATCH": "300"})
    assert len(told) == 1
    assert "600" in told[0]


def test_a_sweep_as_long_as_the_lease_is_refused() -> None:
    assert "ANTIPHON_LEASE" in problems({"ANTIPHON_LEASE": "3", "ANTIPHON_SWEEP": "3"})[0]


def test_the_watchdog_may_look_more_often_but_not_so_rarely_that_rule_16_would_not_hold() -> None:
    assert load({}).settings.watchdog_interval == INTERVAL
    assert load({"ANTIPHON_WATCHDOG_INTERVAL": "500ms"}).settings.watchdog_interval == 0.5
    for said in ("16s", "0"):
        assert problems({"ANTIPHON_WATCHDOG_INTERVAL": said})[0].startswith(f"ANTIPHON_WATCHDOG_INTERVAL: {said!r} is ")


def test_what_is_kept_for_ever_is_written_never() -> None:
    loaded = load({f"ANTIPHON_{name}": "never" for name in ("RETENTION_SAGAS", "RETENTION_DEAD_LETTERS")})
    assert loaded.settings.retention_sagas == loaded.settings.retention_dead_letters == math.inf
    assert loaded.shown()["retention_sagas"] == "never"


@pytest.mark.parametrize("said", ["always", "400000d", "-1"])
def test_an_age_that_is_none_is_refused(said: str) -> None:
    assert problems({"ANTIPHON_RETENTION_SAGAS": said})[0].startswith(f"ANTIPHON_RETENTION_SAGAS: {said!r} is ")


def test_an_inbox_that_forgets_before_a_message_can_come_again_is_refused() -> None:
    [told] = problems({"ANTIPHON_INBOX_WINDOW": "7d"})
    assert told.startswith("ANTIPHON_INBOX_WINDOW: 7d is shorter than 8d; ")
    assert told.endswith("set it to 8d or more")


@pytest.mark.parametrize("name", ["RETENTION_SAGAS", "RETENTION_DEAD_LETTERS", "RETENTION_PARTICIPANTS"])
def test_what_is_kept_for_less_than_the_inbox_window_is_refused(name: str) -> None:
    [told] = problems({"ANTIPHON_INBOX_WINDOW": "10d", f"ANTIPHON_{name}": "9d"})
    assert told.startswith(f"ANTIPHON_{name}: 9d is shorter than ANTIPHON_INBOX_WINDOW (10d); ")
    assert told.endswith("set it to 10d or more")


def test_an_inbox_that_is_kept_for_ever_wants_everything_else_kept_for_ever() -> None:
    told = problems({"ANTIPHON_INBOX_WINDOW": "never"})
    assert [line.split(":")[0] for line in told] == ["ANTIPHON_RETENTION_SAGAS", "ANTIPHON_RETENTION_DEAD_LETTERS"]
