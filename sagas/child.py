"""`@child`: a step that another saga does. It only keeps what was written; see `sagas.parenting` for what it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from messages import Command, Event
from sagas.steps import Step
from sagas.written import wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta
    from typing import Self

    from sagas.announcements import Announcement
    from sagas.authoring import Saga
    from sagas.definition import Retry
    from sagas.flow import Flow
    from sagas.keywords import AllOf
    from sagas.steps import Compensation, CompensationDecorator, Replies

A = TypeVar("A", bound=Event)
C = TypeVar("C", bound=Command)
E = TypeVar("E", bound=Event)
E_co = TypeVar("E_co", bound=Event, covariant=True)
S = TypeVar("S", bound="Saga")

if TYPE_CHECKING:

    class Child(Flow, Generic[E_co]):
        """A step that another saga does: a method that returns the event which starts it."""

        @overload
        def __get__(self, saga: None, owner: type[Any], /) -> Self: ...
        @overload
        def __get__(self, saga: Saga, owner: type[Any], /) -> Callable[[], E_co]: ...
        def __get__(self, saga: Saga | None, owner: type[Any], /) -> Self | Callable[[], E_co]: ...
        def on_success(self, method: Callable[[S, E], None], /) -> Callable[[S, E], None]:
            """The method takes what the child announces when it has completed."""

        def on_failure(self, method: Callable[[S, E], None], /) -> Callable[[S, E], None]:
            """The method takes what the child announces when it was compensated, or `NotStarted`."""

        def announce(self, method: Callable[[Any], A], /) -> Announcement[A]:
            """The method builds an event that is published when this is done: for whoever wants to know."""

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
            """The method builds the command that undoes what the child did, once it has completed."""


class ChildStep(Step[Any]):
    """What `@child` makes of a method; see `Child` for how type checkers see it."""

    _SAYS = "@child"

    def __init__(self, method: object, saga: type[Saga], keywords: Mapping[str, object]) -> None:
        super().__init__(method, keywords)
        self._saga = saga


class ChildDecorator(Protocol):
    """What `@child(...)` puts over a method."""

    def __call__(self, method: Callable[[Any], E], /) -> Child[E]:
        """Make the method a step that a child does."""


if TYPE_CHECKING:

    def child(
        saga: type[Saga],
        /,
        *,
        undo: type[Command] | None,
        timeout: timedelta = ...,
        success: Replies | AllOf = ...,
        failure: Replies = ...,
        pivot: bool = ...,
    ) -> ChildDecorator:
        """See below: a missing keyword is told when the class is created, with everything else that is wrong."""

else:

    def child(saga: object = None, /, *surplus: object, **keywords: object) -> object:
        """A step that another saga does: the method builds the event that starts it, with the child's key in it.

        The step is done when the child has completed, and has failed when the child was compensated, or not started.
        A child that is still under way when this saga turns back is cancelled, and awaited: it undoes what it did.

        Args:
            saga: The class of the child.
            surplus: Nothing.
            keywords: `undo`, the command that undoes what the child did once it has completed (what has ended is never
                opened again; a method under `@….compensation` builds it), or None when nothing is to be undone.
                `timeout`, how long the child may take before it is cancelled; without it as long as this saga's
                deadline allows. `success` and `failure`, which of several events that the child announces when it has
                completed, or was compensated, count. `pivot=True` for the step after which there is no way back.
        """
        if surplus or not (isinstance(saga, type) and hasattr(saga, "_definition")):
            raise wrong(
                f"@child does not say which saga, but {saga!r}; write @child(Delivery, undo=None) over the method"
            )

        def decorate(method: object, /) -> ChildStep:
            return ChildStep(method, saga, keywords)

        return decorate
