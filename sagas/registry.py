"""The saga types a process runs, by type and version. Knows how to tell sagas in a module, not how to import one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages.errors import DefinitionError
from sagas.authoring import Saga
from sagas.compile import definition_of
from sagas.kinship import kinship_problems
from sagas.problems import listed, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

    from sagas.definition import Definition


class UnknownSaga(LookupError):  # noqa: N818 - names the situation
    """No saga of this type, or not in this version, is among those the process runs. The text says which are."""


class Registry:
    """Definitions by (type, version). The highest version of a type starts new instances."""

    def __init__(self, definitions: Iterable[Definition] = ()) -> None:
        """Make definitions known.

        Raises:
            DefinitionError: as `add`; or sagas that start each other do not fit together.
        """
        self._versions: dict[str, dict[int, Definition]] = {}
        for definition in definitions:
            self.add(definition)
        problems = list(kinship_problems(self._versions))
        if problems:
            raise DefinitionError("\n".join(problems))

    def add(self, definition: Definition) -> None:
        """Make a definition known.

        Raises:
            DefinitionError: another class has this type and version.
        """
        versions = self._versions.setdefault(definition.type, {})
        other = versions.setdefault(definition.version, definition)
        if other.saga_class is not definition.saga_class:
            raise DefinitionError(
                f"{_place(definition)}: saga {definition.type!r} version {definition.version} is already "
                f"{_place(other)}; give one of them another name= or version=",
                saga_type=definition.type,
            )

    def find(self, saga_type: str, version: int) -> Definition:
        """The definition on which instances of this version run.

        Raises:
            UnknownSaga: this process has none.
        """
        versions = self._of(saga_type)
        if version not in versions:
            known = listed(str(number) for number in sorted(versions))
            message = (
                f"saga {saga_type!r} is known here in version {known}, not {version}; deploy the code that knows it"
            )
            raise UnknownSaga(message)
        return versions[version]

    def current(self, saga_type: str) -> Definition:
        """The definition that starts new instances: the highest version.

        Raises:
            UnknownSaga: this process has none.
        """
        versions = self._of(saga_type)
        return versions[max(versions)]

    @property
    def types(self) -> tuple[str, ...]:
        """The known saga types, sorted."""
        return tuple(sorted(self._versions))

    def __iter__(self) -> Iterator[Definition]:
        """Every definition, by type and version."""
        for saga_type in self.types:
            for version in sorted(self._versions[saga_type]):
                yield self._versions[saga_type][version]

    def __len__(self) -> int:
        return sum(len(versions) for versions in self._versions.values())

    def _of(self, saga_type: str) -> dict[int, Definition]:
        try:
            return self._versions[saga_type]
        except KeyError:
            hint = suggestion(saga_type, self._versions)
            message = f"no saga is called {saga_type!r}{hint}; is the module that defines it in ANTIPHON_MODULES?"
            raise UnknownSaga(message) from None


def definitions_in(module: ModuleType) -> list[Definition]:
    """The definitions of the sagas that a module defines itself, in the order written; none for abstract ones."""
    found = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, Saga)]
    own = [saga for saga in dict.fromkeys(found) if saga.__module__ == module.__name__ and saga._definition]
    return [definition_of(saga) for saga in own]


def _place(definition: Definition) -> str:
    return f"{definition.saga_class.__module__}.{definition.saga_class.__qualname__}"
