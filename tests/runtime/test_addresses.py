"""Addresses are taken as people paste them, and no error or log line shows a password."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.addresses import IN_PROCESS, broker_address, database_address, is_sqlite, masked, shown


@pytest.mark.parametrize(
    "pasted",
    [
        "postgres://u:p@h/d",
        "postgresql://u:p@h:5432/d",
        "  postgresql://h/d\n",
        "postgresql+psycopg://u:p@h/d?sslmode=require",
        "postgresql+asyncpg://u:p@[::1]:5433/d",
        "postgresql://u:p%40ss@h/d",
        "postgresql://u:50%@h/d",
        "sqlite:///antiphon.db",
        "sqlite:////var/lib/antiphon.db",
        "sqlite+aiosqlite:///a.db",
    ],
)
def test_a_pasted_database_address_is_taken(pasted: str) -> None:
    assert database_address(pasted) == pasted.strip()


@pytest.mark.parametrize(
    ("pasted", "remedy"),
    [
        ("mysql://u:hunter2@h/d", "postgresql://user"),
        ("just words", "postgresql://user"),
        ("postgresql://u:hunter2@h", "/database"),
        ("postgresql://u:hunter2@h/", "/database"),
        ("postgresql://u:hun#ter2@h/d", "%23"),
        ("postgresql://u:hun/ter2@h/d", "%2F"),
        ("sqlite://", "sqlite:///antiphon.db"),
        ("sqlite:///:memory:", "sqlite:///antiphon.db"),
        ("sqlite://antiphon.db", "sqlite:///antiphon.db"),
    ],
)
def test_a_wrong_database_address_says_what_to_write(pasted: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|names|cannot|must) ") as caught:
        database_address(pasted)
    assert remedy in str(caught.value)
    assert "hun" not in str(caught.value)


@pytest.mark.parametrize(
    "pasted", ["amqp://guest:guest@localhost:5672/", "amqps://u:p@h/vhost", "amqp://h", IN_PROCESS, "AMQP://u:p@h"]
)
def test_a_pasted_broker_address_is_taken(pasted: str) -> None:
    assert broker_address(pasted) == pasted


@pytest.mark.parametrize(
    ("pasted", "remedy"),
    [
        ("http://u:hunter2@h", "amqp://user"),
        ("localhost:5672", "amqp://user"),
        ("amqp://", "amqp://user"),
        ("amqp://u:hun#ter2@h/", "%23"),
    ],
)
def test_a_wrong_broker_address_says_what_to_write(pasted: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=r"amqp") as caught:
        broker_address(pasted)
    assert remedy in str(caught.value)
    assert "hun" not in str(caught.value)


@given(
    scheme=st.sampled_from(["postgresql", "amqp", "amqps", "postgresql+asyncpg"]),
    password=st.text(st.characters(exclude_characters="/ \t\n", exclude_categories=("Z", "C"))),
)
def test_no_password_survives_masking(scheme: str, password: str) -> None:
    password = f"hunter2{password}"
    shown = masked(f"could not connect to {scheme}://someone:{password}@host:1/x (refused)")
    assert password not in shown
    assert f"{scheme}://someone:***@host:1/x" in shown


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:1/hunter2@h/d",
        "postgresql://h/d?user=u&password=hunter2&sslmode=require",
        "postgresql://h:1/d?password=hun@hunter2",
        "postgresql://u@h/d?sslpassword=hunter2",
        "amqp://u:1/hunter2@h/v",
        "postgresql://:hunter2@h/d",
        "postgresql://user:password@host.internal:hunter2@h/d",
    ],
)
def test_no_odd_place_of_a_password_is_missed(address: str) -> None:
    assert "hunter2" not in masked(f"cannot reach {address} (refused)")
    assert masked(f"cannot reach {address} (refused)").endswith(" (refused)")
    assert "hunter2" not in shown(address)


def test_a_password_with_spaces_is_not_shown_either() -> None:
    assert shown("postgresql://u:hunter2 and more@h/d") == "postgresql://u:***@h/d"


def test_the_examples_of_what_to_write_stay_readable() -> None:
    for example in ("postgresql://user:password@host:5432/database", "amqp://user:password@host:5672/vhost"):
        assert masked(f"write {example}, or else") == f"write {example}, or else"
    assert masked("postgresql://user:password@hostess/d") == "postgresql://user:***@hostess/d"


def test_an_sqlite_file_is_shown_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown("sqlite:///antiphon.db") == f"sqlite:///{tmp_path}/antiphon.db"
    assert shown("sqlite:////var/lib/a.db") == "sqlite:////var/lib/a.db"


def test_sqlite_is_told_from_postgresql() -> None:
    assert is_sqlite("sqlite:////var/lib/a.db")
    assert not is_sqlite("postgresql://h/d")
