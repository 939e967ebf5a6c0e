"""`publish`: how another service in the same PostgreSQL database sends an event, in its own transaction."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import migrations
from outbox.unit import SqlStorage
from running import AsyncioRunner
from storage import Database
from tests.outbox.building import sweep

if TYPE_CHECKING:
    from collections.abc import Callable


async def publish(database: Database, arguments: str, **parameters: str) -> str:
    async with database.write() as session:
        found: str = (await session.connection.execute(text(f"select publish({arguments})"), parameters)).scalar_one()
    return found


async def test_an_event_goes_out_under_the_database_role_with_what_was_given(postgresql: Database) -> None:
    headers = {
        "schema-version": 3,
        "causation-id": "c-1",
        "correlation-id": "s-1",
        "traceparent": "00-1",
        "tracestate": "t",
    }
    body = '{"order_id": "ö"}'
    given = await publish(
        postgresql,
        "'ordering.OrderPlaced', :body, 'm-1', cast(:headers as jsonb), 'order-1'",
        body=body,
        headers=json.dumps(headers),
    )
    assert given == "m-1"
    [row] = await sweep(SqlStorage(postgresql))
    envelope = row.outgoing.envelope
    assert (row.outgoing.exchange, row.outgoing.routing_key) == (
        f"{postgresql.namespace}.events",
        "ordering.OrderPlaced",
    )
    assert (row.outgoing.saga_id, row.outgoing.path) == (None, "order-1")
    assert (envelope.message_id, envelope.name, envelope.body) == ("m-1", "ordering.OrderPlaced", body.encode())
    assert (envelope.schema_version, envelope.causation_id, envelope.correlation_id) == (3, "c-1", "s-1")
    assert (envelope.traceparent, envelope.tracestate) == ("00-1", "t")
    async with postgresql.read() as session:
        role = (await session.connection.execute(text("select session_user"))).scalar_one()
    assert envelope.source == role
    assert envelope.timestamp is not None


async def test_an_event_needs_a_name_and_a_body_only(postgresql: Database) -> None:
    message_id = await publish(postgresql, "'ordering.OrderPlaced', '{}'")
    assert str(UUID(message_id)) == message_id
    [row] = await sweep(SqlStorage(postgresql))
    assert row.outgoing.path is None
    assert row.outgoing.envelope.schema_version == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("null, '{}'", "null is not a message name"),
        ("'', '{}'", "not a message name"),
        ("'1a', '{}'", "not a message name"),
        ("'a b', '{}'", "not a message name"),
        ("repeat('a', 256), '{}'", "not a message name"),
        ("'a', null", "the body of a has 0 bytes"),
        ("'a', '{\"a\": \"' || repeat('x', 1048576) || '\"}'", "bytes; it needs 2 to 1048576"),
        ("'a', ''", "not JSON"),
        ("'a', '{'", "not JSON"),
        ("'a', '[]'", "JSON array, not an object"),
        ("'a', '1'", "JSON number, not an object"),
        ("'a', repeat('[', 100000)", "nested deeper than 64 levels"),
        ("'a', '{\"a\": 1, \"a\": 2}'", 'key "a" twice'),
        ("'antiphon.GiveUp', '{}'", "antiphon.GiveUp is a message of the engine itself"),
        ("'a', '{}', null", "message id of a"),
        ("'a', '{}', ''", "message id of a"),
        ("'a', '{}', 'ä'", "message id of a"),
        ("'a', '{}', repeat('a', 256)", "message id of a"),
        ("'a', '{}', 'm', null", "headers of a are not a JSON object"),
        ("'a', '{}', 'm', '[]'", "headers of a are not a JSON object"),
        ("'a', '{}', 'm', '{\"x-delay\": 1}'", "header 'x-delay', which no event has"),
        ("'a', '{}', 'm', '{\"compensates\": \"k\"}'", "'compensates', which no event has"),
        ("'a', '{}', 'm', '{\"schema-version\": 0}'", "schema-version of a has an impossible value"),
        ("'a', '{}', 'm', '{\"schema-version\": null}'", "schema-version of a has an impossible value"),
        ("'a', '{}', 'm', '{\"schema-version\": 2147483648}'", "schema-version of a has an impossible value"),
        ("'a', '{}', 'm', '{\"causation-id\": 7}'", "causation-id of a has an impossible value"),
        ("'a', '{}', 'm', '{\"traceparent\": \"\"}'", "traceparent of a has an impossible value"),
        ("'a', '{}', 'm', '{}', ''", "the order key of a"),
        ("'a', '{}', 'm', '{}', E'a\\nb'", "the order key of a"),
    ],
)
async def test_what_is_wrong_raises_in_the_callers_transaction_and_says_what_to_do(
    postgresql: Database, arguments: str, message: str
) -> None:
    with pytest.raises(DBAPIError) as refused:
        async with postgresql.engine.begin() as connection:
            await connection.execute(text(f"select publish({arguments})".replace(":", "\\:")))
    assert message in str(refused.value.orig)
    assert getattr(refused.value.orig, "sqlstate", None) == "22023"
    assert await sweep(SqlStorage(postgresql)) == []


async def test_a_name_known_as_a_command_is_refused(postgresql: Database) -> None:
    async with postgresql.write() as session:
        await session.connection.execute(
            text(
                "insert into definition_message (name, role, type, version) values "
                "('stock.ReserveStock', 'command', 'PlaceOrder', 1), ('stock.StockReserved', 'event', 'PlaceOrder', 1)"
            )
        )
    with pytest.raises(DBAPIError, match="is a command"):
        async with postgresql.engine.begin() as connection:
            await connection.execute(text("select publish('stock.ReserveStock', '{}')"))
    await publish(postgresql, "'stock.StockReserved', '{}'")


async def test_an_event_is_undone_with_the_business_transaction(postgresql: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with postgresql.write() as session:
            await session.connection.execute(text("select publish('ordering.OrderPlaced', '{}')"))
            raise ZeroDivisionError
    assert await sweep(SqlStorage(postgresql)) == []


async def test_events_of_one_order_key_go_out_in_the_order_of_their_commits(postgresql: Database) -> None:
    async def send(name: str) -> None:
        await publish(postgresql, f"'{name}', '{{}}', '{name}', '{{}}', 'order-1'")

    async with asyncio.TaskGroup() as tasks, postgresql.write() as session:
        await session.connection.execute(text("select publish('first', '{}', 'first', '{}', 'order-1')"))
        waiting = tasks.create_task(send("second"))
        async with asyncio.timeout(30):
            while not await _someone_waits(postgresql):
                pass
        await publish(postgresql, "'other', '{}', 'other', '{}', 'order-2'")
    assert waiting.done()
    names = []
    for _ in range(2):
        rows = await sweep(SqlStorage(postgresql))
        names.append([row.outgoing.envelope.name for row in rows])
        await SqlStorage(postgresql).settle_outbox(confirmed=[(row.outbox_id, row.token) for row in rows])
    assert names == [["first", "other"], ["second"]]


async def _someone_waits(database: Database) -> bool:
    async with database.read() as session:
        found = await session.connection.execute(
            text("select count(*) from pg_stat_activity where wait_event = 'advisory' and datname = current_database()")
        )
        return bool(found.scalar_one())


async def test_a_stranger_may_use_the_door_only_when_granted_and_never_the_table(postgresql: Database) -> None:
    schema = postgresql.namespace
    role = f"door_{schema}"
    async with postgresql.engine.connect() as connection:
        await connection.execute(text(f"create role {role}"))
        await connection.execute(text(f"grant usage on schema {schema} to {role}"))

        async def attempt(sql: str) -> str | None:
            savepoint = await connection.begin_nested()
            await connection.execute(text(f"set local role {role}"))
            try:
                await connection.execute(text(sql))
            except DBAPIError as error:
                await savepoint.rollback()
                return str(getattr(error.orig, "sqlstate", None))
            await savepoint.commit()
            await connection.execute(text("reset role"))
            return None

        assert await attempt("select publish('ordering.OrderPlaced', '{}')") == "42501"
        assert await attempt("insert into outbox default values") == "42501"
        assert await attempt("select check_body('a', '{}')") == "42501"
        await connection.execute(text(f"grant execute on function publish(text, text, text, jsonb, text) to {role}"))
        assert await attempt("create temporary table outbox (a int)") is None
        assert await attempt("select publish('ordering.OrderPlaced', '{}')") is None
        kept = await connection.execute(text(f"select count(*) from {schema}.outbox"))  # noqa: S608
        assert kept.scalar_one() == 1
        await connection.rollback()


async def test_the_page_about_the_door_shows_what_works(fresh_database: Callable[[], str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sql-door.md").read_text(encoding="utf-8")
    transaction, grants = re.findall(r"^```sql\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    database = Database(fresh_database(), AsyncioRunner())
    await migrations.up(database)
    async with database.engine.connect() as connection:
        await connection.execute(text("create table orders (order_id text, total numeric)"))
        await connection.execute(text("create role ordering"))
        for statement in [*grants.split(";\n"), *transaction.split(";\n")]:
            if statement and statement not in ("begin", "commit"):
                await connection.exec_driver_sql(statement)
        sent = await connection.execute(text("select name from v_outbox"))
        assert sent.scalar_one() == "ordering.OrderPlaced"
        await connection.rollback()
    await database.close()
