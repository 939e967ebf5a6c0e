"""The classes that travel: `Command` asks one participant to do something, `Event` tells what has happened.

Knows how a message is declared, not how it is encoded, stored or sent.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Secret, SecretBytes, SecretStr

from messages.errors import DefinitionError
from messages.registry import REGISTRY
from messages.upcasting import Upcast, gap_problem, upcast_problems, upcasts_of

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_NAME = 255
"""Longest message name: a name is a routing key, and AMQP gives that 255 bytes."""

MAX_VERSION = 2**31 - 1
"""Highest schema version."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_KEYWORDS = ("name", "version", "abstract")
_ENGINE_NAMES = ("message_name", "schema_version", "message_kind")
_SECRETS = (SecretStr, SecretBytes, Secret)


def is_message_name(name: str) -> bool:
    """Whether this is a name as it may stand on the wire: a letter, then letters, digits, `_`, `.` and `-`."""
    return len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None


class Message(BaseModel):
    """What commands and events have in common: immutable, checked fields and a name on the wire.

    Fields that a class does not know are ignored when it is read, so that a sender may add some. Decimals travel as
    strings, bytes as base64. Write subclasses of `Command` and `Event`, never of this class.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
        validate_by_name=True,
        serialize_by_alias=True,
        ser_json_bytes="base64",
        val_json_bytes="base64",
        ser_json_inf_nan="constants",  # never null: what is not a number must not pass for an absent one
    )

    message_name: ClassVar[str] = ""
    """The name on the wire; empty for an abstract class."""
    schema_version: ClassVar[int] = 1
    message_kind: ClassVar[Literal["command", "event"]]

    _upcasts: ClassVar[Mapping[int, Upcast]] = {}

    def __init_subclass__(
        cls, *, name: str | None = None, version: int = 1, abstract: bool = False, **unknown: object
    ) -> None:
        # Declares the keywords; they are checked below, where the fields are known too.
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(
        cls, *, name: str | None = None, version: int = 1, abstract: bool = False, **unknown: object
    ) -> None:
        super().__pydantic_init_subclass__()
        if cls.__module__ == __name__ or cls.__pydantic_generic_metadata__["origin"] is not None:
            return
        problems = [*_keyword_problems(name, version, abstract, unknown), *_field_problems(cls)]
        upcasts, misplaced = upcasts_of(cls, name), list(upcast_problems(cls, version, abstract=abstract))
        if not problems and not misplaced and (gap := gap_problem(upcasts, version)) is not None:
            problems.append(gap)
        if problems or misplaced:
            place = f"{cls.__qualname__} ({_where()})"
            raise DefinitionError("\n".join([*(f"{place}: {problem}" for problem in problems), *misplaced]))
        cls.message_name = name or ""
        cls.schema_version = version
        cls._upcasts = upcasts
        if name and "<locals>" not in cls.__qualname__:
            REGISTRY.add(cls)


class Command(Message):
    """Asks one participant to do something: `class ReserveStock(Command, name="stock.ReserveStock", version=1)`.

    Its name is imperative and belongs to exactly one queue.

    Args:
        name: The name on the wire, at most 255 of letters, digits, `_`, `.` and `-`. Every class has its own.
        version: The schema version, from 1. Raise it when old readers could not read the new fields.
        abstract: For a class that only holds fields for others; it has no name.

    Raises:
        DefinitionError: when the class is created, with everything that is wrong with it.
    """

    message_kind = "command"


class Event(Message):
    """Tells what has happened: `class StockReserved(Event, name="stock.StockReserved", version=1)`.

    Its name is in the past tense; anyone may listen. The keywords are those of `Command`.

    Raises:
        DefinitionError: when the class is created, with everything that is wrong with it.
    """

    message_kind = "event"


def _keyword_problems(name: object, version: object, abstract: object, unknown: Iterable[str]) -> list[str]:
    problems = [f"unknown keyword {keyword}={_hint(keyword)}; remove it" for keyword in unknown]
    if not isinstance(abstract, bool):
        problems.append(f"abstract={abstract!r} is not True or False; write abstract=True or leave it out")
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= MAX_VERSION:
        problems.append(f"version={version!r} is not a schema version; write a whole number from 1")
    if abstract:
        problems += [] if name is None else ["an abstract class has no name; remove name= or abstract=True"]
    elif name is None:
        problems.append('no name=; write name="<service>.<Message>", or abstract=True for a class that others extend')
    elif not isinstance(name, str) or not is_message_name(name):
        problems.append(
            f"name={name!r} is not a message name; write at most {MAX_NAME} letters, digits, '_', '.' and '-', "
            f"beginning with a letter"
        )
    return problems


def _hint(keyword: str) -> str:
    close = get_close_matches(keyword, _KEYWORDS, n=1)
    return f" (did you mean {close[0]}=?)" if close else ""


def _field_problems(cls: type[Message]) -> list[str]:
    fields = cls.model_fields
    taken = [f"field {name} hides the engine's; choose another name" for name in _ENGINE_NAMES if name in fields]
    secret = [
        f"field {name} holds a secret, which would travel as asterisks; use str and an encrypted transport"
        for name, field in fields.items()
        if _mentions_secret(field.annotation)
    ]
    private = [
        f"private attribute {name} would not travel; make it a field or remove it"
        for name in cls.__private_attributes__
    ]
    return taken + secret + private


def _mentions_secret(annotation: object) -> bool:
    return (
        annotation in _SECRETS
        or get_origin(annotation) in _SECRETS
        or any(_mentions_secret(part) for part in get_args(annotation))
    )


def _where() -> str:
    """File and line of the class statement: the first frame that belongs neither to this module nor to metaclasses."""
    frame = sys._getframe(1)
    while frame.f_back and _machinery(str(frame.f_globals.get("__name__"))):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _machinery(module: str) -> bool:
    return module in (__name__, "abc", "types") or module.startswith("pydantic.")
