"""What the user's modules define: the saga types and participants a process can run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from handlers.participant import Participant
from messages.codec import DEFAULT_LIMITS
from messages.errors import ConfigurationError
from runtime.modules import import_all
from runtime.policies import tuned
from sagas.policies import with_policies
from sagas.problems import suggestion
from sagas.registry import Registry, definitions_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from handlers.work import Definitions
    from messages.codec import Limits
    from runtime.policies import PolicyText
    from runtime.settings import Settings
    from sagas.definition import Definition
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
        """The names of the events that some version of this type consumes, and that do not come straight to it."""
        versions = self.sagas[saga_type].values()
        return frozenset(name for each in versions for name in each.events if name not in each.told_by_children)

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


def known_to(settings: Settings) -> Known:
    """What the modules of the settings define, under the limits and with the policies that the settings name.

    Raises:
        ConfigurationError: as `load_modules`; or the policies do not fit the sagas.
        DefinitionError: a class is wrong.
    """
    return load_modules(settings.modules, limits=settings.limits, tuning=settings.policies)


def load_modules(
    names: Sequence[str],
    policies: Mapping[str, Policies] | None = None,
    *,
    limits: Limits = DEFAULT_LIMITS,
    tuning: PolicyText | None = None,
) -> Known:
    """Import the modules and collect what they define, with other policies for the saga types named in `policies`.

    `tuning` is what an operator changes about these. A saga whose command is longer than the limits allow is told so
    when it makes it, and not by the broker.

    Raises:
        ConfigurationError: a module is missing or broken, two things have one name, or the tuning does not fit.
        DefinitionError: a class is wrong.
    """
    modules = import_all(names)
    registry = Registry(tuned(_definitions(modules, policies or {}, limits), tuning))
    sagas = {
        saga_type: {each.version: each for each in registry if each.type == saga_type} for saga_type in registry.types
    }
    return Known(sagas=sagas, participants=_participants(modules))


def _definitions(modules: Sequence[ModuleType], policies: Mapping[str, Policies], limits: Limits) -> list[Definition]:
    found = [replace(each, limits=limits) for module in modules for each in definitions_in(module)]
    return [with_policies(each, policies[each.type]) if each.type in policies else each for each in found]


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
