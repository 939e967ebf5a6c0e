"""One decision in the making: the changing copy of an instance that `decide` works on, and the log of what it does.

The only mutable object of the core, alive for one call. It runs the author's methods on fresh copies of the state, so
that nothing a method does to `self` survives unless a hook's whole result was stored.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from messages import codec
from messages.errors import MethodRaised, OperationRefused
from sagas.definition import Purpose, label
from sagas.instance import Instance, StepProgress, Timer, idempotency_key, message_id
from sagas.items import AT_HAND, NeedsItems, Want
from sagas.keywords import LONGEST
from sagas.names import ANNOUNCEMENTS, ITEMS, MARKER, PARENT, moved_at, step_name, step_of_timer, timer_name
from sagas.outcome import Decision, Disposition, HistoryEntry, Send
from sagas.parents import answer_parent
from sagas.problems import told
from sagas.recalling import forget_child, note_child, told_of_child
from sagas.unannounced import note_announcements
from sagas.waiting import waiting_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from messages import Command, Event
    from messages.errors import MessageError
    from sagas.authoring import Saga
    from sagas.definition import (
        Call,
        DecisionDefinition,
        Definition,
        SleepDefinition,
        StepDefinition,
        WayDefinition,
    )
    from sagas.instance import CallProgress, CallStatus, Phase
    from sagas.items import Rested
    from sagas.outcome import Arrived


class Turn:
    """The working copy. Everything it changes ends up in `finish`."""

    def __init__(
        self, definition: Definition, instance: Instance, now: datetime, *, causation_id: str | None = None
    ) -> None:
        self.definition = definition
        self.before = instance
        self.now = now
        self.causation_id = causation_id
        self.phase = instance.phase
        self.state = instance.state
        self.steps = dict(instance.steps)
        self.choices = dict(instance.choices)
        self.timers = dict(instance.timers)
        self.attention = dict(instance.attention)
        self.paused = instance.paused
        self.skipped = instance.skipped
        self.deadline_at = instance.deadline_at
        self.ended_at = instance.ended_at
        self.end_reason = instance.end_reason
        self.seq = instance.seq
        self.applied = 0
        self.history: list[HistoryEntry] = []
        self.sends: list[Send] = []
        self.withdraw: list[str] = []
        self.items = instance.items
        owed = instance.items.owed
        self.owed = {path: list(owed[path]) for path in owed} if owed else {}
        self.rested: list[Rested] = []
        self._proven: Saga | None = None

    @property
    def halted(self) -> bool:
        """Whether nothing may be sent: paused, or parked by a method that raised."""
        return self.paused or "method_raised" in self.attention

    # -- the log

    def record(
        self,
        kind: str,
        step: str | None = None,
        *,
        message: Arrived | Send | None = None,
        body: bytes | None = None,
        **detail: object,
    ) -> int:
        """Append to the history and return the row's number."""
        self.seq += 1
        self.history.append(
            HistoryEntry(
                seq=self.seq,
                kind=kind,
                step=step,
                message_id=message.message_id if message else None,
                message_name=message.name if message else None,
                detail={name: value for name, value in detail.items() if value is not None},
                body=body,
            )
        )
        seq = self.seq
        if self.definition.announcements:
            note_announcements(self, kind, step)
        return seq

    # -- the author's methods

    def saga(self, method: Callable[..., object] | None = None) -> Saga:
        """A fresh copy of the author's state, for one method; with the lists that it reads.

        Raises:
            NeedsItems: their items are not at hand.
        """
        fresh, self._proven = self._proven, None
        lists = self._lists(method) if self.definition.readers else {}
        if fresh is not None and self.end_reason == self.before.end_reason and not lists:
            return fresh
        return self._loaded(self.state, lists)

    def _lists(self, method: Callable[..., object] | None) -> Mapping[str, Sequence[bytes]]:
        lists = {}
        for name in self.definition.readers.get(getattr(method, "__name__", ""), ()):
            bodies, items = self.items.bodies.get(name, {}), self.items_in(name)
            if len(bodies) < items:
                raise NeedsItems(Want(list_field=name, indexes=None))
            lists[name] = [bodies[index] for index in range(items)]
        return lists

    def _loaded(self, state: bytes, lists: Mapping[str, Sequence[bytes]] | None = None) -> Saga:
        return self.definition.saga_class._load(
            state, now=self.now, saga_id=self.before.saga_id, end_reason=self.end_reason, lists=lists
        )

    def items_in(self, list_field: str) -> int:
        """How many items the list has."""
        return int(self.choices[f"{list_field}/{ITEMS}"])

    def item_of(self, path: str) -> tuple[object, ...]:
        """The item that a path is about: what the methods of its step get beside the state; nothing for other paths.

        Raises:
            NeedsItems: it is not at hand.
        """
        each = self.step(path).each
        if each is None:
            return ()
        index = int(path.rpartition("[")[2].rstrip("]"))
        bodies = self.items.bodies.get(each.list_field, {})
        if (body := bodies.get(index)) is None:
            back = self.steps.get(path) is not None and not self.steps[path].do.status.open  # it is about to be undone
            many = max(AT_HAND, len(bodies))  # ever more at once for a decision that needs ever more
            first, last = (index - many, index) if back else (index, index + many)
            upcoming = range(max(first, 0), min(last + 1, self.items_in(each.list_field)))
            under_way = (int(one.rpartition("[")[2][:-1]) for one in self.steps if self.step(one).each is each)
            raise NeedsItems(Want(list_field=each.list_field, indexes=frozenset((*upcoming, *under_way))))
        return (each.parse(body),)

    def run_hook(
        self,
        hook: Callable[..., object] | None,
        *event: object,
        path: str | None = None,
        way: WayDefinition | None = None,
    ) -> str | None:
        """Let the hook keep what it needs of an event. The state changes only if all of it succeeded.

        Of a `path` that is an item's it gets the item, too.

        Returns:
            The state that a `way` leads to, None where it stays.

        Raises:
            MethodRaised: the hook raised, or left a state that does not survive its own JSON.
        """
        if hook is None:
            return None
        if path is not None and self.definition.eaches:
            event = (*event, *self.item_of(path))
        try:
            saga = self.saga(hook)
            said = hook(saga, *event)
            target = None if way is None else way.target(said)
            state = saga._dump()
            proven = self._loaded(state) if state != self.state else None
        except NeedsItems:
            raise
        except BaseException as error:
            raise self.raised(hook, error) from error
        self.state, self._proven = state, proven
        self._healed(self.method_name(hook))
        return target

    def built(
        self, build: Callable[..., Command | Event], wanted: type[Command | Event], path: str | None = None
    ) -> bytes:
        """The bytes of a message that a method builds; `path` says of which item, if it is about one.

        Raises:
            MethodRaised: the method raised, or its message does not fit the wire contract.
        """
        try:
            item = self.item_of(path) if path is not None and self.definition.eaches else ()
            message = build(self.saga(build), *item)
            if not isinstance(message, wanted):
                text = f"returned {type(message).__name__} instead of {wanted.__name__}"
                raise TypeError(text)
            return codec.encode(message, self.definition.limits)
        except NeedsItems:
            raise
        except BaseException as error:
            raise self.raised(build, error) from error

    def ask(self, decision: DecisionDefinition) -> str:
        """The answer of a decision.

        Raises:
            MethodRaised: the method raised, or gave an answer that it said it never would.
        """
        try:
            answer = decision.ask(self.saga(decision.ask))
            found = label(answer)
            if found is None or (decision.answers is not None and found not in decision.answers):
                message = f"answered {answer!r}, which its annotation does not allow"
                raise TypeError(message)
        except NeedsItems:
            raise
        except BaseException as error:
            raise self.raised(decision.ask, error) from error
        return found

    def rest(self, sleep: SleepDefinition) -> datetime:
        """Until when the flow rests.

        Raises:
            MethodRaised: the method raised, or said neither how long nor until when.
        """
        try:
            said = sleep.ask(self.saga(sleep.ask))
            if isinstance(said, timedelta) and said <= LONGEST:
                return self.now + said
            if isinstance(said, datetime) and said.tzinfo is not None and said <= self.now + LONGEST:
                return said
            message = f"returned {said!r}; a rest is a timedelta of at most 100 years, or an aware datetime before that"
            raise TypeError(message)
        except NeedsItems:
            raise
        except BaseException as error:
            raise self.raised(sleep.ask, error) from error

    def method_name(self, method: Callable[..., Any]) -> str:
        """`PlaceOrder.reserve`, as people know it."""
        return f"{self.definition.type}.{method.__name__}"

    def raised(self, method: Callable[..., Any], error: BaseException) -> MethodRaised:
        """What the exception of an author's method becomes, whatever it is: `sys.exit()` must not end the process."""
        return MethodRaised(
            told(self.method_name(method), method, error),
            saga_type=self.definition.type,
            saga_id=str(self.before.saga_id),
        )

    def refused(self, text: str) -> OperationRefused:
        """Why what an operator wants does not fit."""
        instance = self.before
        return OperationRefused(
            f"{instance.saga_type} {instance.key!r}: {text}",
            saga_type=instance.saga_type,
            saga_id=str(instance.saga_id),
        )

    # -- commands

    def send(self, path: str, call: Call, progress: CallProgress, wait: timedelta) -> None:
        """Build and emit one attempt of a command, and wait that long for its reply.

        Raises:
            MethodRaised: the command cannot be built; nothing was changed.
        """
        body = self.built(call.build, call.command, path)
        if call.child is not None:
            note_child(self, path, call, body)
        send = self._message(path, call, progress, body)
        self._emit("compensation_sent" if call.purpose is Purpose.UNDO else "command_sent", call, send, progress, wait)

    def resend(self, path: str, call: Call, progress: CallProgress, wait: timedelta) -> None:
        """Emit the current attempt once more, the same bytes under the same id, and wait that long."""
        self._emit("command_resent", call, self._message(path, call, progress, None), progress, wait)

    def _emit(self, kind: str, call: Call, send: Send, progress: CallProgress, wait: timedelta) -> None:
        self.sends.append(send)
        seq = self.record(
            kind,
            send.path,
            message=send,
            body=send.body,
            purpose=call.purpose.value,
            generation=progress.generation,
            attempt=progress.attempt,
            send=progress.sends,
            causation_id=send.causation_id,
            reply_due=(self.now + wait).isoformat() if call.replies and call.timed else None,
            **({} if send.child is None else told_of_child(self, send.child, send.path)),
        )
        self.put(send.path, call.purpose, replace(progress, dispatched=progress.dispatched or seq))
        if call.replies and call.timed:
            self.set_timer(timer_name(send.path, call.purpose), wait)

    def announce(self, name: str, path: str | None, causation_id: str | None) -> None:
        """Publish an announcement, of the step at that path if it is of one.

        Its id has the number of its history row, which no other event of the instance has.

        Raises:
            MethodRaised: the event cannot be built; nothing was changed.
        """
        announcement = self.definition.announcements[name]
        event = announcement.event
        send = Send(
            message_id=message_id(self.before.saga_id, path or name, 1, 1, f"event {self.seq + 1}"),
            name=event.message_name,
            schema_version=event.schema_version,
            path=ANNOUNCEMENTS,
            body=self.built(announcement.build, event),
            causation_id=causation_id,
            event=True,
        )
        self.sends.append(send)
        self.record("announced", path, message=send, body=send.body, announcement=name, causation_id=causation_id)
        if PARENT in self.choices and self.phase.ended and self.phase.value in announcement.moments:
            answer_parent(self, send)

    def _message(self, path: str, call: Call, progress: CallProgress, body: bytes | None) -> Send:
        saga, generation, purpose = self.before.saga_id, progress.generation, call.purpose
        undone = None
        if purpose is Purpose.UNDO:
            undone = idempotency_key(saga, path, self.steps[path].do.generation, Purpose.DO)
        return Send(
            message_id=message_id(saga, path, generation, progress.attempt, purpose),
            name=call.command.message_name,
            schema_version=call.command.schema_version,
            path=path,
            body=body,
            purpose=purpose,
            idempotency_key=idempotency_key(saga, path, generation, purpose),
            compensates=undone,
            causation_id=self.causation_id if body is not None else None,
            child=None if call.child is None else call.child.type,
        )

    def send_marker(self, timer: str, entry: str) -> None:
        """Send word to the saga's own queue: when it arrives, every reply queued before it has been read."""
        body = json.dumps({"timer": timer, "entry": entry}).encode()
        marker = Send(
            message_id=self.marker_id(timer, self.seq + 1),
            name=MARKER,
            schema_version=1,
            path=f"{timer}/give-up",
            body=body,
            marker=True,
        )
        self.sends.append(marker)
        self.record("timer_fired", step_of_timer(timer), message=marker, timer=timer)

    def marker_id(self, timer: str, seq: int) -> str:
        """The id of the marker that was announced by that history row; a timer set with it has its number as fence."""
        return message_id(self.before.saga_id, timer, 1, seq, "give-up")

    def current_id(self, path: str, purpose: Purpose) -> str:
        """The id of the attempt that is under way."""
        progress = self.progress(path, purpose)
        return message_id(self.before.saga_id, path, progress.generation, progress.attempt, purpose)

    # -- progress and timers

    def step(self, path: str) -> StepDefinition:
        """The definition of a path's step."""
        return self.definition.steps[step_name(path)]

    def progress(self, path: str, purpose: Purpose) -> CallProgress:
        """How far a command has come that was sent."""
        progress = self.steps[path].call(purpose)
        if progress is None:
            raise LookupError(f"{path}: nothing was sent to {purpose} it")
        return progress

    def put(self, path: str, purpose: Purpose, progress: CallProgress) -> None:
        """Replace the progress of a step's command."""
        step = self.steps.get(path)
        if purpose is Purpose.DO:
            self.steps[path] = StepProgress(do=progress, undo=step.undo if step else None)
        else:
            self.steps[path] = replace(self.steps[path], undo=progress)

    def close(self, path: str, purpose: Purpose, status: CallStatus, ended: int) -> None:
        """End a step's command with that status at that history row, and its timer with it."""
        self.put(path, purpose, replace(self.progress(path, purpose), status=status, ended=ended))
        name = timer_name(path, purpose)
        self.timers.pop(name, None)
        if self.choices:
            self.choices.pop(name, None)
            self.choices.pop(f"{name}/heard", None)
            self.choices.pop(moved_at(name), None)
            if self.definition.children:
                forget_child(self, path)

    def set_timer(self, name: str, wait: timedelta, *, asked_at: datetime | None = None) -> None:
        """Set or replace a timer."""
        self.timers[name] = Timer(due_at=self.now + wait, fence=self.seq, asked_at=asked_at)

    def postpone(self, name: str, wait: timedelta) -> None:
        """Let a timer that is due wait once more, as the same timer, for a marker that was not even sent."""
        self.timers[name] = replace(self.timers[name], due_at=self.now + wait, asked_at=None)

    def _healed(self, method: str) -> None:
        """The method that parked the instance has now run: the cause is gone."""
        if self.attention.get("method_raised", "").startswith(f"{method}: "):
            del self.attention["method_raised"]

    def park(self, reason: str, detail: str, step: str | None = None) -> None:
        """Ask for an operator. Asking twice for the same thing is one request."""
        if self.attention.get(reason) != detail:
            self.attention[reason] = detail
            self.record("parked", step, reason=reason, error=detail)

    # -- the end of the turn

    def end(self, phase: Phase, kind: str) -> None:
        """Reach a final phase: no timer is left, and nothing is overdue any more."""
        self.phase = phase
        self.ended_at = self.now
        self.timers.clear()
        for overdue in ("compensation_overdue", "deadline_passed"):
            self.attention.pop(overdue, None)
        self.record(kind)

    def finish(
        self, disposition: Disposition = Disposition.APPLIED, reason: str = "", error: MessageError | None = None
    ) -> Decision:
        """The decision that this turn has come to. Where nothing was recorded, nothing has changed."""
        if not self.history:
            return Decision(instance=self.before, disposition=disposition, reason=reason, error=error)
        before = self.before
        instance = Instance(  # not `replace`, which takes several times as long
            saga_id=before.saga_id,
            saga_type=before.saga_type,
            key=before.key,
            n=before.n,
            version=before.version,
            phase=self.phase,
            state=self.state,
            steps=self.steps,
            choices=self.choices if self.choices != before.choices else before.choices,
            timers=self.timers,
            attention=self.attention,
            paused=self.paused,
            waiting_for=None if self.phase.ended else self._waiting_for(),
            started_at=before.started_at,
            updated_at=self.now,
            deadline_at=self.deadline_at,
            ended_at=self.ended_at,
            end_reason=self.end_reason,
            skipped=self.skipped,
            revision=before.revision + self.applied,
            seq=self.seq,
            items=replace(self.items, owed=self.owed) if self.rested or self.owed else self.items,
        )
        return Decision(
            instance=instance,
            disposition=disposition,
            reason=reason,
            history=tuple(self.history),
            sends=tuple(self.sends),
            withdraw=tuple(self.withdraw),
            rested=tuple(self.rested),
            error=error,
        )

    def _waiting_for(self) -> str | None:
        return waiting_for(self.definition, self.steps, self.choices, self.timers, self.attention, paused=self.paused)
