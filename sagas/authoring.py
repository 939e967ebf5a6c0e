"""`Saga`, the class that an author extends: its fields are the state, its methods the process.

Creating a subclass compiles it; the engine reads the compiled definition and never the class itself. The underscored
methods are the engine's: they carry the state between its bytes and the copy on which one method runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from sagas.announcements import Announcement, announce
from sagas.child import child
from sagas.compile import compile_saga
from sagas.definition import Definition
from sagas.flow import Flow, alternative, lifecycle, match, parallel, repeat, when
from sagas.keys import Alias
from sagas.keywords import all_of
from sagas.listed import each
from sagas.listeners import Notice, Wait, cancel, on, query, signal, wait
from sagas.lists import NotHere, as_json, check_unchanged, with_lists
from sagas.migrate import migrate
from sagas.steps import Compensation, Step, decision, sleep, start, step

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from typing import Self
    from uuid import UUID

    from messages import Event

__all__ = [
    "Alias",
    "Compensation",
    "Saga",
    "Step",
    "Wait",
    "all_of",
    "alternative",
    "announce",
    "cancel",
    "child",
    "decision",
    "each",
    "lifecycle",
    "match",
    "migrate",
    "on",
    "parallel",
    "query",
    "repeat",
    "signal",
    "sleep",
    "start",
    "step",
    "wait",
    "when",
]


class Saga(BaseModel):
    """A business process that is undone in reverse order when it cannot be finished.

    ```
    class PlaceOrder(Saga, key="order_id", version=1):
        order_id: str

        @start
        def placed(cls, event: OrderPlaced) -> Self:
            return cls(order_id=event.order_id)

        @step(success=StockReserved, failure=OutOfStock)
        def reserve(self) -> ReserveStock:
            return ReserveStock(order_id=self.order_id)
    ```

    The fields are the state. It is stored as JSON after every message, and loaded for every message: validators run at
    each load. Methods are pure: they get a copy, and nothing but fields that a hook assigned is kept.

    Args:
        key: The field of the start event that tells one process from another.
        version: Raised when the process changes its shape or its state; running instances stay on theirs.
        deadline: When the whole process turns back if it has not ended. Default 7 days.
        name: The stored type, when it is not the class's name: several versions of a process share one.
        keys: Events that carry the key elsewhere: in another field, in what a function makes of the event, or as one of
            the aliases.
        aliases: Fields whose values are further keys of the instance, as soon as it has them.
        key_reuse: Whether a further instance may start for a key whose instance has ended.
        abstract: For a class that others extend; it takes no other keyword.

    Raises:
        DefinitionError: when the class is created, with everything that is wrong with it.
    """

    # What the engine gives a copy; no part of its state.
    __slots__ = ("_given", "_identity", "_reason", "_time")

    model_config = ConfigDict(
        extra="forbid",
        ignored_types=(Flow, Compensation, Notice, Announcement),
        validate_by_name=True,
        ser_json_inf_nan="strings",
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )

    flow: ClassVar[Flow]
    """The order of the steps. Without it they run in the order written."""

    _definition: ClassVar[Definition | None] = None
    _apart: ClassVar[frozenset[str]] = frozenset()
    _local_names: ClassVar[Mapping[str, Any]] = {}

    def __init_subclass__(
        cls,
        *,
        key: str | None = None,
        version: int = 1,
        deadline: timedelta | None = None,
        name: str | None = None,
        keys: Mapping[type[Event], str | Callable[[Any], str | int | UUID] | Alias] | None = None,
        aliases: tuple[str, ...] = (),
        key_reuse: bool = False,
        abstract: bool = False,
        **unknown: object,
    ) -> None:
        # Declares the keywords; they are checked below, where the fields are known too.
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(cls, **keywords: object) -> None:
        super().__pydantic_init_subclass__()
        cls._definition = compile_saga(cls, Saga, keywords)
        cls._apart = cls._definition.lists if cls._definition is not None else frozenset()

    @property
    def now(self) -> datetime:
        """The time at which the message at hand is handled (aware, UTC). Not in `@start`."""
        time: datetime = _bound(self, "_time", "now")
        return time

    @property
    def saga_id(self) -> UUID:
        """The identity of this instance. Not in `@start`."""
        identity: UUID = _bound(self, "_identity", "saga_id")
        return identity

    @property
    def end_reason(self) -> str | None:
        """Why the saga has turned back: `failed`, `timed_out`, `cancelled` or `deadline`; None while it has not."""
        reason: str | None = _bound(self, "_reason", "end_reason")
        return reason

    def _bind(self, *, now: datetime, saga_id: UUID, end_reason: str | None = None) -> None:
        """Give the copy its time and identity, and tell it why it is taken back."""
        object.__setattr__(self, "_time", now)
        object.__setattr__(self, "_reason", end_reason)
        object.__setattr__(self, "_identity", saga_id)

    @classmethod
    def _load(
        cls,
        state: bytes,
        *,
        now: datetime,
        saga_id: UUID,
        end_reason: str | None = None,
        lists: Mapping[str, Sequence[bytes]] | None = None,
    ) -> Self:
        """A fresh copy of a stored state. Fields that the class no longer has are passed over.

        Of its lists that are kept item by item only those in `lists` are there.

        Raises:
            ValueError: the state does not fit the class.
        """
        apart = cls._apart
        saga = cls.model_validate_json(with_lists(state, apart, lists or {}) if apart else state, extra="ignore")
        for name in apart - (lists or {}).keys():
            saga.__dict__[name] = NotHere(name)
        if lists:
            object.__setattr__(saga, "_given", as_json(saga, lists))
        saga._bind(now=now, saga_id=saga_id, end_reason=end_reason)
        return saga

    def _dump(self, *, whole: bool = False) -> bytes:
        """The state as JSON. Whoever keeps it loads it once first: what does not survive its own JSON is an error.

        Only the `whole` has the lists that are kept item by item.

        Raises:
            ValueError: a field holds what its annotation does not allow, or a list was changed.
        """
        apart = None if whole else set(self._apart) or None
        if apart is not None:
            check_unchanged(self, getattr(self, "_given", {}))
        return self.__pydantic_serializer__.to_json(
            self, by_alias=False, round_trip=True, warnings="error", exclude=apart
        )


def _bound(saga: Saga, slot: str, name: str) -> Any:  # noqa: ANN401 - slots are not declared: they would be fields
    try:
        return object.__getattribute__(saga, slot)
    except AttributeError:
        message = (
            f"{type(saga).__name__}: self.{name} is not known here; the engine sets it before a hook or a step runs, "
            f"in @start and on a saga made by hand there is none"
        )
        raise RuntimeError(message) from None
