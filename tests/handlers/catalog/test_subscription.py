"""Access, billing and mail over each database: a row for each subscription, a charge for each period, each letter."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from sqlalchemy import text

from handlers.catalog.subscription import access, billing, mail
from messages.catalog.subscription import (
    ChargePeriod,
    GrantAccess,
    LockAccess,
    SendNotice,
    UnlockAccess,
    WithdrawAccess,
)
from tests.handlers.desk import Desk, asked, undo_of

if TYPE_CHECKING:
    from handlers import Participant
    from outbox.unit import SqlStorage

GRANT, WITHDRAW = GrantAccess(subscription_id="s-1", customer="Ada"), WithdrawAccess(subscription_id="s-1")
LOCK, UNLOCK = LockAccess(subscription_id="s-1"), UnlockAccess(subscription_id="s-1")


async def at_work(participant: Participant, storage: SqlStorage) -> Desk:
    async with storage.transaction() as unit:
        for table in ("access_grant", "billing_period", "mail_notice"):
            await unit.session.connection.execute(text(f"drop table if exists {table}"))
    return await Desk(participant, storage).open()


def charge(subscription_id: str, period: int = 1, *, amount: str = "9.90") -> ChargePeriod:
    return ChargePeriod(subscription_id=subscription_id, period=period, amount=Decimal(amount))


async def doors(desk: Desk) -> list[tuple[str, str, int]]:
    return [tuple(row) for row in await desk.rows("select * from access_grant")]


async def test_a_door_is_opened_locked_unlocked_and_gone_at_the_end(storage: SqlStorage) -> None:
    desk = await at_work(access, storage)
    try:
        await desk.take(asked(GRANT), asked(GRANT))
        assert await doors(desk) == [("s-1", "Ada", 0)]
        await desk.take(asked(LOCK, key="s/2/do"))
        assert await doors(desk) == [("s-1", "Ada", 1)]
        await desk.take(asked(UNLOCK, key="s/3/do"))
        assert await doors(desk) == [("s-1", "Ada", 0)]
        await desk.take(asked(WITHDRAW, key="s/4/do"))
        assert await doors(desk) == []
        told = [delivery.raw.type for delivery in await desk.replies(5)]
        assert told == [
            "access.AccessGranted",
            "access.AccessGranted",
            "access.AccessLocked",
            "access.AccessUnlocked",
            "access.AccessWithdrawn",
        ]
    finally:
        await desk.close()


async def test_what_is_taken_back_is_gone_too_and_does_not_come_again(storage: SqlStorage) -> None:
    desk = await at_work(access, storage)
    try:
        await desk.take(undo_of(WITHDRAW), asked(GRANT))
        assert await doors(desk) == []
        await desk.take(asked(GRANT, key="s/2/do"), undo_of(WITHDRAW, key="s/2/do"))
        assert await doors(desk) == []
    finally:
        await desk.close()


async def test_a_stranger_is_not_let_in(storage: SqlStorage) -> None:
    desk = await at_work(access, storage)
    try:
        await desk.take(asked(GrantAccess(subscription_id="s-1-no-access", customer="Eve")))
        assert (await desk.reply()).type == "access.AccessRefused"
        assert await doors(desk) == []
    finally:
        await desk.close()


async def test_a_period_is_charged_once_however_often_it_is_asked_for(storage: SqlStorage) -> None:
    desk = await at_work(billing, storage)
    try:
        await desk.take(asked(charge("s-1")), asked(charge("s-1", amount="20"), key="s/2/do"))
        await desk.take(asked(charge("s-1", 2, amount="20"), key="s/3/do"))
        assert [delivery.raw.type for delivery in await desk.replies(3)] == ["billing.PeriodPaid"] * 3
        paid = await desk.rows("select period, paid from billing_period order by period")
        assert [tuple(row) for row in paid] == [(1, "9.90"), (2, "20")]
    finally:
        await desk.close()


async def test_a_declined_card_may_be_charged_when_it_is_tried_again(storage: SqlStorage) -> None:
    desk = await at_work(billing, storage)
    try:
        for number, who in enumerate(("declined", "declined", "declined-once", "declined-once")):
            await desk.take(asked(charge(who), key=f"s/{number}/do"))
        told = [delivery.raw.type for delivery in await desk.replies(4)]
        assert told == [*["billing.ChargeDeclined"] * 3, "billing.PeriodPaid"]
        paid = await desk.rows("select subscription_id, tries, paid from billing_period order by 1")
        assert [tuple(row) for row in paid] == [("declined", 2, None), ("declined-once", 2, "9.90")]
    finally:
        await desk.close()


async def test_a_letter_is_written_once(storage: SqlStorage) -> None:
    desk = await at_work(mail, storage)
    try:
        letter = SendNotice(subscription_id="s-1", customer="Ada", text="Goodbye.")
        await desk.take(asked(letter), asked(letter))
        assert [tuple(row)[1:] for row in await desk.rows("select * from mail_notice")] == [("Ada", "Goodbye.")]
    finally:
        await desk.close()
