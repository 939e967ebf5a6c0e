"""How the ordering process is put together for the demo: hurried, and with two participants that misbehave.

This is the place where any process that embeds Antiphon chooses policies and wraps participants: the classes stay as
they are.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from runtime.demo.orders import LATE, SILENT, told
from runtime.loading import load_modules
from runtime.settings import CATALOGS, Settings
from sagas import Patience, Policies, Retry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from handlers import Context
    from handlers.participant import Around
    from messages import Command, Event
    from runtime.loading import Known

DATABASE = "antiphon-demo.db"
ADDRESS = f"sqlite:///{DATABASE}"

MODULES = tuple(f"{catalog}.ordering" for catalog in CATALOGS)
SAGA = "PlaceOrder"
TIMEOUT = timedelta(seconds=1)
SENDS = 2

_HURRIED = Patience(
    timeout=TIMEOUT,
    retry=Retry(attempts=SENDS, backoff=timedelta(milliseconds=200), factor=1.0, cap=TIMEOUT),
)
POLICIES = {SAGA: Policies(calls={"pay": _HURRIED, "label": _HURRIED})}


def settings() -> Settings:
    """The settings of the demo; what the environment says is meant for other processes."""
    return Settings.model_validate({"database_url": ADDRESS, "sweep": 0.1, "lease": 5.0, "log_level": "warning"})


def known(until_given_up: Callable[[str], Awaitable[None]]) -> Known:
    """The ordering process with the demo's policies and participants.

    Args:
        until_given_up: Returns when the saga of that key waits no more for the step that it is in.
    """
    found = load_modules(MODULES, POLICIES)
    wrapped = {
        "payment": found.participants["payment"].around(_late(until_given_up)),
        "warehouse": found.participants["warehouse"].around(_silent),
    }
    return replace(found, participants={**found.participants, **wrapped})


def _late(until_given_up: Callable[[str], Awaitable[None]]) -> Around:
    """Takes the payment only when nobody waits for it any more, and then says so."""

    async def around(
        command: Command, _context: Context, proceed: Callable[[], Awaitable[Event | None]]
    ) -> Event | None:
        if _told_by(command, "payment.MakePayment") is LATE:
            await until_given_up(_order_id(command))
        return await proceed()

    return around


async def _silent(command: Command, _context: Context, proceed: Callable[[], Awaitable[Event | None]]) -> Event | None:
    """Makes the label, and never says so."""
    reply = await proceed()
    return None if _told_by(command, "warehouse.CreateShippingLabel") is SILENT else reply


def _told_by(command: Command, name: str) -> object:
    """The story of the order that a command of this name belongs to; None for other commands and other orders."""
    order = told(_order_id(command)) if command.message_name == name else None
    return order.story if order else None


def _order_id(command: Command) -> str:
    return str(command.model_dump(include={"order_id"})["order_id"])
