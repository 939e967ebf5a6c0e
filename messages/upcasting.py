"""`@upcast`: how a message class reads bodies of its older schema versions, one version at a time.

Knows what a class says of its past and how that applies to a body; nothing of how the body came.
"""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic_core import PydanticSerializationError, from_json, to_json

from messages.errors import DefinitionError, MalformedMessage
from messages.printable import in_words, printable
from messages.strict_json import check_json_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from messages.message import Message

Body = dict[str, Any]
"""The body of a message as what JSON is made of."""

U = TypeVar("U", bound="Callable[[Any, Body], Body] | classmethod[Any, [Body], Body]")

_UNFIT = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_OPEN_ENDED = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS


class Upcast(classmethod):  # type: ignore[type-arg]
    """A class method that makes a body of the next version out of one of `version`."""

    def __init__(self, method: FunctionType, version: int) -> None:
        super().__init__(method)
        self.method = method
        self.version = version

    def __str__(self) -> str:
        """Whose it is and where it stands, for an error."""
        code = self.method.__code__
        return f"{self.method.__qualname__} ({code.co_filename}:{code.co_firstlineno})"


def upcast(version: int, /) -> Callable[[U], U]:
    """The class method takes a body of that schema version and returns one of the next.

    ```
    class OrderPlaced(Event, name="ordering.OrderPlaced", version=2):
        order_id: str
        currency: str

        @upcast(1)
        @classmethod
        def with_currency(cls, body: dict[str, Any]) -> dict[str, Any]:
            return {**body, "currency": "EUR"}
    ```

    A class of version 3 with `@upcast(1)` and `@upcast(2)` reads bodies of all three. A version that is older than the
    first is read as it is. The method is pure: what it makes of a body it makes of it wherever and however often that
    is read; what is stored stays the body that came.
    """

    def decorate(method: Any, /) -> Any:  # noqa: ANN401 - a type checker sees what went in
        function = getattr(method, "__func__", None) if isinstance(method, classmethod) else None
        if not isinstance(function, FunctionType):
            raise DefinitionError(
                f"{_described(method)}: @upcast({version!r}) stands over a class method; write @classmethod below it"
            )
        return Upcast(function, version)

    return decorate


def _described(method: object) -> str:
    if not isinstance(method, FunctionType):
        return repr(method)
    return f"{method.__qualname__} ({method.__code__.co_filename}:{method.__code__.co_firstlineno})"


def upcasts_of(cls: type[Message], name: object) -> dict[int, Upcast]:
    """What a class says of its older versions, by version: itself, and through bases that have the same name."""
    kin = [base for base in reversed(cls.__mro__) if base is cls or vars(base).get("message_name") == name]
    found = [member for base in kin for member in vars(base).values() if isinstance(member, Upcast)]
    return {member.version: member for member in found}


def upcast_problems(cls: type[Message], version: object, *, abstract: bool) -> Iterator[str]:
    """What is wrong with the upcasts that a class body says, each with its place and its remedy."""
    own = [member for member in vars(cls).values() if isinstance(member, Upcast)]
    seen: dict[object, Upcast] = {}
    for each in own:
        yield from (f"{each}: {problem}" for problem in _problems(each, version, abstract=abstract))
        if each.version in seen:
            yield f"{each}: version {each.version!r} has an upcast in {seen[each.version]} already; keep one"
        seen[each.version] = each


def gap_problem(upcasts: Mapping[int, Upcast], version: int) -> str | None:
    """The version that a chain of upcasts does not get over on its way to `version`, in words; None: it gets there."""
    known = [number for number in upcasts if number < version]
    if missing := [number for number in range(min(known, default=version), version) if number not in upcasts]:
        ended = f"a body of version {min(known)} would become one of version {missing[0]} and no more"
        return f"{ended}; write @upcast({missing[0]})"
    return None


def _problems(each: Upcast, version: object, *, abstract: bool) -> Iterator[str]:
    code, said = each.method.__code__, each.version
    if code.co_argcount != 2 or code.co_kwonlyargcount or code.co_flags & _OPEN_ENDED:
        yield f"takes ({', '.join(code.co_varnames[: code.co_argcount])}); write def {each.method.__name__}(cls, body)"
    if code.co_flags & _UNFIT:
        yield "is async or a generator; write a plain method, it does no I/O and returns at once"
    if isinstance(said, bool) or not isinstance(said, int) or said < 1:
        yield f"@upcast({said!r}) names no schema version; write a whole number from 1"
    elif abstract:
        yield "stands in an abstract class, which no body is read as; write it in the class that has the name"
    elif isinstance(version, int) and said >= version:
        yield (
            f"reads version {said}, and the class is version {version}: there is nothing newer to make of it; "
            f"name an older version, or raise version="
        )


def brought_up(body: bytes, version: int, message_class: type[Message], *, max_depth: int) -> bytes:
    """The body as one of the class's own version; as it is, where the class says nothing of that version.

    Raises:
        MalformedMessage: an upcast raised, or returned what is not the body of a message; the text says which.
    """
    upcasts = message_class._upcasts
    if version not in upcasts:
        return body
    current: object = from_json(body)
    for number in range(version, message_class.schema_version):
        each = upcasts[number]
        try:
            current = each.method(message_class, current)
        except MemoryError:
            raise
        except BaseException as error:  # whatever it is, it is the author's, and harms this message alone
            raise _failed(each, f"raised {in_words(error)}") from error
        if not isinstance(current, dict):
            raise _failed(each, f"returned {type(current).__name__}, not a dict")
    try:
        made = to_json(current, inf_nan_mode="constants")
        check_json_object(made, max_depth=max_depth)
    except (MalformedMessage, PydanticSerializationError, ValueError) as error:
        raise _failed(each, f"made what cannot be a body: {error}") from None
    return made


def _failed(each: Upcast, text: str) -> MalformedMessage:
    return MalformedMessage(
        printable(f"{each}, which makes version {each.version + 1} of version {each.version}, {text}")
    )


def reads(message_class: type[Message], version: int) -> bool:
    """Whether a class was made to read that version: its own, or one that it brings up to it."""
    return version == message_class.schema_version or version in message_class._upcasts
