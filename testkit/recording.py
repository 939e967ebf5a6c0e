"""A story as what JSON is made of, and back: its acts, the decisions that followed, the instance as it was stored.

Knows nothing of files. What is prose (`waiting_for`) is left out.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic_core import to_json

from messages import codec
from messages.envelope import Envelope
from sagas.instance import Instance, Phase, pack_progress, unpack_progress
from sagas.outcome import Action, Arrived, Operated
from sagas.patch import patch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sagas.definition import Definition
    from sagas.outcome import Decision, HistoryEntry, Send
    from testkit.harness import Act, Harness

_COLUMNS = (
    "saga_id",
    "saga_type",
    "key",
    "n",
    "version",
    "phase",
    "paused",
    "end_reason",
    "skipped",
    "revision",
    "seq",
)
_TIMES = ("started_at", "updated_at", "deadline_at", "ended_at")
_PROSE = "waiting_for"
_WIDTH, _ROWS = 120, 10


def record(story: Harness) -> dict[str, Any]:
    """What a story did, as what JSON is made of."""
    definition = story.definition
    acts = []
    before: Instance | None = None
    for act in story.acts:
        acts.append(_recorded(act, before, story.versions))
        before = act.decisions[-1].instance if act.decisions else before
    return {
        "saga": definition.type,
        "version": definition.version,
        "shape": definition.digests.shape,
        "acts": acts,
    }


def written(value: object, indent: int = 0) -> str:
    """JSON with everything on one line that fits, and each row of a history and of an outbox on one however long."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent <= _WIDTH or indent >= _ROWS or not isinstance(value, (dict, list)):
        return line
    inner, outer = " " * (indent + 2), " " * indent
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(name)}: {written(each, indent + 2)}" for name, each in value.items()]
        return "{\n" + ",\n".join(parts) + f"\n{outer}}}"
    return "[\n" + ",\n".join(f"{inner}{written(each, indent + 2)}" for each in value) + f"\n{outer}]"


def _recorded(act: Act, before: Instance | None, versions: Mapping[str, int]) -> dict[str, Any]:
    happened = _happened(act.happened, versions)
    return {"act": act.method, **happened, "at": _time(act.at), "then": followed(act.decisions, before)}


def _happened(happened: Arrived | Operated | timedelta, versions: Mapping[str, int]) -> dict[str, Any]:
    match happened:
        case timedelta():
            return {"seconds": happened.total_seconds()}
        case Arrived():
            cause = {} if happened.causation_id is None else {"causation_id": happened.causation_id}
            version = versions.get(happened.message_id, happened.event.schema_version)
            message = {"message": happened.name, "version": version}
            return {**message, "id": happened.message_id, **cause, "body": json.loads(happened.body)}
        case Operated():
            step = {} if happened.step is None else {"step": happened.step}
            return {
                "action": happened.action,
                **step,
                "actor": happened.actor,
                "reason": happened.reason,
                "request_id": happened.request_id,
            }


def followed(decisions: Sequence[Decision], before: Instance | None) -> dict[str, Any]:
    """What followed from one act; nothing where no timer fell due."""
    if not decisions:
        return {}
    instances = [before, *(decision.instance for decision in decisions)]
    return {
        "disposition": [f"{each.disposition} {each.reason}".strip() for each in decisions],
        "history": [_entry(entry) for decision in decisions for entry in decision.history],
        "sent": [_send(send) for decision in decisions for send in decision.sends],
        "withdrawn": [message_id for decision in decisions for message_id in decision.withdraw],
        "patches": [_patch(one, two) for one, two in pairwise(instances) if two is not None],
        "stored": stored_form(decisions[-1].instance),
    }


def _entry(entry: HistoryEntry) -> dict[str, Any]:
    told = {
        "seq": entry.seq,
        "kind": entry.kind,
        "step": entry.step,
        "message": entry.message_name,
        "id": entry.message_id,
        "detail": json.loads(json.dumps(entry.detail, default=str)),
    }
    return {name: value for name, value in told.items() if value}


def _send(send: Send) -> dict[str, Any]:
    told = {
        "message": send.name,
        "version": send.schema_version,
        "step": send.path,
        "purpose": send.purpose,
        "id": send.message_id,
        "idempotency_key": send.idempotency_key,
        "compensates": send.compensates,
        "causation_id": send.causation_id,
        "marker": send.marker,
        "body": None if send.body is None else json.loads(send.body),
    }
    return {name: value for name, value in told.items() if value}


def _patch(before: Instance | None, after: Instance) -> dict[str, Any]:
    change: dict[str, Any] = json.loads(patch(before, after))
    return {name: value for name, value in change.items() if name != _PROSE}


def stored_form(instance: Instance) -> dict[str, Any]:
    """The row of an instance, with its state and its packed progress as JSON."""
    columns = {name: getattr(instance, name) for name in _COLUMNS}
    times = {name: _time(moment) for name in _TIMES if (moment := getattr(instance, name)) is not None}
    packed = {"state": json.loads(instance.state), "progress": json.loads(pack_progress(instance))}
    return {**columns, "saga_id": str(instance.saga_id), **times, **packed}


def _time(moment: datetime) -> str:
    return moment.isoformat()


def instance_of(stored: Mapping[str, Any]) -> Instance:
    """The instance of a row, read by the code of today as storage reads it."""
    columns = {name: stored[name] for name in _COLUMNS}
    times = {name: datetime.fromisoformat(stored[name]) if name in stored else None for name in _TIMES}
    progress = unpack_progress(to_json(stored["progress"]))
    typed = {"saga_id": UUID(stored["saga_id"]), "phase": Phase(stored["phase"]), **times}
    return Instance(
        **{**columns, **typed},
        state=to_json(stored["state"]),
        steps=progress.steps,
        choices=progress.choices,
        timers=progress.timers,
        attention=progress.attention,
    )


def act_of(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What was done, without what followed."""
    return {name: value for name, value in recorded.items() if name not in ("at", "then")}


def happening(recorded: Mapping[str, Any], definition: Definition) -> Arrived | Operated | timedelta:
    """What was done, as the code of today takes it.

    Raises:
        LookupError: the saga does not take this event any more.
    """
    if "seconds" in recorded:
        return timedelta(seconds=recorded["seconds"])
    if "action" in recorded:
        return Operated(
            action=Action(recorded["action"]),
            actor=recorded["actor"],
            reason=recorded["reason"],
            request_id=recorded["request_id"],
            step=recorded.get("step"),
        )
    name = recorded["message"]
    if name not in definition.events:
        raise LookupError(f"{definition.type} does not take {name} any more")
    envelope = Envelope(
        message_id=recorded["id"], name=name, body=to_json(recorded["body"]), schema_version=recorded["version"]
    )
    return Arrived(
        message_id=envelope.message_id,
        name=name,
        body=envelope.body,
        event=codec.parse(envelope, definition.events[name]),
        causation_id=recorded.get("causation_id"),
    )
