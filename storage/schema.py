"""Whether the database's schema is the one this program needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from messages.errors import ConfigurationError
from storage.statements import Statement
from storage.tables import REVISION

if TYPE_CHECKING:
    from storage.database import Database

_EXISTS = Statement.of(
    postgresql="""
        select to_regclass('alembic_version') is not null as present,
               (select not has_schema_privilege(oid, 'usage') from pg_namespace where nspname = :namespace) as closed
    """,
    sqlite="""
        select count(*) > 0 as present, 0 as closed from sqlite_master
        where type = 'table' and name = 'alembic_version'
    """,
)
_VERSION = Statement.both("select version_num from alembic_version")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaState:
    """The version the database has (None: no tables), and the one this program needs."""

    found: str | None
    needed: str = REVISION

    @property
    def current(self) -> bool:
        """Whether this program can work with it: it is the needed version, or a newer one, which only adds."""
        return self.found is not None and self.found >= self.needed


async def schema_state(database: Database) -> SchemaState:
    """Read the schema's version.

    Raises:
        DatabaseAway, DatabaseBusy, ConfigurationError: see `messages.errors`; also when this user may not see it.
    """
    async with database.read() as session:
        [seen] = await session.fetch(_EXISTS, {"namespace": database.namespace} if session.postgresql else {})
        if seen.closed:
            raise ConfigurationError(
                f"this user may not use the schema {database.namespace!r}; grant it usage on the schema and what it "
                "needs of the tables, or name another user in the database address"
            )
        rows = await session.fetch(_VERSION, {}) if seen.present else ()
    return SchemaState(found=rows[0].version_num if rows else None)


async def schema_is_current(database: Database) -> bool:
    """Whether `antiphon migrate` has nothing to do for this program to work."""
    return (await schema_state(database)).current
