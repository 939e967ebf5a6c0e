"""The items of lists that are worked off one by one: rows beside their instance, written and read under its lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_core import from_json, to_json

from sagas.instance import pack_step, unpack_step
from storage.statements import Statement, Write

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from uuid import UUID

    from sagas.instance import StepProgress
    from sagas.items import Rested
    from storage.database import Session
    from storage.statements import Batch

FETCHED = 100
"""So many of those that are owed are fetched at once."""

_INSERT = Write(
    name="item_insert",
    columns={"saga_id": "uuid", "list_field": "text", "item": "bigint", "body": "bytea"},
    postgresql="""
        insert into saga_item (saga_id, list_field, item, body) select saga_id, list_field, item, body from {rows}
    """,
    sqlite="insert into saga_item (saga_id, list_field, item, body) values (:saga_id, :list_field, :item, :body)",
)
_REPLACING = "on conflict (saga_id, path, item) do update set progress = excluded.progress, owed = excluded.owed"
_REST = Write(
    name="item_rest",
    columns={"saga_id": "uuid", "path": "text", "item": "bigint", "progress": "bytea", "owed": "bigint"},
    postgresql=f"""
        insert into saga_item_step (saga_id, path, item, progress, owed)
        select saga_id, path, item, progress, owed from {{rows}} {_REPLACING}
    """,
    sqlite=f"""
        insert into saga_item_step (saga_id, path, item, progress, owed)
        values (:saga_id, :path, :item, :progress, :owed) {_REPLACING}
    """,
)
_SOME = Statement.of(
    postgresql="""
        select item, body from saga_item
        where saga_id = cast(:saga_id as uuid) and list_field = cast(:list_field as text)
          and item = any(cast(:items as bigint[]))
    """,
    sqlite="""
        select item, body from saga_item
        where saga_id = :saga_id and list_field = :list_field and item in (select value from json_each(:items))
    """,
)
_ALL = Statement.of(
    postgresql="""
        select item, body from saga_item
        where saga_id = cast(:saga_id as uuid) and list_field = cast(:list_field as text)
    """,
    sqlite="select item, body from saga_item where saga_id = :saga_id and list_field = :list_field",
)
_OWED = Statement.of(
    postgresql="""
        select item, progress from saga_item_step
        where saga_id = cast(:saga_id as uuid) and path = cast(:path as text) and owed < cast(:before as bigint)
        order by owed desc limit cast(:limit as bigint)
    """,
    sqlite="""
        select item, progress from saga_item_step
        where saga_id = :saga_id and path = :path and owed < :before order by owed desc limit :limit
    """,
)


def save(
    batch: Batch, listed: Mapping[UUID, Mapping[str, Sequence[bytes]]], rested: Iterable[tuple[UUID, Rested]]
) -> None:
    """Add the items of newborn instances, and how the steps of items went that are done with for now."""
    batch.add(
        _INSERT,
        [
            (saga_id, name, item, body)
            for saga_id, lists in sorted(listed.items())
            for name, bodies in lists.items()
            for item, body in enumerate(bodies)
        ],
    )
    last = {(saga_id, each.path, each.index): each for saga_id, each in rested}
    batch.add(
        _REST,
        [
            (saga_id, path, item, to_json(pack_step(each.step)), each.step.do.ended if each.owed else None)
            for (saga_id, path, item), each in sorted(last.items())
        ],
    )


async def bodies(session: Session, saga_id: UUID, list_field: str, items: Collection[int] | None) -> dict[int, bytes]:
    """Items of a list, by number; None: all of them."""
    wanted: dict[str, object] = {"saga_id": saga_id, "list_field": list_field}
    if items is None:
        rows = await session.fetch(_ALL, wanted)
    else:
        rows = await session.fetch(_SOME, {**wanted, "items": sorted(items)})
    return {row.item: bytes(row.body) for row in rows}


async def owed(session: Session, saga_id: UUID, path: str, before: int, have: int) -> list[tuple[int, StepProgress]]:
    """Items of a step that are still to be undone and ended before that, the last first; not all of them at once, but
    as many as one has: who needs ever more gets ever more.
    """
    limit = max(FETCHED, have)
    rows = await session.fetch(_OWED, {"saga_id": saga_id, "path": path, "before": before, "limit": limit})
    return [(row.item, unpack_step(from_json(bytes(row.progress)))) for row in rows]
