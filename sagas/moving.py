"""Moves an instance from one version of its saga to another, or says why that cannot be done now. Pure.

It is moved only where everything that may still happen to it is what it would have been: nothing that is under way, or
may still have to be undone, changes its name, because the ids of messages come from names; nothing that the new flow
puts before what was done is left out; and nothing goes wrong ahead of it under the new definition (`sagas.prospect`).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from messages.printable import in_words
from sagas import forward
from sagas.aliases import ALIAS
from sagas.backward import DEADLINE
from sagas.definition import Purpose, SequenceNode, SleepNode, StepNode, WaitNode
from sagas.difference import of_open_call
from sagas.forward import ENOUGH, finished
from sagas.heard import KEPT
from sagas.instance import DONE, PASSED, PAUSED, USED, WAITING, CallStatus, Phase
from sagas.names import PARENT, step_name
from sagas.passage import base_of
from sagas.pauses import OPEN, TIMEOUT
from sagas.problems import told
from sagas.prospect import RAISES, UNDECIDED, Flaw, method_in, newly_parked, prospect
from sagas.replies import orphaned
from sagas.scopes import current_branches, places_within
from sagas.turn import Turn
from sagas.unannounced import UNANNOUNCED, unannounced
from sagas.watching import UNREAD

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from datetime import datetime

    from sagas.definition import Node
    from sagas.instance import Instance, StepProgress
    from sagas.outcome import Decision
    from sagas.passage import Passage

UNDER_WAY, TO_UNDO, MAY_BE_ANSWERED = "under_way", "may_be_undone", "may_be_answered"
NO_PLACE, ORDER, NAME_USED, ENDED = "no_such_place", "other_order", "name_used_before", "ended"


def move(passage: Passage, instance: Instance, now: datetime, *, actor: str, reason: str) -> Decision | Flaw:
    """What follows from moving an instance; or what stands in the way, and nothing is changed."""
    if instance.phase.ended:
        return Flaw(code=ENDED, place="", text=f"it is {instance.phase}")
    try:
        return _tried(passage, instance, now, actor=actor, reason=reason)
    except Exception as error:  # as in `prospect`: that the engine stumbles over it is what was asked
        return Flaw(code=UNDECIDED, place=type(error).__name__, text=in_words(error))


def _tried(passage: Passage, instance: Instance, now: datetime, *, actor: str, reason: str) -> Decision | Flaw:
    moved = _moved(passage, instance, now)
    if isinstance(moved, Flaw):
        return moved
    turn = Turn(passage.new, moved, now)
    turn.applied = 1
    if not turn.attention.get("version_missing", "").endswith(UNREAD):
        turn.attention.pop("version_missing", None)
    detail: dict[str, Any] = {"from": passage.version, "to": passage.new.version, "actor": actor, "reason": reason}
    turn.record("migrated", **detail, renamed=_renamed(passage, instance) or None)
    _wind_up(passage, turn)
    forward.go_on(turn)
    decision = turn.finish()
    after = decision.instance
    ahead = () if after.phase.ended else prospect(passage.new, after, now).flaws
    return _first(newly_parked(moved, after, "when it is moved"), ahead) or decision


def _moved(passage: Passage, instance: Instance, now: datetime) -> Instance | Flaw:
    """The instance under its new names and with its new state, before it goes on."""
    of_places = _of_places(passage, instance)
    of_announcements = chain(_of_announcements(passage, instance), _of_parent(passage, instance))
    if flaw := _first(_of_steps(passage, instance), of_places, of_announcements):
        return flaw
    state = _state(passage, instance)
    if isinstance(state, Flaw):
        return state
    moved = replace(
        instance,
        version=passage.new.version,
        state=state,
        steps={passage.step(path): step for path, step in instance.steps.items() if _has_step(passage, path)},
        choices={
            **{_choice(passage, instance, name): each for name, each in instance.choices.items()},
            **{f"{USED}/{name}": str(passage.version) for name in _names_given_up(passage, instance)},
        },
        timers={_timer(passage, instance, name): each for name, each in instance.timers.items()},
    )
    turn = Turn(passage.new, moved, now)
    if flaw := _first(_used_before(passage, moved), _elsewhere(passage, turn)):
        return flaw
    moved = _without_what_is_gone(passage, turn)
    turn = Turn(passage.new, moved, now)
    return _first(_out_of_place(passage, turn), prospect(passage.new, moved, now).flaws) or moved


def _renamed(passage: Passage, instance: Instance) -> dict[str, str]:
    """The names of then in the instance's history that are others now."""
    steps = {step_name(path): step_name(passage.step(path)) for path in instance.steps}
    places = {base_of(path): base_of(passage.place(path)) for path in _kept_at(instance.choices, instance.steps)}
    return {name: today for name, today in (steps | places).items() if name != today}


def _first(*flaws: Iterable[Flaw]) -> Flaw | None:
    return next(chain(*flaws), None)


# -- steps


def _has_step(passage: Passage, path: str) -> bool:
    return step_name(passage.step(path)) in passage.new.steps


def _of_steps(passage: Passage, instance: Instance) -> Iterator[Flaw]:
    """What keeps the steps that were entered from going on under their new names, or from being forgotten."""
    orphans = orphaned(Turn(passage.new, instance, instance.updated_at))
    for path, step in instance.steps.items():
        name, today = step_name(path), step_name(passage.step(path))
        if today == name and today in passage.new.steps:
            yield from _of_same(passage, instance, path, step)
            continue
        becomes = f"is called {today} in" if today in passage.new.steps else "is not in"
        text = f"{{}}, and it {becomes} {passage.there}"
        if _is_open(step):
            yield Flaw(code=UNDER_WAY, place=name, text=text.format(f"step {name} is under way"))
        elif path in orphans or _may_be_undone(passage, instance, path, step):
            yield Flaw(code=TO_UNDO, place=name, text=text.format(f"step {name} may still have to be undone"))
        elif not _is_settled(step):
            yield Flaw(code=MAY_BE_ANSWERED, place=name, text=text.format(f"step {name} may still be answered"))


def _of_same(passage: Passage, instance: Instance, path: str, step: StepProgress) -> Iterator[Flaw]:
    """What keeps a step that is called as it was from being awaited, or undone, as it was."""
    name = step_name(path)
    was, now = passage.steps[name], passage.new.document["shape"]["steps"][name]
    for purpose in Purpose:
        call = step.call(purpose)
        if call is None or not call.status.open:
            continue
        if now[purpose] is None:
            changed = f"the undo of step {name} is gone"
        else:
            changed = of_open_call(f"step {name}", was[purpose], now[purpose]) or ""
        if changed:
            yield Flaw(code=UNDER_WAY, place=name, text=f"step {name} is under way, and in {passage.there} {changed}")
    if was["undo"] and not now["undo"] and _may_be_undone(passage, instance, path, step):
        text = f"step {name} may still have to be undone, and has no undo in {passage.there}"
        yield Flaw(code=TO_UNDO, place=name, text=text)


def _is_open(step: StepProgress) -> bool:
    undo = step.undo
    return step.do.status.open or (undo is not None and (undo.status.open or undo.status is CallStatus.BLOCKED))


def _is_settled(step: StepProgress) -> bool:
    """Whether no answer can come any more that would say what is not known."""
    do = step.do
    if do.status in (CallStatus.SUCCEEDED, CallStatus.WITHDRAWN):
        return True
    return not do.spent if do.status is CallStatus.SKIPPED else do.status is CallStatus.FAILED and not do.silent


def _may_be_undone(passage: Passage, instance: Instance, path: str, step: StepProgress) -> bool:
    name, today = step_name(path), passage.new.steps.get(step_name(passage.step(path)))
    undoable = passage.steps[name]["undo"] or (today is not None and today.undo is not None)
    possible = step.do.status in (CallStatus.SUCCEEDED, CallStatus.IN_DOUBT) or (
        step.do.status is CallStatus.SKIPPED and step.do.spent > 0
    )
    undone = step.undo is not None and step.undo.status in (CallStatus.SUCCEEDED, CallStatus.SKIPPED)
    return bool(undoable) and possible and not undone and not _is_past_return(passage, instance)


def _is_past_return(passage: Passage, instance: Instance) -> bool:
    """Whether nothing at all is undone any more: the pivot is done, and no branch was given up that may have to be."""
    if instance.phase is not Phase.RUNNING or any(base_of(path).startswith(_GIVING_UP) for path in instance.choices):
        return False
    return any(
        passage.steps[step_name(path)].get("pivot") and step.do.status in DONE for path, step in instance.steps.items()
    )


_GIVING_UP = ("alternative", "parallel")


# -- other places


def _of_places(passage: Passage, instance: Instance) -> Iterator[Flaw]:
    """What keeps what the instance has noted on its way from being read under the new flow."""
    for path in _kept_at(instance.choices, instance.steps):
        choice = instance.choices.get(path, "")
        if base_of(path) in passage.pauses:
            yield from _of_pause(passage, path, choice)
        elif not _is_left_behind(passage, instance, path) and (misfit := passage.misfit(path, choice)) is not None:
            yield Flaw(code=NO_PLACE, place=base_of(path), text=misfit)


def _kept_at(choices: Mapping[str, str], steps: Collection[str]) -> list[str]:
    """The places at which something is kept, or below which; but for what is kept of commands under way."""
    roots = dict.fromkeys(name.partition("/")[0] for name in choices)
    return [path for path in roots if path not in steps and path not in _OF_NO_PLACE]


_OF_NO_PLACE = (USED, ALIAS, DEADLINE, *(name.partition("/")[0] for name in (KEPT, UNANNOUNCED)))
"""Where an instance keeps what belongs to no place of its flow."""


def _of_announcements(passage: Passage, instance: Instance) -> Iterator[Flaw]:
    """What could not be announced so far: it is of a step of then, and of the class of then."""
    for each in unannounced(Turn(passage.new, instance, instance.updated_at)):
        yield Flaw(code=UNDER_WAY, place=each.name, text=f"{each.name} is still to be announced; retry it, or skip it")


def _of_parent(passage: Passage, instance: Instance) -> Iterator[Flaw]:
    """What its parent waits for, and would not be told any more."""
    if PARENT not in instance.choices or instance.phase.ended:
        return
    announced = {each.event.message_name for each in passage.new.announcements.values()}
    for place, was in passage.old["shape"].get("announcements", {}).items():
        moment, _, name = place.partition("/")
        if moment in ("completed", "compensated") and was["event"] not in announced:
            text = f"its parent waits for {was['event']}, which {passage.there} does not announce"
            yield Flaw(code=UNDER_WAY, place=name, text=text)


def _of_pause(passage: Passage, path: str, state: str) -> Iterator[Flaw]:
    """What keeps a rest or wait that is under way from ending as it would have."""
    name, today, new = base_of(path), base_of(passage.place(path)), passage.new
    if state in PAUSED and today not in (new.waits if state == WAITING else new.sleeps):
        yield Flaw(code=NO_PLACE, place=name, text=f"{name} is under way, and is not in {passage.there}")
    elif state == WAITING:
        for event, was in passage.old["shape"].get("heard", {}).items():
            now = new.heard.get(event)
            if (was["role"], was["of"]) == ("wait", name) and (now is None or (now.role, now.name) != ("wait", today)):
                text = f"{name} is under way, and {event} does not end it in {passage.there}"
                yield Flaw(code=NO_PLACE, place=name, text=text)


def _is_left_behind(passage: Passage, instance: Instance, path: str) -> bool:
    """Whether what was kept there does not matter any more where the new flow has no such place."""
    if instance.phase is not Phase.RUNNING:
        return True
    if base_of(passage.place(path)) in passage.after:
        return False
    was = passage.before.get(base_of(path))
    if was is None or was.kind in _GIVING_UP:
        return False
    if was.kind == "lifecycle":
        return instance.choices.get(path) in was.final
    return was.kind == "decision" or f"{path}/{ENOUGH}" in instance.choices


def _choice(passage: Passage, instance: Instance, name: str) -> str:
    return name if name == KEPT or name.partition("/")[0] in instance.steps else passage.place(name)


def _timer(passage: Passage, instance: Instance, name: str) -> str:
    return name if name.rpartition("/")[0] in instance.steps else passage.place(name)


def _elsewhere(passage: Passage, turn: Turn) -> Iterator[Flaw]:
    """What the new flow has too, and comes to in another way: within a loop that there was not, or not any more."""
    if turn.phase is not Phase.RUNNING:
        return
    within = set(places_within(turn, passage.new.flow))
    bases = {base_of(path) for path in within}
    for path in (*turn.steps, *_kept_at(turn.choices, turn.steps)):
        if path not in within and base_of(path) in bases:
            text = f"it has come to {path}, which {passage.there} has at another place"
            yield Flaw(code=NO_PLACE, place=base_of(path), text=text)


def _without_what_is_gone(passage: Passage, turn: Turn) -> Instance:
    """Without what was kept for places, and the timers of waits and states, that there are no more."""
    new, moved = passage.new, turn.before
    places = {*places_within(turn, new.flow), *moved.steps, *_OF_NO_PLACE}

    def stays(name: str) -> bool:
        path, _, below = name.partition("/")
        if (wait := new.waits.get(step_name(path))) is not None and below:
            return path in places and (below in wait.notices or (below == TIMEOUT and wait.timeout is not None))
        return path in places

    def runs(name: str) -> bool:
        path, _, below = name.rpartition("/")
        if (node := new.lifecycle) is not None and path == node.path:
            return (way := new.ways.get(below)) is not None and way.after is not None
        return not path or path in moved.steps or stays(name)

    choices = {name: each for name, each in moved.choices.items() if stays(name)}
    return replace(moved, choices=choices, timers={name: each for name, each in moved.timers.items() if runs(name)})


# -- names


def _names_given_up(passage: Passage, instance: Instance) -> set[str]:
    """Names under which it has sent something, and that are not what they were any more."""
    steps = {step_name(path) for path, step in instance.steps.items() if step.do.spent or step.undo}
    kept = {name for name in steps if passage.step(name) == name and name in passage.new.steps}
    notices = {name.partition("/")[0] for name in passage.old["shape"].get("notices", {})}
    waits = notices & set(map(base_of, instance.choices))
    return (steps - kept) | {name for name in waits if passage.place(name) != name or name not in passage.new.waits}


def _used_before(passage: Passage, moved: Instance) -> Iterator[Flaw]:
    """What would send its messages under ids that others have had: ids come from names."""
    for name in (*passage.new.steps, *passage.new.waits):
        if f"{USED}/{name}" in moved.choices:
            text = f"it has had another {name} before, and messages of both would have the same ids"
            yield Flaw(code=NAME_USED, place=name, text=text)


# -- where it stands in the new flow


def _out_of_place(passage: Passage, turn: Turn) -> Iterator[Flaw]:
    """Where the new flow does not lead to what was done, or does not go on behind it."""
    if turn.phase is not Phase.RUNNING:
        return
    if (node := passage.new.lifecycle) is not None and (state := turn.choices.get(node.path)) is not None:
        ways = passage.new.ways.values()
        states = {node.begins, *dict(node.entering), *node.final}.union(*(way.states | way.targets for way in ways))
        if state not in states:
            yield Flaw(code=NO_PLACE, place=state, text=f"it is in state {state}, which {passage.there} does not have")
    yield from _against_the_flow(passage, turn, passage.new.flow)


def _against_the_flow(passage: Passage, turn: Turn, node: Node) -> Iterator[Flaw]:
    if isinstance(node, SequenceNode):
        first = next((number for number, each in enumerate(node.children) if not finished(turn, each)), None)
        later = node.children[first + 1 :] if first is not None else ()
        begun = [
            place for each in later for place in places_within(turn, each) if place in turn.steps.keys() | turn.choices
        ]
        if first is not None and begun:
            missing = next(iter(places_within(turn, node.children[first])), "something")
            text = f"{passage.there} comes to {missing} before {begun[0]}, and {begun[0]} has begun without it"
            yield Flaw(code=ORDER, place=missing, text=text)
    elif isinstance(node, (StepNode, SleepNode, WaitNode)):
        yield from _dead_end(passage, turn, node)
    for child in current_branches(turn, node):
        yield from _against_the_flow(passage, turn, child)


def _dead_end(passage: Passage, turn: Turn, leaf: StepNode | SleepNode | WaitNode) -> Iterator[Flaw]:
    """What has failed or was undone, and stands where the new flow cannot do without it."""
    if isinstance(leaf, StepNode):
        path = leaf.step
        step = turn.steps.get(path)
        ended = step is not None and (step.undo is not None or not (step.do.status.open or step.do.status in DONE))
    else:
        path = leaf.path
        state = turn.choices.get(path)
        ended = state is not None and state not in PAUSED + PASSED
    if ended:
        text = f"{path} was in a branch that is given up, and {passage.there} cannot do without it"
        yield Flaw(code=ORDER, place=path, text=text)


# -- the new state, and time


def _state(passage: Passage, instance: Instance) -> bytes | Flaw:
    saga_class, migration = passage.new.saga_class, passage.migration
    try:
        made = migration.build(saga_class, from_json(instance.state))
        if not isinstance(made, saga_class):
            message = f"returned {type(made).__name__} instead of {saga_class.__name__}"
            raise TypeError(message)
        state = made._dump()
        saga_class.model_validate_json(state, extra="ignore")
    except BaseException as error:  # see `Turn.raised`
        text = told(f"{passage.new.type}.{migration.name}", migration.build, error)
        return Flaw(code=RAISES, place=method_in(text), text=text)
    return state


def _wind_up(passage: Passage, turn: Turn) -> None:
    """What a wait or a state under way has newly got in this version begins now: a timeout, a reminder, a time."""
    for path, state in list(turn.choices.items()):
        wait = passage.new.waits.get(step_name(path)) if state == WAITING else None
        if wait is None:
            continue
        if wait.timeout is not None and f"{path}/{TIMEOUT}" not in turn.choices:
            turn.choices[f"{path}/{TIMEOUT}"] = (turn.now + wait.timeout).isoformat()
            turn.set_timer(f"{path}/{TIMEOUT}", wait.timeout)
        for name, notice in wait.notices.items():
            if f"{path}/{name}" not in turn.timers and f"{path}/{name}" not in turn.choices:
                turn.set_timer(f"{path}/{name}", notice.after)
    node = passage.new.lifecycle
    if node is not None and f"{node.path}/{OPEN}" in turn.choices:
        before = passage.old["policy"].get("after", {})
        for way in passage.new.ways.values():
            if way.after is not None and turn.choices[node.path] in way.states and way.name not in before:
                turn.set_timer(f"{node.path}/{way.name}", way.after)
