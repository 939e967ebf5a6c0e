"""The ordering service over HTTP, in this process, on a real PostgreSQL: an order is kept and announced, or neither."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import asyncpg
import httpx2
import pytest

import migrations
from examples.ordering.service import service
from messages.catalog.ordering import OrderPlaced
from running import AsyncioRunner
from storage import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

LINES = [{"sku": "apple", "quantity": 2, "unit_price": "1.50"}, {"sku": "pear", "quantity": 1, "unit_price": "0.25"}]
ORDER = {"order_id": "order-1", "customer_id": "c-1", "lines": LINES}


class Shop:
    """The service, and what stands in its database."""

    def __init__(self, client: httpx2.AsyncClient, connection: asyncpg.Connection[Any]) -> None:
        self.client = client
        self.connection = connection

    async def place(self, **changes: object) -> httpx2.Response:
        return await self.client.post("/orders", json={**ORDER, **changes})

    async def announced(self) -> list[tuple[str, Any]]:
        """Message ids and bodies of what waits to be published."""
        rows = await self.connection.fetch("select message_id, name, body from antiphon.outbox order by outbox_id")
        assert {row["name"] for row in rows} <= {"ordering.OrderPlaced"}
        return [(row["message_id"], json.loads(row["body"])) for row in rows]


@asynccontextmanager
async def served(url: str) -> AsyncIterator[Shop]:
    app = service(url)
    connection = await asyncpg.connect(url)
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://ordering") as client,
    ):
        yield Shop(client, connection)
    await connection.close()


@pytest.fixture
async def shop(fresh_database: Callable[[], str]) -> AsyncIterator[Shop]:
    url = fresh_database()
    database = Database(url, AsyncioRunner())
    await migrations.up(database)
    await database.close()
    async with served(url) as shop:
        yield shop


async def test_an_order_is_kept_and_announced(shop: Shop) -> None:
    response = await shop.place()
    assert (response.status_code, response.headers["location"]) == (201, "/orders/order-1")
    [(message_id, body)] = await shop.announced()
    assert message_id == "order-1-placed"
    event = OrderPlaced.model_validate_json(json.dumps(body))
    assert (event.order_id, event.customer_id, event.total) == ("order-1", "c-1", Decimal("3.25"))
    assert [line.model_dump(mode="json") for line in event.lines] == LINES


async def test_an_order_can_be_looked_up_with_its_process(shop: Shop) -> None:
    assert (await shop.client.get("/orders/order-1")).status_code == 404
    await shop.place()
    found = (await shop.client.get("/orders/order-1")).json()
    assert (found["total"], found["lines"], found["process"]) == ("3.25", LINES, None)


async def test_an_order_sent_twice_is_placed_once(shop: Shop) -> None:
    codes = [(await shop.place()).status_code, (await shop.place()).status_code]
    assert codes == [201, 200]
    assert len(await shop.announced()) == 1


async def test_another_order_under_the_same_id_is_refused(shop: Shop) -> None:
    await shop.place()
    assert (await shop.place(customer_id="c-2")).status_code == 409
    assert len(await shop.announced()) == 1


async def test_an_order_without_an_id_gets_one(shop: Shop) -> None:
    response = await shop.client.post("/orders", json={"customer_id": "c-1", "lines": LINES})
    assert response.status_code == 201
    assert (await shop.client.get(response.headers["location"])).status_code == 200


async def test_what_cannot_be_announced_is_not_kept(shop: Shop) -> None:
    await shop.connection.execute(
        "insert into antiphon.definition_message values ('ordering.OrderPlaced', 'command', 'X', 1)"
    )
    with pytest.raises(asyncpg.PostgresError, match="is a command"):
        await shop.place()
    assert await shop.announced() == []
    assert (await shop.client.get("/orders/order-1")).status_code == 404


@pytest.mark.parametrize(
    "changes", [{"lines": []}, {"order_id": "a b"}, {"customer_id": ""}, {"lines": [{"sku": "a"}]}, {"more": 1}]
)
async def test_what_is_no_order_is_refused(shop: Shop, changes: dict[str, object]) -> None:
    assert (await shop.place(**changes)).status_code == 422
    assert await shop.announced() == []


async def test_it_says_that_it_lives(shop: Shop) -> None:
    assert (await shop.client.get("/livez")).status_code == 200
