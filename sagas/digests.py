"""A definition as a canonical document and its four digests (design: section 4, rule 18).

*shape* is what a running instance's position and its messages depend on, *state* what its stored fields depend on,
*policy* what an operator may tune, *code* what the methods do.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic.errors import PydanticInvalidForJsonSchema

from sagas.definition import (
    AlternativeNode,
    ChoiceNode,
    Digests,
    LifecycleNode,
    LoopNode,
    ParallelNode,
    SequenceNode,
    SleepNode,
    StepNode,
    WaitNode,
    loops_in,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from messages import Event
    from sagas.authoring import Saga
    from sagas.definition import Call, Definition, Node, Retry, StepDefinition
    from sagas.keys import EventKey

_PROSE = ("title", "description", "examples", "default")
"""Parts of a JSON schema that say nothing about which states load."""


def documented(definition: Definition, methods: Mapping[str, str | None]) -> Definition:
    """The definition with its document and digests. `methods` are the hashes of its methods."""
    document = {
        "shape": _shape(definition),
        "state": _state(definition.saga_class),
        "policy": _policy(definition),
        "code": {"python": f"{sys.version_info.major}.{sys.version_info.minor}", "methods": dict(methods)},
    }
    return _with(definition, document)


def with_policy_documented(definition: Definition) -> Definition:
    """The definition with its document brought up to its policy."""
    return _with(definition, {**definition.document, "policy": _policy(definition)})


def canonical(document: object) -> bytes:
    """The one JSON of a document, or of one of its parts: keys sorted, no blanks, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _with(definition: Definition, document: dict[str, Any]) -> Definition:
    digests = {part: sha256(canonical(content)).hexdigest() for part, content in document.items()}
    return replace(definition, document=MappingProxyType(document), digests=Digests(**digests))


def _shape(definition: Definition) -> dict[str, Any]:
    return {
        "type": definition.type,
        "key": definition.key,
        **({"aliases": sorted(definition.aliases)} if definition.aliases else {}),
        "starts": {
            name: {**_versions(start.event), **_key(definition.keys[name])} for name, start in definition.starts.items()
        },
        "flow": _flow(definition.flow),
        "steps": {name: _step(step) for name, step in definition.steps.items()},
        **_listening(definition),
        **_announcing(definition),
    }


def _key(key: EventKey) -> dict[str, str]:
    return {"key": key.field, **({"alias": key.alias} if key.alias is not None else {})}


def _listening(definition: Definition) -> dict[str, Any]:
    """What is heard, and what is sent of waits; absent where there is none, as in documents from before there was."""
    heard = {
        name: {
            "role": each.role,
            "of": each.name,
            "kind": each.reply.kind.value,
            **_versions(each.reply.event),
            **_key(definition.keys[name]),
        }
        for name, each in definition.heard.items()
    }
    notices = {
        f"{wait.name}/{name}": {
            "command": notice.call.command.message_name,
            "version": notice.call.command.schema_version,
        }
        for wait in definition.waits.values()
        for name, notice in wait.notices.items()
    }
    ways = {
        f"{state}: {name}": [*sorted(way.targets), *(["stay"] if way.stays else [])]
        for name, way in definition.ways.items()
        for state in sorted(way.states)
    }
    found = {"heard": heard, "notices": notices, "ways": ways}
    return {part: content for part, content in found.items() if content}


def _announcing(definition: Definition) -> dict[str, Any]:
    announcements = {
        f"{moment}/{each.name}": {"event": each.event.message_name, "version": each.event.schema_version}
        for each in definition.announcements.values()
        for moment in each.moments.values()
    }
    return {"announcements": announcements} if announcements else {}


def _flow(node: Node) -> object:
    match node:
        case StepNode(step=path):
            return path
        case SleepNode(path=path):
            return {"sleep": path}
        case WaitNode(path=path):
            return {"wait": path}
        case SequenceNode(children=children):
            return [_flow(child) for child in children]
        case ParallelNode(children=children, first=first):
            return {"parallel": [_flow(child) for child in children], **({} if first is None else {"first": first})}
        case AlternativeNode(children=children):
            return {"alternative": [_flow(child) for child in children]}
        case LifecycleNode(begins=begins, entering=entering, final=final):
            states = {state: _flow(child) for state, child in entering}
            return {"lifecycle": {"begins": begins, "entering": states, "final": sorted(final)}}
        case LoopNode(body=body, until=until):
            return {"repeat": _flow(body), "until": until}
        case ChoiceNode(path=path, cases=cases, otherwise=otherwise):
            return {
                "decision": path,
                "cases": {answer: _flow(child) for answer, child in cases},
                "otherwise": None if otherwise is None else _flow(otherwise),
            }


def _step(step: StepDefinition) -> dict[str, Any]:
    pivot = {"pivot": True} if step.pivot else {}  # absent otherwise, as in documents from before there was one
    each = {"each": step.each.list_field} if step.each is not None else {}
    return {"do": _call(step.do), "undo": _call(step.undo) if step.undo else None, **pivot, **each}


def _call(call: Call) -> dict[str, Any]:
    return {
        "name": call.name,
        "command": call.command.message_name,
        "version": call.command.schema_version,
        "replies": {name: {"kind": reply.kind.value, **_versions(reply.event)} for name, reply in call.replies.items()},
        **({"needed": sorted(call.needed)} if call.needed else {}),
        **({"child": call.child.type} if call.child is not None else {}),
    }


def _versions(event: type[Event]) -> dict[str, int]:
    """The version of an event, and the oldest that its class brings up to it where there is one."""
    oldest = {"reads_from": min(event._upcasts)} if event._upcasts else {}
    return {"version": event.schema_version, **oldest}


def _state(saga_class: type[Saga]) -> dict[str, Any]:
    """The JSON schema of what loads, without prose; `fields` by their own names."""
    try:
        schema = saga_class.model_json_schema(by_alias=False)
    except PydanticInvalidForJsonSchema:
        # A type that pydantic can load and dump but not describe: its name must do.
        known = {name: {"python": str(field.annotation)} for name, field in saga_class.model_fields.items()}
        required = [name for name, field in saga_class.model_fields.items() if field.is_required()]
        return {"fields": known, "required": sorted(required), "types": {}}
    types = {name: _without_prose(content) for name, content in schema.get("$defs", {}).items()}
    fields = {name: _without_prose(content) for name, content in schema.get("properties", {}).items()}
    return {"fields": fields, "required": sorted(schema.get("required", [])), "types": types}


def _without_prose(schema: object, *, names: bool = False) -> object:
    """The schema without titles and the like. `names`: the keys are those of fields, which may be called "title"."""
    if isinstance(schema, list):
        return [_without_prose(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: sorted(value) if key == "required" and not names else _without_prose(value, names=key == "properties")
        for key, value in schema.items()
        if names or key not in _PROSE
    }


def _policy(definition: Definition) -> dict[str, Any]:
    return {
        "deadline": definition.deadline.total_seconds(),
        "key_reuse": definition.key_reuse,
        "steps": {
            step.name: {
                "in_doubt": step.in_doubt,
                "on_silence": step.on_silence,
                "do": _patience(step.do),
                "undo": _patience(step.undo) if step.undo else None,
                **({"at_once": step.each.at_once, "tolerate": step.each.tolerate} if step.each is not None else {}),
            }
            for step in definition.steps.values()
        },
        **_waiting(definition),
        **_repeating(definition),
    }


def _repeating(definition: Definition) -> dict[str, Any]:
    most = {loop.path: loop.most for loop in loops_in(definition.flow)}
    after = {name: way.after.total_seconds() for name, way in definition.ways.items() if way.after is not None}
    return {**({"repeats": most} if most else {}), **({"after": after} if after else {})}


def _waiting(definition: Definition) -> dict[str, Any]:
    waits = {
        wait.name: {
            "timeout": _seconds(wait.timeout),
            "default": not wait.fails,
            "notices": {
                name: {"after": notice.after.total_seconds(), "every": _seconds(notice.every)}
                for name, notice in wait.notices.items()
            },
        }
        for wait in definition.waits.values()
    }
    unfit = {
        name: {"missing": each.missing.value, "unexpected": each.unexpected.value}
        for name, each in definition.heard.items()
    }
    return {**({"waits": waits} if waits else {}), **({"unfit": unfit} if unfit else {})}


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()


def _patience(call: Call) -> dict[str, Any]:
    return {"timeout": call.timeout.total_seconds() if call.timed else None, "retry": _retry(call.retry)}


def _retry(retry: Retry) -> dict[str, Any]:
    return {
        "attempts": retry.attempts,
        "backoff": retry.backoff.total_seconds(),
        "factor": float(retry.factor),
        "cap": retry.cap.total_seconds(),
        "jitter": float(retry.jitter),
    }
