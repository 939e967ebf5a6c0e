"""A saga's definition as data: what the class said, compiled, checked and ready for `decide`.

Immutable. Built only by `sagas.compile`; read by `decide`, by the handlers and by everything that explains a saga.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import Enum, StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from messages.codec import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from messages import Command, Event
    from sagas.authoring import Saga
    from sagas.children import ChildDefinition
    from sagas.keys import EventKey
    from sagas.migrations import MigrationDefinition

    SagaClass = type[Saga]
    EventClass = type[Event]
    CommandClass = type[Command]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and how patiently a command is sent again.

    Args:
        attempts: All sends of one entry of the step, the first included.
        backoff: The pause after the first transient reply.
        factor: What each further pause, and each further wait for a silent participant, is multiplied by.
        cap: No pause is longer.
        jitter: The fraction of a pause by which it may be longer, drawn from the message id.
    """

    attempts: int = 3
    backoff: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    cap: timedelta = timedelta(minutes=1)
    jitter: float = 0.1


class ReplyKind(StrEnum):
    """What a reply says of the command it answers."""

    SUCCESS = "success"
    FAILURE = "failure"
    TRANSIENT = "transient"
    HEARTBEAT = "heartbeat"  # it is being worked on


class Purpose(StrEnum):
    """Whether a command does a step or undoes it."""

    DO = "do"
    UNDO = "undo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One declared reply of a command; `hook(saga, reply)` keeps what the saga needs of it."""

    kind: ReplyKind
    event: type[Event]
    hook: Callable[[Any, Any], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One command of a step: how it is built, what may answer it, how long to wait and how often to try.

    `replies` is keyed by message name and is empty exactly when nobody answers (`reply=False`): such a call is done
    when it is committed to the outbox. Where several successes are `needed`, it is done when all of these have come.
    One that starts a `child` sends the event that does. One that is not `timed` is awaited as long as it takes.
    """

    name: str  # the method's name: "reserve", "release"
    purpose: Purpose
    command: type[Command | Event]
    build: Callable[[Any], Command | Event]
    replies: Mapping[str, Reply]
    timeout: timedelta
    retry: Retry
    needed: frozenset[str] = frozenset()
    heartbeats: frozenset[str] = frozenset()  # those of the replies that only say that it is being worked on
    child: ChildDefinition | None = None
    timed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class EachDefinition:
    """A step for each item of the list in `list_field`: `at_once` so many, and `tolerate` so many may fail.

    A fraction below 1 is one of all items. `parse` makes an item of its JSON.
    """

    list_field: str
    at_once: int
    tolerate: float
    parse: Callable[[bytes], object]

    def most_failures(self, items: int) -> int:
        """How many of so many items may fail."""
        return int(self.tolerate * items) if isinstance(self.tolerate, float) else self.tolerate


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDefinition:
    """A step: the command that does it and, where there is one, the command that undoes it.

    Once a `pivot` is done, nothing is undone any more.

    `undo_reads` are the state fields that the undo reads and only this step's own replies set.
    """

    name: str
    do: Call
    undo: Call | None
    in_doubt: Literal["undo", "wait"] = "undo"
    on_silence: Literal["resend", "new_attempt"] = "resend"
    pivot: bool = False
    each: EachDefinition | None = None
    undo_reads: frozenset[str] = frozenset()

    def call(self, purpose: Purpose) -> Call | None:
        """The command for that purpose."""
        return self.do if purpose is Purpose.DO else self.undo


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """An event that starts an instance; `build(saga_class, event)` makes its first state."""

    name: str
    event: type[Event]
    build: Callable[[type[Saga], Any], Saga]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionDefinition:
    """A method that says which way the flow takes. `answers` are the labels it may give; None: it may be any."""

    name: str
    ask: Callable[[Any], object]
    answers: frozenset[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SleepDefinition:
    """A method that says how long, or until when, the flow rests."""

    name: str
    ask: Callable[[Any], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A command that nobody answers, sent `after` so long of a wait, and again after `every`: a reminder, or once."""

    call: Call
    kind: Literal["reminder", "escalation"]
    after: timedelta
    every: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitDefinition:
    """How long the flow waits for one of its events, whom it reminds, and what holds when nobody says anything.

    `expire` keeps that then; a wait that `fails` has failed, else the flow goes on.
    """

    name: str
    timeout: timedelta | None
    expire: Callable[[Any], None] | None
    fails: bool
    notices: Mapping[str, Notice]


@dataclass(frozen=True, slots=True, kw_only=True)
class WayDefinition:
    """A method that leads from one of its `states` to one of its `targets`: when an event has come, or `after` a time.

    Where it `stays` it may say None, and nothing changes but the saga's own fields.
    """

    name: str
    states: frozenset[str]
    targets: frozenset[str]
    stays: bool
    take: Callable[..., object]
    after: timedelta | None = None

    def target(self, said: object) -> str | None:
        """The state that the method says; None: stay.

        Raises:
            TypeError: its annotation does not list it.
        """
        if said is None and self.stays:
            return None
        target = label(said)
        if target is None or target not in self.targets:
            message = f"returned {said!r}, which is none of the states that its annotation lists"
            raise TypeError(message)
        return target


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """An event that the saga publishes about itself, built from its state as it is then.

    `moments` are the kinds of history rows that it follows, with what the author calls them; `of` is the step that it
    is about, if it is about one.
    """

    name: str
    event: type[Event]
    build: Callable[[Any], Event]
    moments: Mapping[str, str]
    of: str | None = None

    def follows(self, kind: str, path: str | None) -> bool:
        """Whether it follows a history row of that kind, at that path."""
        return kind in self.moments and (self.of is None or (path or "").partition("[")[0] == self.of)


class Unfit(StrEnum):
    """What becomes of an event that does not fit now."""

    KEEP = "keep"  # until it fits, or for a day
    IGNORE = "ignore"
    DEAD_LETTER = "dead_letter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """An event that answers no command: the end of the wait `name`, a signal, a cancel, or a way out of a state.

    `missing` is what becomes of it where no instance has its key, `unexpected` where the instance is not at that point.
    `by` and `because` are the fields that say who has decided, and why. `ways` are the names of the methods that take
    it in a state, by state.
    """

    role: Literal["wait", "signal", "cancel", "on"]
    name: str
    reply: Reply
    missing: Unfit
    unexpected: Unfit
    by: str | None = None
    because: str | None = None
    ways: Mapping[str, str] = field(default_factory=dict)


def label(answer: object) -> str | None:
    """The answer of a decision as it is kept: text; None for what cannot be one."""
    if isinstance(answer, Enum):
        answer = answer.value
    if isinstance(answer, bool):
        return "true" if answer else "false"
    return str(answer) if isinstance(answer, (str, int)) else None


@dataclass(frozen=True, slots=True)
class StepNode:
    """A leaf of the flow."""

    step: str


@dataclass(frozen=True, slots=True)
class SleepNode:
    """A rest. How far it is, is kept at its path."""

    path: str


@dataclass(frozen=True, slots=True)
class WaitNode:
    """A wait for an event. How far it is, is kept at its path."""

    path: str


@dataclass(frozen=True, slots=True)
class SequenceNode:
    """Its children one after the other."""

    children: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class ParallelNode:
    """Its children side by side; done when all are, or the `first` so many, which is kept at `path`."""

    children: tuple[Node, ...]
    first: int | None = None
    path: str = "parallel"


@dataclass(frozen=True, slots=True)
class AlternativeNode:
    """Its children, each tried when the one before has failed and was undone. How many have is kept at `path`."""

    children: tuple[Node, ...]
    path: str = "alternative"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceNode:
    """One of its children: that under the label that the decision gives, else `otherwise`.

    `path` is where the choice is kept: the decision's name, with `#2` behind it at its second place in the flow.
    """

    path: str
    decision: str
    cases: tuple[tuple[str, Node], ...]
    otherwise: Node | None

    def branch(self, label: str) -> Node | None:
        """What follows from that answer; None where there is no case for it."""
        return dict(self.cases).get(label, self.otherwise)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopNode:
    """Its body again and again, `most` so often, until the decision says so; asked whenever the body is done.

    How often it was done in vain is kept at `path`, and below that when it was enough. Each time has places of its own:
    see `iteration`.
    """

    path: str
    body: Node
    until: str
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecycleNode:
    """States, of which it is in one, from that where it `begins` until one that is `final`.

    `entering` is what is done when a state is entered; only then are events taken in it. The state is kept at `path`,
    and below that the number of its entry, and whether it is open to events.
    """

    begins: str
    entering: tuple[tuple[str, Node], ...]
    final: frozenset[str]
    path: str = "lifecycle"


Node = (
    StepNode
    | SleepNode
    | WaitNode
    | LoopNode
    | LifecycleNode
    | SequenceNode
    | ParallelNode
    | AlternativeNode
    | ChoiceNode
)

NOTHING = SequenceNode(())
"""What is done at once."""


def children_of(node: Node) -> tuple[Node, ...]:
    """The parts of a part of a flow."""
    match node:
        case StepNode() | SleepNode() | WaitNode():
            return ()
        case LoopNode(body=body):
            return (body,)
        case LifecycleNode(entering=entering):
            return tuple(node for _, node in entering)
        case ChoiceNode(cases=cases, otherwise=otherwise):
            return (*(case for _, case in cases), *(() if otherwise is None else (otherwise,)))
        case _:
            return node.children


@lru_cache(maxsize=4096)
def iteration(body: Node, number: int) -> Node:
    """The body of a loop, the so-manieth time, from 0: the same with `[number]` behind the name of every place."""
    match body:
        case StepNode(step=path):
            return StepNode(f"{path}[{number}]")
        case SleepNode(path=path):
            return SleepNode(f"{path}[{number}]")
        case WaitNode(path=path):
            return WaitNode(f"{path}[{number}]")
        case SequenceNode(children=children):
            return SequenceNode(_iterations(children, number))
        case ParallelNode(children=children) | AlternativeNode(children=children):
            return replace(body, children=_iterations(children, number), path=f"{body.path}[{number}]")
        case LoopNode():
            return replace(body, body=iteration(body.body, number), path=f"{body.path}[{number}]")
        case LifecycleNode():
            raise TypeError("a lifecycle stands on the main line of a flow")
    cases = tuple((answer, iteration(case, number)) for answer, case in body.cases)
    otherwise = None if body.otherwise is None else iteration(body.otherwise, number)
    return replace(body, cases=cases, otherwise=otherwise, path=f"{body.path}[{number}]")


def _iterations(nodes: tuple[Node, ...], number: int) -> tuple[Node, ...]:
    return tuple(iteration(node, number) for node in nodes)


def steps_in(node: Node) -> Iterator[str]:
    """The steps of a part of a flow, in the order written."""
    if isinstance(node, StepNode):
        yield node.step
    for child in children_of(node):
        yield from steps_in(child)


def pauses_in(node: Node) -> Iterator[SleepNode | WaitNode]:
    """The rests and waits of a part of a flow, in the order written."""
    if isinstance(node, (SleepNode, WaitNode)):
        yield node
    for child in children_of(node):
        yield from pauses_in(child)


def loops_in(node: Node) -> Iterator[LoopNode]:
    """The loops of a part of a flow, the outer before the inner."""
    if isinstance(node, LoopNode):
        yield node
    for child in children_of(node):
        yield from loops_in(child)


def lifecycle_in(node: Node) -> LifecycleNode | None:
    """The lifecycle on the main line of a flow."""
    line = node.children if isinstance(node, SequenceNode) else (node,)
    return next((each for each in line if isinstance(each, LifecycleNode)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """SHA-256 in hex of the four canonical parts of a definition (design: section 4, rule 18)."""

    shape: str
    state: str
    policy: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One version of one saga type.

    `keys` says of each event that is found by a key, a start or one `heard`, where it carries it; `aliases` are the
    state fields whose values are further keys of an instance. `answers` maps a reply's message name to the
    (step, purpose) pairs that declare it. `document` is canonical JSON-able data, its four parts under "shape",
    "state", "policy" and "code". `limits` are those of the process, and of its commands. `eaches` are the steps that
    work off one of its `lists`, `readers` the methods that read one, with those that they read. `children` are the
    steps that start a child, `told_by_children` the names of the events that only children answer with.
    """

    type: str
    version: int
    saga_class: SagaClass
    key: str
    keys: Mapping[str, EventKey]
    key_reuse: bool
    deadline: timedelta
    starts: Mapping[str, Start]
    steps: Mapping[str, StepDefinition]
    decisions: Mapping[str, DecisionDefinition]
    sleeps: Mapping[str, SleepDefinition]
    flow: Node
    answers: Mapping[str, tuple[tuple[str, Purpose], ...]]
    events: Mapping[str, EventClass]  # every event this type consumes, by message name
    commands: Mapping[str, CommandClass]  # every command it sends, by message name
    document: Mapping[str, Any]
    digests: Digests
    waits: Mapping[str, WaitDefinition] = field(default_factory=dict)
    heard: Mapping[str, Heard] = field(default_factory=dict)
    ways: Mapping[str, WayDefinition] = field(default_factory=dict)
    queries: Mapping[str, Callable[[Any], object]] = field(default_factory=dict)
    eaches: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()
    readers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    lifecycle: LifecycleNode | None = None
    announcements: Mapping[str, Announcement] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    children: frozenset[str] = frozenset()
    told_by_children: frozenset[str] = frozenset()
    migrations: Mapping[int, MigrationDefinition] = field(default_factory=dict)  # by the older version
    limits: Limits = DEFAULT_LIMITS
