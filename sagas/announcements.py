"""The words over methods that tell others how a saga goes: `@announce`, and `@….announce` of a step or compensation.

They only keep what was written. What it means, and what is wrong with it, is found when the class is compiled.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, overload

from messages import Event
from sagas.written import Hooked, Written, wrong

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from sagas.authoring import Saga

E = TypeVar("E", bound=Event)
E_co = TypeVar("E_co", bound=Event, covariant=True)

Moment = Literal["started", "turned_back", "compensated", "completed"]
"""What can be announced of a saga as a whole."""

MOMENTS = {
    "started": "started",
    "turned_back": "compensation_started",
    "compensated": "compensated",
    "completed": "completed",
}
"""The history rows that announcements of the whole follow, by their words."""


class Announcement(Written, Generic[E_co]):
    """A method that builds an event which the saga publishes about itself. `_of` is the step or compensation."""

    _SAYS = "@announce"

    def __init__(self, method: object, moments: tuple[object, ...], of: Hooked | None = None) -> None:
        super().__init__(method)
        self._moments, self._of = moments, of

    @overload
    def __get__(self, saga: None, owner: type[Any], /) -> Self: ...
    @overload
    def __get__(self, saga: Saga, owner: type[Any], /) -> Callable[[], E_co]: ...
    def __get__(self, saga: Saga | None, owner: type[Any], /) -> Self | Callable[[], E_co]:
        return self if saga is None else self._method.__get__(saga, owner)


class AnnouncementDecorator(Protocol):
    """What `@announce(...)` puts over a method."""

    def __call__(self, method: Callable[[Any], E], /) -> Announcement[E]:
        """Make the method an announcement."""


def announce(*moments: Moment) -> AnnouncementDecorator:
    """The method builds an event that is published when the saga has come so far: for whoever wants to know.

    The return annotation names the event's class. It is built from the state as it is then, and goes out with the
    transaction that brought the saga there. Steps and compensations have an `announce` of their own.

    Args:
        moments: When: "started", "turned_back" (it begins to undo what it did), "compensated", "completed".
    """
    if not moments or isinstance(moments[0], FunctionType):
        raise wrong('@announce does not say when; write @announce("completed"), or @reserve.announce for a step')

    def decorate(method: Callable[[Any], E], /) -> Announcement[E]:
        return Announcement[E](method, moments)

    return decorate
