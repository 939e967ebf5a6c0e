"""What an instance waits for, in words: the line that people read first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagas.definition import Purpose
from sagas.instance import PARKING, CallStatus

if TYPE_CHECKING:
    from sagas.definition import Call, Definition
    from sagas.instance import CallProgress, Instance


def waiting_for(definition: Definition, instance: Instance) -> str | None:
    """One line, or None once the instance has ended."""
    if instance.phase.ended:
        return None
    waits = [
        f"an operator ({reason}: {instance.attention[reason]})" for reason in PARKING if reason in instance.attention
    ]
    for path, step in instance.steps.items():
        for purpose in (Purpose.DO, Purpose.UNDO):
            progress = step.call(purpose)
            call = definition.steps[path.partition("[")[0]].call(purpose)
            if progress is not None and call is not None and progress.status.open:
                waits.append(_wait(path, call, progress))
    return "; ".join(waits) or None


def _wait(path: str, call: Call, progress: CallProgress) -> str:
    doing = f"step {path}" if call.purpose is Purpose.DO else f"compensation {call.name} of step {path}"
    if progress.status is CallStatus.WAITING:
        return f"the next attempt at {call.command.message_name} ({doing}, attempt {progress.attempt} got no further)"
    replies = " or ".join(call.replies)
    return f"{replies} ({doing}, attempt {progress.attempt}, send {progress.sends})"
