"""What an operator does to one instance: a message like any other, on the same path, decided under the same lock.

Acts in the operator's own process, with or without a broker: what it sends is left in the outbox for a relay.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from handlers.deciding import Deciding
from handlers.repair import Repair, tried
from handlers.suspects import accused_resume
from messages.errors import DatabaseBusy, MessageError, OperationRefused, Trouble
from messages.value import value
from outbox.interface import InboxEntry, Storage
from sagas.outcome import Action

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from handlers.saga_types import SagaType
    from outbox.interface import DeadLetter, InboxRow, Unit
    from sagas.instance import Instance
    from sagas.outcome import Operated

CONSUMER = "operator"
"""Under which the inbox knows the ids of operators' requests."""


@value
class Operation:
    """An action on one instance. `revision`, if given, is the one it was decided on: another one refuses it."""

    saga_id: UUID
    operated: Operated
    revision: int | None = None


@value
class Outcome:
    """The instance after the action. `repeated`: the same request was carried out before, and nothing was done now.

    `failed` are the messages that had been held for it, and are dead letters now.
    """

    instance: Instance
    repeated: bool
    failed: Sequence[DeadLetter] = ()


class Operations(Repair[Storage]):
    """Carries out operators' actions."""

    async def carry_out(self, operation: Operation) -> Outcome:
        """Do it once, whatever the number of times it is asked for under one request id.

        Raises:
            OperationRefused: it does not fit; the text says why and what does. Nothing was changed.
            Trouble: the database is away or busy; asking again with the same request id is safe.
        """
        token = self._runner.token()
        if operation.operated.action is Action.RESUME:
            return await self._resume(operation, token)
        return await tried(self._runner, lambda: self._attempt(operation, token))

    async def _resume(self, operation: Operation, token: UUID) -> Outcome:
        """Together with what is held for it; where that fails, or killed whoever tried, it is left to the sweep."""
        accused = accused_resume(operation.saga_id)
        notes = await tried(self._runner, lambda: self._storage.note_accused(accused, token))
        try:
            with suppress(MessageError, DatabaseBusy):
                if notes == 1:
                    return await tried(self._runner, lambda: self._attempt(operation, token, with_held=True))
            return await tried(self._runner, lambda: self._attempt(operation, token))
        finally:
            with suppress(Trouble):
                await self._storage.acquit(accused)

    async def _attempt(self, operation: Operation, token: UUID, *, with_held: bool = False) -> Outcome:
        operated = operation.operated
        async with self._storage.transaction() as unit:
            locked = await unit.lock([operation.saga_id], wait=True)
            instance = locked.instances.get(operation.saga_id)
            if instance is None or locked.now is None:
                raise OperationRefused(f"no instance has the id {operation.saga_id}; antiphon sagas list shows some")
            if (done := await self._done_before(unit, operation, token)) is not None:
                return Outcome(instance=instance, repeated=done.token != token)  # or it was an earlier try of our own
            saga = self._fitting(instance, operation.revision)
            deciding = Deciding(saga, unit, locked.now, self._limits)
            fold = deciding.work.load(saga.definitions[instance.version], instance)
            if operated.action is Action.FIRE_TIMER:
                unsent = await unit.unsent([instance.saga_id])
                operated = replace(operated, unsent=unsent.get(instance.saga_id, frozenset()))
            await deciding.operate(fold, operated)
            if with_held:
                await deciding.apply_held(await unit.held_for(saga.name, [instance.saga_id]), locked)
            await unit.save(await deciding.changes())
        for fact in (*deciding.facts, *deciding.work.facts()):
            self._report(fact)
        return Outcome(instance=fold.current, repeated=False, failed=deciding.dead_letters)

    async def _done_before(self, unit: Unit, operation: Operation, token: UUID) -> InboxRow | None:
        operated = operation.operated
        said = f"{operation.saga_id}/{operated.action}/{operated.step}"
        if operated.timer is not None:
            said += f"/{operated.timer}/{operated.due}"
        entry = InboxEntry(source="", message_id=operated.request_id, body_hash=sha256(said.encode()).digest())
        claimed = await unit.claim_inbox(CONSUMER, token, [entry])
        known = claimed.known.get(("", operated.request_id))
        if known is not None and known.body_hash != entry.body_hash:
            raise OperationRefused(
                f"the request id {operated.request_id} was used for something else; leave it out, or take another"
            )
        return known

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
