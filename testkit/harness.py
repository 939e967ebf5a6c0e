"""A saga under test: no broker, no database, and a clock that moves only when the test says so.

```python
order = Harness(PlaceOrder)
order.given(OrderPlaced(order_id="o-1", ...))
assert order.sent == [ReserveStock(order_id="o-1", ...)]
order.receives(StockReserved(order_id="o-1", reservation_id="r-1"))
order.advance(timedelta(minutes=5))
```

Everything goes through the same `decide` as in production, as bytes both ways. On the way the harness proves two things
that no class can show: that every undo can be built from the state before the reply of its step, and that the state
survives its own JSON.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, cast
from uuid import UUID, uuid5

from messages import CancelSaga, codec
from messages.envelope import Envelope
from sagas.aliases import aliased, aliases_of, given
from sagas.asking import answer
from sagas.compile import definition_of
from sagas.decide import decide, first_state, held, ignored, start
from sagas.definition import Purpose
from sagas.heard import newly_awaited
from sagas.instance import saga_id
from sagas.items import NeedsItems
from sagas.moving import move
from sagas.names import step_name
from sagas.outcome import Action, Arrived, Disposition, GiveUp, Operated, TimerFired, Withdrawn
from sagas.parents import Parent
from sagas.passage import passage
from sagas.prospect import Flaw
from sagas.tally import index_of
from testkit.items import ItemsBeside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from messages import Event, Message
    from sagas import Saga
    from sagas.definition import Definition
    from sagas.instance import Instance
    from sagas.outcome import Decision, HistoryEntry, Input, Send

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_NAMESPACE = UUID("00000000-0000-0000-0000-000000000000")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A command that the saga sent, or the start or cancel of a child, with what travels beside it."""

    command: Message
    path: str
    purpose: Purpose
    message_id: str
    idempotency_key: str
    compensates: str | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something that a test did, by the name of its method, when, and the decisions that followed, in their order."""

    method: str
    happened: Arrived | Operated | timedelta
    at: datetime
    decisions: tuple[Decision, ...]


class Harness:
    """One instance of one saga class. Every method returns the harness, so that a test can be read as a story.

    An event may be given in an older version than the saga's, as an object of the class of then: its body is read as
    one of that version. `versions` holds in which each came, by message id.
    """

    def __init__(self, saga: type[Saga] | Definition, *, now: datetime = _EPOCH) -> None:
        """`saga` is the class, or a definition whose policies were changed."""
        self.definition: Definition = definition_of(saga) if isinstance(saga, type) else saga
        self.now = now
        self.log: list[Sent] = []
        self.history: list[HistoryEntry] = []
        self.acts: list[Act] = []
        self.versions: dict[str, int] = {}
        self.disposition: Disposition | None = None
        self.reason = ""
        self._instance: Instance | None = None
        self._latest: list[Sent | Event] = []
        self._bodies: dict[str, bytes] = {}
        self._decisions: list[Decision] = []
        self._messages = 0
        self._kept: list[Arrived] = []
        self._items = ItemsBeside()
        self._parent: Parent | None = None
        self._answers: list[Send] = []

    @classmethod
    def resumed(
        cls,
        saga: type[Saga] | Definition,
        instance: Instance,
        *,
        now: datetime,
        bodies: Mapping[str, bytes],
        kept: Sequence[Arrived] = (),
    ) -> Self:
        """A story in its midst: an instance as it was stored, what it has sent by id, and what is kept for it."""
        story = cls(saga, now=now)
        story._instance = instance
        story._bodies.update(bodies)
        story._kept += kept
        return story

    def __repr__(self) -> str:
        """What a failed assertion shows: the type and key, how far it is, what it waits for."""
        instance = self._instance
        if instance is None:
            return f"<Harness {self.definition.type}: not started>"
        reason = f" ({instance.end_reason})" if instance.end_reason else ""
        waits = f", waits for {instance.waiting_for}" if instance.waiting_for else ""
        return f"<Harness {self.definition.type} {instance.key!r}: {instance.status}{reason}{waits}>"

    # -- what a test does

    def given(self, event: Event) -> Self:
        """The event that starts the saga. A second one finds the instance there, as in production."""
        return self.act("given", self._arrived(event, None))

    def child(self, saga: type[Saga] | Definition) -> Harness:
        """The story of a child of that class, as the latest start that was sent to one begins it."""
        story = Harness(saga, now=self.now)
        name = story.definition.type
        starts = [
            each for each in self.log if self._child_of(each) == name and not isinstance(each.command, CancelSaga)
        ]
        if not starts:
            raise AssertionError(f"no {name} was started; sent so far: {self._names()}")
        begun = starts[-1]
        story._parent = Parent(
            reply_to=self.definition.type,
            correlation_id=str(self.instance.saga_id),
            start=begun.idempotency_key,
            message_id=begun.message_id,
        )
        return story.given(cast("Event", begun.command))

    def told(self, cancel: Message) -> Self:
        """The parent wants the saga undone."""
        return self.act("receives", self._arrived(cast("Event", cancel), None))

    def answered(self, child: Harness) -> Self:
        """A child has ended, and what it announces of that is the answer to its start."""
        if not child._answers:
            raise AssertionError(f"{child!r} has not ended")
        for send in child._answers:
            self.act("receives", self._arrived(child._announced(send), send.causation_id))
        return self

    def receives(self, reply: Event, *, to: Sent | None = None) -> Self:
        """A reply, to the latest command that declares it or to the one given."""
        asked = to or self._asked(reply)
        return self.act("receives", self._arrived(reply, asked.message_id))

    def hears(self, event: Event) -> Self:
        """An event that answers no command: what a `@wait`, `@signal` or `@cancel` takes.

        One that comes too early and is kept is applied as soon as the flow has come to it; one that comes by an alias
        must carry the instance's. Also a reply without `causation-id`, from a participant that echoes only the
        correlation id.
        """
        return self.act("hears", self._arrived(event, None))

    def advance(self, by: timedelta) -> Self:
        """Let time pass. Every timer that falls due on the way fires at its moment."""
        return self.act("advance", by)

    def operator(
        self,
        action: Action | str,
        step: str | None = None,
        *,
        reason: str = "a test",
        timer: str | None = None,
        due: datetime | timedelta | None = None,
    ) -> Self:
        """An operator acts: `cancel`, `retry`, `skip`, `resolve`, `undo`, `pause` or `resume`.

        Or on a `timer`: `fire_timer`, `cancel_timer`, or `reschedule_timer`, to be `due` then, or after so long.

        Raises:
            OperationRefused: the action does not fit where the instance stands.
        """
        self._messages += 1
        request_id = str(uuid5(_NAMESPACE, str(self._messages)))
        return self.act(
            "operator",
            Operated(
                action=Action(action),
                actor="operator",
                reason=reason,
                request_id=request_id,
                step=step,
                timer=timer,
                due=due,
            ),
        )

    def migrates(self, saga: type[Saga]) -> Self:
        """The instance goes on under the next version of its saga, as `antiphon definitions migrate` moves it.

        Raises:
            OperationRefused: the class does not say how.
            AssertionError: it would be left where it is; the text says why.
        """
        definition, before = definition_of(saga), self.instance
        way = passage(self.definition.version, self.definition.document, definition)
        found = move(way, before, self.now, actor="operator", reason="a test")
        if isinstance(found, Flaw):
            raise AssertionError(f"{self!r} would be left on version {before.version}: {found.code}: {found.text}")
        self.definition, self._decisions = definition, []
        return self._take(found)._go_on_with_kept(before)

    def act(self, method: str, happened: Arrived | Operated | timedelta) -> Self:
        """Do what a method of this name did before, with the same ids."""
        at, self._decisions = self.now, []
        if isinstance(happened, timedelta):
            self._let_pass(happened)
        elif isinstance(happened, Arrived) and method == "given":
            self._begin(happened)
        elif isinstance(happened, Arrived) and method == "hears":
            self._hear(happened)
        else:
            self._decide(happened)
        self.acts.append(Act(method=method, happened=happened, at=at, decisions=tuple(self._decisions)))
        return self

    def asks(self, query: str) -> Any:  # noqa: ANN401 - whatever the query returns
        """What a `@query` answers, as what JSON is made of."""
        return answer(
            self.definition,
            self.instance.state,
            query,
            now=self.now,
            saga_id=self.instance.saga_id,
            lists=self._items.lists,
        )

    # -- what a test looks at

    @property
    def sent(self) -> list[Message]:
        """What the last act of the test made the saga send: commands, resends too, starts and cancels of children."""
        return [each.command for each in self._latest if isinstance(each, Sent)]

    @property
    def announced(self) -> list[Event]:
        """The events that the last act of the test made the saga announce, in order."""
        return [each for each in self._latest if not isinstance(each, Sent)]

    @property
    def instance(self) -> Instance:
        """The instance as it would be stored."""
        if self._instance is None:
            raise AssertionError("no saga was started; begin with given(...)")
        return self._instance

    @property
    def state(self) -> Any:  # noqa: ANN401 - the saga's own class, which the test knows
        """The author's state, as an object of the saga class."""
        return self._loaded(self.instance.state)

    def _loaded(self, state: bytes) -> Saga:
        return self.definition.saga_class._load(
            state,
            now=self.now,
            saga_id=self.instance.saga_id,
            end_reason=self.instance.end_reason,
            lists=self._items.lists,
        )

    @property
    def aliases(self) -> dict[str, str]:
        """The aliases by which events find the instance, by name."""
        return aliases_of(self.instance)

    @property
    def status(self) -> str:
        """`running`, `compensating`, `completed`, `compensated` or `parked`."""
        return self.instance.status

    @property
    def attention(self) -> dict[str, str]:
        """What people are asked to look at, by reason."""
        return dict(self.instance.attention)

    @property
    def kinds(self) -> list[str]:
        """The kinds of all history rows so far."""
        return [entry.kind for entry in self.history]

    # -- how it is done

    def _begin(self, arrived: Arrived) -> Self:
        if self._instance is not None:
            return self._take(ignored(self.definition, self._instance, arrived, "duplicate_start", self.now))
        state = first_state(self.definition, arrived)
        key = self.definition.keys[arrived.name].of(self.definition.type, arrived.event)
        identity = saga_id("antiphon", self.definition.type, key)
        born = start(
            self.definition, arrived, state=state, saga_id=identity, key=key, n=1, now=self.now, parent=self._parent
        )
        return self._take(born)

    def _let_pass(self, time: timedelta) -> None:
        until = self.now + time
        sent: list[Sent | Event] = []
        while (due := self._next_timer(until)) is not None:
            name, fence, self.now = due
            self._decide(TimerFired(name=name, fence=fence))
            sent += self._latest
        self.now = until
        self._latest = sent

    def _decide(self, happened: Input) -> Self:
        before = self.instance
        return self._take(self._decided(happened))._go_on_with_kept(before)

    def _go_on_with_kept(self, before: Instance) -> Self:
        if newly_awaited(before, self.instance):
            latest, disposition, reason = self._latest, self.disposition, self.reason
            kept, self._kept = self._kept, []
            for each in kept:
                self._hear(each)
                latest += self._latest
            self._latest, self.disposition, self.reason = latest, disposition, reason
        return self

    def _decided(self, happened: Input) -> Decision:
        """Decide with the items that are needed, as a database would bring them."""
        instance = self.instance
        while True:
            try:
                return decide(self.definition, instance, happened, self.now)
            except NeedsItems as needs:
                instance = replace(instance, items=self._items.bring(instance.items, needs.want))

    def _hear(self, arrived: Arrived) -> Self:
        self._prove_found(arrived)
        self._decide(arrived)
        if self.disposition is Disposition.HELD:
            self._kept.append(replace(arrived, kept=True))
        if self.disposition is Disposition.HELD and not arrived.kept:
            self._take(held(self.instance, arrived.message_id, arrived.name, "unawaited", self.now))
        return self

    def _take(self, decision: Decision) -> Self:
        self._instance = self._items.put(decision)
        self._decisions.append(decision)
        self.disposition, self.reason = decision.disposition, decision.reason
        self.history += decision.history
        self._latest = [self._note(send) for send in decision.sends if not send.marker and send.answers is None]
        self._answers += [send for send in decision.sends if send.answers is not None and send.body is not None]
        self._prove_undos(decision.sends)
        self._prove_state()
        if self.definition.aliases:
            self._note_aliases()
        for marker in (send for send in decision.sends if send.marker):
            self._deliver_marker(marker)
        if decision.withdraw:
            latest = self._latest
            self._decide(Withdrawn(message_ids=frozenset()))
            self._latest = latest + self._latest
        return self

    def _note_aliases(self) -> None:
        """Let the instance have the aliases that its state gives it, as if no other had one of them."""
        decision = aliased(self.instance, *given(self.definition, self.instance), self.now)
        if decision.history:
            self._instance = decision.instance
            self._decisions.append(decision)
            self.history += decision.history

    def _deliver_marker(self, marker: Send) -> None:
        body = json.loads(marker.body or b"")
        latest = self._latest
        self._decide(GiveUp(message_id=marker.message_id, timer=body["timer"], entry=body["entry"]))
        self._latest = latest + self._latest

    def _note(self, send: Send) -> Sent | Event:
        if send.event:
            return self._announced(send)
        body = self._bodies.setdefault(send.message_id, send.body or b"")
        envelope = Envelope(message_id=send.message_id, name=send.name, body=body, schema_version=send.schema_version)
        sent = Sent(
            command=codec.parse(envelope, self._class_of(send)),
            path=send.path,
            purpose=send.purpose or Purpose.DO,
            message_id=send.message_id,
            idempotency_key=send.idempotency_key or "",
            compensates=send.compensates,
            at=self.now,
        )
        self.log.append(sent)
        return sent

    def _class_of(self, send: Send) -> type[Message]:
        if send.child is None:
            return self.definition.commands[send.name]
        return CancelSaga if send.purpose is None else self.definition.steps[step_name(send.path)].do.command

    def _child_of(self, sent: Sent) -> str | None:
        step = self.definition.steps.get(step_name(sent.path))
        return None if step is None or step.do.child is None else step.do.child.type

    def _announced(self, send: Send) -> Event:
        classes = {each.event.message_name: each.event for each in self.definition.announcements.values()}
        envelope = Envelope(message_id=send.message_id, name=send.name, body=send.body or b"")
        return codec.parse(envelope, classes[send.name])

    def _arrived(self, event: Event, causation_id: str | None) -> Arrived:
        self._messages += 1
        envelope = Envelope(
            message_id=str(uuid5(_NAMESPACE, str(self._messages))),
            name=event.message_name,
            body=codec.encode(event),
            schema_version=event.schema_version,
        )
        self.versions[envelope.message_id] = event.schema_version
        known = self.definition.events.get(event.message_name, type(event))
        reader = known if known.schema_version > event.schema_version else type(event)
        return Arrived(
            message_id=envelope.message_id,
            name=envelope.name,
            body=envelope.body,
            event=codec.parse(envelope, reader),
            causation_id=causation_id,
        )

    def _asked(self, reply: Event) -> Sent:
        askers = self.definition.answers.get(reply.message_name, ())
        for sent in reversed(self.log):
            if not isinstance(sent.command, CancelSaga) and (step_name(sent.path), sent.purpose) in askers:
                return sent
        raise AssertionError(f"nothing was sent that {reply.message_name} answers; sent so far: {self._names()}")

    def _names(self) -> str:
        return ", ".join(each.command.message_name for each in self.log) or "nothing"

    def _next_timer(self, until: datetime) -> tuple[str, int, datetime] | None:
        timers = sorted((timer.due_at, name, timer.fence) for name, timer in self.instance.armed.items())
        if not timers or timers[0][0] > until:
            return None
        due_at, name, fence = timers[0]
        return name, fence, max(due_at, self.now)

    def _prove_undos(self, sends: Sequence[Send]) -> None:
        for send in sends:
            undo = self.definition.steps[step_name(send.path)].undo if send.purpose is Purpose.DO else None
            if undo is None:
                continue
            try:
                codec.encode(undo.build(self.state, *self._item(send.path)))
            except Exception as error:
                raise AssertionError(
                    f"{self.definition.type}.{undo.name} cannot be built before the reply of {send.path} is known "
                    f"({type(error).__name__}: {error}); a step that times out must be undone without it"
                ) from error

    def _prove_found(self, arrived: Arrived) -> None:
        key = self.definition.keys.get(arrived.name)
        if key is None or key.alias is None or arrived.kept:
            return
        value, has = key.of(self.definition.type, arrived.event), self.aliases.get(key.alias)
        if value != has:
            raise AssertionError(
                f"{self!r} is not found by this {arrived.name}: its {key.alias} is {has!r}, not {value!r}"
            )

    def _item(self, path: str) -> tuple[object, ...]:
        """The item that a command is about, if it is about one."""
        each = self.definition.steps[step_name(path)].each
        return () if each is None else (each.parse(self._items.lists[each.list_field][index_of(path)]),)

    def _prove_state(self) -> None:
        state = self.state
        again = self._loaded(state._dump())
        if again != state:
            raise AssertionError(
                f"the state of {self.definition.type} does not survive its own JSON: {state} != {again}"
            )
