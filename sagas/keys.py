"""The keys by which events find their instance: where each event carries one, and which one it is.

That is the business key or one of the instance's aliases, in a field of the event or what a function makes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from messages.errors import MethodRaised, MissingKey
from messages.keys import business_key
from sagas.problems import told

if TYPE_CHECKING:
    from messages import Event, Message

KeyValue = str | int | UUID
"""What can be a key."""

EXPRESSION = "(expression)"
"""What stands for a function where the field of a key is named; no field is called so."""


@dataclass(frozen=True, slots=True)
class Alias:
    """For `keys=`: the event names its instance by one of its `aliases=`.

    `keys={ParcelDelivered: Alias("parcel", at="parcel_no")}`: by the alias parcel, at parcel_no. `at` is a field of the
    event or a function of it; without it the field has the name of the alias.
    """

    name: str
    at: str | Callable[[Any], KeyValue] | None = None


Carried = str | Callable[[Any], KeyValue] | Alias
"""What `keys=` says of an event: a field of it, a function of it, or which alias it carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventKey:
    """Where an event carries the key by which it finds its instance.

    `field` is the field of its body, or `EXPRESSION`; then `read` is the author's function. `alias`: the key is that
    alias of the instance. None: its business key.
    """

    field: str
    read: Callable[[Any], object]
    alias: str | None = None

    def of(self, saga_type: str, event: Message) -> str:
        """The key in an event, in its canonical form.

        Raises:
            MissingKey: there is none, or what is there is no key.
            MethodRaised: the author's function raised.
        """
        name = event.message_name
        try:
            value = self.read(event)
        except BaseException as error:  # of the author's: `sys.exit()` must not end the process
            text = told(f"{saga_type}.keys[{type(event).__name__}]", self.read, error)
            raise MethodRaised(text, saga_type=saga_type) from error
        try:
            return business_key(value)
        except MissingKey as error:
            where = f"{name}.{self.field}" if self.field != EXPRESSION else f"keys= makes of {name}"
            raise MissingKey(f"{where}: {error}", saga_type=saga_type) from None


@lru_cache(maxsize=4096)
def attribute_of(event: type[Event], name: str) -> str | None:
    """The attribute that holds a field; `name` is its own or that under which it stands in the body."""
    fields = event.model_fields.items()
    return next((own for own, field in fields if name in (own, field.alias, field.serialization_alias)), None)
