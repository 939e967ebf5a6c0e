"""What stands in the demo's file: the orders of its runs, and what is still under way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import schema
from runtime.database import connected
from runtime.demo.orders import told
from runtime.demo.staging import DATABASE, SAGA, settings
from storage.queries import Queries, SagaFilter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from uuid import UUID

    from runtime.demo.orders import Order
    from storage.queries import SagaDetail, SagaSummary

_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An order, and how its saga stands."""

    order: Order
    saga: SagaSummary

    @property
    def under_way(self) -> bool:
        """Whether the engine has still something to do for it by itself."""
        return self.saga.ended_at is None and self.saga.status != "parked"

    @property
    def as_expected(self) -> bool:
        """Whether it has ended as its story says."""
        story = self.order.story
        return (self.saga.status, self.saga.end_reason) == (story.status, story.end_reason)

    @property
    def seconds(self) -> float | None:
        """From its start to its end; None while it has none."""
        return (self.saga.ended_at - self.saga.started_at).total_seconds() if self.saga.ended_at else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The demo's orders as they stand, by run and number, and how many messages are still to be sent."""

    orders: Sequence[Standing]
    outbox: int

    @property
    def unfinished(self) -> list[Order]:
        """The orders that are under way."""
        return [each.order for each in self.orders if each.under_way]

    @property
    def latest_run(self) -> int:
        """The number of the latest run that began an order; 0 when none did."""
        return max((each.order.run for each in self.orders), default=0)

    def of(self, runs: Collection[int]) -> list[Standing]:
        """The orders of these runs."""
        return [each for each in self.orders if each.order.run in runs]


NOTHING = Found(orders=(), outbox=0)


async def look() -> Found:
    """What runs of the demo have left in the current folder. Changes nothing, and works beside a run.

    Raises:
        ConfigurationError: the file is no database.
        Trouble: the database does not answer.
    """
    if not _exists():
        return NOTHING
    async with connected(settings()) as database:
        if await schema.problem(database) is not None:
            return NOTHING  # whoever began to make it was stopped before the first order
        queries = Queries(database)
        sagas = await _sagas(queries)
        outbox = (await queries.counts()).outbox
    orders = [Standing(order=order, saga=saga) for saga in sagas if (order := told(saga.business_key))]
    return Found(orders=sorted(orders, key=lambda each: (each.order.run, each.order.number)), outbox=outbox)


async def details(sagas: Iterable[SagaSummary]) -> list[SagaDetail]:
    """Everything about these.

    Raises:
        Trouble: the database does not answer.
    """
    async with connected(settings()) as database:
        queries = Queries(database)
        return [found for saga in sagas if (found := await queries.saga(saga.saga_id)) is not None]


def _exists() -> bool:
    return Path(DATABASE).exists()


async def _sagas(queries: Queries) -> list[SagaSummary]:
    found: list[SagaSummary] = []
    following: UUID | None = None
    while True:
        page = await queries.sagas(SagaFilter(saga_type=SAGA), limit=_PAGE, following=following)
        found += page.sagas
        following = page.following
        if following is None:
            return found
