"""`new`: the files of a business process, written where they are found when it runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

import runtime
from messages.errors import OperationRefused
from runtime.exits import OK
from runtime.loading import load_modules
from runtime.printing import console, counted
from runtime.scaffold.files import files_of, in_catalogs, in_package, is_checkout, path_of
from runtime.settings import CATALOGS
from sagas.problems import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.scaffold.files import File, Place
    from runtime.scaffold.names import Process

HOME = Path(runtime.__file__).resolve().parent.parent
"""The folder of Antiphon's packages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line asks for: the process, and the package that it is to be in, if one was named."""

    process: Process
    package: str
    dry_run: bool


def new(wanted: Wanted) -> int:
    """Write the files, and print which they are and what to run next. Nothing is ever overwritten.

    Raises:
        OperationRefused: a file, or a saga of that name, is there already; or a file cannot be written. None was.
    """
    folder = Path.cwd()
    place = _place(wanted, folder)
    files = files_of(wanted.process, place, folder)
    _refuse_what_is_there(files, folder, wanted, place)
    if place.catalogs:
        _refuse_a_second(wanted.process)
    if not wanted.dry_run:
        _write(files, folder)
    _print(wanted, place, files)
    return OK


def _place(wanted: Wanted, folder: Path) -> Place:
    if not wanted.package and is_checkout(folder, HOME):
        return in_catalogs(wanted.process)
    return in_package(wanted.process, wanted.package or wanted.process.module)


def _refuse_what_is_there(files: Sequence[File], folder: Path, wanted: Wanted, place: Place) -> None:
    there = [file.path for file in files if (folder / file.path).exists()]
    if not there:
        return
    remedy = "choose another name"
    if not place.catalogs and path_of(place.test) not in there:
        package = place.saga.rpartition(".")[0]
        remedy = f"name a package that has no process yet, such as --package {package}.{wanted.process.module}"
    is_or_are = "is" if len(there) == 1 else "are"
    raise OperationRefused(f"{listed(map(str, there))} {is_or_are} there already, and nothing is overwritten; {remedy}")


def _refuse_a_second(process: Process) -> None:
    if process.name in load_modules(CATALOGS).sagas:
        raise OperationRefused(f"a saga is called {process.name} already; choose another name")


def _write(files: Sequence[File], folder: Path) -> None:
    written: list[Path] = []
    for file in files:
        path = folder / file.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as opened:
                written.append(path)
                opened.write(file.text)
        except OSError as error:
            for each in written:
                each.unlink()
            raise OperationRefused(f"{file.path} cannot be written: {error.strerror}; no file was") from error


def _print(wanted: Wanted, place: Place, files: Sequence[File]) -> None:
    out, process = console(), wanted.process
    steps = listed(step.name for step in process.steps)
    out.print(Text(f"{process.name}: {steps}; one process for each {process.key}", style="bold"))
    out.print(Text("would write" if wanted.dry_run else "wrote"))
    for file in files:
        out.print(Text(f"  {file.path}  ({counted(file.lines, 'line', 'lines')})"))
    out.print(Text("next, the third in a second terminal"))
    for command in _next(process, place):
        out.print(Text(f"  {command}"))


def _next(process: Process, place: Place) -> list[str]:
    setting = "" if place.catalogs else f"ANTIPHON_MODULES={place.saga.rpartition('.')[0]} "
    body = json.dumps({process.key: f"{process.subject[0]}-1"})
    return [
        f"python -m pytest -q {path_of(place.test)}",
        f"{setting}antiphon run",
        f"{setting}antiphon publish {process.module}.{process.start} '{body}'",
    ]
