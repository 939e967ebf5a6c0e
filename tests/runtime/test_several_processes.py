"""`antiphon run --processes N`: one command, one port, one exit code, and processes that replace each other."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.runtime.processes import BOUND
from tests.runtime.shop import PARTICIPANT, SAGA

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runtime.conftest import Command, Settings
    from tests.runtime.processes import Process

AWAY = {"database_url": "postgresql://u:p@127.0.0.1:1/d", "broker_url": "amqp://u:p@127.0.0.1:1/"}
CHECKS = ("database", "schema", "broker", "consumers", "loops", "draining")


class Several:
    """A running parent of two, and how it is asked."""

    def __init__(self, run: Process) -> None:
        self.run = run
        self.address = str(run.until("http.listening")["address"])
        run.until("processes.ready", processes=2)
        self.pids = self._of_lines()

    def asked(self, path: str = "/readyz") -> tuple[int, dict[str, Any]]:
        answer = httpx2.get(f"{self.address}{path}", timeout=BOUND)
        return answer.status_code, answer.json()

    def stopped(self, process: int) -> list[str]:
        """What asked this process to stop; for the parent, whose lines name no process, 0."""
        lines = [line for line in self.run.lines if line["event"] == "process.stopping"]
        return [line["signal"] for line in lines if line.get("process", 0) == process]

    def ends_by_ctrl_c(self) -> None:
        """One reaches the parent and its processes at once, and is one signal."""
        for pid in (*self._of_lines().values(), self.run.pid):
            os.kill(pid, signal.SIGINT)
        assert self.run.ended() == 0
        assert self.stopped(0) == ["SIGINT"]
        assert [len(self.stopped(process)) for process in (1, 2)] == [1, 1]

    def _of_lines(self) -> dict[int, int]:
        lines = [line for line in self.run.lines if line["event"] == "process.starting"]
        return {line["process"]: line["pid"] for line in lines}


@pytest.fixture
def several(started: Callable[..., Process], servers: Settings) -> Several:
    return Several(started("run", "--processes", "2", **{**servers, "lease": "3"}))


def test_a_process_that_is_killed_is_replaced_and_all_stop_together(several: Several) -> None:
    assert several.asked("/livez") == (200, {"status": "alive"})
    code, answer = several.asked()
    assert (code, answer["ready"]) == (200, True)
    assert set(answer["checks"]) == {f"process {n}: {check}" for n in (1, 2) for check in CHECKS} | {"draining"}

    os.kill(several.pids[2], signal.SIGKILL)
    ended = several.run.until("process.ended", process=2, pid=several.pids[2])
    assert ended["ending"] == "killed by SIGKILL"
    assert ended["retry_in"] < 1
    code, answer = several.asked()
    assert code == 503
    assert answer["checks"]["process 1: loops"]["ok"]
    detail = f"pid {several.pids[2]} ended (killed by SIGKILL), and is replaced"
    assert answer["checks"]["process 2"] == {"ok": False, "detail": detail}
    assert several.run.until("process.starting", process=2)["pid"] != several.pids[2]
    several.run.until("process.ready", process=2)
    assert several.asked()[0] == 200

    several.run.send(signal.SIGTERM)
    assert several.run.ended() == 0
    assert several.run.lines[-1]["event"] == "process.stopped"
    assert (several.stopped(0), several.stopped(1), several.stopped(2)) == (["SIGTERM"], ["parent"], ["parent"])
    assert several.run.stderr == ""


def test_orders_complete_once_while_a_process_is_killed_and_one_ctrl_c_ends_all(
    antiphon: Command, started: Callable[..., Process], servers: Settings, folder: Path
) -> None:
    (folder / "shop.py").write_text(SAGA + PARTICIPANT)
    started("participant", "worker", **servers).until("process.ready")
    several = Several(started("run", "--processes", "2", **{**servers, "lease": "3"}))
    orders = [f"o-{number}" for number in range(8)]
    for number, order in enumerate(orders):
        assert antiphon("publish", "tiny.Asked", json.dumps({"order_id": order}), **servers).returncode == 0
        if number == len(orders) // 2:
            os.kill(several.pids[1], signal.SIGKILL)
    until = time.monotonic() + BOUND
    found: list[tuple[str, str]] = []
    while found != [(order, "completed") for order in sorted(orders)] and time.monotonic() < until:
        listed = json.loads(antiphon("sagas", "list", "--json", **servers).stdout)
        found = sorted((saga["business_key"], saga["status"]) for saga in listed)
    assert found == [(order, "completed") for order in sorted(orders)]
    several.run.until("process.ready", process=1)
    several.ends_by_ctrl_c()


def test_the_processes_finish_and_end_when_their_parent_is_killed(several: Several) -> None:
    several.run.kill()  # and all that it had written, which ends with the last process
    assert (several.stopped(1), several.stopped(2)) == (["parent_gone"], ["parent_gone"])
    assert sum(line["event"] == "process.stopped" for line in several.run.lines) == 2


def test_a_silent_process_is_told_of_and_a_second_signal_waits_for_nobody(several: Several) -> None:
    os.kill(several.pids[1], signal.SIGSTOP)
    code, answer = several.asked()
    assert code == 503
    assert answer["checks"]["process 1"]["detail"] == f"pid {several.pids[1]} gives no answer within 3 s"
    several.run.send(signal.SIGTERM)
    several.run.until("process.stopped", process=2)
    several.run.send(signal.SIGTERM)
    assert several.run.ended() == 75
    with suppress(ProcessLookupError):  # a killed process without a parent may wait to be reaped
        os.kill(several.pids[1], signal.SIGCONT)


@pytest.mark.parametrize(
    ("settings", "code", "told"),
    [
        ({"modules": "nowhere"}, 78, "antiphon process 1: ANTIPHON_MODULES: no module named nowhere"),
        ({"startup_timeout": "0"}, 69, "antiphon process 1: the database did not answer within 0 s"),
    ],
)
def test_what_is_wrong_at_the_start_is_told_once_and_ends_all(
    antiphon: Command, folder: Path, settings: Settings, code: int, told: str
) -> None:
    (folder / "shop.py").write_text(SAGA)
    common = {**AWAY, "modules": "shop", "http_port": "0", "log_format": "json"}
    done = antiphon("run", "--processes", "3", **{**common, **settings})
    assert done.returncode == code
    assert done.stderr.startswith(told)
    assert done.stderr.count("antiphon") == done.stderr.count("antiphon process 1: ")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["process"] for line in lines if line["event"] == "process.ended"] == [1]


def test_a_wrong_setting_is_told_before_any_process_is_started(antiphon: Command) -> None:
    done = antiphon("run", "--processes", "3", **{**AWAY, "lease": "soon"})
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("antiphon: ANTIPHON_LEASE: 'soon' is not a duration")


@pytest.mark.parametrize("away", AWAY)
def test_what_takes_one_runner_takes_no_several(antiphon: Command, away: str) -> None:
    done = antiphon("run", "--processes", "2", **{name: value for name, value in AWAY.items() if name != away})
    assert (done.returncode, done.stdout) == (78, "")
    assert "takes one runner, and --processes asks for 2" in done.stderr
    assert f"ANTIPHON_{away.upper()}" in done.stderr


@pytest.mark.parametrize("arguments", [["0"], ["-1"], ["101"], ["many"], ["2", "--only", "http"]])
def test_a_number_of_processes_that_cannot_be_is_a_wrong_command_line(antiphon: Command, arguments: list[str]) -> None:
    done = antiphon("run", "--processes", *arguments, **AWAY)
    assert done.returncode == 2
    assert "--processes" in done.stderr
