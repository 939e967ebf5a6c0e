"""Where a command's output goes: to nobody, to a reader that has gone, to a disk that is full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.runtime.test_dead import asked, odd

if TYPE_CHECKING:
    from tests.runtime.office import Office

HOME = Path(__file__).resolve().parents[2]


def shell(office: Office, line: str) -> subprocess.CompletedProcess[str]:
    """What a shell makes of a line in which `antiphon` stands for the command."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANTIPHON_", "PYTHON"))}
    ours = {f"ANTIPHON_{name.upper()}": value for name, value in office.settings.items()}
    called = f'set -o pipefail; antiphon() {{ {sys.executable} -m runtime "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", called],
        cwd=office.folder,
        env={**kept, **ours, "PYTHONPATH": str(HOME)},
        capture_output=True,
        text=True,
        check=False,
    )


COMMANDS = ["dead list", "dead list --json", "dead show 1 --body", "dead export"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("buffered", ["", "PYTHONUNBUFFERED=1"])
def test_a_disk_that_is_full_is_told_in_one_line(small: Office, command: str, buffered: str) -> None:
    small.keep(asked("1"))
    done = shell(small, f"{buffered} antiphon {command} >/dev/full")
    told = "antiphon: the output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, told)


def test_a_closed_output_is_told_in_one_line(small: Office) -> None:
    done = shell(small, "antiphon dead list >&-")
    assert (done.returncode, done.stderr) == (1, "antiphon: there is nowhere to print to: standard output is closed\n")
    assert shell(small, "antiphon dead list 2>&-").stdout == "no dead letters\n"
    assert shell(small, "antiphon dead show 1 2>&-").returncode == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_goes_away_ends_a_command_as_it_ends_any_other(small: Office, command: str) -> None:
    small.keep(asked("1"))
    done = shell(small, f"antiphon {command} | exec true")
    assert (done.returncode, done.stderr) == (141, "")


def test_what_was_to_be_done_is_done_although_nobody_reads_of_it(small: Office) -> None:
    small.keep(asked("1"), odd("m-1"))
    assert shell(small, "antiphon dead discard --all --reason 'a test' | exec true").returncode == 141
    assert {row["status"] for row in small.rows("select status from v_dead_letter")} == {"discarded"}
