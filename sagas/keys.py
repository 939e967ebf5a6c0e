"""The business key of a start event: which field of its body holds it, and whether that can be a key."""

from __future__ import annotations

from types import UnionType
from typing import TYPE_CHECKING, Literal, Union, get_args, get_origin
from uuid import UUID

from sagas.problems import suggestion

if TYPE_CHECKING:
    from messages import Event


def body_field(event: type[Event], name: str) -> str | None:
    """The name under which a field stands in the body; `name` is the field's or its alias. None: no such field."""
    for own, field in event.model_fields.items():
        alias = field.serialization_alias or field.alias
        if name in (own, alias):
            return alias or own
    return None


def key_problem(event: type[Event], name: str) -> str | None:
    """Why this field cannot route the event, if it cannot."""
    field = next((each for own, each in event.model_fields.items() if name in (own, each.alias)), None)
    if field is None:
        known = suggestion(name, event.model_fields)
        return (
            f"{event.__name__} has no field {name!r}{known}, so it cannot be routed by key; "
            f'name the field in keys={{{event.__name__}: "…"}} or add it to the event'
        )
    if not _can_be_key(field.annotation):
        shown = getattr(field.annotation, "__name__", None) or str(field.annotation)
        return f"{event.__name__}.{name} is {shown}, which is no business key; a key is a str, an int or a UUID"
    return None


def _can_be_key(annotation: object) -> bool:
    annotation = getattr(annotation, "__supertype__", annotation)  # NewType
    annotation = getattr(annotation, "__value__", annotation)  # `type OrderId = ...`
    if get_origin(annotation) is Literal:
        return all(isinstance(value, str | int) for value in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return all(_can_be_key(each) for each in get_args(annotation))
    if get_origin(annotation) is not None and get_args(annotation):
        return _can_be_key(get_args(annotation)[0])  # Annotated
    return isinstance(annotation, type) and issubclass(annotation, str | int | UUID) and annotation is not bool
