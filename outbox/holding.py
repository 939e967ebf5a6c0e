"""Messages that are held until they can be applied, as values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages.value import value

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from messages.envelope import Raw


@value
class Held:
    """A valid message that cannot be applied now, raw, with why.

    `saga_id` is the instance that it is for, there or not; or it is for whoever gets that `alias`, whose value is the
    `business_key`. `expires_in` is in seconds from now; None: never. `held_id`
    is None until it is stored.
    """

    saga_type: str
    source: str
    message_id: str
    body_hash: bytes
    name: str
    schema_version: int
    raw: Raw
    reason: str
    business_key: str | None = None
    saga_id: UUID | None = None
    alias: str | None = None
    expires_in: float | None = None
    held_id: int | None = None


@value
class KnownType:
    """What a process knows of a saga type: its versions, and the highest schema-version of each event it consumes."""

    saga_type: str
    versions: frozenset[int]
    events: Mapping[str, int]


@value
class RipeHeld:
    """A candidate: a held message as it was seen without a lock. `expired`: it is to become a dead letter."""

    held: Held
    expired: bool
