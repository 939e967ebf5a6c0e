"""`@each`: a step for each item of a list. It only keeps what was written; see `sagas.compile` for what it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, overload

from messages import Command, Event
from sagas.steps import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta
    from typing import Self

    from sagas.authoring import Saga
    from sagas.definition import Retry
    from sagas.flow import Flow
    from sagas.keywords import AllOf
    from sagas.steps import Replies

C = TypeVar("C", bound=Command)
C_co = TypeVar("C_co", bound=Command, covariant=True)
E = TypeVar("E", bound=Event)
I = TypeVar("I")  # noqa: E741 - an item
I_contra = TypeVar("I_contra", contravariant=True)
S = TypeVar("S", bound="Saga")

EACH = ("at_once", "tolerate")
"""The keywords that only a step for each item has."""

if TYPE_CHECKING:

    class Each(Flow, Generic[I_contra, C_co]):
        """A step for each item: a method that takes the item and returns a command."""

        @overload
        def __get__(self, saga: None, owner: type[Any], /) -> Self: ...
        @overload
        def __get__(self, saga: Saga, owner: type[Any], /) -> Callable[[I_contra], C_co]: ...
        def __get__(self, saga: Saga | None, owner: type[Any], /) -> Self | Callable[[I_contra], C_co]: ...
        def on_success(self, method: Callable[[S, E, I_contra], None], /) -> Callable[[S, E, I_contra], None]:
            """The method takes a reply that says it is done, and the item. See `Step.on_success`."""

        def on_failure(self, method: Callable[[S, E, I_contra], None], /) -> Callable[[S, E, I_contra], None]:
            """The method takes a reply that says it cannot be done, and the item."""

        def on_transient(self, method: Callable[[S, E, I_contra], None], /) -> Callable[[S, E, I_contra], None]:
            """The method takes a reply that says "not now", and the item."""

        def on_heartbeat(self, method: Callable[[S, E, I_contra], None], /) -> Callable[[S, E, I_contra], None]:
            """The method takes a reply that says that it is being worked on, and the item."""

        @overload
        def compensation(self, method: Callable[[Any, I], C], /) -> EachCompensation[I, C]: ...
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
        ) -> EachCompensationDecorator: ...
        def compensation(self, method: object = None, /, **keywords: object) -> object:
            """The method builds the command that undoes this step for an item. See `Step.compensation`."""

    class EachCompensation(Generic[I_contra, C_co]):
        """The undoing of a step for an item: a method that takes the item and returns a command."""

        @overload
        def __get__(self, saga: None, owner: type[Any], /) -> Self: ...
        @overload
        def __get__(self, saga: Saga, owner: type[Any], /) -> Callable[[I_contra], C_co]: ...
        def __get__(self, saga: Saga | None, owner: type[Any], /) -> Self | Callable[[I_contra], C_co]: ...
        def on_success(self, method: Callable[[S, E, I_contra], None], /) -> Callable[[S, E, I_contra], None]:
            """The method takes a reply that says it is undone, and the item."""

        def on_failure(self, method: Callable[[S, E, I_contra], None], /) -> Callable[[S, E, I_contra], None]:
            """The method takes a reply that says it cannot be undone, and the item."""

        def on_transient(self, method: Callable[[S, E, I_contra], None], /) -> Callable[[S, E, I_contra], None]:
            """The method takes a reply that says "not now", and the item."""


class EachStep(Step[Any]):
    """What `@each` makes of a method; see `Each` for how type checkers see it."""

    _SAYS = "@each"

    def __init__(self, method: object, list_field: object, keywords: Mapping[str, object]) -> None:
        super().__init__(method, {name: one for name, one in keywords.items() if name not in EACH})
        self._list_field = list_field
        self._each = {name: one for name, one in keywords.items() if name in EACH}


class EachDecorator(Protocol):
    """What `@each(...)` puts over a method."""

    def __call__(self, method: Callable[[Any, I], C], /) -> Each[I, C]:
        """Make the method a step for each item."""


class EachCompensationDecorator(Protocol):
    """What `@….compensation(...)` puts over a method."""

    def __call__(self, method: Callable[[Any, I], C], /) -> EachCompensation[I, C]:
        """Make the method the compensation for each item."""


@overload
def each(
    list_field: str,
    /,
    *,
    at_once: int = ...,
    tolerate: float = ...,
    timeout: timedelta = ...,
    retry: Retry = ...,
    success: Replies | AllOf = ...,
    failure: Replies = ...,
    transient: Replies = ...,
    heartbeat: Replies = ...,
    reply: bool = ...,
    in_doubt: Literal["undo", "wait"] = ...,
    on_silence: Literal["resend", "new_attempt"] = ...,
) -> EachDecorator: ...
@overload
def each(list_field: str, /, **keywords: object) -> EachDecorator: ...
def each(list_field: str, /, **keywords: object) -> EachDecorator:
    """A step for each item of a list of the state: the method takes the item, and so do its hooks and compensation.

    The list is made in `@start` and kept item by item beside the instance, however long it is; the methods of its items
    do not see it, every other method does.

    Args:
        list_field: The field of the state that holds the list.
        at_once: How many items are under way at once, 50 if not given.
        tolerate: How many items may fail although the flow goes on: a number, or a fraction below 1; none if not given.
        keywords: Those of a step.
    """

    def decorate(method: object, /) -> Any:  # noqa: ANN401 - a Step at run time
        return EachStep(method, list_field, keywords)

    return decorate
