"""Whatever comes, in whatever order: messages, events early and late, time that is over, copies, operators, bugs and
their mending, replays, a forgetful inbox.

A story is drawn and played on a real database; after every act the rules are looked up there, and in the end everything
is mended, resumed, replayed and answered: then every instance has come to its end and nothing is left over.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import migrations
from handlers.held import HeldMessages
from handlers.operations import Operation, Operations
from handlers.replay import Replayer
from handlers.saga_types import SagaType
from messages.catalog import ordering
from messages.envelope import Raw
from messages.errors import OperationRefused
from outbox.unit import SqlStorage
from running import AsyncioRunner
from sagas import definition_of
from sagas.catalog.ordering import PlaceOrder
from sagas.definition import AlternativeNode, ParallelNode, Purpose, SequenceNode, StepNode
from sagas.instance import Phase, message_id
from sagas.names import step_name
from sagas.outcome import Action, Operated
from sagas.patch import rebuild
from storage import Database
from storage.statements import Statement
from tests.handlers.eventful import EVENTFUL, EVENTS, Approved, Over
from tests.handlers.house import LIMITS, NAMESPACE, House, placed, rows
from tests.handlers.test_replay import broken
from transport.topology import saga_queue

if TYPE_CHECKING:
    from messages import Event
    from sagas import Definition, Saga
    from sagas.definition import Node
    from sagas.instance import Instance

KEYS = ("o-1", "o-2")
STEPS = ("reserve", "pay", "label")
RESERVE, PAY, LABEL = map(StepNode, STEPS)
FLOWS = (
    SequenceNode((RESERVE, PAY, LABEL)),
    SequenceNode((ParallelNode((RESERVE, PAY)), LABEL)),
    AlternativeNode((SequenceNode((RESERVE, PAY)), LABEL)),
    ParallelNode((RESERVE, SequenceNode((PAY, LABEL))), first=1),
)
TAKEN = ("event_received", "signal_received", "cancelled")
KEPT = ("unawaited", "awaited")
SUCCESS: dict[tuple[str, str], Any] = {
    ("reserve", "do"): lambda key: ordering.StockReserved(order_id=key, reservation_id="r"),
    ("reserve", "undo"): lambda key: ordering.StockReleased(order_id=key),
    ("pay", "do"): lambda key: ordering.PaymentCompleted(order_id=key, payment_id="p"),
    ("pay", "undo"): lambda key: ordering.PaymentRefunded(order_id=key),
    ("label", "do"): lambda key: ordering.ShippingLabelCreated(order_id=key, tracking_code="t"),
    ("label", "undo"): lambda key: ordering.ShippingLabelVoided(order_id=key),
}
FAILURE: dict[str, Any] = {
    "reserve": lambda key: ordering.OutOfStock(order_id=key),
    "pay": lambda key: ordering.PaymentDeclined(order_id=key),
    "label": lambda key: ordering.LabelRefused(order_id=key),
}

keys = st.sampled_from(KEYS)
steps = st.sampled_from(STEPS)
acts = st.one_of(
    st.tuples(st.just("start"), keys),
    st.tuples(st.just("answer"), keys, st.just(True)),
    st.tuples(st.just("answer"), keys, st.booleans()),
    st.tuples(st.just("success"), keys, steps, st.sampled_from(["do", "undo"])),
    st.tuples(st.just("failure"), keys, steps),
    st.tuples(st.just("stumble"), keys),
    st.tuples(st.just("copy"), st.integers(0, 30)),
    st.tuples(st.just("operate"), keys, st.sampled_from(list(Action))),
    st.tuples(st.just("operate"), keys, st.sampled_from([Action.PAUSE, Action.RESUME])),
    st.tuples(st.sampled_from(["break", "mend", "mend", "sweep", "forget", "replay_all"])),
    st.tuples(st.just("replay"), st.integers(0, 10), st.booleans()),
)
events = st.sampled_from(EVENTS)
told = st.one_of(
    st.tuples(st.just("tell"), keys, events),
    st.tuples(st.just("tell"), keys, st.just(Approved)),
    st.tuples(st.sampled_from(["pass_time", "pass_time", "give_up_on_what_is_held"])),
    st.tuples(st.just("answer"), keys, st.just(True)),
    acts,
)


@dataclass
class Play:
    """The house in which a story is played, in its broken and in its mended state."""

    storage: SqlStorage
    sound: House
    unsound: House
    now: House
    delivered: list[Raw] = field(default_factory=list)
    forgotten: set[str | None] = field(default_factory=set)

    async def act(self, act: tuple[Any, ...]) -> None:
        word, *rest = act
        await getattr(self, f"_{word}")(*rest)

    async def _start(self, key: str) -> None:
        await self._deliver(self.now.message(placed(key)))

    async def _answer(self, key: str, success: bool) -> None:
        """What is asked now; before the start, the first step."""
        asked = [*await self._asked(key), ("reserve", Purpose.DO)][0]
        step, purpose = asked
        if success or purpose is Purpose.UNDO:
            await self._success(key, step, purpose)
        else:
            await self._failure(key, step)

    async def _tell(self, key: str, event: Any) -> None:  # noqa: ANN401
        """An event for whoever listens, with nothing but the key in its body."""
        if event.message_name in self.sound.definition.heard:
            await self._deliver(self.now.message(event(order_id=key)))

    async def _pass_time(self) -> None:
        """What is due is done; the markers come back behind all that was sent before."""
        due, _ = await self.storage.due_timers(["PlaceOrder"], 10)
        await self.now.timers.fire(due)
        for marker in await rows(self.storage, "select * from outbox where name = 'antiphon.GiveUp' order by 1"):
            await self._change("delete from outbox where message_id = :id", id=marker.message_id)
            await self.now.take(
                Raw(
                    body=bytes(marker.body),
                    routing_key=saga_queue(NAMESPACE, "PlaceOrder"),
                    message_id=marker.message_id,
                    type=marker.name,
                    content_type="application/json",
                    correlation_id=str(marker.saga_id),
                    app_id=NAMESPACE,
                )
            )

    async def _give_up_on_what_is_held(self) -> None:
        await self._change("update held set expires_at = received_at where expires_at is not null")
        await self._sweep()

    async def _change(self, sql: str, **parameters: object) -> None:
        async with self.storage.database.write() as session:
            await session.fetch(Statement.both(sql), parameters)

    async def _asked(self, key: str) -> list[tuple[str, Purpose]]:
        if not await rows(self.storage, "select * from v_saga where business_key = :key", {"key": key}):
            return []
        instance = await self.sound.instance(key)
        return [
            (path, purpose)
            for path, step in instance.steps.items()
            for purpose in Purpose
            if (call := step.call(purpose)) is not None and call.status.open
        ]

    async def _success(self, key: str, step: str, purpose: str) -> None:
        await self._deliver(self._reply(key, SUCCESS[step_name(step), purpose](key), step, purpose))

    async def _failure(self, key: str, step: str) -> None:
        await self._deliver(self._reply(key, FAILURE[step_name(step)](key), step, "do"))

    def _reply(self, key: str, event: Event, step: str, purpose: str) -> Raw:
        """Straight to the saga's queue, as participants reply."""
        return replace(self.now.answer(key, event, step, purpose), routing_key=saga_queue(NAMESPACE, "PlaceOrder"))

    async def _copy(self, which: int) -> None:
        if self.delivered:
            await self.now.take(self.delivered[which % len(self.delivered)])

    async def _deliver(self, raw: Raw) -> None:
        self.delivered.append(raw)
        await self.now.take(raw)

    async def _operate(self, key: str, action: Action) -> None:
        operations = Operations(
            self._types(),
            namespace=NAMESPACE,
            storage=self.storage,
            runner=self.now.runner,
            report=_quiet,
            limits=LIMITS,
        )
        operated = Operated(action=action, actor="ann", reason="why not", request_id=str(uuid4()))
        try:
            await operations.carry_out(Operation(saga_id=self.now.id_of(key), operated=operated))
        except OperationRefused as refused:
            note(str(refused))

    def _types(self) -> dict[str, dict[int, Any]]:
        return {"PlaceOrder": {1: self.now.definition}}

    async def _stumble(self, key: str) -> None:
        """A bug that is met by what comes next, and mended."""
        await self._break()
        await self._answer(key, success=True)
        await self._mend()

    async def _break(self) -> None:
        self.now = self.unsound

    async def _mend(self) -> None:
        self.now = self.sound

    async def _sweep(self) -> None:
        sweeper = HeldMessages(
            [SagaType({1: self.now.definition}, NAMESPACE)],
            storage=self.storage,
            relay=self.now.relay,
            runner=self.now.runner,
            report=_quiet,
            limits=LIMITS,
        )
        await sweeper.sweep()

    async def _forget(self) -> None:
        """As retention does, when the window is over."""
        self.forgotten |= {raw.message_id for raw in self.delivered}
        await self._change("delete from inbox where disposition <> 'held'")

    async def _replay(self, which: int, dry_run: bool) -> None:
        letters = await rows(self.storage, "select dead_letter_id from v_dead_letter order by 1")
        if letters:
            await self._replayed(letters[which % len(letters)].dead_letter_id, dry_run=dry_run)

    async def _replay_all(self) -> None:
        for row in await rows(self.storage, "select dead_letter_id from v_dead_letter where status = 'open'"):
            await self._replayed(row.dead_letter_id)

    async def _replayed(self, letter: int, *, dry_run: bool = False) -> str:
        replayer = Replayer(
            self._types(),
            namespace=NAMESPACE,
            storage=self.storage,
            runner=self.now.runner,
            report=_quiet,
            limits=LIMITS,
        )
        verdict = await replayer.replay(letter, actor="ann", reason="mended", request_id=str(uuid4()), dry_run=dry_run)
        note(f"replay {letter}: {verdict.outcome} ({verdict.detail})")
        return verdict.outcome

    # -- the rules

    async def check(self) -> None:
        for row in await rows(self.storage, "select saga_id, business_key, phase, paused from v_saga"):
            instance = await self.sound.instance(row.business_key)
            await self._check_history(instance)
        held = await rows(self.storage, "select * from v_held")
        assert {row.reason for row in held} <= {"paused", "early", *KEPT}
        stray = await rows(
            self.storage,
            "select * from v_held h where reason = 'paused' and not exists "
            "(select 1 from v_saga s where s.saga_id = h.saga_id and s.paused)",
        )
        assert not stray, "held for a pause that is over"
        unheld = await rows(
            self.storage,
            "select * from inbox i where disposition = 'held' and not exists "
            "(select 1 from held h where h.source = i.source and h.message_id = i.message_id)",
        )
        assert not unheld, "said to be held, and lost"
        decided = await rows(self.storage, "select message_id from inbox where disposition <> 'held'")
        both = {row.message_id for row in decided} & {row.message_id for row in held}
        assert not both, "decided, and still held"

    async def _check_history(self, instance: Instance) -> None:
        events = await rows(
            self.storage,
            "select seq, kind, step, patch, message_id from saga_event where saga_id = :id order by seq",
            {"id": instance.saga_id},
        )
        assert [event.seq for event in events] == list(range(1, instance.seq + 1))
        rebuilt = rebuild([bytes(event.patch) for event in events if event.patch is not None])
        assert replace(rebuilt, state=instance.state) == instance
        taken = Counter(event.message_id for event in events if event.kind in TAKEN)
        again = [message for message, times in taken.items() if times > 1 and message not in self.forgotten]
        assert not again, "taken twice"
        reasons = await rows(self.storage, "select reason from held where saga_id = :id", {"id": instance.saga_id})
        kept = sum(row.reason in KEPT for row in reasons)
        assert int(instance.choices.get("kept/early", "0")) == kept, "it knows how many events are kept for it"
        stays = instance.phase is not Phase.RUNNING and any(row.reason == "unawaited" for row in reasons)
        assert not stays, "what fits no more is kept"
        counted = Counter((event.kind, event.step) for event in events)
        assert counted["started", None] == 1
        for step in {event.step for event in events}:
            assert counted["step_completed", step] <= 1, f"{step} was completed twice"
            assert counted["step_compensated", step] <= 1, f"{step} was undone twice"

    # -- the end

    async def end(self) -> None:
        """Mend and resume everything, replay what is open, answer what is asked: everything comes to an end."""
        await self._mend()
        for key in KEYS:
            await self._start(key)
            await self._operate(key, Action.RESUME)
        await self._sweep()
        await self._replay_what_is_open()
        for key in KEYS:
            await self._answer_everything(key)
            await self.check()
        await self._give_up_on_what_is_held()
        await self._replay_what_is_open()
        await self.check()
        assert not await rows(self.storage, "select * from v_dead_letter where status = 'open'")
        assert not await rows(self.storage, "select * from v_held")
        assert not await rows(self.storage, "select * from v_timer")

    async def _replay_what_is_open(self) -> None:
        for row in await rows(self.storage, "select dead_letter_id from v_dead_letter where status = 'open'"):
            assert await self._replayed(row.dead_letter_id) != "failed_again"

    async def _answer_everything(self, key: str) -> None:
        for _ in range(30):
            instance = await self.sound.instance(key)
            asked = await self._asked(key)
            if not asked and instance.phase.ended:
                return
            if "method_raised" in instance.attention:
                await self._operate(key, Action.RETRY)
            elif not asked:
                await self._go_on(key)
            for path, purpose in asked:
                progress = instance.steps[path].call(purpose)
                assert progress is not None
                command = message_id(instance.saga_id, path, progress.generation, progress.attempt, purpose)
                reply = self.sound.message(
                    SUCCESS[step_name(path), purpose](key),
                    correlation_id=str(instance.saga_id),
                    headers={"causation-id": command},
                )
                await self.sound.take(reply)
        raise AssertionError(f"{key} does not end: {await self.sound.instance(key)}")

    async def _go_on(self, key: str) -> None:
        """Nothing is asked: an event is waited for, or an operator."""
        before = await self.sound.instance(key)
        for event in (Approved, Over):
            await self._tell(key, event)
        if before == await self.sound.instance(key):
            await self._operate(key, Action.RETRY)


def _quiet(_: object) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    file = tmp_path_factory.mktemp("stories") / "empty.db"

    async def make() -> None:
        database = Database(f"sqlite:///{file}", AsyncioRunner())
        await migrations.up(database)
        await database.close()

    asyncio.run(make())
    return file


playing = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@playing
@given(flow=st.sampled_from(FLOWS), story=st.lists(acts, min_size=8, max_size=25))
def test_every_story_ends_with_every_instance_at_its_end_and_nothing_left_over(
    template: Path, tmp_path: Path, flow: Node, story: list[tuple[Any, ...]]
) -> None:
    definition = replace(definition_of(PlaceOrder), flow=flow)
    asyncio.run(_play(_copied(template, tmp_path), definition, [("start", KEYS[0]), *story]))


@playing
@given(saga=st.sampled_from(EVENTFUL), story=st.lists(told, min_size=8, max_size=25))
def test_every_story_in_which_events_are_waited_for_ends_so_too(
    template: Path, tmp_path: Path, saga: type[Saga], story: list[tuple[Any, ...]]
) -> None:
    asyncio.run(_play(_copied(template, tmp_path), definition_of(saga), story))


def _copied(template: Path, folder: Path) -> Path:
    for name in ("story.db", "story.db-wal", "story.db-shm"):
        (folder / name).unlink(missing_ok=True)
    return Path(shutil.copy(template, folder / "story.db"))


async def _play(file: Path, definition: Definition, story: list[tuple[Any, ...]]) -> None:
    database = Database(f"sqlite:///{file}", AsyncioRunner())
    try:
        storage = SqlStorage(database)
        sound = await House(storage, definition).open()
        unsound = await House(storage, broken(definition)).open()
        play = Play(storage=storage, sound=sound, unsound=unsound, now=sound)
        for act in story:
            await play.act(act)
            await play.check()
        await play.end()
    finally:
        await database.close()
