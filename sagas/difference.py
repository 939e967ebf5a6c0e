"""What has changed between a stored definition and the code at hand, and whether running instances forbid it.

Compare documents of one type and one version: under a new version everything may change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ABSENT = object()

_PIECES = ("properties", "required", "additionalProperties", "items", "enum")

Schema = Mapping[str, Any]
"""A JSON schema, or a part of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change, named. `part` is shape, state, policy or code; `refused` says that live instances forbid it."""

    part: str
    text: str
    refused: bool = False

    @property
    def verdict(self) -> str:
        """What becomes of it under an unchanged version: `refused`, `accepted`, or no more than `recorded`."""
        if self.refused:
            return "refused"
        return "accepted" if self.part in ("shape", "state") else "recorded"


@dataclass(frozen=True, slots=True)
class Difference:
    """All changes between two documents."""

    changes: tuple[Change, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether the code at hand must not run the instances of this version: it needs a new `version=`."""
        return any(change.refused for change in self.changes)

    def __str__(self) -> str:
        return "\n".join(f"{change.part}: {change.text}" for change in self.changes)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> Difference:
    """Every change from one document to the other, shape first.

    Refused are changes of the shape other than a further reply or start event, and changes of the state under which an
    old state might not load. Policy and code are named only.
    """
    return Difference(
        (
            *_shape(old["shape"], new["shape"]),
            *_state(old["state"], new["state"]),
            *(Change(part="policy", text=text) for text in _told(old["policy"], new["policy"])),
            *_code(old["code"], new["code"]),
        )
    )


def remedy(version: int) -> str:
    """What to do about a change that is refused under that version."""
    return (
        f"give the class version={version + 1} and keep this version beside it until its instances have ended, or "
        "take the change back"
    )


def flow_of(document: Mapping[str, Any]) -> str:
    """The flow of a document as its author would write it."""
    return _drawn(document["shape"]["flow"])


# -- shape


def _shape(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for name in ("type", "key"):
        if old[name] != new[name]:
            yield _refused(f"{name} was {_shown(old[name])}, is {_shown(new[name])}")
    if old["flow"] != new["flow"]:
        yield _refused(f"flow was {_drawn(old['flow'])}, is {_drawn(new['flow'])}")
    yield from _aliases(old.get("aliases", ()), new.get("aliases", ()))
    yield from _added_only("start event", old["starts"], new["starts"])
    yield from _steps(old["steps"], new["steps"])
    yield from _added_only("event", old.get("heard", {}), new.get("heard", {}))
    yield from _ways(old.get("ways", {}), new.get("ways", {}))
    yield from _added_only("notice", old.get("notices", {}), new.get("notices", {}))
    yield from _added_only("announcement", old.get("announcements", {}), new.get("announcements", {}))


def _aliases(old: Sequence[str], new: Sequence[str]) -> Iterator[Change]:
    """A further one is a pure addition: a running instance has it from the next thing that happens to it."""
    for name in sorted({*old, *new}):
        if name not in old:
            yield Change(part="shape", text=f"alias {name} is new")
        elif name not in new:
            yield _refused(f"alias {name} is gone")


def _drawn(flow: object) -> str:
    """A flow as its author would write it."""
    if isinstance(flow, list):
        return " >> ".join(map(_drawn, flow)) or "nothing"
    if not isinstance(flow, dict):
        return str(flow)
    for pause in ("sleep", "wait"):
        if pause in flow:
            return str(flow[pause])
    if "lifecycle" in flow:
        entering = ", ".join(f"{state}: {_drawn(each)}" for state, each in flow["lifecycle"]["entering"].items())
        final = ", ".join(flow["lifecycle"]["final"])
        return f"lifecycle({flow['lifecycle']['begins']}, entering={{{entering}}}, final=[{final}])"
    if "repeat" in flow:
        return f"repeat({_drawn(flow['repeat'])}, until={flow['until']})"
    if "alternative" in flow:
        return f"alternative({', '.join(map(_drawn, flow['alternative']))})"
    if "parallel" in flow:
        first = f", first={flow['first']}" if "first" in flow else ""
        return f"parallel({', '.join(map(_drawn, flow['parallel']))}{first})"
    cases = ", ".join(f"{answer}: {_drawn(case)}" for answer, case in flow["cases"].items())
    otherwise = "" if flow["otherwise"] is None else f", otherwise={_drawn(flow['otherwise'])}"
    return f"match({flow['decision']}, {{{cases}}}{otherwise})"


def _steps(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for name in _all_names(old, new):
        if name not in new:
            yield _refused(f"step {name} is gone")
        elif name not in old:
            yield _refused(f"step {name} is new")
        else:
            yield from _call(f"step {name}", old[name]["do"], new[name]["do"])
            yield from _undo(name, old[name]["undo"], new[name]["undo"])
            if old[name].get("each") != new[name].get("each"):
                yield _refused(
                    f"step {name} worked off {_shown(old[name].get('each'))}, works off {_shown(new[name].get('each'))}"
                )
            if old[name].get("pivot") != new[name].get("pivot"):
                yield _refused(f"step {name} {'is' if new[name].get('pivot') else 'was'} the pivot")


def of_open_call(where: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """What forbids that a command which was sent under one document is awaited under another; None: nothing."""
    return next((change.text for change in _call(where, old, new) if change.refused), None)


def _undo(step: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Iterator[Change]:
    if old and new:
        if old["name"] != new["name"]:
            yield _refused(f"compensation {old['name']} of {step} is now called {new['name']}")
        yield from _call(f"compensation {new['name']}", old, new)
    elif old:
        yield _refused(f"compensation {old['name']} of {step} is gone")
    elif new:
        yield _refused(f"compensation {new['name']} of {step} is new")


def _call(where: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    if (old["command"], old["version"]) != (new["command"], new["version"]):
        yield _refused(f"{where} sent {_message(old)}, sends {_message(new)}")
    if old.get("child") != new.get("child"):
        yield _refused(f"{where} started {_shown(old.get('child'))}, starts {_shown(new.get('child'))}")
    if old.get("needed") != new.get("needed"):
        yield _refused(f"{where} needed {_needed(old)}, needs {_needed(new)}")
    if bool(old["replies"]) != bool(new["replies"]):
        yield _refused(f"{where} {'was answered, is not' if old['replies'] else 'was not answered, is'}")
    else:
        yield from _added_only(f"reply of {where}", old["replies"], new["replies"])


def _needed(call: Mapping[str, Any]) -> str:
    return " and ".join(call["needed"]) if "needed" in call else "one reply"


def _ways(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for name in _all_names(old, new):
        if name not in old:
            yield Change(part="shape", text=f"way {name} is new")
        elif name not in new:
            yield _refused(f"way {name} is gone")
        elif old[name] != new[name]:
            yield _refused(f"way {name} led to {' or '.join(old[name])}, leads to {' or '.join(new[name])}")


def _added_only(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Further ones are a pure addition: the cure for a message that nobody expected must reach running instances."""
    for name in _all_names(old, new):
        if name not in old:
            yield Change(part="shape", text=f"{what} {name} is new")
        elif name not in new:
            yield _refused(f"{what} {name} is gone")
        else:
            yield from _message_changes(f"{what} {name}", old[name], new[name])


def _message_changes(where: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Changes of one event. A newer version of it is a pure addition too, where its class reads the older one."""
    was = old["version"]
    if new.get("reads_from", was + 1) <= was <= new["version"]:
        if new["version"] != was:
            yield Change(part="shape", text=f"{where}: version was {was}, is {new['version']}, which reads the older")
        old, new = _without_versions(old), _without_versions(new)
    for text in _told(old, new):
        yield _refused(f"{where}: {text}")


def _without_versions(message: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name not in ("version", "reads_from")}


def _message(call: Mapping[str, Any]) -> str:
    return f"{call['command']} version {call['version']}"


def _refused(text: str) -> Change:
    return Change(part="shape", text=text, refused=True)


# -- state


def _state(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    loading = _Loading(old["types"], new["types"])
    for name in _all_names(old["fields"], new["fields"]):
        was, now = old["fields"].get(name), new["fields"].get(name)
        if was is None:
            required = name in new["required"]
            text = f"field {name} is new{' and has no default, so old states do not load' if required else ''}"
            yield Change(part="state", text=text, refused=required)
        elif now is None:
            yield Change(part="state", text=f"field {name} is gone")
        elif obstacle := loading.obstacle(was, now, name):
            yield Change(part="state", text=f"field {obstacle}", refused=True)
        elif loading.changed(was, now) or (name in old["required"]) != (name in new["required"]):
            yield Change(part="state", text=f"field {name} changed, old states load")


class _Loading:
    """Whether every JSON that fits one schema fits another. What cannot be told for certain counts as not."""

    def __init__(self, old_types: Mapping[str, Schema], new_types: Mapping[str, Schema]) -> None:
        self._old, self._new = old_types, new_types
        self._under_way: set[tuple[str, str]] = set()

    def changed(self, old: Schema, new: Schema) -> bool:
        """Whether the schemas differ, or the types they name do."""
        return bool(_resolved(old, self._old, ()) != _resolved(new, self._new, ()))

    def obstacle(self, old: Schema, new: Schema, path: str) -> str | None:
        """Why something that fits `old` might not fit `new`: the place and what was there and is. None: all fits."""
        if "$ref" in old and "$ref" in new:
            pair = (old["$ref"], new["$ref"])
            if pair in self._under_way:
                return None  # a type that holds itself
            self._under_way.add(pair)
        was, now = _target(old, self._old), _target(new, self._new)
        differs = f"{path} was {_shown(old)}, is {_shown(new)}"
        if "anyOf" in was:
            return differs if any(self.obstacle(each, now, path) for each in was["anyOf"]) else None
        if "anyOf" in now:
            return differs if all(self.obstacle(was, each, path) for each in now["anyOf"]) else None
        if self._rest(was, self._old) != self._rest(now, self._new) or not _values(was) <= _values(now):
            return differs
        return self._in_object(was, now, path) or self._in_items(was, now, path)

    def _rest(self, schema: Schema, types: Mapping[str, Schema]) -> object:
        """What must be the same: all that is not compared piece by piece."""
        return _resolved({key: value for key, value in schema.items() if key not in _PIECES}, types, ())

    def _in_object(self, old: Schema, new: Schema, path: str) -> str | None:
        was, now = old.get("properties", {}), new.get("properties", {})
        for name in new.get("required", ()):
            if name not in was:
                return f"{path}.{name} is new and has no default, so old states do not load"
        others, others_now = old.get("additionalProperties", True), new.get("additionalProperties", True)
        gone = [name for name in was if name not in now]
        if others_now is False and gone:
            return f"{path}.{gone[0]} is gone, and its class forbids fields it does not know"
        if isinstance(others_now, dict):
            return self.obstacle(others if isinstance(others, dict) else {}, others_now, f"{path}[…]")
        return next(filter(None, (self.obstacle(was[n], now[n], f"{path}.{n}") for n in was if n in now)), None)

    def _in_items(self, old: Schema, new: Schema, path: str) -> str | None:
        return self.obstacle(old.get("items", {}), new.get("items", {}), f"{path}[…]") if "items" in new else None


def _values(schema: Schema) -> set[str]:
    return {str(value) for value in schema.get("enum", ())}


def _target(schema: Schema, types: Mapping[str, Schema]) -> Schema:
    return types.get(str(schema["$ref"]).rpartition("/")[2], {}) if "$ref" in schema else schema


def _resolved(schema: object, types: Mapping[str, Schema], within: tuple[str, ...]) -> object:
    """The schema with every named type in place, a type within itself by its depth."""
    if isinstance(schema, list):
        return [_resolved(each, types, within) for each in schema]
    if not isinstance(schema, dict):
        return schema
    reference = schema.get("$ref")
    if reference in within:
        return {"$ref": within.index(reference)}
    if reference is not None:
        return _resolved(_target(schema, types), types, (*within, reference))
    return {key: _resolved(value, types, within) for key, value in schema.items()}


# -- policy and code


def _code(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    if old["python"] != new["python"]:
        yield Change(part="code", text=f"Python was {old['python']}, is {new['python']}: methods cannot be compared")
        return
    for name in _all_names(old["methods"], new["methods"]):
        was, now = old["methods"].get(name, _ABSENT), new["methods"].get(name, _ABSENT)
        if was != now:
            verb = "is new" if was is _ABSENT else "is gone" if now is _ABSENT else "changed"
            yield Change(part="code", text=f"method {name} {verb}")


def _told(old: object, new: object, path: str = "") -> Iterator[str]:
    """The leaves in which two documents differ, by path."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in _all_names(old, new):
            yield from _told(old.get(name, _ABSENT), new.get(name, _ABSENT), f"{path} {name}".strip())
    elif old != new:
        yield f"{path} was {_shown(old)}, is {_shown(new)}"


def _shown(value: object) -> str:
    """A value of a document for people."""
    if value is _ABSENT or value is None:
        return "absent"
    if isinstance(value, dict) and "anyOf" in value:
        return " or ".join(_shown(each) for each in value["anyOf"])
    if isinstance(value, dict) and "$ref" in value:
        return str(value["$ref"]).rpartition("/")[2]
    if isinstance(value, dict) and "items" in value:
        return f"{value.get('type', '')} of {_shown(value['items'])}"
    if isinstance(value, dict) and value and set(value) <= {"type", "format"}:
        return " ".join(str(each) for each in value.values())
    return str(value)


def _all_names(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [*old, *(name for name in new if name not in old)]
