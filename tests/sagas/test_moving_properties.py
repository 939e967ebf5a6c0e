"""An instance that is moved to another version, at any moment of any story, goes on to an end that keeps every rule."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Self

from hypothesis import HealthCheck, event, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from sagas import Saga, definition_of, start, step
from sagas.compile import _answers
from sagas.definition import (
    NOTHING,
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
    lifecycle_in,
    pauses_in,
)
from sagas.digests import documented
from sagas.instance import DONE, CallStatus, Phase, message_id
from sagas.migrations import MigrationDefinition
from sagas.moving import ENDED, move
from sagas.names import step_name
from sagas.passage import passage
from sagas.prospect import RAISES, UNDECIDED, Flaw
from tests.sagas.test_decide_properties import RAISING, Asked, Machine, Shown, Undone, Work, Worked, World, definitions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sagas.definition import Definition, Node, StepDefinition
    from sagas.instance import Instance
    from sagas.outcome import Decision, Input

NEW = ("keep", "rename", "remove", "before", "after", "beside")
ENTERED = ("keep", "keep", "rename", "remove", "after")
OPEN = ("keep", "keep", "keep", "after", "rename")
"""What may become of a step that was not entered, of one that was, and of one that is under way."""


def numbered(node: Node, numbers: Counter[str]) -> Node:
    """The same flow with its parts without a name called as those of a class are."""

    def path(word: str) -> str:
        numbers[word] += 1
        return word if numbers[word] == 1 else f"{word}#{numbers[word]}"

    def several(nodes: Iterable[Node]) -> tuple[Node, ...]:
        return tuple(numbered(each, numbers) for each in nodes)

    match node:
        case SequenceNode(children=children):
            return SequenceNode(several(children))
        case AlternativeNode(children=children):
            own = path("alternative")
            return AlternativeNode(several(children), path=own)
        case ParallelNode(children=children):
            return replace(node, children=several(children), path=path("parallel"))
        case LoopNode(body=body):
            own = path("repeat")
            return replace(node, body=numbered(body, numbers), path=own)
        case LifecycleNode(entering=entering):
            return replace(node, entering=tuple((state, numbered(each, numbers)) for state, each in entering))
        case ChoiceNode(cases=cases, otherwise=otherwise):
            made = tuple((answer, numbered(each, numbers)) for answer, each in cases)
            own = path("odd")
            other = None if otherwise is None else numbered(otherwise, numbers)
            return replace(node, cases=made, otherwise=other, path=own)
    return node


class Edit:
    """The next version of a definition, drawn: steps renamed, removed and added, rests and waits renamed."""

    def __init__(self, chance: Random, old: Definition, instance: Instance) -> None:
        whole = definition_of(Machine)
        self.chance, self.old, self.instance = chance, old, instance
        self.spare = [name for name in whole.steps if name not in {*old.steps, *whole.eaches}]
        self.steps: dict[str, StepDefinition] = {}
        self.renamed: dict[str, str] = {}
        self.places = {
            pause.path: f"{pause.path.partition('#')[0]}_{old.version}_{number}"
            for number, pause in enumerate(pauses_in(old.flow))
            if chance.choice((True, False))
        }
        self.whole = whole

    def definition(self) -> Definition:
        old, places = self.old, self.places
        flow = numbered(self.node(old.flow), Counter())
        sleeps = {
            places.get(name, name): replace(each, name=places.get(name, name)) for name, each in old.sleeps.items()
        }
        waits = {places.get(name, name): replace(each, name=places.get(name, name)) for name, each in old.waits.items()}
        heard = {
            name: replace(each, name=places.get(each.name, each.name)) if each.role == "wait" else each
            for name, each in old.heard.items()
        }
        migration = MigrationDefinition(
            name="from_first",
            version=old.version,
            build=lambda cls, state: cls(**state),
            steps=self.renamed,
            places={name: new for name, new in places.items() if new in {*sleeps, *waits}},
        )
        new = replace(
            old,
            version=old.version + 1,
            steps=self.steps,
            flow=flow,
            lifecycle=lifecycle_in(flow),
            sleeps=sleeps,
            waits=waits,
            heard=heard,
            answers=_answers(self.steps),
            announcements={
                name: replace(each, of=self.renamed.get(each.of or "", each.of))
                for name, each in old.announcements.items()
            },
            migrations={old.version: migration},
        )
        return documented(new, {})

    def node(self, node: Node) -> Node:
        match node:
            case StepNode(step=name):
                return self.leaf(name)
            case SleepNode(path=path) | WaitNode(path=path):
                return replace(node, path=self.places.get(path, path))
            case LoopNode(body=body):
                return replace(node, body=self.node(body))
            case LifecycleNode(entering=entering):
                return replace(node, entering=tuple((state, self.node(each)) for state, each in entering))
            case ChoiceNode(cases=cases, otherwise=otherwise):
                made = tuple((answer, self.node(each)) for answer, each in cases)
                return replace(node, cases=made, otherwise=None if otherwise is None else self.node(otherwise))
        return replace(node, children=tuple(self.node(child) for child in node.children))

    def leaf(self, name: str) -> Node:
        entered = [step for path, step in self.instance.steps.items() if step_name(path) == name]
        is_open = any(step.do.status.open for step in entered)
        how = self.chance.choice(OPEN if is_open else ENTERED if entered else NEW)
        kept = self.old.steps[name]
        if how == "remove" and not kept.pivot:
            return NOTHING
        if how == "rename":
            self.renamed[name] = f"{name}_{self.old.version}"
            name = self.renamed[name]
            kept = replace(kept, name=name)
        self.steps[name] = kept
        if how not in ("before", "after", "beside") or not self.spare or kept.pivot:
            return StepNode(name)
        added = self.add(self.spare.pop())
        pair = (added, StepNode(name)) if how == "before" else (StepNode(name), added)
        return ParallelNode(pair) if how == "beside" else SequenceNode(pair)

    def add(self, name: str) -> StepNode:
        """A step that there was not; with a pivot about, one that never fails and is never undone."""
        step = self.whole.steps[name]
        if any(each.pivot for each in self.old.steps.values()):
            sound = {reply: each for reply, each in step.do.replies.items() if each.kind is not ReplyKind.FAILURE}
            step = replace(step, do=replace(step.do, replies=sound), undo=None)
        self.steps[name] = step
        return StepNode(name)


class Plain(Saga, key="key", name="Machine", version=1):
    """The state of the machine without the list of which items are worked off."""

    key: str
    done: tuple[str, ...] = ()

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(key=event.key)

    @step(reply=False)
    def work(self) -> Work:
        return Work(step="work")


class Migrated(World):
    """The same world, in which somebody moves the instance from one version to the next whenever that is possible."""

    @initialize(shown=definitions().map(Shown), final=st.sets(st.sampled_from("abcd")), chance=st.randoms())
    def begin(self, shown: Shown, final: frozenset[str] = frozenset(), chance: Random | None = None) -> None:
        self.moves, self.chance = 0, chance or Random(0)
        steps = {
            name: replace(step, undo=None) if name in final else step for name, step in shown.definition.steps.items()
        }
        flow = numbered(shown.definition.flow, Counter())
        definition = replace(shown.definition, flow=flow, lifecycle=lifecycle_in(flow), steps=steps)
        if not any(step.each for step in steps.values()):  # then it has no list beside it, and can be moved
            plain = definition_of(Plain)
            definition = replace(
                definition,
                saga_class=Plain,
                starts=plain.starts,
                eaches=plain.eaches,
                lists=plain.lists,
                readers=plain.readers,
            )
        super().begin(Shown(documented(definition, {})))

    def _decide(self, happened: Input) -> Decision:
        decision = super()._decide(happened)
        movable = self.moves < 4 and not self.definition.eaches and not self.instance.phase.ended
        if movable and not self.chance.randrange(3):
            self._migrate()
        return decision

    def _migrate(self) -> None:
        old, new = self.definition, Edit(self.chance, self.definition, self.instance).definition()
        found = move(passage(old.version, old.document, new), self.instance, self.now, actor="ann", reason="it is new")
        if isinstance(found, Flaw):
            note(f"left: {found.text}")
            event(f"left: {found.code}")
            assert found.code not in (ENDED, UNDECIDED), found.text
            assert found.code != RAISES or RAISING
            return
        event(f"moved while {self.instance.status}")
        self._check_names(new)
        self._carry(found, new)

    @rule()
    def what_is_open_succeeds(self) -> None:
        for path, entered in self.instance.steps.items():
            for purpose, kind in ((Purpose.DO, Worked), (Purpose.UNDO, Undone)):
                progress, call = entered.call(purpose), self.definition.steps[step_name(path)].call(purpose)
                if progress is not None and progress.status.open and call is not None:
                    asked = message_id(self.instance.saga_id, path, progress.generation, progress.attempt, purpose)
                    self.in_outbox.discard(asked)
                    self._decide(self._arrived(kind(step=path), asked))
                    return

    @rule()
    def and_what_is_open_then(self) -> None:
        self.what_is_open_succeeds()

    @rule()
    def and_so_on(self) -> None:
        self.what_is_open_succeeds()

    def _check_names(self, new: Definition) -> None:
        """Nothing that is open, or that somebody may want undone, has another name now."""
        renamed = new.migrations[self.definition.version].steps
        passed = any(
            step.pivot and name in self.instance.steps and self.instance.steps[name].do.status in DONE
            for name, step in self.definition.steps.items()
        )
        for path, progress in self.instance.steps.items():
            name = step_name(path)
            today = renamed.get(name, name)
            if today == name and today in new.steps:
                continue
            event("a step that was entered is called otherwise" if today in new.steps else "such a step is gone")
            assert not progress.do.status.open
            assert progress.undo is None or not progress.undo.status.open
            undo = self.definition.steps[name].undo or (today in new.steps and new.steps[today].undo)
            undone = progress.undo is not None and progress.undo.status in (CallStatus.SUCCEEDED, CallStatus.SKIPPED)
            happened = progress.do.status in (CallStatus.SUCCEEDED, CallStatus.IN_DOUBT)
            assert not (happened and undo) or undone or (passed and self.instance.phase is Phase.RUNNING)

    def _carry(self, decision: Decision, new: Definition) -> None:
        """What was said of the names of then is said of those of today."""
        old, migration = self.definition, new.migrations[self.definition.version]
        self.moves += 1

        def today(path: str | None) -> str | None:
            if path is None:
                return None
            base = path.partition("/")[0].partition("[")[0]
            known = migration.steps if base in old.steps else migration.places
            return known.get(base, base) + path[len(base) :]

        self.history = [replace(entry, step=today(entry.step)) for entry in self.history]
        sent = [replace(send, path=today(send.path) or "") for send in self.sent]
        self.sent = [send for send in sent if step_name(send.path) in new.steps or "/" in send.path]
        self.moved = {today(timer) or "": seq for timer, seq in self.moved.items()}
        self.given_up_at = {today(path) or "": seq for path, seq in self.given_up_at.items()}
        self.definition = new
        note(f"moved: {[entry.kind for entry in decision.history]}, {new.flow}")
        self._keep(self.instance, decision)

    @invariant()
    def the_version_is_that_of_the_code(self) -> None:
        if hasattr(self, "instance"):
            assert self.instance.version == self.definition.version == 1 + self.moves
            assert [entry.kind for entry in self.history].count("migrated") == self.moves

    @invariant()
    def no_id_is_that_of_two_messages(self) -> None:
        sent = [
            entry.message_id
            for entry in getattr(self, "history", [])
            if entry.kind in ("command_sent", "compensation_sent", "reminded", "escalated")
        ]
        assert len(sent) == len(set(sent))


Migrated.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestMigrated = Migrated.TestCase
