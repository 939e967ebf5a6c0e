"""Which files a new process consists of, where they go, and which names that leaves its package."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from runtime.ownership import OWN
from runtime.scaffold.template import imports_of, rendered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.scaffold.names import Process

_PART = re.compile(r"[a-z_][a-z0-9_]*")
_TEMPLATES = files("runtime.scaffold") / "templates"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file to be written, its path from the current folder on."""

    path: PurePosixPath
    text: str

    @property
    def lines(self) -> int:
        """How long it is."""
        return len(self.text.splitlines())


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the modules of a process are, by what they hold; `catalogs`: in those of Antiphon's own source.

    `packages` are the folders that must be packages for them to be found.
    """

    catalogs: bool
    messages: str
    saga: str
    participants: str
    test: str
    packages: tuple[str, ...] = ()


def in_catalogs(process: Process) -> Place:
    """In a checkout of Antiphon: one module beside the others of its kind."""
    return Place(
        catalogs=True,
        messages=f"messages.catalog.{process.module}",
        saga=f"sagas.catalog.{process.module}",
        participants=f"handlers.catalog.{process.module}",
        test=f"tests.scenarios.test_{process.module}",
    )


def in_package(process: Process, package: str) -> Place:
    """In a package of the user's own, with the test in the folder of tests beside it."""
    parts = package.split(".")
    return Place(
        catalogs=False,
        messages=f"{package}.messages",
        saga=f"{package}.saga",
        participants=f"{package}.participants",
        test=f"tests.test_{process.module}",
        packages=tuple(".".join(parts[: number + 1]) for number in range(len(parts))),
    )


def is_checkout(folder: Path, home: Path) -> bool:
    """Whether this folder is the source of the Antiphon that runs, `home` being the folder of its packages."""
    return folder.resolve() == home.resolve() and (folder / "pyproject.toml").is_file()


def package_problem(package: str, folder: Path) -> str | None:
    """Why a package of this folder cannot have that name, and what to do; None if it can."""
    top = package.partition(".")[0]
    if not all(_PART.fullmatch(part) and not keyword.iskeyword(part) for part in package.split(".")):
        return f"{package!r} is no name for a package; write small letters, digits and '_', such as shop.refunds"
    if top in (*OWN, "testkit", "console"):
        return f"{top!r} is one of Antiphon's own packages, which yours would hide; choose another name"
    if top in sys.stdlib_module_names:
        return f"{top!r} is a module of Python's own, which is found before yours; choose another name"
    found = _location(top)
    if found is not None and found not in (folder / top, folder / top / "__init__.py"):
        return f"{top!r} is found in {found} before it is found here; choose another name"
    return None


def path_of(module: str) -> PurePosixPath:
    """The file of a module."""
    return PurePosixPath(*module.split(".")).with_suffix(".py")


def files_of(process: Process, place: Place, folder: Path) -> list[File]:
    """The files of the process, in the order in which they are read; `folder` is where packages may be already."""
    inits = [PurePosixPath(*package.split("."), "__init__.py") for package in place.packages]
    own = {place.messages: process.messages}
    in_messages = {"messages": ("Command", "Event")}
    in_saga = {"sagas": ("Retry", "Saga", "start", "step"), **own}
    in_participants = {
        "sqlalchemy": ("text",),
        "handlers": ("Context", "Participant"),
        place.messages: [name for name in process.messages if name != process.start],
    }
    in_test = {
        "pytest": (),
        "messages": ("Command", "Event"),
        "sagas": ("definition_of",),
        "testkit": ("Harness",),
        place.participants: [f"{step.name}_service" for step in process.steps],
        place.saga: [process.name],
        **own,
    }
    return [
        *(File(path=path, text=_template("package")) for path in inits if not (folder / path).exists()),
        _file("messages", place.messages, process, _imports(place, in_messages)),
        _file("saga", place.saga, process, _imports(place, in_saga)),
        _file("participants", place.participants, process, _imports(place, in_participants)),
        _file("test", place.test, process, _imports(place, in_test)),
    ]


def _file(template: str, module: str, process: Process, imports: str) -> File:
    return File(path=path_of(module), text=rendered(_template(template), process, imports))


def _imports(place: Place, taken: Mapping[str, Sequence[str]]) -> str:
    """Libraries first, then what is at home: the process's own modules, and in the catalogs Antiphon's packages."""
    own = {place.messages, place.saga, place.participants, *((*OWN, "testkit") if place.catalogs else ())}
    libraries = {module: names for module, names in taken.items() if module not in own}
    return imports_of(libraries, {module: names for module, names in taken.items() if module in own})


def _template(name: str) -> str:
    return (_TEMPLATES / f"{name}.txt").read_text(encoding="utf-8")


def _location(name: str) -> Path | None:
    """Where a package or module of this name is found."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    return Path(folders[0] if folders else str(spec.origin)).resolve()
