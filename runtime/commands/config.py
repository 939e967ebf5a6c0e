"""`config show` and `version`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

from runtime.exits import OK
from runtime.printing import console, print_json, table
from runtime.settings import load, variable

_STANDS_ON = ("aio-pika", "asyncpg", "sqlalchemy", "pydantic", "fastapi", "uvicorn")


def show(*, as_json: bool) -> int:
    """Print every setting with its value and source."""
    loaded = load()
    values = loaded.shown()
    if as_json:
        print_json({variable(name): {"value": values[name], "source": loaded.sources[name]} for name in values})
    else:
        rows = [(variable(name), loaded.sources[name], value) for name, value in values.items()]
        console().print(table(("setting", "source", "value"), rows))
    return OK


def version(*, as_json: bool) -> int:
    """Print our version, Python's and those of the libraries that matter in a report of a problem."""
    versions = {name: _installed(name) for name in ("antiphon", *_STANDS_ON)}
    versions["python"] = platform.python_version()
    if as_json:
        print_json(versions)
    else:
        for name, number in versions.items():
            console().print(f"{name} {number}")
    return OK


def _installed(distribution: str) -> str:
    try:
        return version_of(distribution)
    except PackageNotFoundError:
        return "not installed"
