"""`sagas query`."""

from __future__ import annotations

from pydantic_core import to_json

from messages.errors import OperationRefused
from running import AsyncioRunner
from runtime.commands.instances import instance_of
from runtime.database import opened
from runtime.exits import OK
from runtime.loading import known_to
from runtime.printing import print_json
from runtime.settings import load
from sagas.asking import answer, lists_of
from storage.queries import Queries


async def query(identity: str, name: str, *, saga_type: str) -> int:
    """Print what a query of an instance answers, as JSON.

    Raises:
        OperationRefused: there is no such instance or query, or its version is not known here.
        MethodRaised: the query raised.
    """
    settings = load().settings
    known = known_to(settings)
    async with opened(settings) as storage:
        saga = (found := await instance_of(storage.database, identity, saga_type=saga_type)).saga
        definition = known.sagas.get(saga.saga_type, {}).get(saga.version)
        if definition is None:
            raise OperationRefused(
                f"{saga.saga_type} version {saga.version} is not known here; run this where its code is, with "
                "ANTIPHON_MODULES as the sidecar has it"
            )
        queries = Queries(storage.database)
        lists = {each: await queries.items(saga.saga_id, each) for each in lists_of(definition, name)}
    now = AsyncioRunner().now()
    print_json(answer(definition, to_json(found.state), name, now=now, saga_id=saga.saga_id, lists=lists))
    return OK
