"""The path of a batch: one transaction that starts, loads, deduplicates, decides and saves.

```
decode ─ claim keys ─ lock ─ route ─ claim inbox ─ decide, folded per instance ─ save ─ commit
```

Every message of the batch ends in exactly one disposition, or is deferred because another process holds its instance.
Knows no broker: whoever calls acknowledges what is done and publishes what was claimed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from handlers.facts import BatchCommitted, MessageDeadLettered, MessageDuplicated, MessageIgnored
from handlers.routing import Routed, Router
from handlers.work import Work
from messages.errors import DatabaseBusy, IdConflict, MessageError, MethodRaised, UnknownMessage
from messages.value import value
from outbox.interface import Changes, DeadLetter, InboxEntry, KeyClaim
from sagas import decide
from sagas.decision import Arrived, Disposition, GiveUp
from sagas.instance import saga_id
from sagas.replies import find_target

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from uuid import UUID

    from handlers.decoding import Decoded
    from handlers.work import Definitions, Fold
    from messages.envelope import Envelope
    from outbox.interface import Claimed, ClaimedRow, KeyOwner, MessageKey, Storage, Unit
    from outbox.relay import Lease, Relay


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
    """One batch's tries at one transaction, under one token.

    `prepared` is what the latest try came to: when its commit was answered by silence and the next try finds the token
    in the inbox, that is what happened.
    """

    token: UUID
    prepared: Prepared | None = None


@dataclass(slots=True)
class _Batch:
    """The decisions about one batch while they are being made."""

    work: Work
    owners: dict[str, KeyOwner]
    used: set[UUID] = field(default_factory=set)
    reassigned: list[KeyClaim] = field(default_factory=list)
    dispositions: dict[MessageKey, str] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    deferred: set[int] = field(default_factory=set)
    missing: frozenset[UUID] = frozenset()
    facts: list[object] = field(default_factory=list)


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
    ) -> None:
        self._definitions = definitions
        self.latest = definitions[max(definitions)]
        self.consumer = self.latest.type
        self._namespace = namespace
        self._storage = storage
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
            async with self._storage.transaction() as unit:
                batch = await self._decide(unit, messages, attempt.token, wait=wait)
                if decided is not None:
                    born = frozenset(instance.saga_id for instance in batch.work.inserted())
                    await decided(Decided(deferred=frozenset(batch.deferred), born=born, missing=batch.missing))
                attempt.prepared = await self._save(unit, batch, lease, confirmed)
        except _AlreadyCommitted:
            self._relay.give_back(confirmed)
        except BaseException:
            self._relay.give_back(confirmed)
            raise
        if attempt.prepared is None:
            raise LookupError("a batch was committed under a token that never prepared one")
        return attempt.prepared

    async def finish(self, prepared: Prepared, size: int) -> None:
        """After the commit: publish what was born claimed, and tell what happened."""
        await self._relay.publish(prepared.claimed, prepared.until)
        for fact in prepared.facts:
            self._report(fact)
        self._report(BatchCommitted(consumer=self.consumer, messages=size, deferred=len(prepared.deferred)))

    # -- the stages

    async def _decide(self, unit: Unit, messages: Sequence[Decoded], token: UUID, *, wait: bool) -> _Batch:
        owners = await self._claim_keys(unit, messages)
        router = Router(self.latest, self._namespace, owners)
        wanted = router.wanted(messages)
        locked = await unit.lock(wanted, wait=wait)
        routed = [router.route(index, message, locked) for index, message in enumerate(messages)]
        fresh, claimed = await self._claim_inbox(unit, routed, token)
        batch = _Batch(Work(self._namespace, claimed.now), owners)
        batch.deferred.update(each.index for each in routed if each.deferred)
        batch.missing = frozenset(wanted - locked.instances.keys() - locked.busy)
        self._drop(batch, routed, fresh, claimed)
        for each in fresh:
            await self._apply(unit, batch, each)
        return batch

    async def _claim_keys(self, unit: Unit, messages: Sequence[Decoded]) -> dict[str, KeyOwner]:
        """Who has the keys of the batch: of all that start something, and where keys are used again, of all others."""
        used = {message.key for message in messages if message.key is not None} if self.latest.key_reuse else ()
        latest = await unit.latest_keys(self.consumer, used) if used else {}
        claims: dict[str, KeyClaim] = {}
        for message in messages:
            envelope, key = message.envelope, message.key
            if envelope is None or message.event is None or key is None or envelope.name not in self.latest.starts:
                continue
            if key not in latest:
                claims.setdefault(key, self._key_claim(envelope, message.body_hash, key, 1))
        owners = await unit.claim_keys(list(claims.values())) if claims else ()
        return {**latest, **dict(zip(claims, owners, strict=True))}

    def _key_claim(self, start: Envelope | Arrived, body_hash: bytes, key: str, n: int) -> KeyClaim:
        return KeyClaim(
            saga_type=self.consumer,
            key=key,
            saga_id=saga_id(self._namespace, self.consumer, key, n),
            n=n,
            start_id=start.message_id,
            start_hash=body_hash,
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

    def _drop(self, batch: _Batch, routed: Sequence[Routed], fresh: Sequence[Routed], claimed: Claimed) -> None:
        """Everything that is not applied now: nobody's, unreadable, copies, and other messages under a known id."""
        hashes = {each.identity: each.message.body_hash for each in fresh}
        applied = {id(each) for each in fresh}
        for each in routed:
            if id(each) in applied or each.deferred:
                continue
            envelope = each.message.envelope
            if each.identity is None or envelope is None:
                self._dead_letter(batch, each, each.message.error or MessageError("unreadable"))
                continue
            if each.nobody:
                batch.facts.append(
                    MessageIgnored(
                        consumer=self.consumer,
                        message_id=envelope.message_id,
                        name=envelope.name,
                        reason="unknown_instance",
                    )
                )
                continue
            known = claimed.known.get(each.identity)
            if (known.body_hash if known else hashes[each.identity]) == each.message.body_hash:
                batch.facts.append(
                    MessageDuplicated(consumer=self.consumer, message_id=envelope.message_id, name=envelope.name)
                )
            else:
                text = f"message id {envelope.message_id} was used before for another body"
                self._dead_letter(batch, each, IdConflict(text, message_id=envelope.message_id))

    async def _apply(self, unit: Unit, batch: _Batch, each: Routed) -> None:
        error = each.message.error or each.error
        if error is not None:
            self._dead_letter(batch, each, error, claimed=True)
        elif each.message.marker is not None:
            await self._give_up(unit, batch, each)
        elif each.starts:
            await self._start(unit, batch, each)
        else:
            await self._answer(unit, batch, each)

    async def _give_up(self, unit: Unit, batch: _Batch, each: Routed) -> None:
        fold, marker, envelope = self._fold(batch, each), each.message.marker, each.message.envelope
        if fold is None or marker is None or envelope is None:
            self._dispose(batch, each, Disposition.IGNORED)  # its timer stands, and asks again where it is known
            return
        happened = GiveUp(message_id=envelope.message_id, timer=marker.timer, entry=marker.entry)
        decision = await batch.work.decide(unit, fold, happened)
        if decision.disposition is Disposition.IGNORED:
            self._dispose(batch, each, Disposition.IGNORED)

    async def _start(self, unit: Unit, batch: _Batch, each: Routed) -> None:
        arrived, key = _arrived(each), each.message.key or ""
        owner = batch.owners[key]
        taken = not owner.mine or owner.saga_id in batch.used
        if taken and self.latest.key_reuse and _is_over(batch, each, owner):
            owner, taken = await self._claim_next(unit, each, key, owner), False
            batch.owners[key] = owner
        if not taken:
            self._give_birth(batch, each, arrived, owner, key)
            return
        differs = owner.start_hash != each.message.body_hash
        reason = "duplicate_start_differs" if differs else "duplicate_start"
        self._dispose(batch, each, Disposition.IGNORED)
        fold = batch.work.folds.get(owner.saga_id) or self._fold(batch, each)
        if fold is not None:
            batch.work.ignore(fold, arrived, reason)
        else:
            batch.facts.append(
                MessageIgnored(consumer=self.consumer, message_id=arrived.message_id, name=arrived.name, reason=reason)
            )

    async def _claim_next(self, unit: Unit, each: Routed, key: str, owner: KeyOwner) -> KeyOwner:
        """The key once more, for the next instance; whoever else wants it has to hold the lock of the one that ended.

        Raises:
            DatabaseBusy: another transaction has started the next one since the keys were looked up.
        """
        envelope = each.message.envelope
        if envelope is None:
            raise LookupError("a message without an envelope starts nothing")
        [following] = await unit.claim_keys([self._key_claim(envelope, each.message.body_hash, key, owner.n + 1)])
        if not following.mine:
            raise DatabaseBusy(f"the key {key!r} was used again by another transaction just now; the batch runs again")
        return following

    def _give_birth(self, batch: _Batch, each: Routed, arrived: Arrived, owner: KeyOwner, key: str) -> None:
        try:
            state = decide.first_state(self.latest, arrived)
        except MethodRaised as error:
            self._dead_letter(batch, each, error, claimed=True)
            return
        if owner.start_id != arrived.message_id:  # it was claimed for a copy in this batch that raised
            claim = self._key_claim(arrived, each.message.body_hash, key, owner.n)
            batch.owners[key] = replace(owner, start_id=claim.start_id, start_hash=claim.start_hash)
            batch.reassigned.append(claim)
        decision = decide.start(
            self.latest, arrived, state=state, saga_id=owner.saga_id, key=key, n=owner.n, now=batch.work.now
        )
        batch.used.add(owner.saga_id)
        batch.work.begin(self.latest, decision, each.trace)

    async def _answer(self, unit: Unit, batch: _Batch, each: Routed) -> None:
        fold = self._fold(batch, each)
        if fold is None:
            version = each.instance.version if each.instance else None
            text = f"{self.consumer} version {version} is unknown to this process; deploy it, then replay"
            self._dead_letter(batch, each, UnknownMessage(text), claimed=True)
            return
        arrived = _arrived(each)
        if each.by_key and not _answers(fold, arrived):
            self._dispose(batch, each, Disposition.IGNORED)
            batch.facts.append(
                MessageIgnored(
                    consumer=self.consumer, message_id=arrived.message_id, name=arrived.name, reason="unknown_command"
                )
            )
            return
        decision = await batch.work.decide(unit, fold, arrived, each.trace)
        if decision.error is not None:
            self._dead_letter(batch, each, decision.error, claimed=True, instance=fold.current.saga_id)
        elif decision.disposition is not Disposition.APPLIED:
            self._dispose(batch, each, decision.disposition)

    def _fold(self, batch: _Batch, each: Routed) -> Fold | None:
        """The instance that a message is for, as the messages before it left it."""
        if each.target is not None and each.target in batch.work.folds:
            return batch.work.folds[each.target]
        if each.instance is None or each.instance.version not in self._definitions:
            return None
        return batch.work.load(self._definitions[each.instance.version], each.instance)

    def _dispose(self, batch: _Batch, each: Routed, disposition: Disposition) -> None:
        """Note what became of a message, other than that it was applied."""
        if each.identity is not None:
            batch.dispositions[each.identity] = disposition.value

    def _dead_letter(
        self, batch: _Batch, each: Routed, error: MessageError, *, claimed: bool = False, instance: UUID | None = None
    ) -> None:
        if claimed:
            self._dispose(batch, each, Disposition.DEAD_LETTERED)
        envelope, raw = each.message.envelope, each.message.raw
        name = envelope.name if envelope else raw.type or raw.routing_key
        message_id = envelope.message_id if envelope else raw.message_id or each.message.body_hash.hex()
        batch.dead_letters.append(
            DeadLetter(
                consumer=self.consumer,
                source=envelope.source if envelope else "",
                message_id=message_id,
                name=name,
                raw=raw,
                body_hash=each.message.body_hash,
                reason=error.reason,
                error=str(error),
                saga_id=instance,
            )
        )
        batch.facts.append(
            MessageDeadLettered(
                consumer=self.consumer,
                message_id=message_id,
                name=name,
                reason=error.reason,
                error=str(error),
                saga_id=instance,
            )
        )

    async def _save(self, unit: Unit, batch: _Batch, lease: Lease, confirmed: Sequence[tuple[int, UUID]]) -> Prepared:
        work = batch.work
        claimed = await unit.save(
            Changes(
                consumer=self.consumer,
                inserted=work.inserted(),
                updated=work.updated(),
                reassigned=batch.reassigned,
                released=[o.saga_id for o in batch.owners.values() if o.mine and o.saga_id not in batch.used],
                history=work.history(),
                dispositions=batch.dispositions,
                dead_letters=batch.dead_letters,
                outgoing=await work.outgoing(unit),
                claim=(lease.token, lease.seconds),
                claim_limit=lease.limit,
                confirmed=confirmed,
            )
        )
        return Prepared(
            claimed=claimed,
            until=lease.until,
            deferred=frozenset(batch.deferred),
            facts=[*batch.facts, *work.facts()],
        )


def _is_over(batch: _Batch, each: Routed, owner: KeyOwner) -> bool:
    """Whether the instance that has the key has ended, or is no more."""
    fold = batch.work.folds.get(owner.saga_id)
    instance = fold.current if fold is not None else each.instance
    return instance is None or instance.phase.ended


def _answers(fold: Fold, arrived: Arrived) -> bool:
    """Whether it names a command of that instance: a business key alone may be another saga's, too."""
    return arrived.causation_id is not None and find_target(fold.definition, fold.current, arrived) is not None


def _arrived(each: Routed) -> Arrived:
    envelope, event = each.message.envelope, each.message.event
    if envelope is None or event is None:
        raise LookupError("a message without an event is not applied")
    return Arrived(
        message_id=envelope.message_id,
        name=envelope.name,
        body=envelope.body,
        event=event,
        causation_id=envelope.causation_id,
    )
