"""Moves live instances from one version of their saga to another, under their locks and in the history.

What may be moved, and how, `sagas.moving` decides; here it is carried out, a batch in a transaction. Acts in the
operator's own process: what it sends is left in the outbox for a relay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.deciding import Deciding
from handlers.repair import Repair, tried
from messages.value import value
from outbox.interface import Storage
from sagas.moving import move
from sagas.prospect import Flaw

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sagas.instance import Instance
    from sagas.outcome import Decision
    from sagas.passage import Passage


@value
class Move:
    """What was asked for: the way, who wants it, and why."""

    passage: Passage
    actor: str
    reason: str


@value
class Moved:
    """What a batch came to: so many were moved, and these were left, each with what stands in its way."""

    moved: int
    left: Sequence[tuple[Instance, Flaw]]


class Migrations(Repair[Storage]):
    """Carries out migrations."""

    async def carry_out(self, wanted: Move, saga_ids: Sequence[UUID]) -> Moved:
        """Move these instances, as many as can be; those that are not of that version any more are passed over.

        All in one transaction, which waits for whoever holds one of them.

        Raises:
            Trouble: the database is away or busy. Asking again is safe: what was moved is passed over.
        """
        return await tried(self._runner, lambda: self._attempt(wanted, saga_ids))

    async def _attempt(self, wanted: Move, saga_ids: Sequence[UUID]) -> Moved:
        saga = self._sagas[wanted.passage.new.type]
        moved, left = 0, []
        async with self._storage.transaction() as unit:
            locked = await unit.lock(saga_ids, wait=True)
            if locked.now is None:
                return Moved(moved=0, left=())
            deciding = Deciding(saga, unit, locked.now, self._limits)
            for instance in locked.instances.values():
                if instance.version != wanted.passage.version or instance.phase.ended:
                    continue
                flaw = await _move(wanted, deciding, instance)
                if flaw is None:
                    moved += 1
                else:
                    left.append((instance, flaw))
            await unit.save(await deciding.changes())
        for fact in (*deciding.facts, *deciding.work.facts()):
            self._report(fact)
        return Moved(moved=moved, left=left)


async def _move(wanted: Move, deciding: Deciding, instance: Instance) -> Flaw | None:
    found = foresee(wanted, instance, deciding.work.now)
    if isinstance(found, Flaw):
        return found
    await deciding.migrate(wanted.passage.new, instance, found)
    return None


def foresee(wanted: Move, instance: Instance, now: datetime) -> Decision | Flaw:
    """What moving an instance comes to, without moving it."""
    return move(wanted.passage, instance, now, actor=wanted.actor, reason=wanted.reason)
