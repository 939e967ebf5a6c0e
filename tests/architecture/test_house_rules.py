"""The rules of the house that import-linter cannot see, held over the source of every package."""

from __future__ import annotations

import ast
import importlib
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
PACKAGES: list[str] = WHEEL["packages"]
LONGEST_MODULE = 500
WORDS_WITHOUT_MEANING = {"utils", "util", "helpers", "helper", "common", "base", "manager", "managers", "misc"}

WORLD = {  # what only `running` and `runtime` may touch: everything else asks its Runner, so that it can be simulated
    "time.time",
    "time.time_ns",
    "time.monotonic",
    "time.monotonic_ns",
    "time.perf_counter",
    "time.sleep",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
    "random",
    "secrets",
    "os.urandom",
    "uuid.uuid1",
    "uuid.uuid4",
    "asyncio.sleep",
    "asyncio.timeout",
    "asyncio.timeout_at",
    "asyncio.wait_for",
    "asyncio.create_task",
    "asyncio.ensure_future",
    "asyncio.gather",
    "asyncio.TaskGroup",
    "asyncio.run",
}
ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.putenv", "os.unsetenv"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One source file, read once."""

    path: Path
    tree: ast.Module
    lines: int

    @property
    def name(self) -> str:
        """Its path from the root, for the reader of a failure."""
        return self.path.relative_to(ROOT).as_posix()


@cache
def modules() -> tuple[Module, ...]:
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return tuple(map(_read, paths))


def _read(path: Path) -> Module:
    text = path.read_text(encoding="utf-8")
    return Module(path=path, tree=ast.parse(text, filename=str(path)), lines=len(text.splitlines()))


def _is_revision(module: Module) -> bool:
    return "versions" in module.path.parts


def _imported_names(tree: ast.Module) -> dict[str, str]:
    """What a local name stands for, as a dotted path: `from datetime import datetime as D` is D: datetime.datetime."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(_bound(alias) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)
    return names


def _bound(alias: ast.alias) -> tuple[str, str]:
    """`import a.b` binds `a`, `import a.b as c` binds the whole."""
    top = alias.name.partition(".")[0]
    return (alias.asname, alias.name) if alias.asname else (top, top)


def _dotted(node: ast.expr, names: dict[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value, names)
        return owner and f"{owner}.{node.attr}"
    return None


def _uses(tree: ast.Module, forbidden: set[str]) -> list[tuple[int, str]]:
    """Line and name of every use of a forbidden name or of anything in a forbidden module."""
    names = _imported_names(tree)
    yields = _plain_yields(tree)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            used = _dotted(node, names)
            if used == "asyncio.sleep" and node in yields:
                continue
            if used and any(used == name or used.startswith(f"{name}.") for name in forbidden):
                found.append((node.lineno, used))
    return found


def _plain_yields(tree: ast.Module) -> set[ast.expr]:
    """`sleep(0)` lets others run and has nothing to do with a clock."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and len(node.args) == 1]
    return {call.func for call in calls if isinstance(call.args[0], ast.Constant) and call.args[0].value == 0}


def _violations(forbidden: set[str], *, allowed: tuple[str, ...]) -> list[str]:
    """Uses outside of the allowed folders."""
    return [
        f"{module.name}:{line}: {name}"
        for module in modules()
        if not module.name.startswith(allowed)
        for line, name in _uses(module.tree, forbidden)
    ]


def test_the_scan_sees_through_every_spelling() -> None:
    source = """
import os, time as t, random
from asyncio import sleep as nap
from datetime import datetime
os.environ["A"]; t.monotonic(); random.choice([1]); nap(1); nap(0); datetime.now(); datetime.fromisoformat("2020-01-01")
"""
    found = [name for _, name in _uses(ast.parse(source), WORLD | ENVIRONMENT)]
    assert {"os.environ", "time.monotonic", "random.choice", "asyncio.sleep", "datetime.datetime.now"} <= set(found)
    assert "datetime.datetime.fromisoformat" not in found


def test_clock_chance_and_tasks_come_through_the_runner() -> None:
    """The conformance suites are tests, on real transports and databases, and bound their own waiting."""
    assert _violations(WORLD, allowed=("running/", "runtime/", "testkit/conformance/")) == []


def test_only_runtime_reads_the_environment() -> None:
    assert _violations(ENVIRONMENT, allowed=("runtime/",)) == []


def test_nothing_prints() -> None:
    prints = [
        f"{module.name}:{node.lineno}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert prints == []


def test_every_package_is_marked_as_typed() -> None:
    assert [package for package in PACKAGES if not (ROOT / package / "py.typed").is_file()] == []


def test_every_folder_with_source_is_a_package() -> None:
    folders = {module.path.parent for module in modules() if not _is_revision(module)}
    assert [str(folder.relative_to(ROOT)) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_every_module_says_what_it_answers_for() -> None:
    assert [module.name for module in modules() if not ast.get_docstring(module.tree)] == []


def test_no_module_is_named_for_nothing_in_particular() -> None:
    assert [module.name for module in modules() if module.path.stem.strip("_") in WORDS_WITHOUT_MEANING] == []


def test_no_module_is_too_long_to_be_read_in_one_go() -> None:
    """A revision of the schema is a frozen record, as long as the schema was."""
    read = [module for module in modules() if not _is_revision(module)]
    assert [f"{module.name}: {module.lines}" for module in read if module.lines > LONGEST_MODULE] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_exports_what_it_names(package: str) -> None:
    exported = importlib.import_module(package)
    names = getattr(exported, "__all__", [])
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(exported, name)] == []
