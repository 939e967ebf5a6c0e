"""The rules of an instance under any order of replies, duplicates, failures, silence, late replies and raising methods.

A machine plays the world: participants that answer any command ever sent with anything, timers that fire when due, an
outbox that may or may not still hold a command, an author whose methods raise and are mended. After every step the
rules are checked against the instance and its whole history.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, Self, cast
from uuid import UUID

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from messages import CancelSaga, Command, Event, codec
from messages.errors import OperationRefused
from sagas import (
    Retry,
    Saga,
    announce,
    cancel,
    decision,
    definition_of,
    each,
    lifecycle,
    on,
    signal,
    sleep,
    start,
    step,
    wait,
    when,
)
from sagas.children import ChildDefinition
from sagas.decide import decide, first_state
from sagas.decide import start as begin
from sagas.definition import (
    AlternativeNode,
    ChoiceNode,
    LifecycleNode,
    LoopNode,
    ParallelNode,
    Purpose,
    ReplyKind,
    SequenceNode,
    SleepNode,
    StepNode,
    WaitNode,
    children_of,
    iteration,
    lifecycle_in,
    loops_in,
    pauses_in,
    steps_in,
)
from sagas.instance import DONE, WAITING, CallStatus, Phase, saga_id
from sagas.items import NeedsItems
from sagas.keys import EventKey
from sagas.layout import bound
from sagas.names import RECALLED, step_name
from sagas.outcome import Action, Arrived, Disposition, GiveUp, Operated, TimerFired, Withdrawn
from sagas.patch import patch, rebuild
from sagas.unannounced import UNANNOUNCED
from testkit.items import ItemsBeside

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sagas.definition import Call, Definition, EachDefinition, Node, StepDefinition
    from sagas.instance import Instance
    from sagas.outcome import Decision, HistoryEntry, Input, Send

RAISING: set[str] = set()
"""Names of methods that raise at present: a bug that the author has not mended yet."""


class Asked(Event, name="machine.Asked"):
    key: str


class Work(Command, name="machine.Work"):
    step: str


class Answer(Event, abstract=True):
    step: str


class Worked(Answer, name="machine.Worked"):
    pass


class Broke(Answer, name="machine.Broke"):
    pass


class Busy(Answer, name="machine.Busy"):
    pass


class Alive(Answer, name="machine.Alive"):
    pass


class Undo(Command, name="machine.Undo"):
    step: str
    known: bool


class Undone(Answer, name="machine.Undone"):
    pass


class Stuck(Answer, name="machine.Stuck"):
    pass


class UndoBusy(Answer, name="machine.UndoBusy"):
    pass


class Went(Event, name="machine.Went"):
    what: str


class Heard(Event, abstract=True):
    key: str
    step: str


class Nodded(Heard, name="machine.Nodded"):
    pass


class Shook(Heard, name="machine.Shook"):
    pass


class Told(Heard, name="machine.Told"):
    pass


class Pushed(Heard, name="machine.Pushed"):
    pass


class Stop(Heard, name="machine.Stop"):
    pass


def _maybe_raise(method: str) -> None:
    if method in RAISING:
        raise ValueError(f"{method} is broken")


class Machine(Saga, key="key", version=1, deadline=timedelta(hours=1)):
    """Four steps that all speak the same words, so that only the command's id tells their replies apart."""

    key: str
    done: tuple[str, ...] = ()
    things: list[str]

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(key=event.key, things=list("stuvwxyz"))

    @step(failure=Broke, transient=Busy, heartbeat=Alive, timeout=timedelta(seconds=10))
    def a(self) -> Work:
        _maybe_raise("a")
        return Work(step="a")

    @a.on_success
    def a_done(self, reply: Worked) -> None:
        _maybe_raise("a_done")
        self.done = (*self.done, reply.step)

    @a.compensation(success=Undone, failure=Stuck, transient=UndoBusy)
    def undo_a(self) -> Undo:
        _maybe_raise("undo_a")
        return Undo(step="a", known="a" in self.done)

    @step(failure=Broke, transient=Busy, heartbeat=Alive, timeout=timedelta(seconds=10))
    def b(self) -> Work:
        _maybe_raise("b")
        return Work(step="b")

    @b.on_success
    def b_done(self, reply: Worked) -> None:
        _maybe_raise("b_done")
        self.done = (*self.done, reply.step)

    @b.compensation(success=Undone, failure=Stuck, transient=UndoBusy)
    def undo_b(self) -> Undo:
        _maybe_raise("undo_b")
        return Undo(step="b", known="b" in self.done)

    @step(failure=Broke, transient=Busy, heartbeat=Alive, timeout=timedelta(seconds=10))
    def c(self) -> Work:
        _maybe_raise("c")
        return Work(step="c")

    @c.on_success
    def c_done(self, reply: Worked) -> None:
        _maybe_raise("c_done")
        self.done = (*self.done, reply.step)

    @c.compensation(success=Undone, failure=Stuck, transient=UndoBusy)
    def undo_c(self) -> Undo:
        _maybe_raise("undo_c")
        return Undo(step="c", known="c" in self.done)

    @step(failure=Broke, transient=Busy, heartbeat=Alive, timeout=timedelta(seconds=10))
    def d(self) -> Work:
        _maybe_raise("d")
        return Work(step="d")

    @d.on_success
    def d_done(self, reply: Worked) -> None:
        _maybe_raise("d_done")
        self.done = (*self.done, reply.step)

    @d.compensation(success=Undone, failure=Stuck, transient=UndoBusy)
    def undo_d(self) -> Undo:
        _maybe_raise("undo_d")
        return Undo(step="d", known="d" in self.done)

    @each("things", at_once=2, failure=Broke, transient=Busy, heartbeat=Alive, timeout=timedelta(seconds=10))
    def e(self, thing: str) -> Work:
        _maybe_raise("e")
        return Work(step=thing)

    @e.on_success
    def e_done(self, reply: Worked, thing: str) -> None:
        _maybe_raise("e_done")
        self.done = (*self.done, thing)

    @e.compensation(success=Undone, failure=Stuck, transient=UndoBusy)
    def undo_e(self, thing: str) -> Undo:
        _maybe_raise("undo_e")
        return Undo(step=thing, known=thing in self.done)

    @decision
    def odd(self) -> bool:
        _maybe_raise("odd")
        return len(self.done) % 2 == 1

    @sleep
    def nap(self) -> timedelta:
        _maybe_raise("nap")
        return timedelta(seconds=7) if self.done else timedelta(0)

    @wait(timeout=timedelta(seconds=40), by="step")
    def nod(self, event: Nodded) -> None:
        _maybe_raise("nod")
        self.done = (*self.done, event.step)

    @nod.on_failure
    def no(self, event: Shook) -> None:
        _maybe_raise("no")

    @nod.on_timeout
    def nobody_nods(self) -> None:
        _maybe_raise("nobody_nods")

    @nod.reminder(after=timedelta(seconds=8), every=timedelta(seconds=9))
    def nudge(self) -> Work:
        _maybe_raise("nudge")
        return Work(step="nudge")

    @nod.escalation(after=timedelta(seconds=20))
    def boss(self) -> Work:
        return Work(step="boss")

    @signal
    def told(self, event: Told) -> None:
        _maybe_raise("told")
        self.done = (*self.done, event.step)

    @cancel
    def stop(self, event: Stop) -> None:
        _maybe_raise("stop")

    @on("u", "v")
    def pushed(self, event: Pushed) -> Literal["u", "v", "w"] | None:
        _maybe_raise("pushed")
        self.done = (*self.done, event.step)
        return {"x": "u", "y": "v", "z": "w"}.get(event.step)  # type: ignore[return-value]

    @on("v", after=timedelta(seconds=15))
    def drifted(self) -> Literal["u"]:
        _maybe_raise("drifted")
        return "u"

    @announce("started", "turned_back")
    def moved(self) -> Went:
        _maybe_raise("moved")
        return Went(what="on")

    @announce("completed", "compensated")
    def over(self) -> Went:
        _maybe_raise("over")
        return Went(what="over")

    @a.announce
    def a_told(self) -> Went:
        _maybe_raise("a_told")
        return Went(what="a")

    @undo_a.announce
    def a_taken_back(self) -> Went:
        _maybe_raise("a_taken_back")
        return Went(what="not a")

    @undo_b.announce
    def b_taken_back(self) -> Went:
        return Went(what="not b")

    flow = a >> b >> nap >> c >> e >> nod >> when(odd, d) >> lifecycle("u", final=["w"])


TIMERWISE = (Action.FIRE_TIMER, Action.RESCHEDULE_TIMER, Action.RESCHEDULE_TIMER, Action.CANCEL_TIMER)

METHODS = (
    [f"{word}{step}" for step in "abcde" for word in ("", "undo_")]
    + [f"{step}_done" for step in "abcde"]
    + ["odd", "nap", "nod", "no", "nobody_nods", "nudge", "told", "stop", "pushed", "drifted"]
    + ["moved", "over", "a_told", "a_taken_back"]
)


@dataclass(frozen=True)
class Shape:
    """How one step of the machine's saga differs from what the class says."""

    undo: bool
    answered: bool
    undo_answered: bool
    attempts: int
    in_doubt: Literal["undo", "wait"]
    on_silence: Literal["resend", "new_attempt"]
    child: Literal["none", "timed", "patient"]


shapes = st.builds(
    Shape,
    undo=st.sampled_from([True, True, True, False]),
    answered=st.sampled_from([True, True, True, False]),
    undo_answered=st.sampled_from([True, True, True, False]),
    attempts=st.integers(1, 3),
    in_doubt=st.sampled_from(["undo", "undo", "wait"]),
    on_silence=st.sampled_from(["resend", "resend", "new_attempt"]),
    child=st.sampled_from(["none", "none", "none", "timed", "patient"]),
)


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    """The machine's definition with one to four steps, in sequence, side by side, in branches and alternatives."""
    whole = definition_of(Machine)
    steps = draw(st.lists(shapes, min_size=1, max_size=4))
    names = list(whole.steps)[: len(steps)]
    if draw(st.integers(0, 2)) == 0:
        names[-1] = "e"
    chosen = {name: _step(whole.steps[name], shape) for name, shape in zip(names, steps, strict=True)}
    if "e" in chosen:
        tolerant = replace(cast("EachDefinition", chosen["e"].each), tolerate=draw(st.sampled_from([0, 0, 3])))
        chosen["e"] = replace(chosen["e"], each=tolerant)
    flow = _with_lifecycle(draw, names) if draw(st.integers(0, 3)) == 0 else _flow(draw, names, Counter())
    line = flow.children if isinstance(flow, SequenceNode) else (flow,)
    endless = lifecycle_in(flow) or list(loops_in(line[-1])) or "e" in names
    if draw(st.booleans()) and isinstance(line[-2 % len(line)], StepNode) and not endless:
        *before, last = line if len(line) == 1 else line[:-1]
        _without_return(chosen, pivot=last, after=line[len(before) + 1 :])
    nap = whole.sleeps["nap"]
    sleeps = {pause.path: replace(nap, name=pause.path) for pause in pauses_in(flow) if isinstance(pause, SleepNode)}
    nod = whole.waits["nod"]
    heard = dict(whole.heard)
    if any(each.pivot for each in chosen.values()):
        del heard[Shook.message_name]
    elif draw(st.booleans()):
        nod = replace(nod, expire=draw(st.sampled_from([nod.expire, None])), fails=True)
    return replace(
        whole,
        steps=chosen,
        sleeps=sleeps,
        waits={"nod": nod},
        heard=heard,
        flow=flow,
        lifecycle=lifecycle_in(flow),
        children=frozenset(name for name, each in chosen.items() if each.do.child is not None),
    )


def _with_lifecycle(draw: st.DrawFn, names: list[str]) -> Node:
    """Some of the steps before a lifecycle, some on entering a state, and the rest behind it."""
    used, first, second = Counter[str](), draw(st.integers(0, len(names))), draw(st.integers(0, len(names)))
    before, within, after = (
        _flow(draw, part, used) if part else SequenceNode(())
        for part in (
            names[: min(first, second)],
            names[min(first, second) : max(first, second)],
            names[max(first, second) :],
        )
    )
    states = LifecycleNode(begins=draw(st.sampled_from("uv")), entering=(("v", within),), final=frozenset("w"))
    return SequenceNode((before, states, after))


def _without_return(steps: dict[str, StepDefinition], *, pivot: Node, after: Sequence[Node]) -> None:
    """Make a step the pivot, and what must be done after it such that it never has to be taken back."""
    assert isinstance(pivot, StepNode)
    steps[pivot.step] = replace(steps[pivot.step], pivot=True, undo=None)
    for name, lone in bound(SequenceNode(tuple(after))):
        if name not in steps:
            continue
        do = steps[name].do
        sound = {reply: each for reply, each in do.replies.items() if each.kind is not ReplyKind.FAILURE}
        steps[name] = replace(steps[name], do=replace(do, replies=sound), undo=None if lone else steps[name].undo)


KINDS = ("sequence", "sequence", "parallel", "first", "alternative", "choice", "sleep", "wait", "repeat")


def _flow(draw: st.DrawFn, names: list[str], used: Counter[str]) -> Node:
    kind = draw(st.sampled_from(KINDS))
    if kind == "choice" and draw(st.booleans()):
        child = _flow(draw, names, used)
        return ChoiceNode(path=_path("odd", used), decision="odd", cases=(("true", child),), otherwise=None)
    if kind == "repeat":
        path = _path("repeat", used)
        return LoopNode(path=path, body=_flow(draw, names, used), until="odd", most=draw(st.integers(1, 3)))
    if kind == "sleep":
        return SequenceNode((SleepNode(_path("nap", used)), _flow(draw, names, used)))
    if kind == "wait" and not used["nod"]:
        used["nod"] += 1
        return SequenceNode((WaitNode("nod"), _flow(draw, names, used)))
    if len(names) == 1:
        return StepNode(names[0])
    middle = draw(st.integers(1, len(names) - 1))
    parts = _flow(draw, names[:middle], used), _flow(draw, names[middle:], used)
    match kind:
        case "parallel":
            return ParallelNode(parts, path=_path("parallel", used))
        case "first":
            return ParallelNode(parts, first=1, path=_path("parallel", used))
        case "alternative":
            return AlternativeNode(parts, path=_path("alternative", used))
        case "choice":
            return ChoiceNode(path=_path("odd", used), decision="odd", cases=(("true", parts[0]),), otherwise=parts[1])
        case _:
            return SequenceNode(parts)


def _path(word: str, used: Counter[str]) -> str:
    used[word] += 1
    return f"{word}#{used[word]}"


def unrolled(node: Node, choices: Mapping[str, str]) -> Node:
    """The same with the times that each loop has come to in place of the loop."""
    match node:
        case LifecycleNode():
            entering = dict(node.entering).get(choices.get(node.path, ""), SequenceNode(()))
            return unrolled(iteration(entering, int(choices.get(f"{node.path}/entry", "0"))), choices)
        case LoopNode():
            times = range(int(choices.get(node.path, "0")) + 1)
            return SequenceNode(tuple(unrolled(iteration(node.body, number), choices) for number in times))
        case SequenceNode(children=children) | ParallelNode(children=children) | AlternativeNode(children=children):
            return replace(node, children=tuple(unrolled(child, choices) for child in children))
        case ChoiceNode():
            return replace(
                node,
                cases=tuple((answer, unrolled(case, choices)) for answer, case in node.cases),
                otherwise=None if node.otherwise is None else unrolled(node.otherwise, choices),
            )
    return node


def nodes_in(node: Node) -> Iterator[Node]:
    """A part of a flow, and all parts of it."""
    yield node
    for child in children_of(node):
        yield from nodes_in(child)


def _step(whole: StepDefinition, shape: Shape) -> StepDefinition:
    undo = _call(whole.undo, shape.undo_answered, shape.attempts) if shape.undo and whole.undo else None
    do = _call(whole.do, shape.answered, shape.attempts)
    if shape.child != "none" and shape.answered and whole.each is None:
        do = _start(do, timed=shape.child == "timed")
    return replace(whole, do=do, undo=undo, in_doubt=shape.in_doubt, on_silence=shape.on_silence)


def _call(call: Call, answered: bool, attempts: int) -> Call:
    retry = Retry(attempts=attempts, backoff=timedelta(seconds=1), cap=timedelta(minutes=1))
    return replace(call, replies=call.replies if answered else {}, retry=retry)


def _start(call: Call, *, timed: bool) -> Call:
    """The same as the start of a child, whose key is what it works on."""
    kid = ChildDefinition(type="Kid", keys={call.command.message_name: EventKey(field="step", read=attrgetter("step"))})
    ends = (ReplyKind.SUCCESS, ReplyKind.FAILURE)
    replies = {name: reply for name, reply in call.replies.items() if reply.kind in ends}
    return replace(call, child=kid, timed=timed, replies=replies, retry=replace(call.retry, attempts=1))


@dataclass(frozen=True)
class Shown:
    """A definition that a failed example shows as its flow."""

    definition: Definition

    def __repr__(self) -> str:
        return f"<{self.definition.flow}>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ANN401 - what hypothesis asks for
        printer.text(repr(self))


class World(RuleBasedStateMachine):
    """The world around one instance."""

    @initialize(shown=definitions().map(Shown))
    def begin(self, shown: Shown) -> None:
        RAISING.clear()
        self.definition = shown.definition
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.messages = 0
        self.history: list[HistoryEntry] = []
        self.patches: list[bytes] = []
        self.sent: list[Send] = []
        self.markers: list[Send] = []
        self.events: list[Send] = []
        self.marked_at: dict[str, int] = {}
        self.moved: dict[str, int] = {}
        self.in_outbox: set[str] = set()
        self.dead_letters = 0
        self.retries = 0
        self.given_up_at: dict[str, int] = {}
        self.items = ItemsBeside()
        self.reopened = False
        arrived = self._arrived(Asked(key="k"), None)
        state = first_state(self.definition, arrived)
        identity = saga_id("machine", "Machine", "k")
        decision = begin(self.definition, arrived, state=state, saga_id=identity, key="k", n=1, now=self.now)
        self.instance: Instance = decision.instance
        self._keep(None, decision)

    # -- what the world does

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), kind=st.sampled_from([Worked, Worked, Worked, Broke, Busy, Alive]))
    def answer_a_step(self, data: st.DataObject, kind: type[Answer]) -> None:
        self._answer(data, kind, Purpose.DO)

    @precondition(lambda self: any(send.purpose is Purpose.UNDO for send in self.sent))
    @rule(data=st.data(), kind=st.sampled_from([Undone, Undone, Undone, Stuck, UndoBusy]))
    def answer_an_undo(self, data: st.DataObject, kind: type[Answer]) -> None:
        self._answer(data, kind, Purpose.UNDO)

    def _answer(self, data: st.DataObject, kind: type[Answer], purpose: Purpose) -> None:
        asked = [send for send in self.sent if send.purpose is purpose]
        if not asked:
            return
        # the latest command is the likeliest to be answered, but any may be
        send = data.draw(st.sampled_from([*asked, asked[-1], asked[-1], asked[-1]]))
        call = self.definition.steps[step_name(send.path)].call(purpose)
        assert call is not None
        if kind.message_name in call.replies:
            self.in_outbox.discard(send.message_id)
            self._decide(self._arrived(kind(step=send.path), send.message_id))

    @rule(kind=st.sampled_from([Worked, Broke, Busy, Undone]))
    def answer_nobody_knows_what(self, kind: type[Answer]) -> None:
        self._decide(self._arrived(kind(step="?"), "no-such-command"))

    @rule(kind=st.sampled_from([Worked, Undone]))
    def answer_without_naming_the_command(self, kind: type[Answer]) -> None:
        self._decide(self._arrived(kind(step="?"), None))

    @rule(kind=st.sampled_from([Nodded, Shook, Told, Pushed, Pushed, Pushed, Stop]), step=st.sampled_from("xyyz-"))
    def something_happens(self, kind: type[Heard], step: str) -> None:
        before = self.instance
        decision = self._decide(self._arrived(kind(key="k", step=step), None))
        if decision.disposition is Disposition.HELD:
            assert kind in (Nodded, Shook, Pushed)
            assert before == decision.instance
            assert not (self._waits and kind is not Pushed)
            assert before.phase is Phase.RUNNING

    @precondition(lambda self: self._waits)
    @rule(kind=st.sampled_from([Nodded, Nodded, Shook]))
    def what_is_waited_for_happens(self, kind: type[Heard]) -> None:
        decision = self._decide(self._arrived(kind(key="k", step="n"), None))
        applied = decision.disposition in (Disposition.APPLIED, Disposition.DEAD_LETTERED)
        assert applied or kind.message_name not in self.definition.heard

    @precondition(lambda self: self.instance.armed)
    @rule()
    def let_the_next_timer_fire(self) -> None:
        name, timer = min(self.instance.armed.items(), key=lambda item: item[1].due_at)
        early = TimerFired(name=name, fence=timer.fence)
        if timer.due_at > self.now:
            assert decide(self.definition, self.instance, early, self.now).instance == self.instance
            self.now = timer.due_at
        self._decide(TimerFired(name=name, fence=timer.fence, unsent=frozenset(self.in_outbox)))

    @rule(name=st.sampled_from(["a/do", "b/undo", "deadline"]), fence=st.integers(0, 30))
    def let_a_stale_timer_fire(self, name: str, fence: int) -> None:
        timer = self.instance.timers.get(name)
        if timer is None or timer.fence != fence:
            stale = TimerFired(name=name, fence=fence)
            assert decide(self.definition, self.instance, stale, self.now).instance == self.instance

    @precondition(lambda self: self.markers)
    @rule(data=st.data(), again=st.booleans())
    def let_a_marker_come_back(self, data: st.DataObject, again: bool) -> None:
        marker = data.draw(st.sampled_from(self.markers))
        if not again:
            self.markers.remove(marker)
        body = _loads(marker.body or b"")
        decision = self._decide(GiveUp(message_id=marker.message_id, timer=body["timer"], entry=body["entry"]))
        if self.marked_at[marker.message_id] < self.moved.get(body["timer"], 0):
            assert decision.disposition is Disposition.IGNORED, "a timer that was moved since has given up"

    @precondition(lambda self: self.in_outbox)
    @rule()
    def let_the_broker_take_everything(self) -> None:
        self.in_outbox.clear()

    @rule(method=st.sampled_from(METHODS))
    def break_a_method(self, method: str) -> None:
        RAISING.add(method)

    @precondition(lambda self: "method_raised" in self.instance.attention)
    @rule()
    def mend_the_methods_and_retry(self) -> None:
        RAISING.clear()
        self._operate(Action.RETRY, None)

    @rule(
        action=st.sampled_from(Action),
        step=st.sampled_from([None, None, "a", "b", "c", "d", "a[0]", "b[1]", "moved", "a_told", "no such step"]),
    )
    def an_operator_acts(self, action: Action, step: str | None) -> None:
        self._operate(action, step)

    @rule(data=st.data(), action=st.sampled_from(TIMERWISE), seconds=st.integers(-5, 200))
    def an_operator_acts_on_a_timer(self, data: st.DataObject, action: Action, seconds: int) -> None:
        timer = data.draw(st.sampled_from([*self.instance.timers, "deadline", "no such timer"]))
        due = timedelta(seconds=seconds)
        before, seq = self.instance, self.instance.seq
        self._operate(action, None, timer=timer, due=due if data.draw(st.booleans()) else self.now + due)
        if action is Action.FIRE_TIMER or self.instance.seq == seq:
            return
        self.moved[timer] = self.instance.seq
        gone = self.instance.timers.get(timer)
        if action is Action.CANCEL_TIMER:
            assert gone is None
            assert before.timers.keys() - {timer} == self.instance.timers.keys()
        else:
            assert gone is not None
            assert gone.due_at == self.now + due
            assert timer != "deadline" or self.instance.deadline_at == gone.due_at

    @precondition(lambda self: self.instance.attention or self.instance.paused)
    @rule(action=st.sampled_from([Action.RETRY, Action.SKIP, Action.RESOLVE, Action.UNDO, Action.RESUME]))
    def an_operator_repairs(self, action: Action) -> None:
        self._operate(action, None)

    @precondition(lambda _: bool(RAISING))
    @rule()
    def mend_the_methods(self) -> None:
        RAISING.clear()

    @property
    def flow(self) -> Node:
        """The flow as far as it has come."""
        return unrolled(self.definition.flow, self.instance.choices)

    @property
    def _waits(self) -> bool:
        return any(step_name(path) == "nod" and state == WAITING for path, state in self.instance.choices.items())

    # -- how it is carried out

    def _arrived(self, event: Event, causation_id: str | None) -> Arrived:
        self.messages += 1
        return Arrived(
            message_id=str(UUID(int=self.messages)),
            name=event.message_name,
            body=codec.encode(event),
            event=event,
            causation_id=causation_id,
        )

    def _operate(
        self,
        action: Action,
        step: str | None,
        *,
        timer: str | None = None,
        due: datetime | timedelta | None = None,
    ) -> None:
        self.messages += 1
        operated = Operated(
            action=action,
            actor="ann",
            reason="why not",
            request_id=str(self.messages),
            step=step,
            timer=timer,
            due=due,
            unsent=frozenset(self.in_outbox),
        )
        try:
            self._decide(operated)
        except OperationRefused as refused:
            note(f"refused: {refused}")
            return
        assert any(entry.kind == "operator_acted" and entry.detail["actor"] == "ann" for entry in self.history)
        self.retries += action is Action.RETRY
        self.reopened |= action is Action.UNDO

    def _decide(self, happened: Input) -> Decision:
        before = self.instance
        decision = self._decided(before, happened)
        again = self._decided(before, happened)
        assert replace(decision, error=None) == replace(again, error=None), "not a pure function"
        note(f"{happened} -> {[entry.kind for entry in decision.history]}")
        self._keep(before, decision)
        if decision.disposition is Disposition.DEAD_LETTERED:
            self.dead_letters += 1
            assert (before.state, before.phase, before.revision) == (
                decision.instance.state,
                decision.instance.phase,
                decision.instance.revision,
            )
        return decision

    def _decided(self, instance: Instance, happened: Input) -> Decision:
        while True:
            try:
                return decide(self.definition, instance, happened, self.now)
            except NeedsItems as needs:
                instance = replace(instance, items=self.items.bring(instance.items, needs.want))

    def _keep(self, before: Instance | None, decision: Decision) -> None:
        if before is not None:
            self._check_step(before, decision)
        if decision.history:
            self.patches.append(patch(before, decision.instance))
        self.history += decision.history
        self.instance = self.items.put(decision)
        turned = [entry.seq for entry in decision.history if entry.kind == "compensation_started"]
        given_up = self.instance.steps if self.instance.phase is Phase.COMPENSATING else dict(self._given_up(self.flow))
        for path in given_up:
            self.given_up_at.setdefault(path, turned[0] if turned else self.instance.seq)
        for send in decision.sends:
            (self.markers if send.marker else self.events if send.event else self.sent).append(send)
            if send.marker:
                self.marked_at[send.message_id] = decision.instance.seq
            elif not send.event:
                self.in_outbox.add(send.message_id)
        if decision.withdraw:
            gone = frozenset(self.in_outbox & set(decision.withdraw))
            self.in_outbox -= gone
            self._keep(self.instance, self._decided(self.instance, Withdrawn(message_ids=gone)))

    # -- the rules

    def _check_step(self, before: Instance, decision: Decision) -> None:
        after = decision.instance
        if before.phase.ended:
            assert not _commands(decision) or self._undoes(decision), "an ended instance sent something"
            assert after.phase is before.phase
        if before.halted and after.halted:
            resumed = any(
                entry.kind in ("resumed", "cancelled", "announcement_skipped") for entry in decision.history
            )  # and parked again by another method
            assert not decision.sends or resumed or _is_undo(decision), "a parked instance sent of its own accord"
        if not decision.history:
            assert after == before, "a change without history"
        allowed = {
            Phase.RUNNING: {Phase.RUNNING, Phase.COMPENSATING, Phase.COMPLETED, Phase.COMPENSATED},
            Phase.COMPENSATING: {Phase.COMPENSATING, Phase.COMPENSATED},
        }
        assert after.phase in allowed.get(before.phase, {before.phase})

    def _undoes(self, decision: Decision) -> bool:
        """Whether an operator has an orphaned effect undone, now or before."""
        asked = any(entry.detail.get("action") == "undo" for entry in (*self.history, *decision.history))
        return asked and all(send.purpose is Purpose.UNDO for send in _commands(decision))

    @invariant()
    def the_history_is_gapless_and_rebuilds_the_instance(self) -> None:
        if not hasattr(self, "instance"):
            return
        assert [entry.seq for entry in self.history] == list(range(1, self.instance.seq + 1))
        rebuilt = rebuild(self.patches)
        assert _loads(rebuilt.state) == _loads(self.instance.state)
        assert replace(rebuilt, state=self.instance.state) == self.instance

    @invariant()
    def no_step_begins_after_the_turning_back_and_nothing_is_undone_after_the_end(self) -> None:
        kinds = [entry.kind for entry in getattr(self, "history", [])]
        if "compensation_started" in kinds:
            assert "command_sent" not in kinds[kinds.index("compensation_started") :]
        if "completed" in kinds and not self.reopened:
            assert "compensation_sent" not in kinds[kinds.index("completed") :]

    @invariant()
    def what_was_dispatched_after_another_completed_is_undone_before_it(self) -> None:
        if not hasattr(self, "instance"):
            return
        undone = {entry.step: entry.seq for entry in self.history if entry.kind == "step_compensated"}
        begun = {entry.step: entry.seq for entry in self.history if entry.kind == "compensation_sent"}
        late = {entry.step for entry in self.history if entry.kind == "late_success"}
        branch = dict(self._given_up(self.flow))
        for earlier, first in self.instance.steps.items():
            for later, second in self.instance.steps.items():
                if earlier in branch and branch[earlier] != branch.get(later):
                    continue  # given up by itself: the rest runs on
                if self.given_up_at.get(later, 0) > begun.get(earlier, 0):
                    continue  # it still counted when the earlier one was undone
                if second.do.dispatched > begun.get(earlier, 0):
                    continue  # it was not there yet when the earlier one was undone
                after = second.do.dispatched > first.do.ended > 0
                if after and earlier in begun and later in undone and later not in late:
                    assert undone[later] < begun[earlier], f"{earlier} was undone before {later}"

    def _given_up(self, node: Node) -> Iterator[tuple[str, tuple[str, int]]]:
        """The steps of branches that were given up, each with the outermost of these."""
        choices = self.instance.choices
        gone: set[int] = set()
        if isinstance(node, AlternativeNode):
            gone = set(range(int(choices.get(node.path, "0"))))
        elif isinstance(node, ParallelNode) and node.first is not None:
            if node.path in choices:
                gone = set(range(len(node.children))) - set(map(int, choices[node.path].split(",")))
            gone |= (
                set(map(int, choices.get(f"{node.path}/lost", "").split(",")))
                if f"{node.path}/lost" in choices
                else set()
            )
        for number, child in enumerate(children_of(node)):
            if number in gone and not isinstance(node, ChoiceNode):
                yield from ((path, (node.path, number)) for path in steps_in(child))  # type: ignore[union-attr]
            else:
                yield from self._given_up(child)

    @invariant()
    def the_flow_is_followed(self) -> None:
        if not hasattr(self, "instance"):
            return
        entered = self.instance.steps
        aside = {entry.step for entry in self.history if entry.kind == "late_success"}
        aside |= {path for path, _ in self._given_up(self.flow)}
        for node in nodes_in(self.flow):
            match node:
                case SequenceNode(children=children):
                    for before, after in pairwise(children):
                        begun = [entered[path].do.dispatched for path in steps_in(after) if path in entered]
                        counting = [path for path in steps_in(before) if path in entered and path not in aside]
                        done = [entered[path].do.ended for path in counting]
                        assert not begun or max(done, default=0) < min(begun), "begun before what comes before was done"
                case ChoiceNode(path=path):
                    taken = node.branch(self.instance.choices[path]) if path in self.instance.choices else None
                    for child in children_of(node):
                        assert child is taken or not entered.keys() & set(steps_in(child)), "a branch not taken"
                    made = [each for each in self.history if each.kind == "decision_made" and each.step == path]
                    forgotten = path.endswith("]")  # of an earlier time of a loop
                    assert len(made) == (path in self.instance.choices) or (forgotten and len(made) == 1), "made twice"

    @invariant()
    def nothing_turns_back_after_the_pivot(self) -> None:
        if not hasattr(self, "instance"):
            return
        for name, definition in self.definition.steps.items():
            done = name in self.instance.steps and self.instance.steps[name].do.status in DONE
            if (
                definition.pivot
                and done
                and name not in {each.step for each in self.history if each.kind == "late_success"}
            ):
                assert self.instance.phase in (Phase.RUNNING, Phase.COMPLETED), "turned back after the pivot"

    @invariant()
    def the_end_leaves_nothing_open(self) -> None:
        if not hasattr(self, "instance") or not self.instance.phase.ended or self.reopened:
            return
        assert not self.instance.timers
        aside = dict(self._given_up(self.flow))
        for name, progress in self.instance.steps.items():
            assert not progress.do.status.open
            happened = progress.do.status in (CallStatus.SUCCEEDED, CallStatus.IN_DOUBT) or (
                progress.do.status is CallStatus.SKIPPED and progress.do.spent > 0
            )
            if self.instance.phase is Phase.COMPLETED and name not in aside:
                assert progress.do.status in (CallStatus.SUCCEEDED, CallStatus.SKIPPED)
            elif happened and self.definition.steps[step_name(name)].undo is not None:
                assert progress.undo is not None
                ended = (CallStatus.SUCCEEDED, CallStatus.SKIPPED)
                assert progress.undo.status in ended, f"compensated, but {name} is not undone"
        by_hand = ("step_skipped", "announcement_skipped")
        ended_by_hand = [entry for entry in self.history if entry.kind in by_hand or "by" in entry.detail]
        assert self.instance.skipped == len(ended_by_hand), "skipped in silence"

    @invariant()
    def all_items_that_were_done_are_undone_the_last_first(self) -> None:
        if not hasattr(self, "instance") or self.instance.phase is not Phase.COMPENSATED or self.reopened:
            return
        if "e" not in self.definition.steps or self.definition.steps["e"].undo is None:
            return
        for whole in [path for path in self.instance.choices if step_name(path) == "e"]:
            for index, item in self.items.rested(whole).items():
                if item.do.status in (CallStatus.SUCCEEDED, CallStatus.IN_DOUBT):
                    assert item.undo is not None, f"item {index} is not undone"
                    assert item.undo.status in (CallStatus.SUCCEEDED, CallStatus.SKIPPED)
        turned = next(entry.seq for entry in self.history if entry.kind == "compensation_started")
        seqs = {kind: self._first_of(kind) for kind in ("command_sent", "step_completed", "compensation_sent")}
        undone = self._first_of("step_compensated")
        for earlier, begun in seqs["compensation_sent"].items():
            for later, over in undone.items():
                together = min(begun, over) > turned and {earlier, later} <= seqs["step_completed"].keys()
                if together and "e" in (step_name(earlier), step_name(later)):
                    after = seqs["command_sent"].get(later, 0) > seqs["step_completed"][earlier]
                    assert not after or over < begun, f"{earlier} was undone before {later}"

    def _first_of(self, kind: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for entry in self.history:
            if entry.kind == kind and entry.step is not None:
                found.setdefault(entry.step, entry.seq)
        return found

    @invariant()
    def a_live_instance_has_a_reason_to_wake_up(self) -> None:
        if not hasattr(self, "instance") or self.instance.phase.ended or self.instance.status == "parked":
            return
        if self.instance.paused:
            assert not self.instance.armed
            return
        for path, progress in self.instance.steps.items():
            for purpose in Purpose:
                call = progress.call(purpose)
                if call is not None and call.status.open and not (purpose is Purpose.DO and self._is_patient(path)):
                    assert f"{path}/{purpose}" in self.instance.armed
        assert self.instance.armed or self.instance.attention

    def _is_patient(self, path: str) -> bool:
        """Whether a step is awaited as long as it takes: a child without a timeout, or one that was cancelled."""
        do = self.definition.steps[step_name(path)].do
        return not do.timed or f"{path}/do/{RECALLED}" in self.instance.choices

    @invariant()
    def a_child_is_cancelled_when_its_step_is_given_up_or_timed_out_and_only_then(self) -> None:
        if not hasattr(self, "instance"):
            return
        given_up = self.instance.steps if self.instance.phase is Phase.COMPENSATING else dict(self._given_up(self.flow))
        for path, progress in self.instance.steps.items():
            if self.definition.steps[step_name(path)].do.child is None:
                continue
            why = self.instance.choices.get(f"{path}/do/{RECALLED}")
            if not progress.do.status.open:
                assert why is None, "what was kept of a child is left over"
            elif path in given_up:
                assert why is not None or self.instance.halted, "a child is under way and was not cancelled"
            else:
                assert why in (None, "timed_out")
        cancels = [send for send in self.sent if send.name == CancelSaga.message_name]
        assert all(
            (send.child == "Kid" and send.path in self.given_up_at) or self._has_timed_out(send) for send in cancels
        )
        assert len(cancels) == len({send.message_id for send in cancels})

    def _has_timed_out(self, send: Send) -> bool:
        return any(
            entry.message_id == send.message_id and entry.detail["reason"] == "timed_out" for entry in self.history
        )

    @invariant()
    def no_command_is_sent_more_often_than_its_budget(self) -> None:
        for name, progress in (self.instance.steps if hasattr(self, "instance") else {}).items():
            definition = self.definition.steps[step_name(name)]
            if definition.in_doubt == "undo" and not any(step.pivot for step in self.definition.steps.values()):
                assert progress.do.spent <= definition.do.retry.attempts + self.retries
            sends = [send for send in self.sent if send.path == name and send.purpose is Purpose.DO]
            assert len(sends) == progress.do.spent
            assert len({send.idempotency_key for send in sends}) == bool(sends)

    @invariant()
    def everything_is_announced_once_and_in_order(self) -> None:
        if not hasattr(self, "instance"):
            return
        known = self.definition.announcements.items()
        happened = [
            (name, entry.step if each.of else None)
            for entry in self.history
            for name, each in known
            if each.follows(entry.kind, entry.step)
        ]
        announced, skipped = ([*self._told(kind)] for kind in ("announced", "announcement_skipped"))
        due = [(name, path) for name, path, _ in json.loads(self.instance.choices.get(UNANNOUNCED, "[]"))]
        assert Counter(happened) == Counter((*announced, *skipped, *due))
        assert skipped or happened == [*announced, *due]
        assert not due or self.instance.halted, "kept back without a reason"
        ids = [entry.message_id for entry in self.history if entry.kind == "announced"]
        assert [send.message_id for send in self.events] == ids
        assert len({*ids, *(send.message_id for send in self.sent)}) == len(ids) + len(
            {send.message_id for send in self.sent}
        )

    def _told(self, kind: str) -> Iterator[tuple[str, str | None]]:
        return ((entry.detail["announcement"], entry.step) for entry in self.history if entry.kind == kind)


def _commands(decision: Decision) -> list[Send]:
    return [send for send in decision.sends if not send.event]


def _loads(body: bytes) -> dict[str, str]:
    loaded: dict[str, str] = json.loads(body)
    return loaded


World.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def _is_undo(decision: Decision) -> bool:
    """Whether an operator has just asked for an undo: that one command goes out, parked or not."""
    asked = any(entry.detail.get("action") == "undo" for entry in decision.history)
    return asked and [send.purpose for send in _commands(decision)] == [Purpose.UNDO]


TestWorld = World.TestCase
