"""What every word of the language keeps of the method it stands over, and where that was written.

Whatever is for the engine is underscored, so that completion shows an author nothing but the language.
"""

from __future__ import annotations

import sys
from types import FunctionType
from typing import TYPE_CHECKING

from messages.errors import DefinitionError
from sagas.source import place_of_author

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sagas.definition import ReplyKind

MARK = "__antiphon__"
"""The attribute that leads from a hook's function to its `Hook`."""

Body = tuple[str, str]
"""A class body: the module and the qualified name of the class it makes."""


class Written:
    """A method under a word of the language."""

    _SAYS = ""
    _BUILDS = True  # or else it keeps what an event says

    def __init__(self, method: object) -> None:
        if not isinstance(method, FunctionType):
            raise wrong(f"{self._SAYS} stands over a plain method, not over {method!r}; remove what is between them")
        self.__doc__ = method.__doc__
        self._method = method
        self._body = class_body()

    @property
    def _name(self) -> str:
        return self._method.__name__


class Hook:
    """A method that is called when something has happened; the function itself stays what the author wrote.

    `kind` says how a command or wait ends by it, None: well. At a `timeout` there is no event.
    """

    def __init__(
        self, word: Hooked, kind: ReplyKind | None, method: FunctionType, body: Body, *, timeout: bool = False
    ) -> None:
        self.word, self.kind, self.method, self.body, self.timeout = word, kind, method, body, timeout


class Hooked(Written):
    """A method with hooks."""

    def __init__(self, method: object) -> None:
        super().__init__(method)
        self._hooks: list[Hook] = []

    def _hook(self, name: str, kind: ReplyKind | None, method: Callable[..., Any], *, timeout: bool = False) -> None:
        if not isinstance(method, FunctionType):
            raise wrong(f"@{self._name}.{name} stands over a plain method, not over {method!r}; write it over a `def`")
        hook = Hook(self, kind, method, self._body_beside(name), timeout=timeout)
        setattr(method, MARK, hook)
        self._hooks.append(hook)

    def _body_beside(self, name: str) -> Body:
        """The class body in which `@….name` is written."""
        body = class_body()
        if body is None:
            raise wrong(f"@{self._name}.{name} comes too late for its class; write it in the class body")
        return body


def hook_of(value: object) -> Hook | None:
    """The hook that a function of a class body is, if it is one."""
    return getattr(value, MARK, None) if isinstance(value, FunctionType) else None


def wrong(text: str) -> DefinitionError:
    """What cannot wait until the class is compiled, with its place."""
    body = class_body()
    name = body[1].rpartition(".")[2] if body else "saga"
    return DefinitionError(f"{name} ({place_of_author()}): {text}")


def class_body() -> Body | None:
    """The class body that is being run, however the word was called from it."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_name != "<module>":
        names = frame.f_locals
        if "__qualname__" in names and "__module__" in names:
            return (names["__module__"], names["__qualname__"])
        frame = frame.f_back
    return None
