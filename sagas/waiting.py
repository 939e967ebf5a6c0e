"""What an instance waits for, in words: the line that people read first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sagas.definition import Purpose
from sagas.instance import PARKING, WAITING, CallStatus
from sagas.names import SLEEP, step_name
from sagas.tally import RUNNING, told, wholes_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sagas.definition import Call, Definition, StepDefinition
    from sagas.instance import CallProgress, StepProgress, Timer


def waiting_for(
    definition: Definition,
    steps: Mapping[str, StepProgress],
    choices: Mapping[str, str],
    timers: Mapping[str, Timer],
    attention: Mapping[str, str],
    *,
    paused: bool = False,
) -> str | None:
    """One line; None when nobody and nothing is waited for."""
    waits = ["an operator (paused)"] if paused else []
    waits += [f"an operator ({reason}: {attention[reason]})" for reason in PARKING if reason in attention]
    if definition.sleeps:
        waits += [f"{_moment(timer.due_at)} (rest {path})" for path, timer in _rests(definition, timers)]
    if choices:
        waits += [_heard(definition, path, timers) for path in choices if _is_open(definition, path, choices[path])]
    if (node := definition.lifecycle) is not None and f"{node.path}/open" in choices:
        waits.append(_in_state(definition, choices[node.path]))
    eaches = list(wholes_in(choices, definition.eaches)) if definition.eaches else ()
    waits += [_of_list(definition, path, choices, steps) for path in eaches if told(choices[path]).state == RUNNING]
    for path, step in steps.items():
        if path.rpartition("[")[0] in eaches:
            continue
        waits += _waits(definition.steps[path.partition("[")[0]], path, step, choices)
    return "; ".join(waits) or None


def _rests(definition: Definition, timers: Mapping[str, Timer]) -> Iterator[tuple[str, Timer]]:
    for name, timer in timers.items():
        path, _, what = name.rpartition("/")
        if what == SLEEP and step_name(path) in definition.sleeps:
            yield path, timer


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _in_state(definition: Definition, state: str) -> str:
    events = " or ".join(event for event, heard in definition.heard.items() if state in heard.ways)
    return f"{events or 'its time'} (state {state})"


def _of_list(definition: Definition, path: str, choices: Mapping[str, str], steps: Mapping[str, StepProgress]) -> str:
    each, now = definition.steps[path.partition("[")[0]], told(choices[path])
    items = choices.get(f"{each.each.list_field if each.each else ''}/items", "?")
    failed = f", {now.failed} failed" if now.failed else ""
    under_way = sum(one.rpartition("[")[0] == path for one in steps)
    return f"{' or '.join(each.do.replies)} (step {path}: {now.done} of {items} done{failed}, {under_way} under way)"


def _is_open(definition: Definition, path: str, state: str) -> bool:
    return state == WAITING and path.partition("[")[0] in definition.waits


def _heard(definition: Definition, path: str, timers: Mapping[str, Timer]) -> str:
    name = path.partition("[")[0]
    events = " or ".join(event for event, heard in definition.heard.items() if heard.name == name)
    timer = timers.get(f"{path}/timeout")
    until = "" if timer is None else f", until {_moment(timer.due_at)}"
    return f"{events} (wait {path}{until})"


def _waits(definition: StepDefinition, path: str, step: StepProgress, choices: Mapping[str, str]) -> Iterator[str]:
    if step.do.status.open:
        yield _wait(path, definition.do, step.do, choices)
    if step.undo is not None and step.undo.status.open and definition.undo is not None:
        yield _wait(path, definition.undo, step.undo, choices)


def _wait(path: str, call: Call, progress: CallProgress, choices: Mapping[str, str]) -> str:
    if call.child is not None:
        return _ends(call.child.type, path, choices)
    doing = f"step {path}" if call.purpose is Purpose.DO else f"compensation {call.name} of step {path}"
    if progress.status is CallStatus.WAITING:
        return f"the next attempt at {call.command.message_name} ({doing}, attempt {progress.attempt} got no further)"
    name = f"{path}/{call.purpose}"
    sign = f", last sign of life {_moment(datetime.fromisoformat(choices[name]))}" if name in choices else ""
    plain = not call.needed and not call.heartbeats
    replies = " or ".join(call.replies) if plain else _replies(call, choices.get(f"{name}/heard", ""))
    return f"{replies} ({doing}, attempt {progress.attempt}, send {progress.sends}{sign})"


def _ends(child: str, path: str, choices: Mapping[str, str]) -> str:
    timer = f"{path}/{Purpose.DO}"
    cancelled = ", which is cancelled" if f"{timer}/recalled" in choices else ""
    return f"the end of {child} {choices.get(f'{timer}/child', '')!r}{cancelled} (step {path})"


def _replies(call: Call, heard: str) -> str:
    """What would end the wait, without what only says that it goes on, or has come already."""
    wanted = [name for name in call.replies if name not in call.heartbeats]
    if not call.needed:
        return " or ".join(wanted)
    missing = " and ".join(name for name in wanted if name in call.needed and name not in heard.split(","))
    return " or ".join((missing, *(name for name in wanted if name not in call.needed)))
