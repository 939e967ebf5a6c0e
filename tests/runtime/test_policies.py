"""Policies from outside: they are read from TOML, hold wherever sagas are loaded, and are shown."""

from __future__ import annotations

import json
import signal
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import pytest

from messages import Command, Event
from messages.errors import ConfigurationError
from runtime.policies import PolicyText, tuned
from sagas import Retry, Saga, definition_of, start, step, wait
from sagas.catalog.ordering import PlaceOrder
from sagas.catalog.trip import BookTrip
from tests.runtime.shop import SAGA
from tests.runtime.test_waiting_sagas import LEAVE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sagas.definition import Definition
    from tests.runtime.conftest import Command as Antiphon
    from tests.runtime.office import Office
    from tests.runtime.processes import Process

ORDER, TRIP = definition_of(PlaceOrder), definition_of(BookTrip)

POLICIES = """
[PlaceOrder]
deadline = "5d"

[PlaceOrder.pay]
timeout = "2m"
retry = { attempts = 5, backoff = "10s" }
"""


def order(text: str) -> Definition:
    """What becomes of the ordering process."""
    [definition, trip] = tuned([ORDER, TRIP], PolicyText.read(text))
    assert trip is TRIP
    return definition


def problems(text: str, *definitions: Definition) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        tuned(definitions or (ORDER, TRIP), PolicyText.read(text))
    return str(caught.value).splitlines()


# -- what a text means


def test_what_is_named_is_replaced_and_the_rest_stays_as_the_class_says() -> None:
    tuned_order = order(POLICIES)
    pay, was = tuned_order.steps["pay"].do, ORDER.steps["pay"].do
    assert tuned_order.deadline == timedelta(days=5)
    assert pay.timeout == timedelta(minutes=2)
    assert pay.retry == Retry(
        attempts=5,
        backoff=timedelta(seconds=10),
        factor=was.retry.factor,
        cap=was.retry.cap,
        jitter=was.retry.jitter,
    )
    assert tuned_order.steps["reserve"] == ORDER.steps["reserve"]
    assert tuned_order.digests.shape == ORDER.digests.shape


def test_every_part_of_a_compensations_retry_can_be_set() -> None:
    text = 'PlaceOrder.refund.retry = { attempts = 2, backoff = "1.5s", factor = 3, cap = "1h", jitter = 0.5 }'
    undo = order(text).steps["pay"].undo
    assert undo is not None
    assert undo.retry == Retry(attempts=2, backoff=timedelta(seconds=1.5), factor=3, cap=timedelta(hours=1), jitter=0.5)


def test_the_document_says_what_holds() -> None:
    policy = order(POLICIES).document["policy"]
    assert policy["deadline"] == 5 * 86400
    assert policy["steps"]["pay"]["do"]["timeout"] == 120


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("90s", timedelta(seconds=90)),
        ("2m", timedelta(minutes=2)),
        ("1.5h", timedelta(minutes=90)),
        ("5d", timedelta(days=5)),
    ],
)
def test_a_time_is_a_number_with_its_unit(said: str, meant: timedelta) -> None:
    assert order(f'PlaceOrder.pay.timeout = "{said}"').steps["pay"].do.timeout == meant


@pytest.mark.parametrize("said", ['"fast"', '"10"', "10", '"-1s"', '"10 s"', "true", "2020-01-01"])
def test_what_names_no_unit_is_no_time(said: str) -> None:
    [problem] = problems(f"PlaceOrder.pay.timeout = {said}")
    assert problem.startswith("ANTIPHON_POLICIES: PlaceOrder.pay.timeout: ")
    assert "is no time; write a number with ms, s, m, h or d, in quotes" in problem


def test_a_saga_whose_name_has_a_dot_is_written_in_quotes() -> None:
    assert problems('"shop.Order".deadline = "0s"')[1:] == [
        "\"shop.Order\": no saga is called 'shop.Order'; there are PlaceOrder and BookTrip",
        '"shop.Order".deadline: "0s" is no time to wait; write more, such as "30s"',
    ]


def test_everything_that_is_wrong_is_told_at_once_with_its_place_and_its_remedy(tmp_path: Path) -> None:
    file = tmp_path / "policies.toml"
    file.write_text("""
[PlaceOrdr]
deadline = "5d"
[PlaceOrder]
dedline = "5d"
deadline = "200000d"
[PlaceOrder.pya]
[PlaceOrder.pay]
timeot = "2m"
retry = { attempts = 0, factor = 0.5, jitter = 2, kap = "1s" }
[PlaceOrder.reserve]
retry = 5
""")
    calls = "reserve, release, pay, refund, label and void"
    assert problems(str(file)) == [
        f"ANTIPHON_POLICIES: {file}: 10 policies are wrong",
        "PlaceOrdr: no saga is called 'PlaceOrdr' (did you mean 'PlaceOrder'?); there are PlaceOrder and BookTrip",
        f"PlaceOrder.pya: no step, compensation or wait is called that (did you mean 'pay'?); there are {calls}",
        'PlaceOrder.deadline: "200000d" is longer than a hundred years; write less',
        'PlaceOrder.dedline: "5d" is no table (did you mean \'deadline\'?); write a table, with timeout = "2m" in it',
        "PlaceOrder.pay.retry.attempts: 0 is no number of sends; write how many in all, the first included: 1 or more",
        "PlaceOrder.pay.retry.factor: 0.5 will not do; write what each pause is multiplied by, 1 or more",
        "PlaceOrder.pay.retry.jitter: 2 will not do; write by what fraction a pause may be longer, from 0 to 1",
        "PlaceOrder.pay.retry.kap: nothing is called that (did you mean 'cap'?); "
        "there are attempts, backoff, factor, cap and jitter",
        "PlaceOrder.pay.timeot: nothing is called that (did you mean 'timeout'?); there are timeout and retry",
        "PlaceOrder.reserve.retry: 5 is no table; write a table, with attempts = 5 in it",
    ]


def test_a_backoff_that_the_cap_would_cut_is_an_error() -> None:
    [problem] = problems('PlaceOrder.pay.retry.backoff = "2m"')
    assert problem == (
        "ANTIPHON_POLICIES: PlaceOrder.pay.retry: the backoff (2m) is longer than the cap (1m), which no pause "
        'exceeds; set both, such as backoff = "2m", cap = "2m"'
    )
    assert order('PlaceOrder.pay.retry = { backoff = "2m", cap = "2m" }').steps["pay"].do.retry.cap == timedelta(
        minutes=2
    )


def test_a_process_without_sagas_has_no_use_for_policies() -> None:
    assert tuned([], PolicyText.read(POLICIES)) == []


class Asked(Event, name="policies.Asked"):
    key: str


class Do(Command, name="policies.Do"):
    key: str


class Done(Event, name="policies.Done"):
    key: str


class First(Saga, name="Changing", key="key", version=1):
    key: str

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(key=event.key)

    @step(success=Done)
    def work(self) -> Do:
        return Do(key=self.key)


class Second(Saga, name="Changing", key="key", version=2):
    key: str

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(key=event.key)

    @step(success=Done, timeout=timedelta(minutes=9), retry=Retry(backoff=timedelta(minutes=2)))
    def toil(self) -> Do:
        return Do(key=self.key)


def test_a_step_that_only_some_versions_have_is_set_in_those() -> None:
    text = 'Changing = { deadline = "1h", work = { timeout = "1s" } }'
    first, second = tuned([definition_of(First), definition_of(Second)], PolicyText.read(text))
    assert (first.deadline, second.deadline) == (timedelta(hours=1), timedelta(hours=1))
    assert first.steps["work"].do.timeout == timedelta(seconds=1)
    assert second.steps["toil"].do.timeout == timedelta(minutes=9)


def test_a_backoff_that_the_class_itself_cuts_is_its_own_affair() -> None:
    [second] = tuned([definition_of(Second)], PolicyText.read("Changing.toil.retry.attempts = 9"))
    assert second.steps["toil"].do.retry == Retry(attempts=9, backoff=timedelta(minutes=2))


class Granted(Event, name="policies.Granted"):
    key: str


class Left(Event, name="policies.Left"):
    key: str


class Remind(Command, name="policies.Remind"):
    key: str


class Leave(Saga, key="key", version=1):
    key: str

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(key=event.key)

    @wait(timeout=timedelta(days=3))
    def decided(self, event: Granted) -> None: ...

    @decided.reminder(after=timedelta(days=1))
    def remind(self) -> Remind:
        return Remind(key=self.key)

    @wait
    def gone(self, event: Left) -> None: ...

    @step(success=Done)
    def work(self) -> Do:
        return Do(key=self.key)

    flow = decided >> work >> gone


def test_a_wait_gets_another_timeout() -> None:
    [leave] = tuned([definition_of(Leave)], PolicyText.read('Leave.decided.timeout = "9d"'))
    assert leave.waits["decided"].timeout == timedelta(days=9)
    assert leave.document["policy"]["waits"]["decided"]["timeout"] == 9 * 86400


def test_what_would_change_nothing_of_a_wait_is_an_error() -> None:
    text = """
[Leave.decided]
timeout = "1d"
retry = { attempts = 2 }
[Leave.gone]
timeout = "1d"
"""
    assert problems(text, definition_of(Leave)) == [
        "ANTIPHON_POLICIES: 3 policies are wrong",
        "Leave.decided.retry: a wait sends nothing that could be sent again; remove it",
        "Leave.decided.timeout: remind would come when it is over; write a longer time",
        "Leave.gone.timeout: this wait never ends by itself; the class must say what follows if it does",
    ]


def test_a_step_that_no_version_has_is_an_error() -> None:
    [problem] = problems('Changing.wrk.timeout = "1s"', definition_of(First), definition_of(Second))
    assert problem == (
        "ANTIPHON_POLICIES: Changing.wrk: no step, compensation or wait is called that (did you mean 'work'?); "
        "there are work and toil"
    )


# -- as a setting of processes


@pytest.mark.parametrize(
    ("said", "texts"),
    [
        ("nowhere.toml", ["'nowhere.toml' cannot be read (No such file or directory)", "write a TOML file's path"]),
        ("PlaceOrder.pay.timeout = 2m", ["is no TOML", "line 1", 'write as in PlaceOrder.pay.timeout = "2m"']),
    ],
)
def test_a_text_that_cannot_be_read_is_told_with_the_other_settings(
    antiphon: Antiphon, said: str, texts: list[str]
) -> None:
    done = antiphon("config", "show", policies=said, leese="3")
    assert done.returncode == 78
    assert done.stderr.startswith("antiphon: 2 settings are wrong\n  ANTIPHON_LEESE: ")
    for text in texts:
        assert text in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("run",),
        ("publish", "ordering.OrderPlaced", "{}"),
        ("sagas", "retry", "o-1", "--reason", "x"),
        ("dead", "replay", "1", "--dry-run"),
        ("config", "show"),
    ],
)
def test_wrong_policies_end_every_command_that_loads_sagas(antiphon: Antiphon, command: tuple[str, ...]) -> None:
    done = antiphon(*command, policies='PlaceOrder.pya.timeout = "2m"')
    assert done.returncode == 78
    assert done.stderr.startswith("antiphon: ANTIPHON_POLICIES: PlaceOrder.pya: no step, ")
    assert "did you mean 'pay'?" in done.stderr


def test_the_doctor_says_so_too(antiphon: Antiphon) -> None:
    done = antiphon("doctor", policies='PlaceOrder.pya.timeout = "2m"')
    assert done.returncode == 1
    assert "problem  modules      ANTIPHON_POLICIES: PlaceOrder.pya: no step" in done.stdout


def test_several_processes_tell_of_wrong_policies_once(antiphon: Antiphon) -> None:
    away = {"database_url": "postgresql://u:p@127.0.0.1:1/d", "broker_url": "amqp://u:p@127.0.0.1:1/"}
    done = antiphon(
        "run", "--processes", "2", policies='PlaceOrder.pya.timeout = "2m"', http_port="0", log_format="json", **away
    )
    assert done.returncode == 78
    assert done.stderr.count("ANTIPHON_POLICIES: PlaceOrder.pya") == 1
    assert done.stderr.startswith("antiphon process 1: ")


def test_config_show_tells_what_holds_and_what_the_class_says(antiphon: Antiphon, folder: Path) -> None:
    (folder / "policies.toml").write_text(POLICIES)
    shown = antiphon("config", "show", policies="policies.toml")
    assert shown.returncode == 0, shown.stderr
    lines = {words[0]: words[1:] for line in shown.stdout.splitlines() if (words := line.split())}
    assert lines["ANTIPHON_POLICIES"] == ["environment", "policies.toml"]
    assert lines["PlaceOrder"] == ["5d", "deadline", "3d"]
    assert lines["PlaceOrder.pay"][:6] == ["2m", "5", "10s", "2", "1m", "0.1"]
    assert " ".join(lines["PlaceOrder.pay"][6:]) == "timeout 5m, attempts 3, backoff 1s"
    assert lines["PlaceOrder.reserve"] == ["1m", "3", "5s", "2", "1m", "0.1"]
    told = json.loads(antiphon("config", "show", "--json", policies="policies.toml").stdout)["ANTIPHON_POLICIES"]
    [pay] = [each for each in told["effective"] if each["step"] == "pay"]
    assert (pay["saga"], pay["version"]) == ("PlaceOrder", 1)
    assert pay["timeout"] == {"value": "2m", "class": "5m"}
    assert pay["cap"] == {"value": "1m", "class": "1m"}


def test_config_show_tells_how_long_a_wait_waits(antiphon: Antiphon, folder: Path) -> None:
    (folder / "shop.py").write_text(LEAVE)
    shown = antiphon("config", "show", modules="shop", policies='Leave.decided.timeout = "9d"')
    lines = {words[0]: words[1:] for line in shown.stdout.splitlines() if (words := line.split())}
    assert lines["Leave.decided"] == ["9d", "timeout", "3d"]


def test_config_show_numbers_the_versions_where_there_are_several(antiphon: Antiphon, folder: Path) -> None:
    second = SAGA[SAGA.index("class Tiny") :].replace("Tiny(Saga", 'TinyToo(Saga, name="Tiny"')
    (folder / "shop.py").write_text(SAGA + second.replace("version=1", "version=2").replace('"Tiny"', '"Tiny"', 1))
    shown = antiphon("config", "show", modules="shop").stdout
    assert "\nTiny.work (version 1) " in shown
    assert "\nTiny.work (version 2) " in shown


def test_config_show_tells_the_settings_though_the_sagas_cannot_be_loaded(antiphon: Antiphon) -> None:
    done = antiphon("config", "show", modules="nowhere")
    assert done.returncode == 78
    assert "ANTIPHON_DATABASE_URL" in done.stdout
    assert "no module named nowhere" in done.stderr


# -- what comes of it


def timer(antiphon: Antiphon, settings: dict[str, str], key: str = "hang") -> timedelta:
    """How long after the command went out for the last time its timer is due."""
    shown: dict[str, Any] = json.loads(antiphon("sagas", "show", key, "--json", **settings).stdout)
    [due] = [each["due_at"] for each in shown["timers"] if each["name"] == "work/do"]
    sent = [each["at"] for each in shown["events"] if each["kind"] in ("command_sent", "command_resent")][-1]
    return datetime.fromisoformat(due) - datetime.fromisoformat(sent)


def test_an_instance_waits_as_long_as_the_policy_says_and_the_record_tells_it(
    small: Office, antiphon: Antiphon, started: Callable[..., Process]
) -> None:
    settings = {**small.settings, "policies": 'Tiny = { deadline = "2h", work = { timeout = "10m" } }'}
    run = started("run", **settings)
    run.until("process.ready")
    antiphon("publish", "tiny.Asked", '{"order_id": "hang"}', **settings)
    run.until("handler.hangs")
    assert timer(antiphon, settings) == timedelta(minutes=10)
    [row] = small.rows("select deadline_at, started_at from v_saga")
    assert datetime.fromisoformat(row["deadline_at"]) - datetime.fromisoformat(row["started_at"]) == timedelta(hours=2)
    [recorded] = small.rows("select document from definition")
    policy = json.loads(recorded["document"])["policy"]
    assert (policy["deadline"], policy["steps"]["work"]["do"]["timeout"]) == (7200, 600)


def test_after_a_restart_an_instance_that_runs_waits_by_the_new_policy_from_its_next_timer_on(
    small: Office, antiphon: Antiphon, started: Callable[..., Process]
) -> None:
    before = {**small.settings, "policies": 'Tiny.work.timeout = "3s"', "lease": "3", "drain_timeout": "100ms"}
    run = started("run", **before)
    run.until("process.ready")
    antiphon("publish", "tiny.Asked", '{"order_id": "hang"}', **before)
    run.until("handler.hangs")
    assert timer(antiphon, before) == timedelta(seconds=3)
    run.send(signal.SIGTERM)
    run.ended()
    after = {**before, "policies": 'Tiny.work = { timeout = "1h", retry = { factor = 1, cap = "1h" } }'}
    run = started("run", **after)
    run.until("saga.command_resent", key="hang")
    assert timer(antiphon, after) == timedelta(hours=1)


def test_each_of_several_processes_goes_by_the_policies(
    antiphon: Antiphon, started: Callable[..., Process], servers: dict[str, str], folder: Path
) -> None:
    (folder / "policies.toml").write_text('[Tiny.work]\ntimeout = "10m"\n')
    settings = {**servers, "policies": "policies.toml"}
    run = started("run", "--processes", "2", **settings)
    run.until("processes.ready")
    for key in ("1", "2", "3", "4"):
        antiphon("publish", "tiny.Asked", json.dumps({"order_id": key}), **settings)
        run.until("saga.command_sent", key=key)
        assert timer(antiphon, settings, key) == timedelta(minutes=10)
