"""Finding the instance that a command line names, by its id, its business key or one of its aliases."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from messages.errors import OperationRefused
from storage.queries import Queries

if TYPE_CHECKING:
    from storage import Database
    from storage.queries import SagaDetail


async def instance_of(database: Database, identity: str, *, saga_type: str = "") -> SagaDetail:
    """The instance of that id, business key or alias; an empty type is any.

    Raises:
        OperationRefused: there is none, or several have the key or the alias.
    """
    queries = Queries(database)
    found = await queries.saga(identity, saga_type=saga_type or None)
    if found is not None:
        return found
    if saga_type and (other := await queries.saga(identity)) is not None:
        raise OperationRefused(f"{identity!r} is an instance of {other.saga.saga_type}, not of {saga_type}")
    raise OperationRefused(
        f"no instance has the id or business key {identity!r}; antiphon sagas list shows some\n"
        "as long as its start cannot be processed there is a dead letter instead: "
        f"antiphon dead export | grep {shlex.quote(identity)}"
    )
