"""What tests leave on a broker, and its removal.

AMQP cannot list what there is, and a broker given by URL need not have a management API; so every name that a test
declares in its namespace stands here. Where there is the API, a test that left anything else behind fails.
"""

from __future__ import annotations

import urllib.parse

import aio_pika

from tests.services.keeping import RABBITMQ, ask
from tests.services.management import Management

_SAGAS = (
    "A",
    "ApproveLoan",
    "B",
    "BookTrip",
    "CourtCase",
    "Delivery",
    "Freight",
    "GrimOrder",
    "Order",
    "PayOut",
    "PlaceOrder",
    "Removal",
    "Room",
    "Subscription",
    "Test",
    "Tiny",
    "TravelOrder",
)
_PARTICIPANTS = (
    *("audit", "grim", "p", "payment", "rival", "stock", "warehouse", "worker"),
    *("airline", "bank", "hotel", "post", "railway", "rental"),
    *("access", "billing", "mail"),
    *("bureau", "identity", "lending", "second-bureau", "treasury"),
    *("back-office", "cash-pool", "clearing"),
    *("biller", "packer"),
)
_LEDGERS = (
    *("payment", "stock", "warehouse"),
    *("car", "cashier", "hostel", "inn", "lounge", "plane", "post", "train"),
    *("clerk", "herald", "scribe", "vault"),
    *("captain", "crane", "pilot", "stamp"),
    *("boxes", "carrier", "notary", "sweeper", "van"),
)

QUEUES = (
    "dead",
    *(f"saga.{name}" for name in _SAGAS),
    *(f"participant.{name}" for name in _PARTICIPANTS),
    *(f"ledger.{name}" for name in _LEDGERS),
)
EXCHANGES = ("events", "commands", "dead")


async def remove(broker_url: str, namespace: str) -> None:
    """Delete the queues and exchanges of a namespace; to delete what is not there is no error."""
    async with await aio_pika.connect(broker_url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        for queue in QUEUES:
            await channel.queue_delete(f"{namespace}.{queue}")
        for exchange in EXCHANGES:
            await channel.exchange_delete(f"{namespace}.{exchange}")


async def clear(broker_url: str, namespace: str) -> None:
    """Remove what is known, and see that nothing else was left behind, where the broker can tell.

    Raises:
        AssertionError: something was.
    """
    await remove(broker_url, namespace)
    management_url = ask(RABBITMQ).management_url
    if management_url is not None:
        vhost = urllib.parse.unquote(urllib.parse.urlsplit(broker_url).path[1:])
        left = Management(management_url).named(vhost, f"{namespace}.")
        assert not left, f"left on the broker: {left}; delete it in the test, or add it to tests/services/leftovers.py"
