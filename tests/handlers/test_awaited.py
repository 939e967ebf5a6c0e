"""A command that is replayed is not carried out for a saga in the same database that does not wait for it any more."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from handlers import Participant
from handlers.give_back import GiveBack
from handlers.replay import Replayer
from handlers.replay_command import CommandReplayer
from handlers.replays import Replays
from handlers.verdict import Request, Verdict
from messages.catalog.ordering import OutOfStock, PaymentDeclined, ReleaseStock, ReserveStock, StockReleased
from messages.catalog.ordering import StockReserved as Reserved
from outbox.interface import Changes
from sagas.instance import CallProgress, CallStatus, Phase, StepProgress
from tests.handlers.desk import LIMITS, NAMESPACE, Desk, asked
from tests.handlers.house import House, placed, rows
from tests.outbox.building import dead_letter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from messages import Command
    from outbox.unit import SqlStorage

RESERVED = Reserved(order_id="o-1", reservation_id="r-1")
RESERVE = ReserveStock(order_id="o-1", lines=placed().lines)
RELEASE = ReleaseStock(order_id="o-1", reservation_id=None)


class Shop:
    """A saga, and a participant beside it in the same database whose letters are replayed."""

    def __init__(self, storage: SqlStorage) -> None:
        self.storage = storage
        self.house = House(storage)
        self.carried_out: list[str] = []
        stock = Participant("stock")

        @stock.handles
        async def reserve(_command: ReserveStock) -> Reserved:
            self.carried_out.append("reserve")
            return RESERVED

        @stock.handles
        async def release(_command: ReleaseStock) -> StockReleased:
            self.carried_out.append("release")
            return StockReleased(order_id="o-1")

        self.desk = Desk(stock, storage)

    async def begin(self) -> None:
        """The order is placed, and its first command is out."""
        await self.house.open()
        await self.house.take(self.house.message(placed()))

    async def replay(
        self, command: Command, path: str, purpose: str = "do", *, queue: str | None = None, dry_run: bool = False
    ) -> Verdict:
        """Replay a letter of that command of the order."""
        house, storage = self.house, self.storage
        key = f"{house.id_of('o-1')}/{path}/1/{purpose}"
        raw = asked(command, key=key, message_id=house.command_id("o-1", path, purpose))
        raw = replace(raw, correlation_id=str(house.id_of("o-1")))
        consumer = "participant.stock" if queue is None else "elsewhere"
        kept = dead_letter(raw.message_id or "", raw.body, consumer=consumer, name=raw.type or "", raw=raw, queue=queue)
        if not await rows(storage, "select 1 from v_dead_letter"):
            async with storage.transaction() as unit:
                await unit.save(Changes(consumer="test", dead_letters=[kept]))
        [letter] = await rows(storage, "select dead_letter_id from v_dead_letter")
        runner, report = house.runner, house.facts.append
        give_back = GiveBack(storage, runner, limits=LIMITS)
        sagas = Replayer({}, namespace=NAMESPACE, storage=storage, runner=runner, report=report, limits=LIMITS)
        participants = {"stock": CommandReplayer(self.desk.answering, storage, runner)}
        replays = Replays(storage, namespace=NAMESPACE, sagas=sagas, participants=participants, give_back=give_back)
        request = Request(dead_letter_id=letter.dead_letter_id, actor="ada", reason="mended", request_id=str(uuid4()))
        return await replays.replay(request, dry_run=dry_run)

    async def left(self) -> list[str]:
        return [row.status for row in await rows(self.storage, "select status from v_dead_letter")]


@pytest.fixture
async def shop(storage: SqlStorage) -> AsyncIterator[Shop]:
    shop = Shop(storage)
    await shop.begin()
    yield shop


async def test_what_the_saga_waits_for_is_carried_out(shop: Shop) -> None:
    assert (await shop.replay(RESERVE, "reserve", dry_run=True)).outcome == "processed"
    assert (await shop.replay(RESERVE, "reserve")).outcome == "processed"
    assert shop.carried_out == ["reserve"]


async def test_a_command_of_a_saga_that_has_ended_is_not_carried_out_and_the_dry_run_says_so(shop: Shop) -> None:
    await shop.house.take(shop.house.answer("o-1", OutOfStock(order_id="o-1"), "reserve"))
    would = await shop.replay(RESERVE, "reserve", dry_run=True)
    assert await shop.left() == ["open"]
    verdict = await shop.replay(RESERVE, "reserve")
    assert (verdict.outcome, verdict.detail) == (would.outcome, would.detail)
    assert verdict.outcome == "ignored"
    assert verdict.detail == ("nobody waits for it any more, so it is not carried out: PlaceOrder 'o-1' is compensated")
    assert (await shop.left(), shop.carried_out) == (["replayed"], [])


async def test_a_command_whose_step_has_ended_is_not_carried_out(shop: Shop) -> None:
    await shop.house.take(shop.house.answer("o-1", RESERVED, "reserve"))
    verdict = await shop.replay(RESERVE, "reserve")
    assert verdict.outcome == "ignored"
    assert verdict.detail.endswith(": step reserve of PlaceOrder 'o-1' is done with (succeeded)")
    assert shop.carried_out == []


async def test_an_undo_that_is_waited_for_is_carried_out(shop: Shop) -> None:
    house = shop.house
    declined = house.answer("o-1", PaymentDeclined(order_id="o-1"), "pay")
    await house.take(house.answer("o-1", RESERVED, "reserve"), declined)
    assert (await shop.replay(RELEASE, "reserve", "undo")).outcome == "processed"
    assert shop.carried_out == ["release"]


async def test_a_step_in_doubt_whose_undo_needs_its_reply_is_waited_for(shop: Shop) -> None:
    before = await shop.house.instance("o-1")
    do = replace(before.steps["reserve"].do, status=CallStatus.IN_DOUBT)
    undo = CallProgress(status=CallStatus.BLOCKED, sends=0, spent=0)
    step = StepProgress(do=do, undo=undo)
    after = replace(before, phase=Phase.COMPENSATING, steps={"reserve": step}, revision=before.revision + 1)
    async with shop.storage.transaction() as unit:
        await unit.save(Changes(consumer="PlaceOrder", updated=[(before, after)]))
    assert (await shop.replay(RESERVE, "reserve")).outcome == "processed"


async def test_of_a_command_that_nobody_answers_nobody_says_that_it_is_not_wanted(storage: SqlStorage) -> None:
    shop = Shop(storage)
    whole = shop.house.definition
    reserve = whole.steps["reserve"]
    mute = replace(reserve, do=replace(reserve.do, replies={}))
    shop.house = House(storage, replace(whole, steps={**whole.steps, "reserve": mute}))
    await shop.begin()
    assert (await shop.house.instance("o-1")).steps["reserve"].do.status is CallStatus.SUCCEEDED
    assert (await shop.replay(RESERVE, "reserve")).outcome == "processed"


async def test_what_nobody_waits_for_is_not_given_back_to_a_participant_elsewhere(shop: Shop) -> None:
    assert (await shop.replay(RESERVE, "reserve", queue="elsewhere", dry_run=True)).outcome == "given_back"
    await shop.house.take(shop.house.answer("o-1", OutOfStock(order_id="o-1"), "reserve"))
    assert (await shop.replay(RESERVE, "reserve", queue="elsewhere", dry_run=True)).outcome == "ignored"
    assert (await shop.replay(RESERVE, "reserve", queue="elsewhere")).outcome == "ignored"
    assert await shop.left() == ["replayed"]
    assert not await rows(shop.storage, "select 1 from outbox where routing_key = 'elsewhere'")
