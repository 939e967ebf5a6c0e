"""What the user's modules define: the saga types and participants a process can run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from handlers.participant import Participant
from messages.codec import DEFAULT_LIMITS
from messages.errors import ConfigurationError
from runtime.modules import import_all
from sagas.policies import with_policies
from sagas.problems import suggestion
from sagas.registry import Registry, definitions_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from handlers.work import Definitions
    from messages.codec import Limits
    from sagas.policies import Policies


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The saga types by type and version, and the participants by name."""

    sagas: Mapping[str, Definitions]
    participants: Mapping[str, Participant]

    @property
    def commands(self) -> frozenset[str]:
        """The names of every command that one of the sagas sends."""
        return frozenset(
            name for versions in self.sagas.values() for definition in versions.values() for name in definition.commands
        )

    @property
    def takers(self) -> Mapping[str, str]:
        """Which participant takes a command, by the command's name."""
        return {command: name for name, each in self.participants.items() for command in each.commands}

    def events_of(self, saga_type: str) -> frozenset[str]:
        """The names of the events that some version of this type consumes."""
        return frozenset(name for definition in self.sagas[saga_type].values() for name in definition.events)

    @property
    def consumed(self) -> frozenset[str]:
        """The names of every event that one of the saga types consumes."""
        return frozenset(name for saga_type in self.sagas for name in self.events_of(saga_type))

    def chosen(self, names: Sequence[str]) -> dict[str, Participant]:
        """The participants of these names.

        Raises:
            ConfigurationError: there is none of that name; the text says which there are.
        """
        for name in names:
            if name not in self.participants:
                hint = suggestion(name, self.participants)
                known = ", ".join(sorted(self.participants)) or "none"
                raise ConfigurationError(f"no participant is called {name!r}{hint}; ANTIPHON_MODULES defines {known}")
        return {name: self.participants[name] for name in names}


def load_modules(
    names: Sequence[str], policies: Mapping[str, Policies] | None = None, *, limits: Limits = DEFAULT_LIMITS
) -> Known:
    """Import the modules and collect what they define, with other policies for the saga types named in `policies`.

    A saga whose command is longer than the limits allow is told so when it makes it, and not by the broker.

    Raises:
        ConfigurationError: a module is missing or broken, or two things have one name.
        DefinitionError: a class is wrong.
    """
    modules = import_all(names)
    registry = Registry()
    for module in modules:
        for definition in definitions_in(module):
            override = (policies or {}).get(definition.type)
            limited = replace(definition, limits=limits)
            registry.add(limited if override is None else with_policies(limited, override))
    sagas = {
        saga_type: {each.version: each for each in registry if each.type == saga_type} for saga_type in registry.types
    }
    return Known(sagas=sagas, participants=_participants(modules))


def _participants(modules: Sequence[ModuleType]) -> dict[str, Participant]:
    """Participants by name. One that several modules import is one; two objects of one name are an error."""
    found: dict[str, Participant] = {}
    for module in modules:
        for value in vars(module).values():
            if not isinstance(value, Participant):
                continue
            if found.setdefault(value.name, value) is not value:
                raise ConfigurationError(
                    f"{module.__name__} defines a second participant called {value.name!r}; rename one of them"
                )
    return found
