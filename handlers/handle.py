"""The path of a batch: one transaction that starts, loads, deduplicates, decides and saves.

```
decode ─ claim keys ─ lock ─ route ─ claim inbox ─ decide, folded per instance ─ save ─ commit
```

On a database that can, a batch is tried without locks first (`outbox.unlocked`): the same path over one look and one
statement. The transaction is for what does not succeed so.

Every message of the batch ends in exactly one disposition, or is deferred because another process holds its instance.
Knows no broker: whoever calls acknowledges what is done and publishes what was claimed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from handlers.aliases import find_aliases, still_there
from handlers.deciding import Deciding
from handlers.facts import BatchCommitted
from handlers.routing import Routed, Router
from handlers.saga_types import SagaType, claim_keys, first_claims, leaving_held
from messages.codec import DEFAULT_LIMITS
from messages.errors import DatabaseBusy, TooOld
from messages.value import value
from outbox.interface import InboxEntry
from outbox.unlocked import NeedsTransaction, Wanted
from sagas.instance import saga_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from handlers.decoding import Decoded
    from handlers.work import Definitions
    from messages.codec import Limits
    from outbox.interface import Claimed, ClaimedRow, MessageKey, Outgoing, Storage, Unit
    from outbox.relay import Lease, Relay

_DAY = 86_400


class _AlreadyCommitted(Exception):  # noqa: N818
    """This batch's own token stands in the inbox: the commit whose outcome was unknown did happen."""


class Overtaken(Exception):  # noqa: N818
    """What a batch was decided on has changed before it was saved, or may have: it has to be decided again."""


@value
class Decided:
    """What is known about a batch before it is saved.

    `deferred` are the indexes of messages left for the next batch. The other messages concern the instances
    `concerned`; of these, `missing` are not there, and `born` are those that it gives birth to. `locked`: others may
    have to wait for what it holds.
    """

    locked: bool
    deferred: frozenset[int]
    concerned: frozenset[UUID]
    missing: frozenset[UUID]
    born: frozenset[UUID]


class Line(Protocol):
    """The batches of one consumer, as one of them sees the others."""

    def begin(self) -> frozenset[UUID]:
        """Called before anything is looked at. Returns the instances that an unfinished batch before is about."""
        ...

    async def decided(self, what: Decided) -> None:
        """Called before anything is saved; what it raises undoes the batch."""
        ...


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
    in the inbox, that is what happened. Where saving is committing, it was silent about what is claimed, too: `unsure`
    are the token of the claim and the messages. `locking`: it has been tried without locks.
    """

    token: UUID
    alone: bool = False
    locking: bool = False
    prepared: Prepared | None = None
    unsure: tuple[UUID, Sequence[Outgoing]] | None = None


@dataclass(slots=True, kw_only=True)
class _Task:
    """A batch as one try finds it; `busy` are instances that it has to leave alone."""

    messages: Sequence[Decoded]
    attempt: Attempt
    line: Line | None
    lease: Lease
    confirmed: Sequence[tuple[int, UUID]]
    wait: bool
    locked: bool = False
    busy: frozenset[UUID] = frozenset()

    def begin(self, *, locked: bool) -> None:
        """Something is about to be looked at, or locked."""
        self.locked = locked
        self.busy = self.line.begin() if self.line is not None else frozenset()


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
        self, messages: Sequence[Decoded], attempt: Attempt, *, wait: bool = False, line: Line | None = None
    ) -> Prepared:
        """Decide a batch, given in delivery order, and commit it.

        With `wait`, instances that another transaction holds are waited for; otherwise their messages are deferred.

        Raises:
            Overtaken: what it was decided on has changed; try again with the same `attempt`.
            Trouble: nothing was committed, or nobody knows; try again with the same `attempt`.
            MessageError: the database refuses the data of some message of the batch.
        """
        lease, confirmed = self._relay.lease(), self._relay.take_confirmed()
        task = _Task(messages=messages, attempt=attempt, line=line, lease=lease, confirmed=confirmed, wait=wait)
        try:
            if not await self._without_locks(task):
                async with self.storage.transaction() as unit:
                    task.begin(locked=True)
                    await self._carry_out(unit, task)
        except _AlreadyCommitted:
            self._relay.give_back(confirmed)
            await self._recall(attempt)
        except BaseException:
            self._relay.give_back(confirmed)
            raise
        if attempt.prepared is None:
            raise LookupError("a batch was committed under a token that never prepared one")
        return attempt.prepared

    def instances(self, message: Decoded) -> frozenset[UUID]:
        """Which instances it may be for, as far as it tells by itself; messages of one are applied in their order.

        What comes by an alias is in order with what comes by the same: who has that is not known yet.
        """
        named = message.key if message.alias is None else f"{message.alias}={message.key}"
        by_key = saga_id(self.saga.namespace, self.consumer, named) if named is not None else None
        return frozenset(each for each in (message.claims, by_key) if each is not None)

    async def finish(self, prepared: Prepared, size: int) -> None:
        """After the commit: publish what was born claimed, and tell what happened."""
        await self._relay.publish(prepared.claimed, prepared.until)
        for fact in prepared.facts:
            self._report(fact)
        self._report(BatchCommitted(consumer=self.consumer, messages=size, deferred=len(prepared.deferred)))

    # -- the two ways

    async def _without_locks(self, task: _Task) -> bool:
        """Whether that did it. It is the first try only: whoever was overtaken once has rivals.

        Raises:
            Overtaken: somebody else was first, or holds one of the instances.
        """
        unlocked, attempt = self.storage.unlocked, task.attempt
        if unlocked is None or attempt.locking or attempt.alone or task.wait:
            return False
        if self.latest.key_reuse or self.latest.aliases:
            return False
        attempt.locking = True
        task.begin(locked=False)
        try:
            async with unlocked.unit(self._wanted(task.messages)) as unit:
                await self._carry_out(unit, task)
        except NeedsTransaction:
            return False
        except DatabaseBusy as error:
            raise Overtaken from error
        return True

    def _wanted(self, messages: Sequence[Decoded]) -> Wanted:
        return Wanted(
            saga_type=self.consumer,
            claims=list(first_claims(self.saga, messages).values()),
            saga_ids=frozenset().union(*(self.instances(message) for message in messages)),
            entries=[
                InboxEntry(source=e.source, message_id=e.message_id, body_hash=message.body_hash)
                for message in messages
                if (e := message.envelope) is not None
            ],
        )

    async def _recall(self, attempt: Attempt) -> None:
        """What a save has claimed whose answer was lost."""
        if attempt.prepared is not None and attempt.unsure is not None and self.storage.unlocked is not None:
            claimed = await self.storage.unlocked.claimed(*attempt.unsure)
            attempt.prepared, attempt.unsure = replace(attempt.prepared, claimed=claimed), None

    # -- the stages

    async def _carry_out(self, unit: Unit, task: _Task) -> None:
        attempt, lease = task.attempt, task.lease
        deciding, decided = await self._decide(unit, task)
        changes = await deciding.changes(lease, task.confirmed)
        if task.line is not None:
            await task.line.decided(decided)
        attempt.prepared = Prepared(
            claimed=(),
            until=lease.until,
            deferred=decided.deferred,
            facts=[*deciding.facts, *deciding.work.facts()],
        )
        attempt.unsure = lease.token, changes.outgoing
        attempt.prepared = replace(attempt.prepared, claimed=await unit.save(changes))
        attempt.unsure = None

    async def _decide(self, unit: Unit, task: _Task) -> tuple[Deciding, Decided]:
        owners = await claim_keys(self.saga, unit, task.messages)
        owners = leaving_held(owners) if task.attempt.alone else owners
        aliases = await find_aliases(self.saga, unit, task.messages) if self.latest.aliases else {}
        router = Router(self.latest, self.saga.namespace, owners, aliases)
        wanted = router.wanted(task.messages)
        locked = await unit.lock(wanted - task.busy, wait=task.wait)
        aliases = still_there(aliases, locked) if aliases else aliases
        locked = replace(locked, busy=locked.busy | task.busy)
        routed = []
        for index, message in enumerate(task.messages):
            each = router.route(index, message, locked)
            routed.append(each)
            if each.deferred:  # whatever else it may be for waits behind it
                locked = replace(locked, busy=locked.busy | self.instances(message) | router.candidates(message))
        fresh, claimed = await self._claim_inbox(unit, routed, task.attempt.token)
        deciding = Deciding(self.saga, unit, claimed.now, self._limits, owners, aliases=aliases)
        deciding.drop(routed, fresh, claimed)
        for each in fresh:
            await deciding.apply(self._dated(each, claimed.now))
        born = frozenset(instance.saga_id for instance in deciding.work.inserted())
        return deciding, Decided(
            locked=task.locked,
            deferred=frozenset(each.index for each in routed if each.deferred),
            concerned=born.union(
                target for each in routed if not each.deferred and (target := each.target or each.expected) is not None
            ),
            missing=frozenset(wanted - locked.instances.keys() - locked.busy),
            born=born,
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
