"""`antiphon new`: what it writes passes the real tools as it is, runs, and overwrites nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest

from tests.typing.caching import MYPY_CACHE, seeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.runtime.conftest import Command
    from tests.runtime.processes import Process

ROOT = Path(__file__).parents[2]
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
PACKAGES: list[str] = WHEEL["packages"]
CATALOG_FILES = [
    "messages/catalog/refund_order.py",
    "sagas/catalog/refund_order.py",
    "handlers/catalog/refund_order.py",
    "tests/scenarios/test_refund_order.py",
]
PACKAGE_FILES = [
    "refund_order/__init__.py",
    "refund_order/messages.py",
    "refund_order/saga.py",
    "refund_order/participants.py",
    "tests/test_refund_order.py",
]
LONG = "ReconcileOfficialManyReconciliation"
STEPS = ("create_shipping_label", "tell_the_customer_now", "aa", "bb", "cc", "dd")
LINT_IMPORTS = "from importlinter.cli import lint_imports_command as lint; lint()"

USERS = """
[tool.ruff.lint]
select = ["A", "ARG", "B", "C4", "D1", "E", "F", "I", "PL", "RUF", "SIM", "TRY", "UP", "W"]
per-file-ignores = { "tests/**" = ["D1"] }

[tool.mypy]
strict = true
"""


def ran(*command: str, folder: Path, path: Path = ROOT) -> str:
    """What a tool says that has nothing to complain of."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
    environment |= {"PYTHONPATH": str(path), "MYPYPATH": str(path), "PYTHONWARNINGS": "default"}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def written(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The source of Antiphon, without its tests."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


# -- what it writes passes the tools


def test_in_a_checkout_it_passes_this_repositorys_tools_and_its_own_tests(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = set(written(checkout))
    said = ran("-m", "runtime", "new", "RefundOrder", folder=checkout, path=checkout)
    assert sorted(set(written(checkout)) - before) == sorted(CATALOG_FILES)
    assert all(file in said for file in CATALOG_FILES)
    ran("-m", "ruff", "check", *CATALOG_FILES, folder=checkout)
    ran("-m", "ruff", "format", "--check", *CATALOG_FILES, folder=checkout)
    ran(
        "-c",
        LINT_IMPORTS,
        "--no-cache",
        folder=checkout,
        path=checkout,
    )
    ran("-m", "mypy", "--cache-dir", seeded(tmp_path_factory), *CATALOG_FILES, folder=checkout, path=checkout)
    assert "8 passed" in ran("-m", "pytest", "-q", CATALOG_FILES[-1], folder=checkout, path=checkout)
    assert "RefundOrder.undo_reserve" in ran("-m", "runtime", "config", "show", folder=checkout, path=checkout)


def test_in_a_package_of_ones_own_it_passes_the_tools_of_others_and_its_own_tests(
    antiphon: Command, folder: Path
) -> None:
    (folder / "pyproject.toml").write_text(USERS)
    done = antiphon("new", "RefundOrder")
    assert done.returncode == 0, done.stderr
    assert written(folder) == sorted(PACKAGE_FILES)
    assert all(file in done.stdout for file in PACKAGE_FILES)
    ran("-m", "ruff", "check", ".", folder=folder)
    ran("-m", "ruff", "format", "--check", ".", folder=folder)
    silent = ("--follow-imports=silent", "--cache-dir", str(MYPY_CACHE / "package"))
    ran("-m", "mypy", *silent, *PACKAGE_FILES, folder=folder)
    assert "8 passed" in ran("-m", "pytest", "-q", PACKAGE_FILES[-1], folder=folder)


@pytest.mark.parametrize("steps", [STEPS, ("approve",)])
def test_however_long_the_names_and_many_the_steps_a_formatter_finds_nothing_to_do(
    antiphon: Command, folder: Path, steps: tuple[str, ...]
) -> None:
    options = [word for step in steps for word in ("--step", step)]
    done = antiphon("new", LONG, "--package", "shop.refunds", *options)
    assert done.returncode == 0, done.stderr
    ran("-m", "ruff", "check", "--isolated", "--select", "E,F,I", "--line-length", "120", ".", folder=folder)
    for width in ("88", "120"):
        ran("-m", "ruff", "format", "--isolated", "--line-length", width, "--check", ".", folder=folder)
    assert "passed" in ran("-m", "pytest", "-q", "tests", folder=folder)


def test_the_steps_are_named_on_the_command_line(antiphon: Command, folder: Path) -> None:
    done = antiphon("new", "RefundOrder", "--step", "approve", "--step", "pay_back", "--step", "tell")
    assert done.stdout.startswith("RefundOrder: approve, pay_back and tell; one process for each order_id\n")
    saga = (folder / "refund_order" / "saga.py").read_text()
    assert "    flow = approve >> pay_back >> tell\n" in saga
    assert "def undo_pay_back(self) -> UndoPayBack:" in saga
    assert "undo_tell" not in saga
    assert (
        'pay_back_service = Participant("refund_order.pay_back")'
        in (folder / "refund_order" / "participants.py").read_text()
    )


# -- it runs


def test_the_process_runs_as_it_is_and_takes_back_what_it_did(
    antiphon: Command, started: Callable[..., Process], folder: Path
) -> None:
    done = antiphon("new", "RefundOrder")
    publish = 'antiphon publish refund_order.RefundOrderRequested \'{"order_id": "o-1"}\''
    assert done.stdout.splitlines()[-1] == f"  ANTIPHON_MODULES=refund_order {publish}"
    settings = {"modules": "refund_order", "policies": 'RefundOrder.confirm.retry.backoff = "10ms"'}
    run = started("run", **settings)
    assert run.until("process.ready")["participants"] == "refund_order.reserve, refund_order.confirm"
    for order in ("o-1", "o-2-confirm-refused", "o-3-confirm-busy"):
        body = json.dumps({"order_id": order})
        assert antiphon("publish", "refund_order.RefundOrderRequested", body, **settings).returncode == 0
    run.until("saga.completed", key="o-1")
    ended = {run.until("saga.compensated")["key"], run.until("saga.compensated")["key"]}
    assert ended == {"o-2-confirm-refused", "o-3-confirm-busy"}
    run.send(signal.SIGTERM)
    assert run.ended() == 0
    with sqlite3.connect(folder / "antiphon.db") as database:
        assert database.execute("select order_id from refund_order_reserve").fetchall() == [("o-1",)]
        assert database.execute("select order_id from refund_order_confirm").fetchall() == [("o-1",)]
    database.close()


# -- what it does not do


def test_a_dry_run_tells_the_same_and_writes_nothing(antiphon: Command, folder: Path) -> None:
    dry = antiphon("new", "RefundOrder", "--dry-run")
    assert (dry.returncode, list(folder.iterdir())) == (0, [])
    assert dry.stdout.replace("would write", "wrote") == antiphon("new", "RefundOrder").stdout


def test_nothing_is_overwritten_and_then_nothing_is_written(antiphon: Command, folder: Path) -> None:
    assert antiphon("new", "RefundOrder").returncode == 0
    files = {path: (folder / path).read_text() for path in written(folder)}
    again = antiphon("new", "RefundOrder", "--step", "approve")
    assert again.returncode == 1
    assert "tests/test_refund_order.py are there already, and nothing is overwritten; choose another" in again.stderr
    other = antiphon("new", "CancelOrder", "--package", "refund_order")
    assert other.returncode == 1
    assert "nothing is overwritten; name a package that has no process yet, such as" in other.stderr
    assert other.stderr.endswith(" --package refund_order.cancel_order\n")
    assert {path: (folder / path).read_text() for path in written(folder)} == files
    assert antiphon("new", "CancelOrder", "--package", "refund_order.cancel_order").returncode == 0
    assert "passed" in ran("-m", "pytest", "-q", "tests", folder=folder)


def test_a_file_that_cannot_be_written_leaves_no_other_behind(antiphon: Command, folder: Path) -> None:
    (folder / "tests").write_text("a file, and no folder")
    done = antiphon("new", "RefundOrder")
    assert done.returncode == 1
    assert done.stderr.startswith("antiphon: tests/test_refund_order.py cannot be written: ")
    assert written(folder) == []


def test_in_a_checkout_a_saga_is_not_written_a_second_time(checkout: Path) -> None:
    with pytest.raises(AssertionError, match="a saga is called PlaceOrder already; choose another name"):
        ran("-m", "runtime", "new", "PlaceOrder", folder=checkout, path=checkout)
    assert not (checkout / "sagas/catalog/place_order.py").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("refund_order", "'refund_order' is no name for a process; write words of at least two letters"),
        ("refund-order", "did you mean RefundOrder?"),
        ("HTTPRefund", "did you mean HttpRefund?"),
        ("../Order", "is no name for a process"),
        ("Saga", "'Saga' has a meaning of its own in the code"),
        ("ValueError", "'ValueError' has a meaning of its own in the code"),
        ("Messages", "'messages' is one of Antiphon's own packages"),
        ("Json", "'json' is a module of Python's own"),
        ("Refund" * 9, "is too long for a process; write at most 40 letters"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused(antiphon: Command, folder: Path, name: str, told: str) -> None:
    done = antiphon("new", name)
    assert (done.returncode, list(folder.iterdir())) == (2, [])
    assert told in done.stderr


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (["Pay"], "'Pay' is no name for a step; write it as a method is written, in small letters, such as pay_back"),
        (["x1"], "'x1' is no name for a step"),
        (["import"], "'import' has a meaning of its own"),
        (["flow"], "'flow' has a meaning of its own"),
        (["saga_id"], "'saga_id' has a meaning of its own"),
        (["retry"], "'retry' has a meaning of its own"),
        (["model_dump"], "'model_dump' has a meaning of its own"),
        (["pay", "pay"], "would be there twice; choose other names for the steps"),
        (["pay_done", "pay"], "PayDone and pay_done would be there twice"),
        (["order_id"], "order_id would be there twice"),
        (["create_the_shipping_label"], "'create_the_shipping_label' is too long for a step; write at most 20 letters"),
    ],
)
def test_a_step_that_cannot_be_one_is_refused(antiphon: Command, folder: Path, steps: list[str], told: str) -> None:
    done = antiphon("new", "RefundOrder", *(word for step in steps for word in ("--step", step)))
    assert (done.returncode, list(folder.iterdir())) == (2, [])
    assert told in done.stderr


@pytest.mark.parametrize(
    ("package", "told"),
    [
        ("messages", "'messages' is one of Antiphon's own packages, which yours would hide; choose another name"),
        ("runtime.refunds", "'runtime' is one of Antiphon's own packages"),
        ("testkit", "'testkit' is one of Antiphon's own packages"),
        ("email", "'email' is a module of Python's own, which is found before yours"),
        ("sqlalchemy", "/sqlalchemy before it is found here; choose another name"),
        ("my-company", "'my-company' is no name for a package; write small letters, digits and '_'"),
        ("shop.class", "'shop.class' is no name for a package"),
        ("../shop", "'../shop' is no name for a package"),
    ],
)
def test_a_package_that_cannot_be_one_is_refused(antiphon: Command, folder: Path, package: str, told: str) -> None:
    done = antiphon("new", "RefundOrder", "--package", package)
    assert (done.returncode, list(folder.iterdir())) == (2, [])
    assert told in done.stderr


# -- it is where Antiphon is installed


def test_an_installed_wheel_writes_it_too(tmp_path: Path) -> None:
    ran("-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path), folder=ROOT)
    [wheel] = tmp_path.glob("*.whl")
    installed, folder = tmp_path / "installed", tmp_path / "shop"
    with ZipFile(wheel) as archive:
        archive.extractall(installed)
    folder.mkdir()
    ran("-m", "runtime", "new", "RefundOrder", folder=folder, path=installed)
    assert written(folder) == sorted(PACKAGE_FILES)
