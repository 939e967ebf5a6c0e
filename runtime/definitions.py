"""Whether the sagas of this process may run the instances that are stored: under one version, one definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages.errors import ConfigurationError
from sagas.difference import difference, remedy
from storage import definitions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sagas.definition import Definition
    from storage import Database
    from storage.definitions import RecordedDefinition


async def settle(database: Database, known: Iterable[Definition]) -> None:
    """Compare the definitions with those recorded, and record them when they fit.

    Raises:
        ConfigurationError: a definition has changed under its version in a way that its instances forbid.
        Trouble: the database is away or busy; try again.
    """
    wanted = list(known)
    problems = conflicts(await definitions.load(database), wanted)
    if problems:
        raise ConfigurationError("\n".join(problems))
    await definitions.record(database, wanted)


def conflicts(recorded: Mapping[tuple[str, int], RecordedDefinition], known: Iterable[Definition]) -> list[str]:
    """What forbids these definitions to run, one text per definition: every change, and the remedy."""
    problems = []
    for definition in known:
        stored = recorded.get((definition.type, definition.version))
        if stored is None or stored.digests == definition.digests:
            continue
        found = difference(stored.document, definition.document)
        if found.refused:
            problems.append(_conflict(definition, [change.text for change in found.changes if change.refused]))
    return problems


def _conflict(definition: Definition, changes: list[str]) -> str:
    return (
        f"saga {definition.type} version {definition.version} is not what its instances were started on: "
        f"{'; '.join(changes)}; {remedy(definition.version)}"
    )
