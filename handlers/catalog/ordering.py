"""The participants of the ordering process: stock, payment and warehouse, each with tables of its own.

They stand in for real services, so some words steer them:

| where | word | what happens |
|---|---|---|
| article (`sku`) | ends in `-soldout` | there is none of it: `OutOfStock`; of every other one there are 1 000 000 |
| order id | contains `declined` | `PaymentDeclined` |
| order id | contains `expired-card` | `CardExpired` |
| order id | contains `busy` | `PaymentGatewayBusy` at the first attempt |
| order id | contains `label-refused` | `LabelRefused` |

An undo finds what it takes back by `context.compensates`, never by the body: the saga may not have heard the reply.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING
from uuid import NAMESPACE_DNS, uuid5

from sqlalchemy import text

from handlers import Context, Participant
from messages.catalog.ordering import (
    CardExpired,
    CreateShippingLabel,
    LabelRefused,
    MakePayment,
    OutOfStock,
    PaymentCompleted,
    PaymentDeclined,
    PaymentGatewayBusy,
    PaymentRefunded,
    RefundPayment,
    ReleaseStock,
    ReserveStock,
    ShippingLabelCreated,
    ShippingLabelVoided,
    StockReleased,
    StockReserved,
    VoidShippingLabel,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

FIRST_LEVEL = 1_000_000
SOLD_OUT = "-soldout"

_ORDERING = uuid5(NAMESPACE_DNS, "ordering.antiphon")


def _number(prefix: str, idempotency_key: str) -> str:
    """An id that is the same however often the effect is tried."""
    return f"{prefix}-{uuid5(_ORDERING, idempotency_key).hex[:16]}"


# stock

stock = Participant("stock")

_TAKE_FROM_STOCK = text(
    "update stock_level set on_hand = on_hand - :quantity where sku = :sku and on_hand >= :quantity"
)
_STOCK_UP = text("insert into stock_level (sku, on_hand) values (:sku, :level) on conflict (sku) do nothing")
_PUT_BACK = text("update stock_level set on_hand = on_hand + :quantity where sku = :sku")
_PUT_ASIDE = text("""
    insert into stock_reservation (idempotency_key, sku, quantity, reservation_id, order_id)
    values (:idempotency_key, :sku, :quantity, :reservation_id, :order_id)
""")
_DISSOLVE = text("delete from stock_reservation where idempotency_key = :idempotency_key returning sku, quantity")


@stock.setup
async def stock_tables(connection: AsyncConnection) -> None:
    """What is on hand, and what is put aside for which order."""
    await connection.execute(
        text("create table if not exists stock_level (sku text primary key, on_hand bigint not null)")
    )
    await connection.execute(
        text("""
            create table if not exists stock_reservation (
                idempotency_key text not null, sku text not null, quantity bigint not null,
                reservation_id text not null, order_id text not null, primary key (idempotency_key, sku)
            )
        """)
    )


@stock.handles
async def reserve(command: ReserveStock, context: Context) -> StockReserved | OutOfStock:
    """Put everything aside or nothing."""
    wanted = Counter[str]()
    for line in command.lines:
        wanted[line.sku] += line.quantity
    taken: dict[str, int] = {}
    for sku, quantity in sorted(wanted.items()):  # in one order everywhere, so that nobody waits in a circle
        if not await _take(context.connection, sku, quantity):
            await _put_back(context.connection, taken)
            return OutOfStock(order_id=command.order_id)
        taken[sku] = quantity
    reservation_id = _number("reservation", context.idempotency_key)
    rows = [
        {
            "idempotency_key": context.idempotency_key,
            "sku": sku,
            "quantity": quantity,
            "reservation_id": reservation_id,
            "order_id": command.order_id,
        }
        for sku, quantity in wanted.items()
    ]
    if rows:
        await context.connection.execute(_PUT_ASIDE, rows)
    return StockReserved(order_id=command.order_id, reservation_id=reservation_id)


async def _take(connection: AsyncConnection, sku: str, quantity: int) -> bool:
    """Take from what is on hand; an article nobody has asked for before is stocked up first."""
    row = {"sku": sku, "quantity": quantity}
    if (await connection.execute(_TAKE_FROM_STOCK, row)).rowcount:
        return True
    level = 0 if sku.endswith(SOLD_OUT) else FIRST_LEVEL
    await connection.execute(_STOCK_UP, {"sku": sku, "level": level})  # waits for whoever does the same
    return bool((await connection.execute(_TAKE_FROM_STOCK, row)).rowcount)


async def _put_back(connection: AsyncConnection, quantities: Mapping[str, int]) -> None:
    rows = [{"sku": sku, "quantity": quantity} for sku, quantity in sorted(quantities.items())]
    if rows:
        await connection.execute(_PUT_BACK, rows)


@stock.handles
async def release(command: ReleaseStock, context: Context) -> StockReleased:
    """Put back what was put aside, if anything was."""
    aside = await context.connection.execute(_DISSOLVE, {"idempotency_key": context.compensates})
    await _put_back(context.connection, {row.sku: row.quantity for row in aside})
    return StockReleased(order_id=command.order_id)


# payment

payment = Participant("payment")

_TAKE_PAYMENT = text("""
    insert into payment (idempotency_key, payment_id, order_id, amount, status)
    values (:idempotency_key, :payment_id, :order_id, :amount, 'taken')
""")
_REFUND = text("update payment set status = 'refunded' where idempotency_key = :idempotency_key")

_turned_away: set[str] = set()
"""The payments that the provider was too busy for once. It is another system: no transaction of ours takes it back."""


@payment.setup
async def payment_tables(connection: AsyncConnection) -> None:
    """What was taken, and what was given back."""
    await connection.execute(
        text("""
            create table if not exists payment (
                idempotency_key text primary key, payment_id text not null, order_id text not null,
                amount text not null, status text not null
            )
        """)
    )


@payment.handles(transient=PaymentGatewayBusy)
async def pay(
    command: MakePayment, context: Context
) -> PaymentCompleted | PaymentDeclined | CardExpired | PaymentGatewayBusy:
    """Take the amount, unless the provider says otherwise."""
    refusal = _provider(command.order_id, context.idempotency_key)
    if refusal is not None:
        return refusal
    payment_id = _number("payment", context.idempotency_key)
    await context.connection.execute(
        _TAKE_PAYMENT,
        {
            "idempotency_key": context.idempotency_key,
            "payment_id": payment_id,
            "order_id": command.order_id,
            "amount": str(command.amount),
        },
    )
    return PaymentCompleted(order_id=command.order_id, payment_id=payment_id)


def _provider(order_id: str, idempotency_key: str) -> PaymentDeclined | CardExpired | PaymentGatewayBusy | None:
    if "declined" in order_id:
        return PaymentDeclined(order_id=order_id)
    if "expired-card" in order_id:
        return CardExpired(order_id=order_id)
    if "busy" in order_id and idempotency_key not in _turned_away:
        _turned_away.add(idempotency_key)
        return PaymentGatewayBusy(order_id=order_id)
    _turned_away.discard(idempotency_key)
    return None


@payment.handles
async def refund(command: RefundPayment, context: Context) -> PaymentRefunded:
    """Give back what was taken, if anything was."""
    await context.connection.execute(_REFUND, {"idempotency_key": context.compensates})
    return PaymentRefunded(order_id=command.order_id)


# warehouse

warehouse = Participant("warehouse")

_MAKE_LABEL = text("""
    insert into shipping_label (idempotency_key, tracking_code, order_id, status)
    values (:idempotency_key, :tracking_code, :order_id, 'created')
""")
_VOID_LABEL = text("update shipping_label set status = 'voided' where idempotency_key = :idempotency_key")


@warehouse.setup
async def label_tables(connection: AsyncConnection) -> None:
    """The labels, void ones too."""
    await connection.execute(
        text("""
            create table if not exists shipping_label (
                idempotency_key text primary key, tracking_code text not null, order_id text not null,
                status text not null
            )
        """)
    )


@warehouse.handles
async def create_label(command: CreateShippingLabel, context: Context) -> ShippingLabelCreated | LabelRefused:
    """Make a label, unless the carrier does not take the parcel."""
    if "label-refused" in command.order_id:
        return LabelRefused(order_id=command.order_id)
    tracking_code = _number("track", context.idempotency_key)
    await context.connection.execute(
        _MAKE_LABEL,
        {
            "idempotency_key": context.idempotency_key,
            "tracking_code": tracking_code,
            "order_id": command.order_id,
        },
    )
    return ShippingLabelCreated(order_id=command.order_id, tracking_code=tracking_code)


@warehouse.handles
async def void_label(command: VoidShippingLabel, context: Context) -> ShippingLabelVoided:
    """Take the label back, if there is one."""
    await context.connection.execute(_VOID_LABEL, {"idempotency_key": context.compensates})
    return ShippingLabelVoided(order_id=command.order_id)
