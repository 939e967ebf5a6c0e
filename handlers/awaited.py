"""Whether a saga in this database still waits for the reply to a command that is to be carried out belatedly.

What is certain stays so: an instance that has ended, and a command that was answered, given up or replaced, are never
waited for again. Of a command that no saga here has sent, or that nobody answers, nothing can be said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.decoding import uuid_of
from sagas.definition import Purpose
from sagas.instance import CallStatus
from storage import instances

if TYPE_CHECKING:
    from messages.envelope import Raw
    from sagas.instance import Instance
    from storage.database import Session
    from storage.instances import EventRow


async def why_nobody_waits(session: Session, raw: Raw) -> str | None:
    """Why the reply to this command would be of no use to the saga that sent it; None: it waits, or nobody knows."""
    saga_id = uuid_of(raw.correlation_id)
    if saga_id is None or raw.message_id is None:
        return None
    sent = (await instances.sent(session, [(saga_id, raw.message_id)])).get((saga_id, raw.message_id))
    if sent is None or "reply_due" not in sent.entry.detail:
        return None
    found, _ = await instances.read(session, [saga_id])
    return _why(found[0], sent) if found else None


def _why(instance: Instance, sent: EventRow) -> str | None:
    named = f"{instance.saga_type} {instance.key!r}"
    if instance.phase.ended:
        return f"{_NOBODY}: {named} is {instance.phase}"
    path, purpose = sent.entry.step or "", Purpose(sent.entry.detail["purpose"])
    step = instance.steps.get(path)
    call = step.call(purpose) if step is not None else None
    if step is None or call is None or call.generation != sent.entry.detail["generation"]:
        status = "replaced"
    elif call.status.open or (step.undo is not None and step.undo.status is CallStatus.BLOCKED and not step.undo.spent):
        return None  # a blocked undo that was never sent needs what the reply says
    else:
        status = call.status.value.replace("_", " ")
    what = f"step {path}" if purpose is Purpose.DO else f"the undo of step {path}"
    return f"{_NOBODY}: {what} of {named} is done with ({status})"


_NOBODY = "nobody waits for it any more, so it is not carried out"
