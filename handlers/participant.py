"""A participant as its author writes it: a name, one handler for each command it takes, and what prepares its tables.

    stock = Participant("stock")

    @stock.handles
    async def reserve(command: ReserveStock, context: Context) -> StockReserved | OutOfStock: ...

What is wrong with a handler is said when it is defined. Knows nothing of brokers and databases; `handlers.answering`
carries commands out.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from inspect import Parameter, iscoroutinefunction, signature
from types import UnionType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard, TypeVar, Union, get_args, get_origin, overload

from messages.errors import DefinitionError
from messages.message import Command, Event, is_message_name
from messages.upcasting import reads
from outbox.participant_store import Context
from sagas.problems import Place, listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import FrameType, FunctionType

    from outbox.participant_store import Prepare

C = TypeVar("C", bound=Command)
R = TypeVar("R", bound=Event | None)
M = TypeVar("M", Command, Event)

Answer: TypeAlias = Coroutine[Any, Any, R]
Transient: TypeAlias = type[Event] | tuple[type[Event], ...]
Around: TypeAlias = Callable[[Command, Context, Callable[[], Awaitable[Event | None]]], Awaitable[Event | None]]
"""Stands between a participant and its handlers: gets the command, its context, and what calls the handler."""

_LONGEST_NAME = 100  # it is part of a queue's name


class _Registers(Protocol):
    """What `handles(transient=...)` returns: the decorator itself."""

    @overload
    def __call__(self, handler: Callable[[C], Answer[R]], /) -> Callable[[C], Answer[R]]: ...
    @overload
    def __call__(self, handler: Callable[[C, Context], Answer[R]], /) -> Callable[[C, Context], Answer[R]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandHandler:
    """One handler: the class of its command, the replies it may give, and which of those are transient.

    `replies` holds None where the handler may answer nothing.
    """

    name: str
    place: Place
    command: type[Command]
    replies: tuple[type[Event] | None, ...]
    transient: tuple[type[Event], ...]
    call: Callable[[Command, Context], Awaitable[Event | None]]


class Participant:
    """Takes commands and answers them, each at most once.

    Args:
        name: What its queue is called: `<namespace>.participant.<name>`; at most 100 letters, digits, `_`, `.` and `-`.

    Raises:
        DefinitionError: the name cannot be one.
    """

    def __init__(self, name: str) -> None:
        if not is_message_name(name) or len(name) > _LONGEST_NAME:
            raise DefinitionError(
                f"{_place_of(_caller())}: {name!r} is no participant's name; write at most {_LONGEST_NAME} letters, "
                "digits, '_', '.' and '-', beginning with a letter"
            )
        self.name = name
        self._handlers: dict[tuple[str, int], CommandHandler] = {}
        self._prepare: Prepare | None = None

    @property
    def commands(self) -> tuple[str, ...]:
        """The names of the commands that it takes, sorted."""
        return tuple(sorted({name for name, _ in self._handlers}))

    @property
    def handlers(self) -> Mapping[tuple[str, int], CommandHandler]:
        """Its handlers by name and schema version of their command."""
        return self._handlers

    def handler_of(self, name: str, version: int) -> CommandHandler | None:
        """What takes a command in that version: its own handler, else the next newer one whose class can read it."""
        if (own := self._handlers.get((name, version))) is not None:
            return own
        newer = sorted(number for known, number in self._handlers if known == name and number > version)
        able = (self._handlers[name, number] for number in newer)
        return next((handler for handler in able if reads(handler.command, version)), None)

    @property
    def prepare(self) -> Prepare | None:
        """What `setup` registered."""
        return self._prepare

    @overload
    def handles(self, handler: Callable[[C], Answer[R]], /) -> Callable[[C], Answer[R]]: ...
    @overload
    def handles(self, handler: Callable[[C, Context], Answer[R]], /) -> Callable[[C, Context], Answer[R]]: ...
    @overload
    def handles(self, /, *, transient: Transient) -> _Registers: ...

    def handles(self, handler: Callable[..., Any] | None = None, /, *, transient: Transient = ()) -> Any:
        """Register the handler of a command: `async def reserve(command: ReserveStock) -> StockReserved | OutOfStock`.

        Its annotations say which command it takes and which replies it gives; `-> None` for a command that nobody
        waits for. A second parameter gets the `Context`.

        Args:
            handler: The handler; it is returned as it is, so that tests can call it.
            transient: Replies that mean "not now, try again": the handler's work is rolled back, and the same command
                under a new message id is carried out anew.

        Raises:
            DefinitionError: `file:line: problem; remedy`, all problems of the handler at once.
        """
        kinds = transient if isinstance(transient, tuple) else (transient,)
        local_names = _local_names(_caller())
        if handler is not None:
            return self._register(handler, kinds, local_names)
        return lambda one: self._register(one, kinds, local_names)

    def setup(self, prepare: Prepare, /) -> Prepare:
        """Register what prepares the participant's own tables: `async def tables(connection: AsyncConnection) -> None`.

        It runs at every start of the process, before the first command, in a transaction, on PostgreSQL one process at
        a time; so it must find out by itself what there is to do.

        Raises:
            DefinitionError: it is not async, or there is one already.
        """
        if self._prepare is not None:
            raise DefinitionError(f"{_place_of(_caller())}: {self.name} has a setup already; do both in one")
        if not iscoroutinefunction(prepare):
            raise DefinitionError(f"{_place_of(_caller())}: a setup must be async; write `async def`")
        self._prepare = prepare
        return prepare

    def around(self, wrapper: Around) -> Participant:
        """The same participant with something between it and its handlers, to delay, watch or drop what they do.

        `wrapper(command, context, proceed)` is called for every command; `await proceed()` calls the handler and
        returns its reply. What the wrapper returns is the reply; None: the command is done, and nothing is answered.
        """
        wrapped = Participant(self.name)
        wrapped._prepare = self._prepare
        wrapped._handlers = {key: _wrapped(handler, wrapper) for key, handler in self._handlers.items()}
        return wrapped

    def _register(
        self, handler: Callable[..., Answer[Any]], transient: tuple[type[Event], ...], names: Mapping[str, Any]
    ) -> Callable[..., Answer[Any]]:
        written = _Written(handler, names)
        command, replies = written.command(), written.replies()
        written.check_transient(transient, replies)
        if command is not None:
            taken = self._handlers.get((command.message_name, command.schema_version))
            if taken is not None:
                written.problem(
                    f"{command.message_name} is handled by {taken.name} ({taken.place}); remove one of them"
                )
        written.raise_if_any()
        if command is not None:
            self._handlers[command.message_name, command.schema_version] = CommandHandler(
                name=written.name,
                place=written.place,
                command=command,
                replies=replies,
                transient=transient,
                call=handler if written.takes_context else _without_context(handler),
            )
        return handler


class _Written:
    """A handler as its author wrote it, and what is wrong with it."""

    def __init__(self, handler: Callable[..., object], names: Mapping[str, Any]) -> None:
        function: FunctionType = handler  # type: ignore[assignment] # a decorator gets one
        if not hasattr(function, "__code__"):
            raise DefinitionError(f"{_place_of(_caller())}: {handler!r} is no function; write `async def`")
        self.name = function.__name__
        self.place = Place(function.__code__.co_filename, function.__code__.co_firstlineno)
        self._function = function
        self._names = names
        self._problems: list[str] = []
        self._parameters = list(signature(handler).parameters.values())
        if not iscoroutinefunction(handler):
            self.problem(f"{self.name} is not async; write `async def {self.name}`")

    @property
    def takes_context(self) -> bool:
        return len(self._parameters) > 1

    def problem(self, text: str) -> None:
        self._problems.append(f"{self.place}: {text}")

    def raise_if_any(self) -> None:
        if self._problems:
            raise DefinitionError("\n".join(self._problems))

    def command(self) -> type[Command] | None:
        """The class of its first parameter."""
        positional = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        if not 1 <= len(self._parameters) <= 2 or any(one.kind not in positional for one in self._parameters):
            self.problem(f"{self.name} takes other parameters than a command and a context; write (command, context)")
            return None
        first, *second = self._parameters
        if second and self._annotation(second[0].name) not in ((), (Context,)):
            self.problem(f"{second[0].name} gets the context; annotate it with handlers.Context")
        kinds = self._annotation(first.name)
        if kinds is None:
            return None
        if len(kinds) == 1 and _is_message(kinds[0], Command):
            return kinds[0]
        self.problem(
            f"{first.name} is annotated with {_said(kinds)}; annotate it with one Command class that has a name"
        )
        return None

    def replies(self) -> tuple[type[Event] | None, ...]:
        """The classes of its return annotation, None among them where it may answer nothing."""
        kinds = self._annotation("return")
        if kinds is None:
            return ()
        kinds = tuple(None if kind is type(None) else kind for kind in kinds)
        wrong = [kind for kind in kinds if kind is not None and not _is_message(kind, Event)]
        if not kinds or wrong:
            self.problem(
                f"{self.name} returns {_said(wrong)}; annotate what it returns with Event classes that have a name, "
                "or None when it answers nothing"
            )
            return ()
        return kinds

    def check_transient(self, transient: tuple[type[Event], ...], replies: tuple[type[Event] | None, ...]) -> None:
        strangers = [kind for kind in transient if kind not in replies]
        if strangers and replies:
            self.problem(f"transient={_said(strangers)} is none of its replies; add it to what {self.name} returns")

    def _annotation(self, name: str) -> tuple[Any, ...] | None:
        """The types of an annotation, several for a union, none when there is no annotation; None when unreadable."""
        annotation = self._function.__annotations__.get(name, ())
        if annotation == ():
            return ()
        if isinstance(annotation, str):
            try:
                annotation = eval(annotation, self._function.__globals__, dict(self._names))  # noqa: S307 - the author's
            except Exception as error:
                self.problem(
                    f"annotation {annotation!r} means nothing here: {error}; import what it names, and not under "
                    "TYPE_CHECKING"
                )
                return None
        origin: object = get_origin(annotation)
        if origin is UnionType or origin is Union:
            return get_args(annotation)
        return (type(None),) if annotation is None else (annotation,)


def _is_message(kind: object, base: type[M]) -> TypeGuard[type[M]]:
    return isinstance(kind, type) and issubclass(kind, base) and bool(kind.message_name)


def _said(kinds: Iterable[object]) -> str:
    return listed(getattr(kind, "__name__", repr(kind)) for kind in kinds)


def _without_context(
    handler: Callable[[Command], Awaitable[Event | None]],
) -> Callable[[Command, Context], Awaitable[Event | None]]:
    return lambda command, _context: handler(command)


def _wrapped(handler: CommandHandler, wrapper: Around) -> CommandHandler:
    async def call(command: Command, context: Context) -> Event | None:
        return await wrapper(command, context, lambda: handler.call(command, context))

    replies = handler.replies if None in handler.replies else (*handler.replies, None)
    return replace(handler, call=call, replies=replies)


def _caller() -> FrameType:
    """The nearest frame outside of this module."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return frame


def _local_names(frame: FrameType) -> Mapping[str, Any]:
    """What annotations see beyond their module: names of the function in which the handler is written."""
    return {} if frame.f_locals is frame.f_globals else dict(frame.f_locals)


def _place_of(frame: FrameType) -> Place:
    return Place(frame.f_code.co_filename, frame.f_lineno)
