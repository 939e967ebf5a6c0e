"""What one decision changed, small enough to keep with every history row and complete enough to rebuild the instance.

A patch is JSON: the plain fields that changed under their names, and for each of the five mappings (the author's state,
the steps, the choices, the timers, the attention) what was set and what went away. The patches of an instance's
history, applied in order, give its row.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic_core import from_json, to_json

from sagas.instance import Instance, Phase, pack_step, pack_timer, unpack_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_IDENTITY = ("saga_id", "saga_type", "key", "n", "started_at")
_PLAIN = (
    "version",
    "phase",
    "paused",
    "waiting_for",
    "updated_at",
    "deadline_at",
    "ended_at",
    "end_reason",
    "skipped",
    "revision",
    "seq",
)
_MAPPINGS: dict[str, Callable[[Any], object]] = {
    "steps": pack_step,
    "choices": str,
    "timers": pack_timer,
    "attention": str,
}
_TIMES = ("started_at", "deadline_at", "updated_at", "ended_at")
_plain = attrgetter(*_PLAIN)


def patch(before: Instance | None, after: Instance) -> bytes:
    """The change from one instance to the next; from nothing, all of it."""
    return to_json(_whole(after) if before is None else _changes(before, after))


def _whole(after: Instance) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(after, name) for name in _IDENTITY + _PLAIN}
    for name, pack in _MAPPINGS.items():
        if mapping := getattr(after, name):
            fields[name] = {"set": {key: pack(value) for key, value in mapping.items()}}
    fields["state"] = {"set": from_json(after.state)}
    return fields


def _changes(before: Instance, after: Instance) -> dict[str, Any]:
    plain = zip(_PLAIN, _plain(before), _plain(after), strict=True)
    changed: dict[str, Any] = {name: new for name, old, new in plain if new is not old and new != old}
    for name, pack in _MAPPINGS.items():
        old, new = getattr(before, name), getattr(after, name)
        if old is not new and (difference := _difference(old, new, pack)):
            changed[name] = difference
    if before.state != after.state:
        changed["state"] = _state_difference(from_json(before.state), from_json(after.state))
    return changed


def rebuild(patches: Iterable[bytes]) -> Instance:
    """The instance that a history of patches amounts to; its state is JSON equal to the row's, not byte-equal."""
    fields: dict[str, Any] = {}
    mappings: dict[str, dict[str, Any]] = {name: {} for name in ("state", *_MAPPINGS)}
    for change in map(from_json, patches):
        for name, value in change.items():
            if name in mappings:
                _apply(mappings[name], value)
            else:
                fields[name] = value
    state = to_json(mappings.pop("state"))
    return _instance(fields, state, mappings)


def _instance(fields: dict[str, Any], state: bytes, mappings: dict[str, dict[str, Any]]) -> Instance:
    for name in _TIMES:
        fields[name] = datetime.fromisoformat(fields[name]) if fields.get(name) else None
    found = unpack_parts(mappings)
    instance = Instance(**{**fields, "saga_id": UUID(fields["saga_id"]), "phase": Phase(fields["phase"])}, state=state)
    return replace(instance, steps=found.steps, choices=found.choices, timers=found.timers, attention=found.attention)


def _difference(before: Mapping[str, Any], after: Mapping[str, Any], pack: Callable[[Any], object]) -> dict[str, Any]:
    """What was set and what is gone. Values that were not touched are the same objects, and are not even compared."""
    added = {}
    for name, value in after.items():
        old = before.get(name)
        if old is not value and (old is None or old != value):
            added[name] = pack(value)
    return _said(added, [name for name in before if name not in after])


def _state_difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The same for the author's fields, as JSON tells them apart: for Python 1, 1.0 and true are equal."""
    added = {name: value for name, value in after.items() if name not in before or not _same_json(before[name], value)}
    return _said(added, [name for name in before if name not in after])


def _same_json(one: object, other: object) -> bool:
    if type(one) is not type(other) or one != other:
        return False
    return not isinstance(one, (list, dict)) or to_json(one) == to_json(other)


def _said(added: Mapping[str, Any], gone: list[str]) -> dict[str, Any]:
    return {**({"set": added} if added else {}), **({"gone": gone} if gone else {})}


def _apply(mapping: dict[str, Any], difference: Mapping[str, Any]) -> None:
    mapping.update(difference.get("set", {}))
    for name in difference.get("gone", ()):
        del mapping[name]
