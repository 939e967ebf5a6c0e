"""Events that are found by their business key: the end of a wait, signals, cancels; early, late and for nobody."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Self
from uuid import uuid4

import pytest

from handlers.held import HeldMessages
from handlers.keeping import PATIENCE
from handlers.operations import Operation, Operations
from handlers.saga_types import SagaType
from messages import Command, Event
from outbox.unit import SqlStorage
from sagas import Saga, cancel, definition_of, signal, sleep, start, step, wait
from sagas.definition import SequenceNode, StepNode, WaitNode
from sagas.outcome import Action, Operated
from storage.statements import Statement
from tests.handlers.house import LIMITS, NAMESPACE, House, dead, kinds, rows

if TYPE_CHECKING:
    from storage import Database


class Asked(Event, name="loan.Asked"):
    loan: str


class Approved(Event, name="loan.Approved"):
    loan: str
    by: str = "Ada"


class Refused(Event, name="loan.Refused"):
    loan: str


class Signed(Event, name="loan.Signed"):
    loan: str


class Changed(Event, name="loan.Changed"):
    loan: str
    amount: int


class Withdrawn(Event, name="loan.Withdrawn"):
    loan: str


class Check(Command, name="loan.Check"):
    loan: str


class Checked(Event, name="loan.Checked"):
    loan: str


class NotNow(Event, name="loan.NotNow"): ...


class Pay(Command, name="loan.Pay"):
    loan: str
    amount: int


class Paid(Event, name="loan.Paid"):
    loan: str


class Loan(Saga, key="loan", version=1, deadline=timedelta(days=30)):
    """Check, approve, rest, sign, pay."""

    loan: str
    amount: int = 1
    approved_by: str = ""

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(loan=event.loan)

    @start
    def imported(cls, event: Changed) -> Self:
        return cls(loan=event.loan, amount=event.amount)

    @step(success=Checked, failure=NotNow)
    def check(self) -> Check:
        return Check(loan=self.loan)

    @wait(timeout=timedelta(days=2))
    def approval(self, event: Approved) -> None:
        self.approved_by = event.by

    @approval.on_failure
    def refusal(self, event: Refused) -> None: ...

    @sleep
    def rest(self) -> timedelta:
        return timedelta(microseconds=1) if self.amount == 7 else timedelta(0)

    @wait(missing="dead_letter", unexpected="dead_letter")
    def signature(self, event: Signed) -> None: ...

    @signal
    def changed(self, event: Changed) -> None:
        self.amount = event.amount

    @cancel(missing="ignore")
    def withdrawn(self, event: Withdrawn) -> None: ...

    @step(success=Paid)
    def pay(self) -> Pay:
        return Pay(loan=self.loan, amount=self.amount)

    flow = check >> approval >> rest >> signature >> pay


@pytest.fixture
async def house(storage: SqlStorage) -> House:
    return await House(storage, definition_of(Loan)).open()


def sweep_of(house: House) -> HeldMessages:
    return HeldMessages(
        [SagaType({1: house.definition}, NAMESPACE)],
        storage=house.storage,
        relay=house.relay,
        runner=house.runner,
        report=house.facts.append,
        limits=LIMITS,
    )


async def held(storage: SqlStorage) -> list[tuple[str, str]]:
    return [(row.name, row.reason) for row in await rows(storage, "select * from v_held order by received_at")]


async def let_expire(storage: SqlStorage) -> None:
    """What is held now has been held long enough."""
    async with storage.database.write() as session:
        await session.fetch(Statement.both("update held set expires_at = received_at"), {})


async def dispositions(storage: SqlStorage) -> dict[str, str]:
    return {row.message_id: row.disposition for row in await rows(storage, "select * from v_inbox")}


async def test_an_event_finds_its_instance_by_the_key_in_its_body(house: House) -> None:
    await house.take(house.message(Asked(loan="l-1")))
    await house.take(house.answer("l-1", Checked(loan="l-1"), "check"))
    await house.take(house.message(Approved(loan="l-1", by="Bob")))
    after = await house.instance("l-1")
    assert after.choices["approval"] == "answered"
    assert b"Bob" in after.state


async def test_an_event_finds_its_instance_by_the_correlation_id_too(house: House) -> None:
    await house.take(house.message(Asked(loan="l-1")), house.answer("l-1", Checked(loan="l-1"), "check"))
    await house.take(house.message(Approved(loan="l-1"), correlation_id=str(house.id_of("l-1"))))
    assert (await house.instance("l-1")).choices["approval"] == "answered"


async def test_an_event_before_its_step_is_kept_and_applied_by_what_brings_the_flow_to_it(
    house: House, storage: SqlStorage
) -> None:
    await house.take(house.message(Asked(loan="l-1")))
    early = house.message(Approved(loan="l-1"), message_id="early")
    await house.take(early)
    await house.take(early)
    assert await held(storage) == [("loan.Approved", "unawaited")]
    waiting = await house.instance("l-1")
    assert (waiting.attention, waiting.choices) == ({}, {"kept/early": "1"})
    await house.take(house.answer("l-1", Checked(loan="l-1"), "check"))
    after = await house.instance("l-1")
    assert (after.choices["approval"], after.choices.get("kept/early")) == ("answered", None)
    assert await held(storage) == []
    assert (await dispositions(storage))["early"] == "applied"
    told = [kind for kind in await kinds(storage, after.saga_id) if kind in ("message_held", "event_received")]
    assert told == ["message_held", "event_received"]


async def test_in_one_batch_too(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(Asked(loan="l-1")))
    early = house.message(Approved(loan="l-1"), message_id="early")
    await house.take(early, house.answer("l-1", Checked(loan="l-1"), "check"))
    after = await house.instance("l-1")
    assert (after.choices["approval"], after.choices.get("kept/early")) == ("answered", None)
    assert await held(storage) == []
    assert (await dispositions(storage))["early"] == "applied"


async def test_of_what_is_kept_the_first_to_come_decides(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(Asked(loan="l-1")))
    await house.take(house.message(Refused(loan="l-1")))
    await house.take(house.message(Approved(loan="l-1"), message_id="second"))
    await house.take(house.answer("l-1", Checked(loan="l-1"), "check"))
    after = await house.instance("l-1")
    assert (after.choices["approval"], after.choices.get("kept/early")) == ("refused", None)
    assert after.phase == "compensated"
    assert (await dispositions(storage))["second"] == "ignored"
    assert await held(storage) == []


async def test_an_event_before_its_saga_is_kept_until_that_begins(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(Approved(loan="l-1"), message_id="early"))
    assert await held(storage) == [("loan.Approved", "early")]
    await house.take(house.message(Asked(loan="l-1")))
    assert await held(storage) == [("loan.Approved", "unawaited")]
    assert (await house.instance("l-1")).choices == {"kept/early": "1"}
    await house.take(house.answer("l-1", Checked(loan="l-1"), "check"))
    assert (await house.instance("l-1")).choices["approval"] == "answered"


async def test_what_a_timer_brings_the_flow_to_is_applied_by_the_sweep_and_not_overtaken(
    house: House, storage: SqlStorage
) -> None:
    class Rested(Loan, key="loan", version=1, name="Loan", deadline=timedelta(days=30)):
        flow = Loan.rest >> Loan.approval >> Loan.check >> Loan.signature >> Loan.pay

    house = await House(storage, definition_of(Rested)).open()
    await house.take(house.message(Changed(loan="l-1", amount=7)))
    await house.take(house.message(Refused(loan="l-1")), house.message(Refused(loan="l-1")))
    due, _ = await storage.due_timers(["Loan"], 10)
    assert await house.timers.fire(due) == 1
    assert await held(storage) == [("loan.Refused", "awaited")] * 2
    await house.take(house.message(Approved(loan="l-1")))
    assert (await house.instance("l-1")).choices["approval"] == "refused"
    await sweep_of(house).sweep()
    assert await held(storage) == []


async def test_the_sweep_applies_what_a_timer_made_ripe(house: House, storage: SqlStorage) -> None:
    class Rested(Loan, key="loan", version=1, name="Loan", deadline=timedelta(days=30)):
        flow = Loan.rest >> Loan.approval >> Loan.check >> Loan.signature >> Loan.pay

    house = await House(storage, definition_of(Rested)).open()
    await house.take(house.message(Changed(loan="l-1", amount=7)))
    await house.take(house.message(Approved(loan="l-1")))
    due, _ = await storage.due_timers(["Loan"], 10)
    await house.timers.fire(due)
    await sweep_of(house).sweep()
    assert (await house.instance("l-1")).choices["approval"] == "answered"
    assert await held(storage) == []


async def test_what_is_kept_and_never_awaited_becomes_a_dead_letter(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(Asked(loan="l-1")))
    await house.take(house.message(Approved(loan="l-1"), message_id="early"))
    await sweep_of(house).sweep()
    assert await held(storage) == [("loan.Approved", "unawaited")]
    await let_expire(storage)
    await sweep_of(house).sweep()
    assert await held(storage) == []
    assert await dead(storage) == [("early", "held_too_long")]
    assert PATIENCE == 24 * 3600


@pytest.mark.parametrize("end", ["cancelled", "failed"])
async def test_what_is_kept_is_ignored_when_its_instance_turns_back(
    house: House, storage: SqlStorage, end: str
) -> None:
    await house.take(house.message(Asked(loan="l-1")), house.message(Approved(loan="l-1"), message_id="kept"))
    refused = house.message(Withdrawn(loan="l-1")) if end == "cancelled" else house.answer("l-1", NotNow(), "check")
    early = house.message(Approved(loan="l-1"), message_id="in the same batch")
    await house.take(early, refused)
    after = await house.instance("l-1")
    assert (after.end_reason, after.choices) == (end, {})
    assert await held(storage) == []
    assert {"kept": "ignored", "in the same batch": "ignored"}.items() <= (await dispositions(storage)).items()
    told = await rows(storage, "select kind, detail from v_saga_event order by seq")
    assert [row.kind for row in told[-2:]] == ["message_ignored"] * 2


class Deed(Saga, key="loan", version=1):
    """A rest, then first one thing, then another, whatever comes first."""

    loan: str
    heard: str = ""

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(loan=event.loan)

    @sleep
    def rest(self) -> timedelta:
        return timedelta(microseconds=1)

    @wait
    def first(self, event: Approved) -> None:
        self.heard += event.by

    @wait
    def second(self, event: Changed) -> None:
        self.heard += str(event.amount)

    @step(reply=False)
    def pay(self) -> Pay:
        return Pay(loan=self.loan, amount=1)

    flow = rest >> first >> second >> pay


WITHOUT_REST = replace(definition_of(Deed), flow=SequenceNode((WaitNode("first"), WaitNode("second"), StepNode("pay"))))
EARLY = (Changed(loan="l-1", amount=1), Approved(loan="l-1", by="Ada"), Changed(loan="l-1", amount=2))
"""The second before the first; and the second once more, which comes too late."""


async def told_in_order(house: House, storage: SqlStorage) -> None:
    after = await house.instance("l-1")
    assert (after.phase, after.choices.get("kept/early")) == ("completed", None)
    assert b'"Ada1"' in after.state
    assert await held(storage) == []
    ends = [row.disposition for row in await rows(storage, "select * from v_inbox")]
    assert sorted(ends) == ["applied", "applied", "applied", "ignored"]
    told = await kinds(storage, after.saga_id)
    assert (told.count("message_held"), told.count("event_received")) == (3 if "rested" in told else 1, 2)


async def test_at_its_birth_all_that_is_kept_is_applied_as_the_flow_comes_to_it(storage: SqlStorage) -> None:
    house = await House(storage, WITHOUT_REST).open()
    for event in EARLY:
        await house.take(house.message(event))
    await house.take(house.message(Asked(loan="l-1")))
    await told_in_order(house, storage)


async def test_in_one_batch_with_its_birth_too(storage: SqlStorage) -> None:
    house = await House(storage, WITHOUT_REST).open()
    await house.take(*[house.message(event) for event in (*EARLY, Asked(loan="l-1"))])
    await sweep_of(house).sweep()
    await told_in_order(house, storage)


async def test_the_sweep_applies_all_that_is_kept_as_the_flow_comes_to_it(storage: SqlStorage) -> None:
    house = await House(storage, definition_of(Deed)).open()
    await house.take(house.message(Asked(loan="l-1")))
    for event in EARLY:
        await house.take(house.message(event))
    due, _ = await storage.due_timers(["Deed"], 10)
    await house.timers.fire(due)
    await sweep_of(house).sweep()
    await told_in_order(house, storage)


async def test_an_operator_has_all_that_is_kept_applied_as_the_flow_comes_to_it(storage: SqlStorage) -> None:
    house = await House(storage, definition_of(Deed)).open()
    await house.take(house.message(Asked(loan="l-1")))
    for event in EARLY:
        await house.take(house.message(event))
    await skip(house, "rest")
    after = await house.instance("l-1")
    assert (after.phase, await held(storage)) == ("completed", [])
    assert b'"Ada1"' in after.state


async def skip(house: House, step: str) -> None:
    """An operator goes on without a step."""
    saga = house.definition.type
    operations = Operations(
        {saga: {1: house.definition}},
        namespace=NAMESPACE,
        storage=house.storage,
        runner=house.runner,
        report=house.facts.append,
        limits=LIMITS,
    )
    skipped = Operated(action=Action.SKIP, actor="ann", reason="test", request_id=str(uuid4()), step=step)
    await operations.carry_out(Operation(saga_id=house.id_of("l-1"), operated=skipped))


async def test_what_becomes_a_dead_letter_is_kept_no_longer_and_the_history_says_so(
    house: House, storage: SqlStorage
) -> None:
    await house.take(house.message(Asked(loan="l-1")))
    await house.take(house.message(Approved(loan="l-1"), message_id="old"))
    await let_expire(storage)
    await house.take(house.message(Approved(loan="l-1"), message_id="young"))
    await sweep_of(house).sweep()
    after = await house.instance("l-1")
    assert (await dead(storage), after.choices) == ([("old", "held_too_long")], {"kept/early": "1"})
    [*_, told] = await rows(storage, "select * from v_saga_event order by seq")
    assert (told.kind, told.message_id, after.seq) == ("message_dead_lettered", "old", told.seq)


async def test_what_has_expired_waits_while_somebody_holds_its_instance(postgresql: Database) -> None:
    storage = SqlStorage(postgresql)
    house = await House(storage, definition_of(Loan)).open()
    await house.take(house.message(Asked(loan="l-1")), house.message(Approved(loan="l-1"), message_id="early"))
    await let_expire(storage)
    async with storage.transaction() as unit:
        await unit.lock([house.id_of("l-1")])
        await sweep_of(house).sweep()
    assert await held(storage) == [("loan.Approved", "unawaited")]
    await sweep_of(house).sweep()
    assert (await dead(storage), (await house.instance("l-1")).choices) == ([("early", "held_too_long")], {})


async def test_the_class_may_say_that_nothing_is_kept(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(Signed(loan="l-1"), message_id="for nobody"))
    await house.take(house.message(Withdrawn(loan="l-1"), message_id="ignored"))
    assert await dead(storage) == [("for nobody", "not_awaited")]
    await house.take(house.message(Asked(loan="l-1")))
    await house.take(house.message(Signed(loan="l-1"), message_id="too early"))
    assert await dead(storage) == [("for nobody", "not_awaited"), ("too early", "not_awaited")]
    assert await held(storage) == []
    assert (await house.instance("l-1")).phase == "running"


async def test_an_event_may_start_a_saga_or_go_on_with_the_one_that_is_there(house: House, storage: SqlStorage) -> None:
    first = house.message(Changed(loan="l-1", amount=3))
    await house.take(first, house.message(Changed(loan="l-1", amount=4)))
    await house.take(house.message(Changed(loan="l-1", amount=5)))
    await house.take(first)
    after = await house.instance("l-1")
    assert b'"amount":5' in after.state
    assert (await kinds(storage, after.saga_id)).count("signal_received") == 2


async def test_a_cancel_turns_it_back(house: House) -> None:
    await house.take(house.message(Asked(loan="l-1")), house.message(Withdrawn(loan="l-1")))
    after = await house.instance("l-1")
    assert (after.phase, after.end_reason) == ("compensated", "cancelled")


async def test_id_and_key_of_different_instances_are_a_conflict(house: House, storage: SqlStorage) -> None:
    await house.take(house.message(Asked(loan="l-1")), house.message(Asked(loan="l-2")))
    crossed = house.message(Changed(loan="l-2", amount=9), correlation_id=str(house.id_of("l-1")), message_id="crossed")
    await house.take(crossed)
    assert await dead(storage) == [("crossed", "correlation_conflict")]


async def test_an_operator_who_brings_the_flow_to_a_wait_has_what_is_kept_applied(
    house: House, storage: SqlStorage
) -> None:
    await house.take(house.message(Asked(loan="l-1")), house.message(Approved(loan="l-1")))
    assert await held(storage) == [("loan.Approved", "unawaited")]
    await skip(house, "check")
    assert (await house.instance("l-1")).choices["approval"] == "answered"
    assert await held(storage) == []


async def test_an_event_for_another_step_does_not_keep_a_step_from_timing_out(
    house: House, storage: SqlStorage
) -> None:
    await house.take(house.message(Asked(loan="l-1")), house.message(Approved(loan="l-1")))
    async with storage.transaction() as unit:
        assert await unit.awaited("Loan", [house.id_of("l-1")]) == frozenset()
