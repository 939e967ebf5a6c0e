"""What one decision changed, small enough to keep with every history row and complete enough to rebuild the instance.

A patch is JSON: the plain fields that changed under their names, and for each of the four mappings (the author's state,
the steps, the timers, the attention) what was set and what went away. The patches of an instance's history, applied in
order, give its row.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sagas.instance import Instance, Phase, pack_step, pack_timer, unpack_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_IDENTITY = ("saga_id", "saga_type", "key", "n", "version", "started_at", "deadline_at")
_PLAIN = ("phase", "paused", "waiting_for", "updated_at", "ended_at", "end_reason", "skipped", "revision", "seq")
_ABSENT = object()


def _as_it_is(value: object) -> object:
    return value


_MAPPINGS: dict[str, Callable[[Any], object]] = {"steps": pack_step, "timers": pack_timer, "attention": _as_it_is}
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_TIMES = ("started_at", "deadline_at", "updated_at", "ended_at")


def patch(before: Instance | None, after: Instance) -> bytes:
    """The change from one instance to the next; from nothing, all of it."""
    names = _PLAIN if before else _IDENTITY + _PLAIN
    changed: dict[str, Any] = {
        name: _plain(value) for name in names if (value := getattr(after, name)) != getattr(before, name, _ABSENT)
    }
    for name, pack in _MAPPINGS.items():
        difference = _difference(getattr(before, name) if before else {}, getattr(after, name), pack)
        if difference:
            changed[name] = difference
    if before is None:
        changed["state"] = {"set": json.loads(after.state)}
    elif before.state != after.state:
        changed["state"] = _difference(json.loads(before.state), json.loads(after.state), _as_it_is)
    return _encode(changed).encode()


def rebuild(patches: Iterable[bytes]) -> Instance:
    """The instance that a history of patches amounts to; its state is JSON equal to the row's, not byte-equal."""
    fields: dict[str, Any] = {}
    mappings: dict[str, dict[str, Any]] = {name: {} for name in ("state", *_MAPPINGS)}
    for change in map(json.loads, patches):
        for name, value in change.items():
            if name in mappings:
                _apply(mappings[name], value)
            else:
                fields[name] = value
    state = _encode(mappings.pop("state")).encode()
    return _instance(fields, state, mappings)


def _instance(fields: dict[str, Any], state: bytes, mappings: dict[str, dict[str, Any]]) -> Instance:
    for name in _TIMES:
        fields[name] = datetime.fromisoformat(fields[name]) if fields.get(name) else None
    steps, timers, attention = unpack_parts(mappings)
    instance = Instance(**{**fields, "saga_id": UUID(fields["saga_id"]), "phase": Phase(fields["phase"])}, state=state)
    return replace(instance, steps=steps, timers=timers, attention=attention)


def _difference(before: Mapping[str, Any], after: Mapping[str, Any], pack: Callable[[Any], object]) -> dict[str, Any]:
    """What was set and what is gone. Values that were not touched are the same objects, and are not even compared."""
    added = {
        name: pack(value)
        for name, value in after.items()
        if (old := before.get(name, _ABSENT)) is not value and old != value
    }
    gone = [name for name in before if name not in after]
    return {**({"set": added} if added else {}), **({"gone": gone} if gone else {})}


def _apply(mapping: dict[str, Any], difference: Mapping[str, Any]) -> None:
    mapping.update(difference.get("set", {}))
    for name in difference.get("gone", ()):
        del mapping[name]


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value
