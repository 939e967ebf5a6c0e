"""`@value`: how a class of values is written here.

A dataclass by keyword, with slots, compared and hashed by its fields, and frozen: the type checker refuses every
assignment. At run time nothing stands in its way, because a frozen dataclass takes three times as long to create, and
each message of the message path creates some thirty values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """Make the class one of values; see the module."""
    return dataclass(slots=True, kw_only=True, unsafe_hash=True)(cls)
