"""What a query of an instance answers: the author's method, run on a copy of the stored state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_core import from_json, to_json

from messages.errors import MethodRaised, OperationRefused
from sagas.problems import listed, suggestion, told

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sagas.definition import Definition


def lists_of(definition: Definition, name: str) -> frozenset[str]:
    """The lists, of those that are kept item by item, that a query reads."""
    return definition.readers.get(name, frozenset())


def answer(
    definition: Definition,
    state: bytes,
    name: str,
    *,
    now: datetime,
    saga_id: UUID,
    lists: Mapping[str, Sequence[bytes]] | None = None,
) -> object:
    """What the query answers, as what JSON is made of. It gets those of the `lists` that it reads.

    Raises:
        OperationRefused: the saga has no query of that name.
        MethodRaised: the query raised, or answered what cannot be JSON.
    """
    query = definition.queries.get(name)
    if query is None:
        known = listed(sorted(definition.queries)) if definition.queries else "none"
        raise OperationRefused(
            f"{definition.type} has no query {name!r}{suggestion(name, definition.queries)}; there are: {known}",
            saga_type=definition.type,
        )
    read = {each: items for each, items in (lists or {}).items() if each in lists_of(definition, name)}
    try:
        saga = definition.saga_class._load(state, now=now, saga_id=saga_id, lists=read)
        said: object = from_json(to_json(query(saga)))
    except BaseException as error:  # see `Turn.raised`
        raise MethodRaised(told(f"{definition.type}.{name}", query, error), saga_type=definition.type) from error
    return said
