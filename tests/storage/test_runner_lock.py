from __future__ import annotations

import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from messages.errors import ConfigurationError
from storage import runner_lock

if TYPE_CHECKING:
    from pathlib import Path

_HOLD = """
import sys
from storage.runner_lock import runner_lock
with runner_lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_runner_is_told_who_runs_and_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "antiphon.db"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(file)], stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ConfigurationError, match=f"process {holder.pid} .*ANTIPHON_DATABASE_URL"),
            runner_lock(file),
        ):
            pass
        holder.kill()
        holder.wait(30)
        with runner_lock(file):
            pass


def test_a_runner_that_ended_leaves_the_file_to_the_next(tmp_path: Path) -> None:
    for _ in range(2):
        with runner_lock(tmp_path / "a.db"):
            with pytest.raises(ConfigurationError), runner_lock(tmp_path / "a.db"):
                pass
            with runner_lock(tmp_path / "b.db"):
                pass


def test_a_full_disk_is_no_reason_not_to_run(tmp_path: Path) -> None:
    """Whoever comes second is told of another process, without its number."""
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, room[1]))
    try:
        with (
            runner_lock(tmp_path / "a.db"),
            pytest.raises(ConfigurationError, match="another process"),
            runner_lock(tmp_path / "a.db"),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, room)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere"), runner_lock(tmp_path / "nowhere" / "a.db"):
        pass
