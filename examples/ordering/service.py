"""The HTTP side: `POST /orders`, `GET /orders/{order_id}`, `GET /livez`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
from fastapi import FastAPI, HTTPException, Response, status

from examples.ordering.orders import NewOrder, Orders, Taken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def service(database_url: str) -> FastAPI:
    """The application; it connects when it starts."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(database_url, min_size=1, max_size=10, timeout=10, command_timeout=10) as pool:
            app.state.orders = Orders(pool)
            await app.state.orders.prepare()
            yield

    app = FastAPI(title="Ordering", lifespan=life)

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/orders", status_code=status.HTTP_201_CREATED)
    async def place(order: NewOrder, response: Response) -> dict[str, Any]:
        try:
            if not await app.state.orders.place(order):
                response.status_code = status.HTTP_200_OK
        except Taken:
            raise HTTPException(status.HTTP_409_CONFLICT, f"another order is called {order.order_id}") from None
        response.headers["Location"] = f"/orders/{order.order_id}"
        return await show(order.order_id)

    @app.get("/orders/{order_id}")
    async def show(order_id: str) -> dict[str, Any]:
        found: dict[str, Any] | None = await app.state.orders.find(order_id)
        if found is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND, f"there is no order {order_id}")
        return found

    return app
