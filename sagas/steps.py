"""The words an author writes over methods: `@start`, `@step` with its hooks and compensation, `@decision`, `@sleep`.

They only keep what was written. What it means, and what is wrong with it, is found when the class is compiled.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, overload

from messages import Command, Event
from sagas.announcements import Announcement
from sagas.definition import ReplyKind, Retry
from sagas.flow import Flow
from sagas.written import Hooked, Written, wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime, timedelta
    from typing import Self

    from sagas.authoring import Saga
    from sagas.keywords import AllOf

Replies = type[Event] | tuple[type[Event], ...]
"""One reply type or several."""

C = TypeVar("C", bound=Command)
C_co = TypeVar("C_co", bound=Command, covariant=True)
S = TypeVar("S", bound="Saga")
E = TypeVar("E", bound=Event)

P = TypeVar("P", bound="Callable[[Any], Any]")

DECIDES = "__antiphon_decides__"
"""The attribute of a decision's function."""


class Word(Hooked):
    """What a step and a compensation have in common: a method that builds a command, keywords and reply hooks."""

    _SAYS = "@step"

    def __init__(self, method: object, keywords: Mapping[str, object]) -> None:
        super().__init__(method)
        self._keywords = dict(keywords)

    def _reply_hook(self, kind: ReplyKind, method: Callable[[S, E], None]) -> Callable[[S, E], None]:
        self._hook(f"on_{kind}", kind, method)
        return method

    def on_success(self, method: Callable[[S, E], None], /) -> Callable[[S, E], None]:
        """The method takes a reply that says it is done. Its parameter's annotation names the type, unions too.

        The hook assigns to fields what the saga needs later. It runs on a copy: what it does counts only if it does not
        raise.
        """
        return self._reply_hook(ReplyKind.SUCCESS, method)

    def on_failure(self, method: Callable[[S, E], None], /) -> Callable[[S, E], None]:
        """The method takes a reply that says it cannot be done, for good. A failed step turns the saga back."""
        return self._reply_hook(ReplyKind.FAILURE, method)

    def on_transient(self, method: Callable[[S, E], None], /) -> Callable[[S, E], None]:
        """The method takes a reply that says "not now": the command is sent anew after the backoff."""
        return self._reply_hook(ReplyKind.TRANSIENT, method)

    def on_heartbeat(self, method: Callable[[S, E], None], /) -> Callable[[S, E], None]:
        """The method takes a reply that says that it is being worked on: the timeout begins anew."""
        return self._reply_hook(ReplyKind.HEARTBEAT, method)

    def announce(self, method: Callable[[Any], E], /) -> Announcement[E]:
        """The method builds an event that is published when this is done: for whoever wants to know."""
        self._body_beside("announce")
        return Announcement[E](method, (), self)


class Step(Word, Flow, Generic[C_co]):
    """A step: a method that returns a command, and in the class body a part of the flow.

    `PlaceOrder.reserve` is the step, `order.reserve()` builds the command.
    """

    def __init__(self, method: object, keywords: Mapping[str, object]) -> None:
        super().__init__(method, keywords)
        self._compensations: list[Compensation[Command]] = []

    @overload
    def __get__(self, saga: None, owner: type[Any], /) -> Self: ...
    @overload
    def __get__(self, saga: Saga, owner: type[Any], /) -> Callable[[], C_co]: ...
    def __get__(self, saga: Saga | None, owner: type[Any], /) -> Self | Callable[[], C_co]:
        return self if saga is None else self._method.__get__(saga, owner)

    @overload
    def compensation(self, method: Callable[[Any], C], /) -> Compensation[C]: ...
    @overload
    def compensation(
        self,
        /,
        *,
        timeout: timedelta = ...,
        retry: Retry = ...,
        success: Replies | AllOf = ...,
        failure: Replies = ...,
        transient: Replies = ...,
        heartbeat: Replies = ...,
        reply: bool = ...,
    ) -> CompensationDecorator: ...
    def compensation(self, method: object = None, /, **keywords: object) -> object:
        """The method builds the command that undoes this step. Bare, or with keywords.

        What its step's own reply would have set may be missing: a step in doubt is undone too.

        Args:
            method: Bare use.
            timeout: How long to wait for a reply before the same command is sent again. Default 30 s.
            retry: How often and how patiently. Default `Retry(attempts=10, cap=timedelta(hours=1))`.
            success: Reply types that say it is undone, where there is nothing to keep.
            failure: Reply types that say it cannot be undone: an operator is asked.
            transient: Reply types that say "not now".
            heartbeat: Reply types that say that it is being worked on.
            reply: False when nobody answers: it is done once it is committed to the outbox.
        """

        def decorate(method: object, /) -> Compensation[Command]:
            self._body_beside("compensation")
            made = Compensation[Command](method, keywords, self)
            self._compensations.append(made)
            return made

        return decorate if method is None else decorate(method)


class Compensation(Word, Generic[C_co]):
    """The undoing of a step: a method that returns a command. It has reply hooks of its own."""

    _SAYS = "@….compensation"

    def __init__(self, method: object, keywords: Mapping[str, object], step: Step[Any]) -> None:
        super().__init__(method, keywords)
        self._of = step

    @overload
    def __get__(self, saga: None, owner: type[Any], /) -> Self: ...
    @overload
    def __get__(self, saga: Saga, owner: type[Any], /) -> Callable[[], C_co]: ...
    def __get__(self, saga: Saga | None, owner: type[Any], /) -> Self | Callable[[], C_co]:
        return self if saga is None else self._method.__get__(saga, owner)


class StepDecorator(Protocol):
    """What `@step(...)` puts over a method."""

    def __call__(self, method: Callable[[Any], C], /) -> Step[C]:
        """Make the method a step."""


class CompensationDecorator(Protocol):
    """What `@….compensation(...)` puts over a method."""

    def __call__(self, method: Callable[[Any], C], /) -> Compensation[C]:
        """Make the method a compensation."""


@overload
def step(method: Callable[[Any], C], /) -> Step[C]: ...
@overload
def step(
    *,
    timeout: timedelta = ...,
    retry: Retry = ...,
    success: Replies | AllOf = ...,
    failure: Replies = ...,
    transient: Replies = ...,
    heartbeat: Replies = ...,
    reply: bool = ...,
    in_doubt: Literal["undo", "wait"] = ...,
    on_silence: Literal["resend", "new_attempt"] = ...,
    pivot: bool = ...,
) -> StepDecorator: ...
def step(method: object = None, /, **keywords: object) -> object:
    """A step of the saga: the method builds the command that does it. Bare, or with keywords.

    The return annotation names the command's type.

    Args:
        method: Bare use.
        timeout: How long to wait for a reply before the same command is sent again. Default 30 s.
        retry: How often and how patiently. Default `Retry()`: 3 sends in all, 1 s, doubled, at most 1 min.
        success: Reply types that say it is done, where there is nothing to keep: one of them is enough, or
            `all_of(Picked, Packed)` is needed.
        failure: Reply types that say it cannot be done: the saga turns back.
        transient: Reply types that say "not now": the command is sent anew after the backoff.
        heartbeat: Reply types that say that it is being worked on: the timeout begins anew with each.
        reply: False when nobody answers: the step is done once its command is committed to the outbox.
        in_doubt: "undo" (default) or "wait": what becomes of the step when nobody answered in time and the saga
            turns back: undone like a completed one, or waited for.
        on_silence: "resend" (default) the same bytes under the same id, or "new_attempt" for participants that swallow
            repeated ids; for the compensation too.
        pivot: True for the step after which there is no way back: once it is done nothing is undone, and what follows
            is sent until it succeeds. It may fail, as long as it has not succeeded, and is never in doubt: it is sent
            until it is answered.
    """

    def decorate(method: object, /) -> Step[Command]:
        return Step[Command](method, keywords)

    return decorate if method is None else decorate(method)


class Sleep(Written, Flow):
    """A rest: a method that says how long, or until when, and in the class body a part of the flow."""

    _SAYS = "@sleep"

    @overload
    def __get__(self, saga: None, owner: type[Any], /) -> Self: ...
    @overload
    def __get__(self, saga: Saga, owner: type[Any], /) -> Callable[[], timedelta | datetime]: ...
    def __get__(self, saga: Saga | None, owner: type[Any], /) -> Self | Callable[[], timedelta | datetime]:
        return self if saga is None else self._method.__get__(saga, owner)


def sleep(method: Callable[[Any], timedelta | datetime], /) -> Sleep:
    """The flow rests here: for the `timedelta` that the method returns, or until the `datetime` (aware).

    The method is asked once, when the flow comes to it; a moment that has passed is no rest at all. Nothing is held
    while the saga rests, and restarts do not matter.
    """
    return Sleep(method)


def decision(method: P, /) -> P:
    """The method says which way the flow takes: `when(needs_approval, approve)`, `match(route, {...})`.

    It sees a copy of the state and returns its answer; the return annotation names the type. It is asked once, when the
    flow comes to it, and may be called as the plain method that it stays.
    """
    if not isinstance(method, FunctionType):
        raise wrong(f"@decision stands over a plain method, not over {method!r}; remove what is between them")
    setattr(method, DECIDES, True)
    return method


class _Start(classmethod):  # type: ignore[type-arg]
    """The method makes a new saga of an event."""

    def __init__(self, method: object = None, /, *surplus: object, **keywords: object) -> None:
        if surplus or keywords or not isinstance(method, FunctionType):
            raise wrong(
                "@start stands bare over a plain method; write `@start` and `def placed(cls, event: OrderPlaced)`"
            )
        super().__init__(method)


if TYPE_CHECKING:
    from sagas.keywords import AllOf

    start = classmethod  # the one form in which both mypy and pyright see `cls` as the class
else:
    start = _Start


def is_start(value: object) -> bool:
    """Whether a class attribute was made by `@start`."""
    return isinstance(value, _Start)


def is_decision(value: object) -> bool:
    """Whether a class attribute was made by `@decision`."""
    return isinstance(value, FunctionType) and hasattr(value, DECIDES)
