"""The words over methods that take what nobody here asked for: `@wait`, `@signal`, `@cancel`, `@on`; and `@query`.

They only keep what was written. What it means, and what is wrong with it, is found when the class is compiled.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, overload

from messages import Command, Event
from sagas.definition import ReplyKind
from sagas.flow import Flow
from sagas.written import Hooked, Written, wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta
    from typing import Self

    from sagas.authoring import Saga
    from sagas.steps import Replies

    Unfit = Literal["keep", "ignore", "dead_letter"]

C = TypeVar("C", bound=Command)
C_co = TypeVar("C_co", bound=Command, covariant=True)
E = TypeVar("E", bound=Event)
E_contra = TypeVar("E_contra", bound=Event, contravariant=True)
S = TypeVar("S", bound="Saga")
M = TypeVar("M", bound="Callable[[Any], Any]")
F = TypeVar("F", bound="Callable[..., Any]")

LISTENS = "__antiphon_listens__"
"""The attribute that leads from a method that takes an event to its `Listener`."""

QUERIES = "__antiphon_queries__"
"""The attribute of a query's function."""


class Listener:
    """What stands over a `@signal`, a `@cancel` or an `@on`; the function itself stays what the author wrote.

    `states` are those in which an `@on` takes the event.
    """

    def __init__(
        self, word: Literal["signal", "cancel", "on"], keywords: Mapping[str, object], states: tuple[object, ...] = ()
    ) -> None:
        self.word, self.keywords, self.states = word, dict(keywords), states


class Wait(Hooked, Flow, Generic[E_contra]):
    """A wait: a method that takes the event that is waited for, and in the class body a part of the flow."""

    _SAYS = "@wait"
    _BUILDS = False

    def __init__(self, method: object, keywords: Mapping[str, object]) -> None:
        super().__init__(method)
        self._keywords = dict(keywords)
        self._notices: list[Notice[Command]] = []

    @overload
    def __get__(self, saga: None, owner: type[Any], /) -> Self: ...
    @overload
    def __get__(self, saga: Saga, owner: type[Any], /) -> Callable[[E_contra], None]: ...
    def __get__(self, saga: Saga | None, owner: type[Any], /) -> Self | Callable[[E_contra], None]:
        return self if saga is None else self._method.__get__(saga, owner)

    def on_failure(self, method: Callable[[S, E], None], /) -> Callable[[S, E], None]:
        """The method takes an event that says no: the saga turns back, or tries the alternative."""
        self._hook("on_failure", ReplyKind.FAILURE, method)
        return method

    @overload
    def on_timeout(self, method: M, /) -> M: ...
    @overload
    def on_timeout(self, /, *, fails: bool) -> Callable[[M], M]: ...
    def on_timeout(self, method: object = None, /, *, fails: bool = False) -> object:
        """The method sets the default outcome: nobody has said anything in time, and the flow goes on with that.

        It takes nothing but `self`. Without it a wait that has timed out has failed.

        Args:
            method: Bare use.
            fails: The default outcome is a no: the method keeps what there is to keep, and the wait has failed.
        """

        def decorate(method: M, /) -> M:
            self._hook("on_timeout", ReplyKind.FAILURE if fails else None, method, timeout=True)
            return method

        return decorate if method is None else decorate(method)  # type: ignore[type-var]

    def reminder(self, /, *, after: timedelta, every: timedelta | None = None) -> NoticeDecorator:
        """The method builds a command that is sent when nobody has said anything for so long. Nobody answers it.

        Args:
            after: How long after the wait has begun.
            every: After what time it is sent again, and again, as long as the wait lasts. Left out: once.
        """
        return self._notice("reminder", {"after": after} if every is None else {"after": after, "every": every})

    def escalation(self, /, *, after: timedelta) -> NoticeDecorator:
        """The method builds a command that is sent once when nobody has said anything for so long: to somebody else.

        Nobody answers it; what whoever got it decides is the event that is waited for.

        Args:
            after: How long after the wait has begun.
        """
        return self._notice("escalation", {"after": after})

    def _notice(self, kind: Literal["reminder", "escalation"], keywords: Mapping[str, object]) -> NoticeDecorator:
        def decorate(method: Callable[[Any], C], /) -> Notice[C]:
            self._body_beside(kind)
            made = Notice[C](method, kind, keywords, self)
            self._notices.append(made)
            return made

        return decorate


class Notice(Written, Generic[C_co]):
    """A reminder or an escalation: a method that returns a command."""

    _SAYS = "@….reminder"

    def __init__(
        self, method: object, kind: Literal["reminder", "escalation"], keywords: Mapping[str, object], of: Wait[Any]
    ) -> None:
        super().__init__(method)
        self._kind, self._keywords, self._of = kind, dict(keywords), of

    @overload
    def __get__(self, saga: None, owner: type[Any], /) -> Self: ...
    @overload
    def __get__(self, saga: Saga, owner: type[Any], /) -> Callable[[], C_co]: ...
    def __get__(self, saga: Saga | None, owner: type[Any], /) -> Self | Callable[[], C_co]:
        return self if saga is None else self._method.__get__(saga, owner)


class NoticeDecorator(Protocol):
    """What `@….reminder(...)` puts over a method."""

    def __call__(self, method: Callable[[Any], C], /) -> Notice[C]:
        """Make the method a reminder or an escalation."""


class WaitDecorator(Protocol):
    """What `@wait(...)` puts over a method."""

    def __call__(self, method: Callable[[Any, E], None], /) -> Wait[E]:
        """Make the method a wait."""


class ListenerDecorator(Protocol):
    """What `@signal(...)` and `@cancel(...)` put over a method."""

    def __call__(self, method: Callable[[S, E], None], /) -> Callable[[S, E], None]:
        """Make the method a listener; it stays a plain method."""


@overload
def wait(method: Callable[[Any, E], None], /) -> Wait[E]: ...
@overload
def wait(
    *,
    timeout: timedelta = ...,
    failure: Replies = ...,
    by: str = ...,
    because: str = ...,
    missing: Unfit = ...,
    unexpected: Unfit = ...,
) -> WaitDecorator: ...
def wait(method: object = None, /, **keywords: object) -> object:
    """The flow waits here for an event: what a human decides, what another service tells. Bare, or with keywords.

    The method takes the event and keeps what the saga needs of it; its parameter's annotation names the type, unions
    too. The event finds its saga by the business key in its body, or by `correlation_id`. Nothing is held while it
    waits, and restarts do not matter.

    Args:
        method: Bare use.
        timeout: How long to wait. Without it as long as the saga's deadline allows.
        failure: Event types that say no, where there is nothing to keep.
        by: The field of the events that says who has decided; it is told in the history.
        because: The field of the events that says why.
        missing: What becomes of an event for whose key there is no saga: "keep" (default) it until the saga begins,
            "ignore" it, or make it a "dead_letter". What is kept becomes a dead letter after a day.
        unexpected: What becomes of an event that comes before the flow has come here: the same.
    """

    def decorate(method: object, /) -> Wait[Any]:
        return Wait[Any](method, keywords)

    return decorate if method is None else decorate(method)


@overload
def signal(method: Callable[[S, E], None], /) -> Callable[[S, E], None]: ...
@overload
def signal(*, missing: Unfit = ..., unexpected: Unfit = ...) -> ListenerDecorator: ...
def signal(method: object = None, /, **keywords: object) -> object:
    """The method takes an event that may come at any time while the saga runs, and changes the state. Bare, or not.

    Steps that are sent later are built from the state as it is then.

    Args:
        method: Bare use.
        missing: What becomes of an event for whose key there is no saga: "keep" (default), "ignore", "dead_letter".
        unexpected: What becomes of one that comes when the saga has turned back or ended: "ignore" (default; its
            history tells of it) or "dead_letter".
    """
    return _listener("signal", method, keywords)


@overload
def cancel(method: Callable[[S, E], None], /) -> Callable[[S, E], None]: ...
@overload
def cancel(*, missing: Unfit = ..., unexpected: Unfit = ...) -> ListenerDecorator: ...
def cancel(method: object = None, /, **keywords: object) -> object:
    """The method takes an event that turns the saga back: whatever was done is undone. Bare, or with keywords.

    Args:
        method: Bare use.
        missing: What becomes of an event for whose key there is no saga: "keep" (default), "ignore", "dead_letter".
        unexpected: What becomes of one that comes too late, because the saga has passed its pivot, has turned back or
            has ended: "ignore" (default; its history tells of it) or "dead_letter".
    """
    return _listener("cancel", method, keywords)


@overload
def on(*states: object, elsewhere: Unfit = ..., missing: Unfit = ...) -> Callable[[F], F]: ...
@overload
def on(*states: object, after: timedelta) -> Callable[[F], F]: ...
def on(*states: object, **keywords: object) -> Callable[[F], F]:
    """In these states of a `lifecycle` the method takes an event, and says which state is next.

    Its return annotation lists the states it may lead to, `-> Literal[Standing.PAST_DUE]`; where it may say None too,
    nothing changes then but the fields that it has assigned.

    Args:
        states: The states in which it takes the event.
        after: Instead of an event: so long after the state was entered. The method takes nothing but `self`.
        elsewhere: What becomes of the event in the states that no `@on` for it names: "keep" it until the state is
            another, "ignore" it (its history tells of it), or make it a "dead_letter". To be said where there are any.
        missing: What becomes of an event for whose key there is no saga: "keep" (default), "ignore", "dead_letter".
    """

    def decorate(method: F, /) -> F:
        if not isinstance(method, FunctionType):
            raise wrong(f"@on stands over a plain method, not over {method!r}; remove what is between them")
        setattr(method, LISTENS, Listener("on", keywords, states))
        return method

    return decorate


def query(method: M, /) -> M:
    """The method answers from the state, and changes nothing: `antiphon sagas query ID name`.

    It takes nothing but `self`; what it returns is shown as JSON. It may be called as the plain method that it stays.
    """
    if not isinstance(method, FunctionType):
        raise wrong(f"@query stands over a plain method, not over {method!r}; remove what is between them")
    setattr(method, QUERIES, True)
    return method


def _listener(word: Literal["signal", "cancel"], method: object, keywords: Mapping[str, object]) -> object:
    def decorate(method: object, /) -> object:
        if not isinstance(method, FunctionType):
            raise wrong(f"@{word} stands over a plain method, not over {method!r}; remove what is between them")
        setattr(method, LISTENS, Listener(word, keywords))
        return method

    return decorate if method is None else decorate(method)


def listener_of(value: object) -> Listener | None:
    """The listener that a function of a class body is, if it is one."""
    return getattr(value, LISTENS, None) if isinstance(value, FunctionType) else None


def is_query(value: object) -> bool:
    """Whether a class attribute was made by `@query`."""
    return isinstance(value, FunctionType) and hasattr(value, QUERIES)
