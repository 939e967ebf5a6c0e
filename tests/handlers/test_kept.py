"""Events that are kept until their instance has come to them: applied once, in order, whatever brings it there."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, Self
from uuid import uuid4

import sagas.decide
from messages.envelope import Raw
from sagas import Saga, definition_of, lifecycle, on, signal, start, step, wait
from storage.statements import Statement
from tests.handlers.house import House, kinds
from tests.handlers.test_heard import (
    Approved,
    Asked,
    Changed,
    Check,
    Checked,
    Pay,
    Refused,
    Signed,
    dispositions,
    held,
    sweep_of,
)

if TYPE_CHECKING:
    import pytest

    from outbox.unit import SqlStorage


class Base(Saga, abstract=True):
    loan: str
    heard: int = 0

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(loan=event.loan)

    @step(success=Checked)
    def check(self) -> Check:
        return Check(loan=self.loan)

    @step(reply=False)
    def pay(self) -> Pay:
        return Pay(loan=self.loan, amount=1)


class Loan(Base, key="loan", version=1):
    """An approval that may stay away, then a signature."""

    @wait(timeout=timedelta(days=2))
    def approval(self, event: Approved) -> None: ...

    @approval.on_timeout
    def nobody(self) -> None: ...

    @wait
    def signature(self, event: Signed) -> None:
        self.heard += 1

    flow = Base.check >> approval >> signature >> Base.pay


class Loop(Base, key="loan", version=1):
    """Two ways that take the same event, with a third between them."""

    @on("a", elsewhere="keep")
    def first(self, event: Approved) -> Literal["b"]:
        return "b"

    @on("b", "d", elsewhere="keep")
    def second(self, event: Changed) -> Literal["c", "e"]:
        self.heard += 1
        return "c" if self.heard == 1 else "e"

    @on("c", elsewhere="keep")
    def third(self, event: Refused) -> Literal["d"]:
        return "d"

    flow = Base.check >> lifecycle("a", final=["e"]) >> Base.pay


class Imported(Saga, key="loan", version=1):
    """One that starts with what it hears later, too."""

    loan: str

    @start
    def imported(cls, event: Changed) -> Self:
        return cls(loan=event.loan)

    @signal
    def changed(self, event: Changed) -> None: ...

    @step(reply=False)
    def pay(self) -> Pay:
        return Pay(loan=self.loan, amount=1)

    @step(reply=False)
    def check(self) -> Check:
        return Check(loan=self.loan)

    flow = pay >> check


def expired(house: House, key: str, timer: str, entry: str) -> Raw:
    """The marker of a timer that has fired."""
    return Raw(
        body=json.dumps({"timer": timer, "entry": entry}).encode(),
        routing_key=house.handler.saga.queue,
        message_id=str(uuid4()),
        type="antiphon.GiveUp",
        content_type="application/json",
        correlation_id=str(house.id_of(key)),
        app_id="antiphon",
    )


async def test_what_is_kept_is_looked_at_as_often_as_there_is_of_it(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await House(storage, definition_of(Loan)).open()
    decided, decide = [], sagas.decide.decide

    def counted(*args: object) -> object:
        decided.append(args)
        return decide(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(sagas.decide, "decide", counted)
    await house.take(house.message(Asked(loan="l")), house.answer("l", Checked(loan="l"), "check"))
    decided.clear()
    await house.take(*(house.message(Signed(loan="l")) for _ in range(40)))
    assert len(decided) <= 3 * 40
    assert (await house.instance("l")).choices["kept/early"] == "40"


async def test_the_later_before_the_earlier(storage: SqlStorage) -> None:
    house = await House(storage, definition_of(Loan)).open()
    await house.take(house.message(Asked(loan="l")))
    await house.take(house.message(Signed(loan="l"), message_id="signed"))
    await house.take(house.message(Approved(loan="l"), message_id="approved"))
    await house.take(house.answer("l", Checked(loan="l"), "check"))
    after = await house.instance("l")
    assert (after.phase, after.choices) == ("completed", {"approval": "answered", "signature": "answered"})
    assert await held(storage) == []
    ends = await dispositions(storage)
    assert (ends["signed"], ends["approved"]) == ("applied", "applied")


async def test_a_timeout_brings_the_flow_to_what_is_kept(storage: SqlStorage) -> None:
    house = await House(storage, definition_of(Loan)).open()
    await house.take(house.message(Asked(loan="l")), house.answer("l", Checked(loan="l"), "check"))
    await house.take(house.message(Signed(loan="l")))
    due = (await house.instance("l")).choices["approval/timeout"]
    await house.take(expired(house, "l", "approval/timeout", due))
    after = await house.instance("l")
    assert (after.phase, after.choices) == ("completed", {"approval": "expired", "signature": "answered"})
    assert await held(storage) == []


async def test_what_was_applied_is_applied_no_second_time(storage: SqlStorage) -> None:
    house = await House(storage, definition_of(Loop)).open()
    await house.take(house.message(Asked(loan="l")))
    await house.take(house.message(Changed(loan="l", amount=5)))
    await house.take(house.message(Approved(loan="l")))
    await house.take(house.answer("l", Checked(loan="l"), "check"))
    after = await house.instance("l")
    assert (after.choices["lifecycle"], after.choices.get("kept/early")) == ("c", None)
    await house.take(house.message(Refused(loan="l")))
    after = await house.instance("l")
    assert (after.choices["lifecycle"], b'"heard":1' in after.state) == ("d", True)
    assert (await kinds(storage, after.saga_id)).count("event_received") == 3
    assert await held(storage) == []


async def test_an_event_for_a_saga_that_is_no_more_is_one_for_nobody(storage: SqlStorage) -> None:
    house = await House(storage, definition_of(Imported)).open()
    await house.take(house.message(Changed(loan="l", amount=1)))
    async with storage.database.write() as session:
        for table in ("attention", "timer", "saga_event", "saga"):
            await session.fetch(Statement.both(f"delete from {table}"), {})  # noqa: S608
    await house.take(house.message(Changed(loan="l", amount=2)))
    await sweep_of(house).sweep()
    assert await held(storage) == []
