"""The user's modules: imported by name, packages walked, and every failure told in terms of their file.

Knows nothing of what the modules define; `sagas`, `messages` and `handlers` keep their own registries.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from messages.errors import ConfigurationError, DefinitionError
from messages.printable import in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import ModuleType


def import_all(names: Sequence[str]) -> list[ModuleType]:
    """Import every named module, and of a package everything below it, in the order given.

    Raises:
        ConfigurationError: A module is missing or cannot be imported: which, where it was looked for, and why.
        DefinitionError: A class in one of them is wrong; as it was raised.
    """
    _must_exist(names)
    return [module for name in names for module in _walk(name)]


def _must_exist(names: Iterable[str]) -> None:
    missing = [name for name in names if not _exists(name)]
    if missing:
        places = "\n".join(f"    {entry or Path.cwd()}" for entry in sys.path)
        raise ConfigurationError(
            f"ANTIPHON_MODULES: no module named {', '.join(missing)}; looked in\n{places}\n"
            "  correct the name, or start Antiphon in the folder that holds it"
        )


def _exists(name: str) -> bool:
    """Whether the module can be found. Parents are imported, which may fail for reasons of their own."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            return False
        raise _failure(name, error) from error
    except DefinitionError:
        raise
    except (Exception, SystemExit) as error:
        raise _failure(name, error) from error


def _walk(name: str) -> Iterator[ModuleType]:
    module = _import(name)
    yield module
    for found in pkgutil.iter_modules(getattr(module, "__path__", []), prefix=f"{name}."):
        if found.name.rpartition(".")[2] != "__main__":
            yield from _walk(found.name)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except DefinitionError:
        raise
    except (Exception, SystemExit) as error:
        raise _failure(name, error) from error


def _failure(name: str, error: BaseException) -> ConfigurationError:
    """Why a module cannot be imported, with the line of the user's code at which it went wrong."""
    return ConfigurationError(f"ANTIPHON_MODULES: cannot import {name}: {_told(error)}; mend it and start again")


def _told(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _of_user(frame.filename)]
    return f"{in_words(error)} ({frames[-1].filename}:{frames[-1].lineno})" if frames else in_words(error)


def _of_user(filename: str) -> bool:
    return (
        not filename.startswith("<frozen")
        and Path(filename).resolve() != Path(__file__).resolve()
        and (importlib.__file__ != filename)
    )
