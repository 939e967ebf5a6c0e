"""Which class stands for which message name and version. Knows nothing of bytes, brokers or sagas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages.errors import DefinitionError, UnknownMessage
from messages.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from messages.message import Message


def _place(message_class: type[Message]) -> str:
    return f"{message_class.__module__}.{message_class.__qualname__}"


class Registry:
    """Message classes by (name, version).

    A name means one thing: either a command or an event, and each of its versions one class. A class that is defined
    again at the same place (its module was reloaded) replaces the earlier one.
    """

    def __init__(self) -> None:
        self._classes: dict[str, dict[int, type[Message]]] = {}

    def add(self, message_class: type[Message]) -> None:
        """Make the class known under its name and version.

        Raises:
            DefinitionError: another class has this name and version, or the name belongs to the other kind.
        """
        name, version = message_class.message_name, message_class.schema_version
        versions = self._classes.get(name, {})
        others = {known: other for known, other in versions.items() if _place(other) != _place(message_class)}
        if version in others:
            raise DefinitionError(
                f"{_place(message_class)}: {name!r} version {version} is already {_place(others[version])}; "
                f"give one of them another name= or version="
            )
        for other in others.values():
            if other.message_kind != message_class.message_kind:
                raise DefinitionError(
                    f"{_place(message_class)}: {name!r} is of kind {message_class.message_kind} here and of kind "
                    f"{other.message_kind} in {_place(other)}; a name is a command or an event, rename one of them"
                )
        self._classes.setdefault(name, {})[version] = message_class

    def find(self, name: str, version: int) -> type[Message]:
        """The class for this name and version.

        Raises:
            UnknownMessage: nothing here has that name, or not in that version; the text says which versions are known.
        """
        try:
            return self._classes[name][version]
        except KeyError:
            raise UnknownMessage(self._why_unknown(name, version)) from None

    def versions(self, name: str) -> tuple[int, ...]:
        """The known versions of a name, ascending; empty when the name is unknown."""
        return tuple(sorted(self._classes.get(name, ())))

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[type[Message]]:
        """Every class, by name and version."""
        for name in sorted(self._classes):
            for version in self.versions(name):
                yield self._classes[name][version]

    def _why_unknown(self, name: str, version: int) -> str:
        known = ", ".join(str(number) for number in self.versions(name))
        if known:
            return printable(f"{name} is known in version {known}, not {version}; deploy the code that knows it")
        return printable(f"no message class is named {name!r}; is the module that defines it in ANTIPHON_MODULES?")


REGISTRY = Registry()
"""Every message class that a module defines at its top level. Classes inside functions are not in it."""
