"""What an operator does to an instance (`sagas cancel`, `retry`, …), or to one of its timers (`timers fire`, …)."""

from __future__ import annotations

import getpass
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from handlers.operations import Operation, Operations
from messages.errors import Trouble
from running import AsyncioRunner
from runtime.commands.instances import instance_of
from runtime.database import opened
from runtime.exits import OK
from runtime.loading import known_to
from runtime.printing import console, line, print_facts, print_json, shown
from runtime.settings import load
from sagas.outcome import Action, Operated

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from handlers.operations import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line asks for. What is empty was not given."""

    action: Action
    identity: str
    step: str
    saga_type: str
    reason: str
    actor: str
    request_id: str
    revision: int | None
    timer: str = ""
    due: datetime | timedelta | None = None


async def operate(request: Request, *, as_json: bool) -> int:
    """Carry the action out and print where the instance stands then.

    Raises:
        OperationRefused: there is no such instance, or the action does not fit where it stands.
        Trouble: the database is away; the text names the request id under which to ask again.
    """
    settings = load().settings
    known = known_to(settings)
    operated = Operated(
        action=request.action,
        actor=request.actor or actor(),
        reason=request.reason,
        request_id=request.request_id or str(uuid.uuid4()),
        step=request.step or None,
        timer=request.timer or None,
        due=request.due,
    )
    async with opened(settings) as storage:
        found = await instance_of(storage.database, request.identity, saga_type=request.saga_type)
        operations = Operations(
            known.sagas,
            namespace=settings.namespace,
            storage=storage,
            runner=AsyncioRunner(),
            report=lambda _: None,
            limits=settings.limits,
        )
        operation = Operation(saga_id=found.saga.saga_id, operated=operated, revision=request.revision)
        try:
            outcome = await operations.carry_out(operation)
        except Trouble as error:
            raise type(error)(
                f"{error}; ask again with --request-id {operated.request_id}: it is done once, however often asked"
            ) from error
    _print(outcome, operated, as_json=as_json)
    return OK


def actor() -> str:
    """Who acts, where nobody is named: the user of the operating system."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"


_DONE = {
    Action.CANCEL: "cancelled",
    Action.RETRY: "retried",
    Action.SKIP: "skipped",
    Action.RESOLVE: "resolved",
    Action.UNDO: "undo sent",
    Action.PAUSE: "paused",
    Action.RESUME: "resumed",
    Action.FIRE_TIMER: "timer {timer} fired",
    Action.RESCHEDULE_TIMER: "timer {timer} rescheduled",
    Action.CANCEL_TIMER: "timer {timer} cancelled",
}


def _print(outcome: Outcome, operated: Operated, *, as_json: bool) -> None:
    instance = outcome.instance
    timer = instance.timers.get(operated.timer or "")
    if as_json:
        print_json(
            {
                "saga_id": instance.saga_id,
                "saga_type": instance.saga_type,
                "business_key": instance.key,
                "action": operated.action,
                **({"timer": operated.timer, "due_at": timer and timer.due_at} if operated.timer else {}),
                "repeated": outcome.repeated,
                "request_id": operated.request_id,
                "status": instance.status,
                "phase": instance.phase,
                "paused": instance.paused,
                "attention": dict(instance.attention),
                "waiting_for": instance.waiting_for,
                "revision": instance.revision,
                "failed": [
                    {"message_id": each.message_id, "name": each.name, "reason": each.reason, "error": each.error}
                    for each in outcome.failed
                ],
            }
        )
        return
    out = console()
    done = (
        "done before under this request id" if outcome.repeated else _DONE[operated.action].format(timer=operated.timer)
    )
    paused = ", paused" if instance.paused else ""
    out.print(line(f"{instance.saga_type} {instance.key}: {done}; it is {instance.status}{paused}", "bold"))
    failed = [f"{each.name}, which was held and is a dead letter now: {each.error}" for each in outcome.failed]
    due = f"{operated.timer} at {shown(timer.due_at)}" if timer else None
    print_facts(out, [("due", due), ("waiting for", instance.waiting_for)])
    print_facts(out, [("attention", f"{reason}: {detail}") for reason, detail in instance.attention.items()], "red")
    print_facts(out, [("failed", text) for text in failed], "red")
    out.print(Text(f"  antiphon sagas show {instance.saga_id}"))
    if outcome.failed:
        out.print(Text(f"  antiphon dead list --saga {instance.saga_id}"))
