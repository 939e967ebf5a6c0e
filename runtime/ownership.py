"""Whether our packages are our own: names like `messages` and `handlers` are easily shadowed by a user's folder.

Imports nothing but the standard library, so that it can run before anything that might be shadowed is imported.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

OWN = ("messages", "sagas", "running", "storage", "transport", "outbox", "handlers", "runtime", "migrations")


def shadowed(home: Path | None = None) -> str | None:
    """What is wrong, with both paths and the remedy, or None when every package is the one beside this file.

    `home` is the folder that holds our packages; by default the one this module was loaded from.
    """
    home = home or Path(__file__).resolve().parent.parent
    for name in OWN:
        found = _location(name)
        if found is not None and found.parent != home:
            return (
                f"the package '{name}' in {found} hides Antiphon's own in {home / name}; "
                "rename yours, or start Antiphon elsewhere or without that folder on PYTHONPATH"
            )
    return None


def append_current_folder() -> None:
    """Put the current folder on the path, last, so that it can add modules and never replace one."""
    here = str(Path.cwd())
    sys.path[:] = [entry for entry in sys.path if entry not in ("", here) or Path(here) == _home()]
    if here not in sys.path:
        sys.path.append(here)


def _home() -> Path:
    return Path(__file__).resolve().parent.parent


def _location(name: str) -> Path | None:
    """The folder a package would be imported from, or was."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or [])
    if folders:
        return Path(folders[0]).resolve()
    return Path(spec.origin).resolve() if spec.origin else None
