"""The saga that a step starts, as a definition has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sagas.keys import EventKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildDefinition:
    """The saga that a step starts: its type, and where its start events carry its business key, by their names.

    Where its key is used again it is not known beforehand which saga of that key it will be.
    """

    type: str
    keys: Mapping[str, EventKey]
    key_reuse: bool = False
