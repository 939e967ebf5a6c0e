"""How a database would carry a statement out, as the text of its plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.statements import Statement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storage.database import Session


async def explained(session: Session, statement: Statement, values: Mapping[str, object]) -> str:
    """The plan of a statement for those of the values that it names."""
    clause = statement.postgresql if session.postgresql else statement.sqlite
    explain = "explain " if session.postgresql else "explain query plan "
    named = {name: value for name, value in values.items() if f":{name}" in clause.text}
    return "\n".join(str(row) for row in await session.fetch(Statement.both(explain + clause.text), named))
