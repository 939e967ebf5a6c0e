"""What becomes of each message of one transaction: applied, ignored, held, dead-lettered, and of which instance.

Knows neither where the messages come from (a queue, the held ones, a dead letter, an operator) nor how what was decided
is committed; whoever uses it locks, deduplicates, saves and acknowledges.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from handlers.aliases import Aliases
from handlers.children import birth, following, parent_in, refused, start_otherwise
from handlers.facts import MessageDuplicated, MessageHeld, MessageIgnored
from handlers.keeping import EARLY, PAUSED, UNAWAITED, VERSION, Keeping
from handlers.letter import fact_of, letter_of
from handlers.work import Work
from messages import CancelSaga
from messages.errors import (
    DatabaseBusy,
    IdConflict,
    MessageError,
    MethodRaised,
    NewerMessage,
    NotAwaited,
    UnknownMessage,
)
from outbox.interface import Changes, DeadLetter, KeyClaim, Locked
from sagas import decide, heard
from sagas.aliases import aliases_of
from sagas.definition import Unfit
from sagas.instance import saga_id
from sagas.outcome import Arrived, Disposition, GiveUp
from sagas.replies import find_target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from handlers.routing import Routed
    from handlers.saga_types import SagaType
    from handlers.work import Fold
    from messages.codec import Limits
    from messages.envelope import Envelope
    from outbox.holding import Held
    from outbox.interface import Claimed, KeyOwner, MessageKey, Unit
    from outbox.naming import Named
    from outbox.relay import Lease
    from sagas.definition import Definition
    from sagas.instance import Instance
    from sagas.outcome import Decision, Input, Operated


class Deciding:
    """The decisions of one transaction about messages of one saga type, gathered while they are being made."""

    def __init__(
        self,
        saga: SagaType,
        unit: Unit,
        now: datetime,
        limits: Limits,
        owners: dict[str, KeyOwner] | None = None,
        *,
        aliases: Mapping[Named, UUID] | None = None,
    ) -> None:
        """`owners` says who has the business keys of the messages, `aliases` who has the aliases that they carry.

        Those of starts must be there.
        """
        self.work = Work(saga.namespace, now)
        self.dead_letters: list[DeadLetter] = []
        self.dispositions: dict[MessageKey, str] = {}
        self.facts: list[object] = []
        self.owners = owners or {}
        self._saga = saga
        self._unit = unit
        self._used: set[UUID] = set()
        self._reassigned: list[KeyClaim] = []
        self._aliases = Aliases(unit, self.work, aliases) if saga.latest.aliases else None
        self._keeping = Keeping(saga, unit, self.work, limits, owners=self.owners, aliases=self._aliases)
        self._awaiting: list[Fold] = []

    # -- what whoever uses it asks for

    def drop(self, routed: Sequence[Routed], fresh: Sequence[Routed], claimed: Claimed) -> None:
        """Everything that is not applied now: nobody's, unreadable, copies, and other messages under a known id."""
        hashes = {each.identity: each.message.body_hash for each in fresh}
        applied = {id(each) for each in fresh}
        for each in routed:
            if id(each) in applied or each.deferred:
                continue
            envelope = each.message.envelope
            if each.identity is None or envelope is None:
                self._dead_letter(each, each.message.error or MessageError("unreadable"))
                continue
            if each.nobody:
                self._count_ignored(envelope, "unknown_instance")
                continue
            known = claimed.known.get(each.identity)
            if (known.body_hash if known else hashes[each.identity]) == each.message.body_hash:
                self.facts.append(
                    MessageDuplicated(consumer=self._saga.name, message_id=envelope.message_id, name=envelope.name)
                )
            else:
                text = f"message id {envelope.message_id} was used before for another body"
                self._dead_letter(each, IdConflict(text, message_id=envelope.message_id))

    async def apply(self, each: Routed) -> None:
        """Decide what becomes of one message that is applied for the first time, and of what it unblocks."""
        await self._apply(each)
        if each.held is not None:
            self._note_met(each)
        if self._awaiting:
            await self._settle_all()

    async def operate(self, fold: Fold, operated: Operated) -> None:
        """Carry out an operator's action, and decide on what it unblocks.

        Raises:
            OperationRefused: see `sagas.decide.decide`.
        """
        await self._decide(fold, operated)
        await self._settle_all()

    async def migrate(self, definition: Definition, instance: Instance, moved: Decision) -> None:
        """Take up an instance that goes on under another version, and decide on what that unblocks."""
        if self._aliases is None and aliases_of(instance):  # of which its class knows nothing any more
            self._aliases = Aliases(self._unit, self.work)
        fold = await self.work.migrate(self._unit, definition, instance, moved)
        if heard.newly_awaited(instance, fold.current):
            await self._settle(fold)
        await self._settle_all()

    async def apply_held(self, rows: Sequence[Held], locked: Locked) -> None:
        """Decide on messages that were held for instances that this transaction has locked, in order of arrival."""
        for each in self._keeping.routed(rows, locked):
            if each.held not in self._keeping.unheld:  # else it was met by what was decided a moment ago
                self._retract(each)
                await self._apply(each)
                self._note_met(each)
                await self._settle_all()

    # -- what is kept

    async def _settle_all(self) -> None:
        while self._awaiting:
            await self._settle(self._awaiting.pop())

    async def _settle(self, fold: Fold) -> None:
        """Decide on the events that are kept for an instance, in order of arrival, until none of them fits any more."""
        waiting = await self._keeping.waiting_for(fold)
        while (each := next((one for one in waiting if self._keeping.fits(fold, one)), None)) is not None:
            waiting[:] = [one for one in waiting if one is not each]
            self._retract(each)
            await self._apply(each)
            self._note_met(each)

    async def _settle_aliases(self) -> None:
        """Let the instances have their aliases, and decide on what is held for these, until there are no more."""
        while self._aliases is not None and (taken := await self._aliases.settle()):
            await self._settle_all()
            for fold, named, awaited in taken:
                here = Locked(instances={fold.current.saga_id: fold.current}, busy=frozenset(), now=self.work.now)
                if awaited:
                    await self.apply_held(await self._unit.held_by_alias(self._saga.name, [named]), here)
                await self._meet_early(named)

    async def _meet_early(self, place: UUID | Named) -> None:
        """Decide on what has come in this transaction before the instance, or the alias, that it is for."""
        for each in self._keeping.early.pop(place, ()):
            self._retract(each)
            await self._apply(each)
            self._note_met(each)
            await self._settle_all()

    def _retract(self, each: Routed) -> None:
        """It is decided again: what was to be written of it before is not."""
        if each.identity is not None:
            self.dispositions.pop(each.identity, None)
        self._keeping.retract(each)

    def _note_met(self, each: Routed) -> None:
        """A message that was held is held no more, unless that is what was decided again."""
        if each.held is None or each.identity is None:
            return
        if self.dispositions.setdefault(each.identity, Disposition.APPLIED.value) != Disposition.HELD.value:
            self._keeping.unheld.append(each.held)

    async def _decide(self, fold: Fold, happened: Input, trace: str | None = None) -> Decision:
        before = fold.current
        decision = await self.work.decide(self._unit, fold, happened, trace)
        if heard.KEPT in fold.current.choices and heard.newly_awaited(before, fold.current):
            self._awaiting.append(fold)
        return decision

    async def changes(self, lease: Lease | None = None, confirmed: Sequence[tuple[int, UUID]] = ()) -> Changes:
        """Everything to be written. Without a lease, what is sent is left to whoever sweeps the outbox."""
        work = self.work
        if self._aliases is not None:
            await self._settle_aliases()
        changes = Changes(
            consumer=self._saga.name,
            inserted=work.inserted(),
            updated=work.updated(),
            reassigned=self._reassigned,
            released=[o.saga_id for o in self.owners.values() if o.mine and o.saga_id not in self._used],
            history=work.history(),
            listed=work.listed,
            rested=work.rested,
            dispositions=self.dispositions,
            dead_letters=self.dead_letters,
            held=self._keeping.held,
            reheld=self._keeping.reheld,
            unheld=self._keeping.unheld,
            outgoing=await work.outgoing(self._unit),
            confirmed=confirmed,
        )
        if lease is None:
            return changes
        return replace(changes, claim=(lease.token, lease.seconds), claim_limit=lease.limit, closed=lease.closed)

    # -- one message

    async def _apply(self, each: Routed) -> None:
        if self._aliases is not None:
            if self._aliases.concern(each):
                await self._settle_aliases()
            each = self._aliases.routed(each)
        error = each.message.error or each.error
        if error is not None:
            if await self._is_newer(each, error):
                self._hold(each, VERSION)
            else:
                self._dead_letter(each, error, claimed=True)
        elif each.message.marker is not None:
            await self._give_up(each)
        elif each.nobody:  # held until it could be read, which tells that it is for another saga type
            self._dispose(each, Disposition.IGNORED)
            if each.message.envelope is not None:
                self._count_ignored(each.message.envelope, "unknown_instance")
        elif each.starts and not each.kept:
            await self._start(each)
        else:
            await self._answer(each)

    async def _is_newer(self, each: Routed, error: MessageError) -> bool:
        """Whether a process that was deployed later may know what this one does not."""
        if isinstance(error, NewerMessage):
            return True
        envelope = each.message.envelope
        unknown = type(error) is UnknownMessage and envelope is not None
        return unknown and await self._unit.consumes(self._saga.name, envelope.name if envelope else "")

    async def _give_up(self, each: Routed) -> None:
        fold, marker, envelope = self._fold(each), each.message.marker, each.message.envelope
        if fold is None or marker is None or envelope is None:
            self._dispose(each, Disposition.IGNORED)  # its timer stands, and asks again where it is known
            return
        if await self._is_held_for(fold.current):
            self._dispose(each, Disposition.IGNORED)  # it came behind that, which is not read yet
            return
        happened = GiveUp(message_id=envelope.message_id, timer=marker.timer, entry=marker.entry)
        decision = await self._decide(fold, happened)
        if decision.disposition is Disposition.IGNORED:
            self._dispose(each, Disposition.IGNORED)

    async def _is_held_for(self, instance: Instance) -> bool:
        """Whether a message waits to be applied to it, or will when this transaction is committed."""
        if self._keeping.holds_for(instance.saga_id) or await self._unit.awaited(self._saga.name, [instance.saga_id]):
            return True
        names = aliases_of(instance).items() if self._aliases is not None else ()
        return bool(names and await self._unit.held_by_alias(self._saga.name, list(names)))

    async def _start(self, each: Routed) -> None:
        arrived, key = each.arrived(), each.message.key or ""
        owner = self.owners[key]
        taken = not owner.mine or owner.saga_id in self._used
        again = owner.start_id == arrived.message_id  # a copy, although the inbox may have forgotten it
        if taken and not again and self._saga.latest.key_reuse and self._is_over(each, owner):
            owner, taken = await self._claim_next(each, key, owner), False
            self.owners[key] = owner
        if not taken:
            await self._give_birth(each, arrived, owner, key)
            return
        if (parent := parent_in(self._saga, each)) is not None and not again:
            self._dispose(each, Disposition.IGNORED)
            start_otherwise(self._saga, self.work, each, parent, self.work.folds.get(owner.saga_id) or self._fold(each))
            return
        there = owner.saga_id in self.work.folds or each.instance is not None
        if there and not again and arrived.name in self._saga.latest.heard:  # that goes on with it
            await self._answer(replace(each, target=owner.saga_id))
            return
        differs = owner.start_hash != each.message.body_hash
        reason = "duplicate_start_differs" if differs else "duplicate_start"
        self._dispose(each, Disposition.IGNORED)
        fold = self.work.folds.get(owner.saga_id) or self._fold(each)
        if fold is not None:
            self.work.ignore(fold, arrived, reason)
        else:
            self._count_ignored(arrived, reason)

    def _is_over(self, each: Routed, owner: KeyOwner) -> bool:
        """Whether the instance that has the key has ended, or is no more."""
        fold = self.work.folds.get(owner.saga_id)
        instance = fold.current if fold is not None else each.instance
        return instance is None or instance.phase.ended

    async def _claim_next(self, each: Routed, key: str, owner: KeyOwner) -> KeyOwner:
        """The key once more, for the next instance; whoever else wants it has to hold the lock of the one that ended.

        Raises:
            DatabaseBusy: another transaction has started the next one since the keys were looked up.
        """
        envelope = each.message.envelope
        if envelope is None:
            raise LookupError("a message without an envelope starts nothing")
        claim = self._saga.claim(envelope, each.message.body_hash, key, owner.n + 1)
        [following] = await self._unit.claim_keys([claim])
        if not following.mine:
            raise DatabaseBusy(f"the key {key!r} was used again by another transaction just now; the batch runs again")
        return following

    async def _give_birth(self, each: Routed, arrived: Arrived, owner: KeyOwner, key: str) -> None:
        try:
            state = decide.first_state(self._saga.latest, arrived)
        except MethodRaised as error:
            self._dead_letter(each, error, claimed=True)
            return
        if owner.start_id != arrived.message_id:  # it was claimed for a copy in this batch that raised
            claim = self._saga.claim(arrived, each.message.body_hash, key, owner.n)
            self.owners[key] = replace(owner, start_id=claim.start_id, start_hash=claim.start_hash)
            self._reassigned.append(claim)
        decision = birth(self._saga, each, owner, key, state=state, now=self.work.now)
        self._used.add(owner.saga_id)
        self.work.begin(self._saga.latest, decision, each.trace)
        if owner.awaited:
            born = Locked(instances={owner.saga_id: decision.instance}, busy=frozenset(), now=self.work.now)
            await self.apply_held(await self._unit.held_for(self._saga.name, [owner.saga_id]), born)
        if self._keeping.early:
            await self._meet_early(owner.saga_id)

    async def _answer(self, each: Routed) -> None:
        if each.target is None:
            await self._come_too_early(each)
            return
        fold = self._fold(each)
        if fold is None:
            await self._wait_for_whom_it_is_for(each)
            return
        arrived = each.arrived()
        listens = arrived.name in fold.definition.heard
        if isinstance(arrived.event, CancelSaga) and (later := following(self._saga, fold, arrived.event)) is not None:
            self._hold(replace(each, target=None, instance=None, expected=later), EARLY)
            return
        if each.by_key and not listens and not _answers(fold, arrived):
            self._dispose(each, Disposition.IGNORED)
            if each.message.raw.routing_key == self._saga.queue:  # to this very saga, so it is no other's reply
                self.work.ignore(fold, arrived, "unknown_command")
            else:
                self._count_ignored(arrived, "unknown_command")
            return
        if fold.current.paused:
            self._hold(each, PAUSED)
            return
        first = listens and not each.kept and not self._keeping.has_come_to(fold.current.saga_id)
        if first and heard.newly_awaited(None, fold.current):
            await self._settle(fold)  # what came before it goes before it
        decision = await self._decide(fold, arrived, each.trace)
        if decision.error is not None:
            if each.held is not None and not decision.history:
                self.work.fail(fold, arrived, decision.error)
            self._dead_letter(each, decision.error, claimed=True, instance=fold.current.saga_id)
        elif decision.disposition is Disposition.HELD:
            self._hold(each, UNAWAITED)
        elif decision.disposition is not Disposition.APPLIED:
            self._dispose(each, decision.disposition)

    async def _wait_for_whom_it_is_for(self, each: Routed) -> None:
        """Its start comes behind it in this transaction, or its instance is of a version that is not known here."""
        if each.instance is None and each.target not in self.work.folds:
            await self._come_too_early(each)
        else:
            self._hold(each, VERSION)

    async def _come_too_early(self, each: Routed) -> None:
        """It was sent to this very saga, for an instance that is not there: not yet, or no more."""
        envelope = each.message.envelope
        listener = self._saga.latest.heard.get(envelope.name) if envelope is not None else None
        missing = listener.missing if listener is not None else Unfit.KEEP
        if await self._has_lived(each) or (each.message.alias is not None and missing is Unfit.IGNORE):
            self._dispose(each, Disposition.IGNORED)
            if envelope is not None:
                self._count_ignored(envelope, "unknown_instance")
        elif listener is not None and missing is Unfit.DEAD_LETTER:
            text = (
                f"no {self._saga.name} has the {each.message.alias or 'key'} {each.message.key!r}, and its class says "
                f"that {listener.name} is not to be kept"
            )
            self._dead_letter(each, NotAwaited(text, saga_type=self._saga.name), claimed=True)
        else:
            self._hold(each, EARLY)

    async def _has_lived(self, each: Routed) -> bool:
        """Whether the instance that it is for has been there, and is no more. Nobody knows of an alias."""
        key, expected = each.message.key, each.target or each.expected
        if key is None or each.message.alias is not None or self._is_unborn(key, expected):
            return False
        owner = (await self._unit.latest_keys(self._saga.name, [key])).get(key)
        lived = range(1, owner.n + 1) if owner is not None else ()
        return any(saga_id(self._saga.namespace, self._saga.name, key, n) == expected for n in lived)

    def _is_unborn(self, key: str, expected: UUID | None) -> bool:
        """Whether this transaction has claimed the key for its start, which comes later."""
        owner = self.owners.get(key)
        return owner is not None and owner.mine and owner.saga_id == expected and expected not in self._used

    def _fold(self, each: Routed) -> Fold | None:
        """The instance that a message is for, as the messages before it left it; None: not in a version known here."""
        if each.target is not None and each.target in self.work.folds:
            fold = self.work.folds[each.target]
            return fold if fold.known else None
        if each.instance is None or each.instance.version not in self._saga.definitions:
            return None
        return self.work.load(self._saga.definitions[each.instance.version], each.instance)

    # -- what became of it

    def _dispose(self, each: Routed, disposition: Disposition) -> None:
        """Note what became of a message, other than that it was applied."""
        if each.identity is not None:
            self.dispositions[each.identity] = disposition.value

    def _hold(self, each: Routed, reason: str) -> None:
        """Keep a message that cannot be applied now; what was held before and still waits keeps its place."""
        self._dispose(each, Disposition.HELD)
        held = self._keeping.hold(each, reason)
        if each.held is None and not each.kept:
            self.facts.append(
                MessageHeld(
                    consumer=self._saga.name,
                    message_id=held.message_id,
                    name=held.name,
                    reason=reason,
                    saga_id=held.saga_id,
                )
            )

    def _count_ignored(self, message: Envelope | Arrived, reason: str) -> None:
        self.facts.append(
            MessageIgnored(consumer=self._saga.name, message_id=message.message_id, name=message.name, reason=reason)
        )

    def _dead_letter(
        self, each: Routed, error: MessageError, *, claimed: bool = False, instance: UUID | None = None
    ) -> None:
        if claimed:
            self._dispose(each, Disposition.DEAD_LETTERED)
        message = each.message
        if claimed and each.starts:
            self.work.answers += refused(self._saga, each, error.reason, self.work.now)
        letter = letter_of(self._saga.name, message.raw, message.envelope, message.body_hash, error, saga_id=instance)
        self.dead_letters.append(letter)
        self.facts.append(fact_of(letter))


def _answers(fold: Fold, arrived: Arrived) -> bool:
    """Whether it names a command of that instance, or its start: a business key alone may be another saga's, too."""
    if isinstance(arrived.event, CancelSaga):
        return True
    return arrived.causation_id is not None and find_target(fold.definition, fold.current, arrived) is not None
