"""A hand-written ordering service: aio-pika and the SQLAlchemy ORM over asyncpg, one transaction per message.

The inbox row, the saga and the outbox row are mapped objects and go out in one flush. A message that was handled before
is found by the inbox's primary key when the flush fails on it, which costs nothing in the usual case.
"""

from __future__ import annotations

import json
import uuid  # noqa: TC003 - read by the mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import LargeBinary, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from bench import by_hand, wire
from bench.by_hand import Command, command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

CONNECTIONS = 16


def _now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """The mapped classes."""


class Inbox(Base):
    """A message that was handled."""

    __tablename__ = "inbox"
    message_id: Mapped[str] = mapped_column(primary_key=True)


class Saga(Base):
    """One order on its way."""

    __tablename__ = "saga"
    order_id: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str]
    amount: Mapped[str]
    reservation_id: Mapped[str | None]
    payment_id: Mapped[str | None]
    tracking_code: Mapped[str | None]


class Outbox(Base):
    """A command that the broker has not confirmed yet."""

    __tablename__ = "outbox"
    message_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    order_id: Mapped[str]
    name: Mapped[str]
    body: Mapped[bytes] = mapped_column(LargeBinary)
    causation_id: Mapped[str]

    @classmethod
    def of(cls, outgoing: Command) -> Outbox:
        """The row of a command."""
        return cls(
            message_id=outgoing.message_id,
            order_id=outgoing.order_id,
            name=outgoing.name,
            body=outgoing.body,
            causation_id=outgoing.causation_id,
        )


class OrmBooks:
    """The database half on a pool of sessions."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions

    async def place(self, message_id: str, order_id: str, body: bytes) -> Command | None:
        """See `Books.place`."""
        order = json.loads(body)
        first = command(order_id, wire.RESERVE_STOCK, message_id, lines=order["lines"])
        try:
            async with self._sessions() as session, session.begin():
                session.add(Inbox(message_id=message_id))
                session.add(Saga(order_id=order_id, status="reserving", amount=order["total"]))
                session.add(Outbox.of(first))
        except IntegrityError:
            return None
        return first

    async def advance(self, message_id: str, order_id: str, reply: str, body: bytes) -> Command | None:
        """See `Books.advance`."""
        try:
            async with self._sessions() as session, session.begin():
                saga = await session.get(Saga, order_id, with_for_update=True)
                if saga is None:
                    return None
                session.add(Inbox(message_id=message_id))
                following = _move(saga, reply, json.loads(body), message_id)
                if following:
                    session.add(Outbox.of(following))
        except IntegrityError:
            return None
        return following

    async def forget(self, message_ids: Sequence[uuid.UUID]) -> None:
        """See `Books.forget`."""
        async with self._sessions() as session, session.begin():
            await session.execute(
                delete(Outbox).where(Outbox.message_id.in_(message_ids)),
                execution_options={"synchronize_session": False},
            )

    async def unsent(self) -> Sequence[Command]:
        """See `Books.unsent`."""
        async with self._sessions() as session:
            rows = await session.scalars(select(Outbox))
            return [
                Command(
                    message_id=row.message_id,
                    order_id=row.order_id,
                    name=row.name,
                    body=row.body,
                    causation_id=row.causation_id,
                )
                for row in rows
            ]


def _move(saga: Saga, reply: str, brought: dict[str, str], message_id: str) -> Command | None:
    match saga.status, reply:
        case "reserving", wire.STOCK_RESERVED:
            saga.status, saga.reservation_id = "paying", brought["reservation_id"]
            return command(saga.order_id, wire.MAKE_PAYMENT, message_id, amount=saga.amount)
        case "paying", wire.PAYMENT_COMPLETED:
            saga.status, saga.payment_id = "shipping", brought["payment_id"]
            return command(saga.order_id, wire.CREATE_LABEL, message_id)
        case "shipping", wire.LABEL_CREATED:
            saga.status, saga.tracking_code = "completed", brought["tracking_code"]
    return None


@asynccontextmanager
async def open_books(database_url: str) -> AsyncIterator[OrmBooks]:
    """Connect and create the tables."""
    url = "postgresql+asyncpg://" + database_url.partition("://")[2]
    engine = create_async_engine(url, pool_size=CONNECTIONS, max_overflow=0)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield OrmBooks(async_sessionmaker(engine, expire_on_commit=False))
    await engine.dispose()


if __name__ == "__main__":
    by_hand.main(open_books, "The ordering saga by hand: aio-pika and the SQLAlchemy ORM.")
