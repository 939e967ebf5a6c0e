"""Our flat package names must be ours; a user's folder of the same name is an error that names both paths."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.ownership import OWN, shadowed

HOME = Path(__file__).resolve().parents[2]


def test_nothing_is_shadowed_here() -> None:
    assert shadowed() is None


def test_every_package_of_ours_is_looked_at() -> None:
    assert set(OWN) <= {folder.name for folder in HOME.iterdir() if folder.is_dir()}


def antiphon(cwd: Path, *path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-c", "from runtime.cli import main; main()", "version"]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("package", ["handlers", "messages"])
def test_a_folder_that_hides_one_of_ours_ends_the_start_with_both_paths(tmp_path: Path, package: str) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    done = antiphon(Path("/"), tmp_path, HOME)
    assert done.returncode == 78
    assert str(tmp_path / package) in done.stderr
    assert str(HOME / package) in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_folder_of_that_name_in_the_current_folder_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "__init__.py").write_text("raise SystemExit('taken for ours')")
    done = antiphon(tmp_path, HOME)
    assert (done.returncode, done.stderr) == (0, "")
