"""The path of a batch: one transaction that starts, loads, deduplicates, decides and saves.

```
decode ─ claim keys ─ lock ─ route ─ claim inbox ─ decide, folded per instance ─ save ─ commit
```

Every message of the batch ends in exactly one disposition, or is deferred because another process holds its instance.
Knows no broker: whoever calls acknowledges what is done and publishes what was claimed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from handlers.deciding import Deciding, SagaType, claim_keys, leaving_held
from handlers.facts import BatchCommitted
from handlers.routing import Routed, Router
from messages.codec import DEFAULT_LIMITS
from messages.errors import TooOld
from messages.value import value
from outbox.interface import InboxEntry
from sagas.instance import saga_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from handlers.decoding import Decoded
    from handlers.work import Definitions
    from messages.codec import Limits
    from outbox.interface import Claimed, ClaimedRow, MessageKey, Storage, Unit
    from outbox.relay import Lease, Relay

_DAY = 86_400


class _AlreadyCommitted(Exception):  # noqa: N818
    """This batch's own token stands in the inbox: the commit whose outcome was unknown did happen."""


@value
class Decided:
    """What is known about a batch before it is saved.

    `deferred` are the indexes of messages left for the next batch, `born` the instances that it gives birth to, and
    `missing` those that its messages name and that are not there.
    """

    deferred: frozenset[int]
    born: frozenset[UUID]
    missing: frozenset[UUID]


@value
class Prepared:
    """What a transaction came to, complete before its commit.

    `claimed` are the rows to publish until `until`; `deferred` the indexes of messages left for the next batch.
    """

    claimed: Sequence[ClaimedRow]
    until: float
    deferred: frozenset[int]
    facts: Sequence[object]


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One batch's tries at one transaction, under one token. `alone`: perhaps it is to blame, and nothing else may be.

    `prepared` is what the latest try came to: when its commit was answered by silence and the next try finds the token
    in the inbox, that is what happened.
    """

    token: UUID
    alone: bool = False
    prepared: Prepared | None = None


@value
class _Batch:
    """A batch that was decided and not yet saved. `deferred` and `missing` are as in `Decided`."""

    deciding: Deciding
    deferred: frozenset[int]
    missing: frozenset[UUID]


class Handler:
    """The message path of one saga type."""

    def __init__(
        self,
        definitions: Definitions,
        *,
        namespace: str,
        storage: Storage,
        relay: Relay,
        report: Callable[[object], None],
        limits: Limits = DEFAULT_LIMITS,
        inbox_window: float = math.inf,
    ) -> None:
        """`inbox_window` is how long the inbox remembers an id, in seconds."""
        self.saga = SagaType(definitions, namespace)
        self.latest = self.saga.latest
        self.consumer = self.saga.name
        self._limits = limits
        self._inbox_window = inbox_window
        self.storage = storage
        self._relay = relay
        self._report = report

    async def handle(
        self,
        messages: Sequence[Decoded],
        attempt: Attempt,
        *,
        wait: bool = False,
        decided: Callable[[Decided], Awaitable[None]] | None = None,
    ) -> Prepared:
        """Decide a batch, given in delivery order, in one transaction, and commit it.

        With `wait`, instances that another transaction holds are waited for; otherwise their messages are deferred.
        `decided` is called before anything is saved, and what it raises undoes the transaction.

        Raises:
            Trouble: nothing was committed, or nobody knows; try again with the same `attempt`.
            MessageError: the database refuses the data of some message of the batch.
        """
        lease, confirmed = self._relay.lease(), self._relay.take_confirmed()
        try:
            async with self.storage.transaction() as unit:
                batch = await self._decide(unit, messages, attempt, wait=wait)
                if decided is not None:
                    born = frozenset(instance.saga_id for instance in batch.deciding.work.inserted())
                    await decided(Decided(deferred=batch.deferred, born=born, missing=batch.missing))
                attempt.prepared = await self._save(unit, batch, lease, confirmed)
        except _AlreadyCommitted:
            self._relay.give_back(confirmed)
        except BaseException:
            self._relay.give_back(confirmed)
            raise
        if attempt.prepared is None:
            raise LookupError("a batch was committed under a token that never prepared one")
        return attempt.prepared

    def instances(self, message: Decoded) -> frozenset[UUID]:
        """Which instances it may be for, as far as it tells by itself; messages of one are applied in their order."""
        by_key = saga_id(self.saga.namespace, self.consumer, message.key) if message.key is not None else None
        return frozenset(each for each in (message.claims, by_key) if each is not None)

    async def finish(self, prepared: Prepared, size: int) -> None:
        """After the commit: publish what was born claimed, and tell what happened."""
        await self._relay.publish(prepared.claimed, prepared.until)
        for fact in prepared.facts:
            self._report(fact)
        self._report(BatchCommitted(consumer=self.consumer, messages=size, deferred=len(prepared.deferred)))

    # -- the stages

    async def _decide(self, unit: Unit, messages: Sequence[Decoded], attempt: Attempt, *, wait: bool) -> _Batch:
        owners = await claim_keys(self.saga, unit, messages)
        owners = leaving_held(owners) if attempt.alone else owners
        router = Router(self.latest, self.saga.namespace, owners)
        wanted = router.wanted(messages)
        locked = await unit.lock(wanted, wait=wait)
        routed = [router.route(index, message, locked) for index, message in enumerate(messages)]
        fresh, claimed = await self._claim_inbox(unit, routed, attempt.token)
        deciding = Deciding(self.saga, unit, claimed.now, self._limits, owners)
        deciding.drop(routed, fresh, claimed)
        for each in fresh:
            await deciding.apply(self._dated(each, claimed.now))
        return _Batch(
            deciding=deciding,
            deferred=frozenset(each.index for each in routed if each.deferred),
            missing=frozenset(wanted - locked.instances.keys() - locked.busy),
        )

    async def _claim_inbox(self, unit: Unit, routed: Sequence[Routed], token: UUID) -> tuple[list[Routed], Claimed]:
        """Those that are applied for the first time, in order. Copies within the batch are told apart in memory."""
        first: dict[MessageKey, Routed] = {}
        for each in routed:
            if each.identity is not None and not each.deferred and not each.nobody:
                first.setdefault(each.identity, each)
        entries = [
            InboxEntry(source=identity[0], message_id=identity[1], body_hash=each.message.body_hash)
            for identity, each in first.items()
        ]
        claimed = await unit.claim_inbox(self.consumer, token, entries)
        if any(row.token == token for row in claimed.known.values()):
            raise _AlreadyCommitted
        return [each for identity, each in first.items() if identity not in claimed.known], claimed

    def _dated(self, each: Routed, now: datetime) -> Routed:
        """The message, refused where only an inbox that has forgotten its time could tell it from a copy.

        A start is decided by its key, where that is not used again, and a reply by the command that it names.
        """
        envelope = each.message.envelope
        if envelope is None or envelope.timestamp is None or each.message.event is None or each.error is not None:
            return each
        age = (now - envelope.timestamp).total_seconds()
        decided = envelope.causation_id is not None or (each.starts and not self.latest.key_reuse)
        if decided or age <= self._inbox_window:
            return each
        text = (
            f"it was sent {age / _DAY:.1f} days ago, and ids are remembered for {self._inbox_window / _DAY:g} "
            "(ANTIPHON_INBOX_WINDOW): it may be a copy; if it was never handled, replay it"
        )
        return replace(each, error=TooOld(text, message_id=envelope.message_id))

    async def _save(self, unit: Unit, batch: _Batch, lease: Lease, confirmed: Sequence[tuple[int, UUID]]) -> Prepared:
        deciding = batch.deciding
        return Prepared(
            claimed=await unit.save(await deciding.changes(lease, confirmed)),
            until=lease.until,
            deferred=batch.deferred,
            facts=[*deciding.facts, *deciding.work.facts()],
        )
