"""`@migrate`, the word: over a class method that makes the state of this version out of that of an older one.

It only keeps what was written. What it means, and what is wrong with it, is found when the class is compiled.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from sagas.written import wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

State = dict[str, Any]
"""The fields of a saga as what JSON is made of."""

M = TypeVar("M", bound="Callable[[Any, State], Any] | classmethod[Any, [State], Any]")


class Migrate(classmethod):  # type: ignore[type-arg]
    """A class method that makes the state of this version out of that of an older one."""

    def __init__(self, method: FunctionType, version: object, steps: object, places: object) -> None:
        super().__init__(method)
        self.method, self.version, self.steps, self.places = method, version, steps, places


def migrate(
    version: int, /, *, steps: Mapping[str, str] | None = None, places: Mapping[str, str] | None = None
) -> Callable[[M], M]:
    """The class method makes the state of this version of the state of that older one.

    ```
    @migrate(1, steps={"label": "ship"})
    @classmethod
    def from_first(cls, state: dict[str, Any]) -> Self:
        return cls(**state, carrier="unknown")
    ```

    It is called by `antiphon definitions migrate`, never by itself. The class of the older version need not be there
    any more: what it was is known from the database.

    Args:
        version: The older version.
        steps: Steps that have another name now: the name of then, and the one of today.
        places: The same of rests, waits and decisions, and of parts of the flow without a name (`alternative#2`).
    """

    def decorate(method: Any, /) -> Any:  # noqa: ANN401 - a type checker sees what went in
        function = getattr(method, "__func__", None) if isinstance(method, classmethod) else None
        if not isinstance(function, FunctionType):
            raise wrong(f"@migrate({version!r}) stands over a class method, not over {method!r}; write @classmethod")
        return Migrate(function, version, steps, places)

    return decorate


def is_migration(value: object) -> bool:
    """Whether a class attribute was made by `@migrate`."""
    return isinstance(value, Migrate)
