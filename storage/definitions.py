"""Every definition version that ever ran, as it was recorded: its canonical document and the digests of its four parts.

Whether a changed definition may run under an old version is the caller's decision (`sagas.digests`).
"""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sagas.definition import Digests
from storage.statements import Batch, Statement, Write, as_time

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from sagas.definition import Definition
    from storage.database import Database, Session

_LOAD = Statement.both("""
    select type, version, document, shape, state, policy, code, recorded_at, python from definition
    order by type, version
""")
_FORGET = Write(
    name="message_forget",
    columns={"type": "text", "version": "bigint"},
    postgresql="delete from definition_message m using {rows} where m.type = r.type and m.version = r.version",
    sqlite="delete from definition_message where type = :type and version = :version",
)
_NAMES = Write(
    name="message_note",
    columns={"name": "text", "role": "text", "type": "text", "version": "bigint"},
    postgresql="""
        insert into definition_message (name, role, type, version) select name, role, type, version from {rows}
    """,
    sqlite="insert into definition_message (name, role, type, version) values (:name, :role, :type, :version)",
)
_SET = """
    on conflict (type, version) do update set
        document = excluded.document, shape = excluded.shape, state = excluded.state, policy = excluded.policy,
        code = excluded.code, recorded_at = excluded.recorded_at, python = excluded.python
"""
_INTO = "insert into definition (type, version, document, shape, state, policy, code, python, recorded_at)"
_RECORD = Write(
    name="definition_record",
    columns={
        "type": "text",
        "version": "bigint",
        "document": "text",
        "shape": "text",
        "state": "text",
        "policy": "text",
        "code": "text",
        "python": "text",
    },
    postgresql=f"""
        {_INTO} select type, version, document, shape, state, policy, code, python, clock_timestamp() from {{rows}}
        {_SET}
    """,
    sqlite=f"""
        {_INTO} values (:type, :version, :document, :shape, :state, :policy, :code, :python, :now) {_SET}
    """,
)
_CONSUMED = Statement.both("select distinct name from definition_message where role = 'event'")

_CONSUMES = Statement.both("""
    select 1 from definition_message where name = :name and role in ('event', 'answer') and type = :type limit 1
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedDefinition:
    """One definition version as the database has it. `python` is the version of Python that recorded it."""

    type: str
    version: int
    document: Mapping[str, Any]
    digests: Digests
    recorded_at: datetime
    python: str


async def load(database: Database) -> dict[tuple[str, int], RecordedDefinition]:
    """Everything recorded, by (type, version)."""
    async with database.read() as session:
        rows = await session.fetch(_LOAD, {})
    return {
        (row.type, row.version): RecordedDefinition(
            type=row.type,
            version=row.version,
            document=json.loads(row.document),
            digests=Digests(shape=row.shape, state=row.state, policy=row.policy, code=row.code),
            recorded_at=as_time(row.recorded_at),
            python=row.python,
        )
        for row in rows
    }


async def record(database: Database, definitions: Collection[Definition]) -> None:
    """Record these versions, or what has changed about them; names of commands and events are noted with them.

    The SQL door refuses a name noted as a command. Opens a transaction of its own; two processes may record at once.
    """
    ordered = sorted(definitions, key=lambda each: (each.type, each.version))
    batch = Batch()
    batch.add(_RECORD, [_row(each) for each in ordered])
    forgotten = Batch()
    forgotten.add(_FORGET, [(each.type, each.version) for each in ordered])
    names = [
        (name, role, each.type, each.version)
        for each in ordered
        for role, known in (("command", each.commands), ("event", each.events.keys() - each.told_by_children))
        for name in sorted(known)
    ]
    names += [(name, "answer", each.type, each.version) for each in ordered for name in sorted(each.told_by_children)]
    noted = Batch()
    noted.add(_NAMES, names)
    async with database.write() as session:
        now = database.runner.now()
        for part in (batch, forgotten, noted):  # the rows of `definition` are locked first, so that two do not collide
            await session.write(part, now)


def _row(definition: Definition) -> tuple[object, ...]:
    digests = definition.digests
    return (
        definition.type,
        definition.version,
        json.dumps(dict(definition.document), sort_keys=True, separators=(",", ":")),
        digests.shape,
        digests.state,
        digests.policy,
        digests.code,
        platform.python_version(),
    )


async def consumed_events(database: Database) -> frozenset[str]:
    """The names of all events that a recorded saga type listens to, of whatever version and process.

    Not of those that only children answer with: these come straight to its queue.
    """
    async with database.read() as session:
        return frozenset(row.name for row in await session.fetch(_CONSUMED, {}))


async def consumes(session: Session, saga_type: str, name: str) -> bool:
    """Whether some recorded version of the type consumes an event of that name. Joins a transaction."""
    return bool(await session.fetch(_CONSUMES, {"type": saga_type, "name": name}))
