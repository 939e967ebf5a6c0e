"""A peer is a driver behind a pipe: what it says is measured, and what goes wrong with it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench import peer
from bench.peer import Peer
from bench.rounds import Plan, run_round
from bench.servers import Servers

if TYPE_CHECKING:
    from pathlib import Path

    from bench.rounds import Round

BRIEF = Plan(in_flight=[4], seconds=0.2, warm_up=0.1, idle_orders=3, idle_seconds=5)
HELLO = """
import json, os, sys
def say(**word): print(json.dumps(word), flush=True)
groups = {"orchestrator": [os.getpid()], "participants": [], "server": []}
"""
DILIGENT = """
say(ready={"versions": {"echo": "1"}, "groups": groups})
for line in sys.stdin:
    word = json.loads(line)
    if "stop" in word:
        say(ended={"problems": PROBLEMS, "repeated": 0})
        break
    say(done=word["place"])
"""


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where environments are made; what two drivers need alike is installed once, as it is for everybody."""
    return tmp_path_factory.mktemp("environments")


@pytest.fixture
def folder(tmp_path: Path, environments: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(peer, "FOLDERS", tmp_path)
    monkeypatch.setattr(peer, "ENVIRONMENTS", environments)
    made = tmp_path / "echo"
    made.mkdir()
    (made / "requirements.txt").write_text("")
    return made


async def round_with(folder: Path, driver: str, postgres_server: str) -> Round:
    (folder / "driver.py").write_text(HELLO + driver)
    servers = Servers(database_url=postgres_server, broker_url="amqp://nobody", origin="the tests' own")
    return await run_round(Peer(name="echo", title="echo", folder="echo", variant="only"), servers, BRIEF, 1)


async def test_a_driver_that_does_every_order_is_measured(folder: Path, postgres_server: str) -> None:
    done = await round_with(folder, DILIGENT.replace("PROBLEMS", "[]"), postgres_server)
    assert (list(done.problems), done.unavailable) == ([], "")
    assert len(done.idle) == 3
    (level,) = done.steady
    assert level.sagas >= 1
    assert "orchestrator" in level.cpu
    assert done.versions == {"echo": "1"}


async def test_what_a_driver_finds_wrong_with_itself_makes_the_round_invalid(
    folder: Path, postgres_server: str
) -> None:
    done = await round_with(folder, DILIGENT.replace("PROBLEMS", "['an order was lost']"), postgres_server)
    assert done.problems == ["an order was lost"]


async def test_who_cannot_be_had_here_is_told_and_is_no_problem(folder: Path, postgres_server: str) -> None:
    done = await round_with(folder, "say(unavailable='no server of its kind')", postgres_server)
    assert (list(done.problems), done.unavailable) == ([], "no server of its kind")
    (folder / "requirements.txt").write_text("./no-such-package")
    done = await round_with(folder, "", postgres_server)
    assert done.unavailable.startswith("install -r ")


@pytest.mark.parametrize(
    "driver",
    [
        "sys.exit('no such server')",
        "say(ready={'versions': {}, 'groups': groups}); sys.stdin.readline(); sys.exit('no such server')",
    ],
    ids=["at the start", "at the first order"],
)
async def test_a_driver_that_ends_early_is_told_with_its_last_words(
    folder: Path, postgres_server: str, driver: str
) -> None:
    done = await round_with(folder, driver, postgres_server)
    assert not done.steady
    assert "no such server" in done.problems[0]
