"""mypy and pyright, both strict, see through the language: right sagas pass, wrong ones are reported where they are.

What neither can see (class keywords, `self.typo = …`) is an error when the class is created.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.typing.caching import seeded

REPOSITORY = Path(__file__).parents[2]
SAMPLES = Path(__file__).parent / "samples"
REPORTED = re.compile(r"# reported: (?P<who>.+)")
HIDDEN = "# mypy: ignore-errors"
"""Keeps the wrong samples out of the repository's own type check; taken away here, the line stays."""

Reports = dict[tuple[str, int], str]
"""What a checker says, by file and line."""


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """The samples, the right one once more with annotations that are not evaluated, and the page for authors."""
    for sample in SAMPLES.glob("*.py"):
        (tmp_path / sample.name).write_text(sample.read_text().replace(HIDDEN, "#"))
    right = (SAMPLES / "right.py").read_text()
    (tmp_path / "right_postponed.py").write_text(f"from __future__ import annotations\n{right}")
    page = (REPOSITORY / "docs" / "authoring.md").read_text(encoding="utf-8")
    (tmp_path / "page.py").write_text(
        "\n\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE))
    )
    return tmp_path


def compare(samples: Path, checker: str, reports: Reports) -> None:
    marks = {
        (sample.name, number): mark["who"]
        for sample in samples.glob("*.py")
        for number, line in enumerate(sample.read_text().splitlines(), start=1)
        if (mark := REPORTED.search(line))
    }
    wanted = {place for place, who in marks.items() if checker in who}
    surplus = {place: text for place, text in reports.items() if place not in wanted}
    missing = sorted(wanted - reports.keys())
    assert (surplus, missing) == ({}, [])
    assert wanted, "there are samples"


def test_the_right_samples_run_too(samples: Path) -> None:
    for name in ("right", "right_postponed"):
        subprocess.run([sys.executable, samples / f"{name}.py"], cwd=REPOSITORY, check=True, env=_environment())


def test_mypy_reports_exactly_the_wrong_lines(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    command = [sys.executable, "-m", "mypy", "--config-file", str(REPOSITORY / "pyproject.toml"), "--output", "json"]
    files = [str(sample) for sample in sorted(samples.glob("*.py"))]
    run = subprocess.run(
        [*command, "--cache-dir", seeded(tmp_path_factory), *files],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    problems = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    assert problems, run.stdout + run.stderr
    reports = {
        (Path(problem["file"]).name, problem["line"]): problem["message"]
        for problem in problems
        if problem["severity"] == "error"
    }
    compare(samples, "mypy", reports)


def test_pyright_reports_exactly_the_wrong_lines(samples: Path) -> None:
    settings = {"include": ["."], "typeCheckingMode": "strict", "extraPaths": [str(REPOSITORY)]}
    (samples / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [
        sys.executable,
        "-m",
        "pyright",
        "--outputjson",
        "--pythonpath",
        sys.executable,
        "--project",
        str(samples),
    ]
    run = subprocess.run(command, cwd=samples, capture_output=True, text=True, check=False, env=_environment())
    reports = {
        (Path(problem["file"]).name, problem["range"]["start"]["line"] + 1): problem["message"]
        for problem in json.loads(run.stdout)["generalDiagnostics"]
        if problem["severity"] == "error"
    }
    compare(samples, "pyright", reports)


def _environment() -> dict[str, str]:
    """Pyright brings its own program and asks nobody for a newer one."""
    return {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", "PYTHONPATH": str(REPOSITORY)}
