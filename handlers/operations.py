"""What an operator does to one instance: a message like any other, on the same path, decided under the same lock.

Acts in the operator's own process, with or without a broker: what it sends is left in the outbox for a relay.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from handlers.deciding import Deciding, SagaType
from messages.errors import OperationRefused, Trouble
from messages.value import value
from outbox.interface import InboxEntry
from sagas.decision import Action

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from handlers.work import Definitions
    from messages.codec import Limits
    from outbox.interface import Storage, Unit
    from running import Runner
    from sagas.decision import Operated
    from sagas.instance import Instance

CONSUMER = "operator"
"""Under which the inbox knows the ids of operators' requests."""

_TRIES = 5


@value
class Operation:
    """An action on one instance. `revision`, if given, is the one it was decided on: another one refuses it."""

    saga_id: UUID
    operated: Operated
    revision: int | None = None


@value
class Outcome:
    """The instance after the action. `repeated`: the same request was carried out before, and nothing was done now."""

    instance: Instance
    repeated: bool


class Operations:
    """Carries out operators' actions."""

    def __init__(
        self,
        sagas: Mapping[str, Definitions],
        *,
        namespace: str,
        storage: Storage,
        runner: Runner,
        report: Callable[[object], None],
        limits: Limits,
    ) -> None:
        self._sagas = {name: SagaType(definitions, namespace) for name, definitions in sagas.items()}
        self._storage = storage
        self._runner = runner
        self._report = report
        self._limits = limits

    async def carry_out(self, operation: Operation) -> Outcome:
        """Do it once, whatever the number of times it is asked for under one request id.

        Raises:
            OperationRefused: it does not fit; the text says why and what does. Nothing was changed.
            Trouble: the database is away or busy; asking again with the same request id is safe.
        """
        tries = 0
        while True:
            try:
                outcome = await self._attempt(operation)
                return replace(outcome, repeated=outcome.repeated and not tries)  # it may have been our own try
            except Trouble:
                tries += 1
                if tries == _TRIES:
                    raise
            await self._runner.sleep(0.1 * 2**tries)

    async def _attempt(self, operation: Operation) -> Outcome:
        operated = operation.operated
        async with self._storage.transaction() as unit:
            locked = await unit.lock([operation.saga_id], wait=True)
            instance = locked.instances.get(operation.saga_id)
            if instance is None or locked.now is None:
                raise OperationRefused(f"no instance has the id {operation.saga_id}; antiphon sagas list shows some")
            if await self._done_before(unit, operation):
                return Outcome(instance=instance, repeated=True)
            saga = self._fitting(instance, operation.revision)
            deciding = Deciding(saga, unit, locked.now, self._limits)
            fold = deciding.work.load(saga.definitions[instance.version], instance)
            await deciding.work.decide(unit, fold, operated)
            if operated.action is Action.RESUME:
                await deciding.apply_held(await unit.held_for([instance.saga_id]), locked)
            await unit.save(await deciding.changes())
        for fact in (*deciding.facts, *deciding.work.facts()):
            self._report(fact)
        return Outcome(instance=fold.current, repeated=False)

    async def _done_before(self, unit: Unit, operation: Operation) -> bool:
        operated = operation.operated
        said = f"{operation.saga_id}/{operated.action}/{operated.step}"
        entry = InboxEntry(source="", message_id=operated.request_id, body_hash=sha256(said.encode()).digest())
        claimed = await unit.claim_inbox(CONSUMER, self._runner.token(), [entry])
        known = claimed.known.get(("", operated.request_id))
        if known is not None and known.body_hash != entry.body_hash:
            raise OperationRefused(
                f"the request id {operated.request_id} was used for something else; leave it out, or take another"
            )
        return known is not None

    def _fitting(self, instance: Instance, revision: int | None) -> SagaType:
        if revision is not None and revision != instance.revision:
            raise OperationRefused(
                f"{instance.saga_type} {instance.key!r} is at revision {instance.revision}, not {revision}: something "
                "has happened since you looked; look again with antiphon sagas show"
            )
        saga = self._sagas.get(instance.saga_type)
        if saga is None or instance.version not in saga.definitions:
            raise OperationRefused(
                f"{instance.saga_type} version {instance.version} is not known here; run this where its code is, with "
                "ANTIPHON_MODULES as the sidecar has it"
            )
        return saga
