"""What the code at hand would make of an instance that other code has left: everything that would go wrong with it.

Nothing is applied. The instance is put before whatever may happen to it next (each of its timers, silence, the
deadline, a cancel, an answer of which nothing is kept), and every command that it may have to send is built from its
state. What only the content of a reply could tell is not seen.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import ValidationError

from messages.errors import MethodRaised, OperationRefused
from messages.printable import in_words, printable
from messages.value import value
from sagas import decide
from sagas.aliases import ALIAS
from sagas.backward import DEADLINE, OVERDUE
from sagas.definition import (
    AlternativeNode,
    ChoiceNode,
    LifecycleNode,
    LoopNode,
    ParallelNode,
    Purpose,
    ReplyKind,
    SleepNode,
    WaitNode,
    children_of,
    pauses_in,
)
from sagas.forward import ENOUGH
from sagas.heard import KEPT
from sagas.instance import (
    ANSWERED,
    DONE,
    EXPIRED,
    REFUSED,
    RESTED,
    RESTING,
    SKIPPED,
    TIMED_OUT,
    USED,
    WAITING,
    WOKEN,
    CallStatus,
    Phase,
)
from sagas.items import NeedsItems
from sagas.names import CHILD, ITEMS, PARENT, RECALLED, moved_at, sleep_timer, step_name, timer_name
from sagas.outcome import Action, Arrived, GiveUp, Operated, TimerFired, Withdrawn
from sagas.pauses import ENTRY, OPEN, TIMEOUT
from sagas.replies import HEARD
from sagas.scopes import given_up, pivot_of
from sagas.turn import Turn
from sagas.unannounced import UNANNOUNCED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from sagas.definition import Call, Definition, Node
    from sagas.instance import Instance, StepProgress
    from sagas.outcome import Decision, Input

STATE, STEP, CHOICE, TIMER = "state_does_not_load", "step_missing", "choice_missing", "timer_missing"
RAISES, NEEDS_REPLY, UNDECIDED = "method_raises", "undo_needs_reply", "cannot_decide"

_PARKED = {"method_raised": RAISES, "undo_needs_reply": NEEDS_REPLY}
"""For what the engine parks an instance because of its code, and what that is called here."""

_CHECK = "check"
_LOST = "/lost"
_TIMES = re.compile(r"\[\d+\]")
_RESTS = frozenset((RESTING, RESTED, SKIPPED, WOKEN))
_WAITS = frozenset((WAITING, ANSWERED, REFUSED, EXPIRED, TIMED_OUT, SKIPPED, WOKEN))


@value
class Flaw:
    """Something that would go wrong. `place` is what instances with the same flaw have in common; `text` tells this."""

    code: str
    place: str
    text: str


@value
class Prospect:
    """What lies ahead of an instance.

    `mended` is of one that a method has parked: whether it would go on if it were retried. None: none has.
    """

    flaws: tuple[Flaw, ...] = ()
    mended: bool | None = None


def prospect(definition: Definition, instance: Instance, now: datetime) -> Prospect:
    """Everything that would go wrong with a live instance under that definition, each thing once."""
    flaws = _once(_misplaced(definition, instance)) or _once(_unloadable(definition, instance, now))
    if flaws:
        return Prospect(flaws=flaws)
    try:
        standing, mended = _let_go_on(definition, instance, now)
        return Prospect(flaws=_once(_ahead(definition, instance, standing, now)), mended=mended)
    except NeedsItems:
        return Prospect()
    except Exception as error:  # that the engine stumbles over an instance is what was asked
        return Prospect(flaws=(Flaw(code=UNDECIDED, place=type(error).__name__, text=in_words(error)),))


def failure(definition: Definition, instance: Instance, arrived: Arrived, now: datetime) -> str | None:
    """Why a message that is kept for an instance would fail if it were applied; None when it would not."""
    try:
        decision = decide.decide(definition, replace(instance, paused=False), arrived, now)
    except NeedsItems:
        return None
    if decision.error is not None:
        return str(decision.error)
    return next((flaw.text for flaw in newly_parked(instance, decision.instance)), None)


def failure_of_start(definition: Definition, arrived: Arrived, saga_id: UUID, key: str, now: datetime) -> str | None:
    """The same of a message that starts one."""
    try:
        state = decide.first_state(definition, arrived)
    except MethodRaised as error:
        return str(error)
    born = decide.start(definition, arrived, state=state, saga_id=saga_id, key=key, n=1, now=now)
    return born.instance.attention.get("method_raised")


def _once(flaws: Iterable[Flaw]) -> tuple[Flaw, ...]:
    found: dict[tuple[str, str], Flaw] = {}
    for flaw in flaws:
        found.setdefault((flaw.code, flaw.place), flaw)
    return tuple(found.values())


# -- what the instance names, and its state


def _misplaced(definition: Definition, instance: Instance) -> Iterator[Flaw]:
    """Whatever the instance names that the definition does not have."""
    for path, step in instance.steps.items():
        known = definition.steps.get(step_name(path))
        if known is None:
            yield Flaw(code=STEP, place=path, text=f"it has entered the step {path}, and there is none")
        elif step.undo is not None and known.undo is None:
            text = f"the undo of step {path} is under way, and the step has none"
            yield Flaw(code=STEP, place=f"{path}/{Purpose.UNDO}", text=text)
    timers = {DEADLINE, OVERDUE, *_timers_of_pauses(definition)}
    if definition.lifecycle is not None:
        timers |= {f"{definition.lifecycle.path}/{name}" for name in definition.ways}
    timers |= {timer_name(path, purpose) for path in instance.steps for purpose in Purpose}
    for name in instance.timers:
        if name not in timers and _anytime(name) not in timers:
            yield Flaw(code=TIMER, place=name, text=f"it has a timer {name}, and there is nothing that it could be for")
    places: dict[str, Collection[str] | None] = dict.fromkeys((KEPT, *definition.eaches, *_signs_of_life(instance)))
    places |= dict.fromkeys(f"{name}/{ITEMS}" for name in definition.lists)
    places |= dict.fromkeys((UNANNOUNCED, PARENT, *map(moved_at, timers)))
    places |= dict(_places(definition, definition.flow))
    for path, choice in instance.choices.items():
        if path.startswith((f"{USED}/", f"{ALIAS}/")):
            continue
        place = path if path in places else _anytime(path)
        if place not in places:
            yield Flaw(code=CHOICE, place=place, text=f"it has come through {path}, and the flow has no such place")
        elif not _fits(choice, places[place]):
            text = f"at {path} it has gone the way {choice!r}, and there is none"
            yield Flaw(code=CHOICE, place=path, text=printable(text))


def _anytime(path: str) -> str:
    """The place of which this is one time that a loop has come to it."""
    return _TIMES.sub("", path)


def _signs_of_life(instance: Instance) -> Iterator[str]:
    """What is kept of the commands under way: when they were last heard of, and what has come of several replies."""
    for path in instance.steps:
        for purpose in Purpose:
            yield timer_name(path, purpose)
            yield from (f"{timer_name(path, purpose)}/{kept}" for kept in (HEARD, CHILD, RECALLED))


def _timers_of_pauses(definition: Definition) -> Iterator[str]:
    for pause in pauses_in(definition.flow):
        if isinstance(pause, SleepNode):
            yield sleep_timer(pause.path)
        else:
            yield from _kept_below(definition, pause)


def _kept_below(definition: Definition, node: WaitNode) -> Iterator[str]:
    """What is kept for a wait under way: its timers, and by the same names what there is to know of each."""
    return (f"{node.path}/{name}" for name in (TIMEOUT, *definition.waits[step_name(node.path)].notices))


def _places(definition: Definition, node: Node) -> Iterator[tuple[str, Collection[str] | None]]:
    """Under which names an instance keeps how it goes through a flow, and what may be kept there; None: anything."""
    match node:
        case ChoiceNode(path=path, decision=decision):
            yield path, definition.decisions[decision].answers
        case AlternativeNode(path=path, children=children):
            yield path, _numbers(children)
        case ParallelNode(path=path, children=children):
            yield path, _numbers(children)
            yield path + _LOST, _numbers(children)
        case LifecycleNode(path=path):
            yield path, None
            yield from ((f"{path}/{name}", None) for name in (ENTRY, OPEN))
        case LoopNode(path=path):
            yield path, None
            yield f"{path}/{ENOUGH}", None
        case SleepNode(path=path):
            yield path, _RESTS
        case WaitNode(path=path):
            yield path, _WAITS
            yield from ((name, None) for name in _kept_below(definition, node))
    for child in children_of(node):
        yield from _places(definition, child)


def _numbers(children: Sequence[Node]) -> frozenset[str]:
    return frozenset(map(str, range(len(children))))


def _fits(choice: str, possible: Collection[str] | None) -> bool:
    """Whether it is one of what is possible, or several of them."""
    return possible is None or choice in possible or set(filter(None, choice.split(","))) <= set(possible)


def _unloadable(definition: Definition, instance: Instance, now: datetime) -> Iterator[Flaw]:
    try:
        definition.saga_class._load(instance.state, now=now, saga_id=instance.saga_id)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False, include_context=False):
            field, *inside = map(str, each["loc"] or ("state",))
            text = f"{'.'.join((field, *inside))}: {each['msg']}"
            yield Flaw(code=STATE, place=f"{field}: {each['type']}", text=printable(text))
    except (Exception, SystemExit) as error:  # a validator of the author's
        yield Flaw(code=STATE, place=type(error).__name__, text=in_words(error))


# -- what may happen next


def _let_go_on(definition: Definition, instance: Instance, now: datetime) -> tuple[Instance, bool | None]:
    """The instance with its pause ended and what parked it tried once more; and whether that has mended it."""
    standing = instance
    if standing.paused:
        standing = _settled(definition, decide.decide(definition, standing, _asked(Action.RESUME), now), now)
    if "method_raised" not in instance.attention:
        return standing, None
    standing = _settled(definition, decide.decide(definition, standing, _asked(Action.RETRY), now), now)
    return standing, "method_raised" not in standing.attention


def _ahead(definition: Definition, instance: Instance, standing: Instance, now: datetime) -> Iterator[Flaw]:
    yield from newly_parked(instance, standing, "when it goes on")
    if standing.halted or standing.phase.ended:  # what is parked stays so
        return
    for when, happened, before, at in _happenings(definition, standing, now):
        try:
            after = _settled(definition, decide.decide(definition, before, happened, at), at)
        except (OperationRefused, NeedsItems):  # what only the items could tell is not seen
            continue
        yield from newly_parked(before, after, when)
    yield from _unbuildable(definition, standing, now)


def _happenings(
    definition: Definition, instance: Instance, now: datetime
) -> Iterator[tuple[str, Input, Instance, datetime]]:
    """In words, what may happen; to which instance, for some things must have happened before; and when."""
    for name, timer in instance.armed.items():
        fired, at = TimerFired(name=name, fence=timer.fence), max(timer.due_at, now)
        yield f"when its timer {name} is due", fired, instance, at
        path, _, purpose = name.rpartition("/")
        step = instance.steps.get(path)
        if step is not None and purpose == Purpose.DO and step.do.status is CallStatus.PENDING:
            yield f"when step {path} has timed out", fired, _spent(definition, instance, path), at
    yield "when it is cancelled", _asked(Action.CANCEL), instance, now
    for path, step in instance.steps.items():
        for purpose in Purpose:
            yield from ((*each, instance, now) for each in _answers(definition, instance, path, step, purpose))
    for name in (step_name(path) for path, state in instance.choices.items() if state == WAITING):
        yield from ((*each, instance, now) for each in _ends_of_wait(definition, name))


def _spent(definition: Definition, instance: Instance, path: str) -> Instance:
    """The instance with nothing left to try of a step."""
    step, attempts = instance.steps[path], definition.steps[step_name(path)].do.retry.attempts
    do = replace(step.do, spent=max(step.do.spent, attempts))
    return replace(instance, steps={**instance.steps, path: replace(step, do=do)})


def _answers(
    definition: Definition, instance: Instance, path: str, step: StepProgress, purpose: Purpose
) -> Iterator[tuple[str, Input]]:
    """The definitive answers to an open command of which nothing is kept, so that what they say does not matter."""
    call, progress = definition.steps[step_name(path)].call(purpose), step.call(purpose)
    if call is None or progress is None or not progress.status.open:
        return
    asked = Turn(definition, instance, instance.updated_at).current_id(path, purpose)
    unkept = {reply.kind: reply for reply in call.replies.values() if reply.hook is None}  # one of a kind is as all are
    for kind in (ReplyKind.SUCCESS, ReplyKind.FAILURE):
        if (reply := unkept.get(kind)) is not None:
            name, event = reply.event.message_name, reply.event.model_construct()
            arrived = Arrived(message_id=_CHECK, name=name, body=b"{}", event=event, causation_id=asked)
            yield f"when {name} answers {call.name}", arrived


def _ends_of_wait(definition: Definition, wait: str) -> Iterator[tuple[str, Input]]:
    """The events of which nothing is kept that end a wait."""
    for name, heard in definition.heard.items():
        if heard.role == "wait" and heard.name == wait and heard.reply.hook is None:
            said = dict.fromkeys(filter(None, (heard.by, heard.because)))
            event = heard.reply.event.model_construct(**said)
            yield f"when {name} ends {wait}", Arrived(message_id=_CHECK, name=name, body=b"{}", event=event)


def _settled(definition: Definition, decision: Decision, now: datetime) -> Instance:
    """The instance after a decision, with what follows from it by itself: nothing is in the way of its markers, and
    what it wants to take back has not left yet."""
    after = decision.instance
    for marker in (json.loads(send.body or b"{}") for send in decision.sends if send.marker):
        happened = GiveUp(message_id=_CHECK, timer=marker["timer"], entry=marker["entry"])
        after = _settled(definition, decide.decide(definition, after, happened, now), now)
    if decision.withdraw:
        after = decide.decide(definition, after, Withdrawn(message_ids=frozenset(decision.withdraw)), now).instance
    return after


def newly_parked(before: Instance, after: Instance, when: str = "") -> Iterator[Flaw]:
    """For what a method of the author's has parked an instance that was not parked for it before."""
    for reason, code in _PARKED.items():
        text = after.attention.get(reason)
        if text is not None and reason not in before.attention:
            yield Flaw(code=code, place=method_in(text), text=f"{text}, {when}" if when else text)


def method_in(text: str) -> str:
    """`PlaceOrder.pay: KeyError` of `PlaceOrder.pay: KeyError: 'x' (ordering.py:42)`: what alike mistakes share."""
    return ": ".join(text.split(": ", 2)[:2]).partition(" (")[0]


def _asked(action: Action) -> Operated:
    return Operated(action=action, actor=_CHECK, reason=_CHECK, request_id=_CHECK)


# -- what may have to be sent


def _unbuildable(definition: Definition, instance: Instance, now: datetime) -> Iterator[Flaw]:
    """The next attempts and the undos that cannot be built from the state as it is."""
    turn = Turn(definition, instance, now)
    for path, step in instance.steps.items():
        known = definition.steps[step_name(path)]
        if step.do.status.open:
            yield from _build(turn, known.do, path, RAISES, f"when step {path} is attempted once more")
        if known.undo is not None and step.undo is not None and step.undo.status.open:
            yield from _build(turn, known.undo, path, RAISES, f"when the undo of step {path} is attempted once more")
        elif known.undo is not None and step.undo is None and _may_be_undone(turn, path):
            known_reply = step.do.status in DONE
            code = RAISES if known_reply else NEEDS_REPLY
            yield from _build(turn, known.undo, path, code, f"when step {path} is undone")


def _may_be_undone(turn: Turn, path: str) -> bool:
    do, pivot = turn.steps[path].do, pivot_of(turn)
    if turn.phase is Phase.RUNNING and pivot is not None and turn.steps[pivot].do.status in DONE:
        return path in given_up(turn)
    return do.status.open or do.status is CallStatus.IN_DOUBT or (do.status in DONE and do.spent > 0)


def _build(turn: Turn, call: Call, path: str, code: str, when: str) -> Iterator[Flaw]:
    try:
        turn.built(call.build, call.command, path)
    except NeedsItems:
        return
    except MethodRaised as error:
        yield Flaw(code=code, place=method_in(str(error)), text=f"{error}, {when}")
