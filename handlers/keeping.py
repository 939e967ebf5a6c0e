"""The messages that a transaction keeps because they cannot be applied now, and those that are kept for its instances.

Says which of them fit by now; whether and when they are decided on again is for whoever decides.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from handlers.decoding import decode, named_by_id
from handlers.routing import Router
from outbox.holding import Held
from outbox.interface import Locked
from sagas import decide, heard
from sagas.items import NeedsItems
from sagas.outcome import Disposition

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    from handlers.aliases import Aliases
    from handlers.decoding import Decoded
    from handlers.routing import Routed
    from handlers.saga_types import SagaType
    from handlers.work import Fold, Work
    from messages.codec import Limits
    from messages.envelope import Envelope
    from outbox.interface import KeyOwner, Unit
    from outbox.naming import Named
    from sagas.definition import Definition

EARLY = "early"
UNAWAITED = "unawaited"
AWAITED = "awaited"
PAUSED = "paused"
VERSION = "version"

KEPT = (UNAWAITED, AWAITED)
"""Why events are held of which their instances know: before, and since they have come to them."""

PATIENCE = 24 * 3600.0
"""Seconds for which a message that came too early is held; one that waits for people is held until they act."""


class Keeping:
    """What one transaction is going to write of the messages of one saga type that are held.

    `held` are to be held, `reheld` are held on for another reason, `unheld` are the numbers of those held no more.
    `early` is what has come in this transaction before the instance, or the alias, that it is for.
    """

    def __init__(
        self,
        saga: SagaType,
        unit: Unit,
        work: Work,
        limits: Limits,
        *,
        owners: dict[str, KeyOwner],
        aliases: Aliases | None,
    ) -> None:
        self.held: list[Held] = []
        self.reheld: list[Held] = []
        self.unheld: list[int] = []
        self.early: dict[UUID | Named, list[Routed]] = {}
        self._saga = saga
        self._unit = unit
        self._work = work
        self._limits = limits
        self._owners = owners
        self._aliases = aliases
        self._waiting: dict[UUID, list[Routed]] = {}
        self._fetched: set[UUID] = set()

    # -- what is kept for the instances

    def routed(self, rows: Sequence[Held], locked: Locked) -> Iterator[Routed]:
        """Held messages as those that arrive are routed; none that starts another instance, or is for a busy one."""
        aliases = self._aliases.owners if self._aliases is not None else None
        router = Router(self._saga.latest, self._saga.namespace, self._owners, aliases)
        for index, row in enumerate(rows):
            routed = router.route(index, decode_held(row, self._saga.latest, self._limits), locked)
            kept, identity = row.reason in KEPT, (row.source, row.message_id)
            starts_another = routed.starts and not kept and (routed.message.key or "") not in self._owners
            if not routed.deferred and not starts_another:  # the sweep claims the key of what starts another
                yield replace(routed, held=row.held_id, identity=identity, kept=kept)

    async def waiting_for(self, fold: Fold) -> list[Routed]:
        """Those of the table, the first time they are asked for, and those that have come in this transaction."""
        saga_id = fold.current.saga_id
        waiting = self._waiting.setdefault(saga_id, [])
        if saga_id not in self._fetched and fold.before is not None and heard.KEPT in fold.before.choices:
            self._fetched.add(saga_id)
            known = {one.held for one in waiting if one.held is not None}.union(self.unheld)
            rows = await self._unit.held_for(self._saga.name, [saga_id])
            here = Locked(instances={saga_id: fold.current}, busy=frozenset(), now=self._work.now)
            kept = [row for row in rows if row.reason in KEPT and row.held_id not in known]
            waiting += self.routed(kept, here)
            waiting.sort(key=lambda one: (one.held is None, one.held or 0))
        return waiting

    def fits(self, fold: Fold, each: Routed) -> bool:
        """Whether something becomes of it now, other than that it is kept."""
        if fold.current.paused:
            return False
        try:
            decision = decide.decide(fold.definition, fold.current, each.arrived(), self._work.now)
        except NeedsItems:
            return True
        return decision.disposition is not Disposition.HELD

    def has_come_to(self, instance: UUID) -> bool:
        """Whether this transaction has looked at what is kept for an instance, or keeps something for it."""
        return instance in self._waiting

    def holds_for(self, instance: UUID) -> bool:
        """Whether this transaction holds a message that the instance would take."""
        return any(held.saga_id == instance and held.reason != UNAWAITED for held in self.held)

    # -- what is to be written

    def retract(self, each: Routed) -> None:
        """It is decided again: what was to be written of it before is not."""
        if each.held is None:
            self.held = [held for held in self.held if (held.source, held.message_id) != each.identity]
        else:
            self.reheld = [held for held in self.reheld if held.held_id != each.held]

    def hold(self, each: Routed, reason: str) -> Held:
        """Hold a message, and record it on the instance that it is for; what was held before keeps its place.

        Raises:
            LookupError: it is unreadable.
        """
        envelope = each.message.envelope
        if envelope is None or each.identity is None:
            raise LookupError("a message without an envelope is not held")
        alias = each.message.alias if reason == EARLY and each.target is None else None
        held = Held(
            held_id=each.held,
            saga_type=self._saga.name,
            source=each.identity[0],
            message_id=each.identity[1],
            body_hash=each.message.body_hash,
            name=envelope.name,
            schema_version=envelope.schema_version,
            raw=each.message.raw,
            reason=reason,
            business_key=self._key(each, alias),
            saga_id=None if alias is not None else each.target or each.expected,
            alias=alias,
            expires_in=PATIENCE if reason in (EARLY, UNAWAITED) else None,
        )
        (self.held if each.held is None else self.reheld).append(held)
        if reason == UNAWAITED and each.target is not None:
            waiting = self._waiting.setdefault(each.target, [])
            waiting[:] = [one for one in waiting if one.identity != each.identity]
            message = named_by_id(each.message, each.target)
            waiting.append(replace(each, kept=True, message=message))
        elif reason == EARLY and (place := _place(held)) is not None:
            self.early.setdefault(place, []).append(each)
        self._tell(each, envelope, reason)
        return held

    def _key(self, each: Routed, alias: str | None) -> str | None:
        """The value of the alias that it is held for, else the business key of its instance as far as it is known."""
        if each.message.alias is None or alias is not None:
            return each.message.key or (each.instance.key if each.instance else None)
        fold = self._work.folds.get(each.target) if each.target is not None else None
        instance = fold.current if fold is not None else each.instance
        return instance.key if instance is not None else None

    def _tell(self, each: Routed, envelope: Envelope, reason: str) -> None:
        """Record it on the instance that it is held for, where there is one; once, unless nothing there says so."""
        fold = self._work.folds.get(each.target) if each.target is not None else None
        if fold is None and each.instance is not None:
            known = self._saga.definitions.get(each.instance.version, self._saga.latest)
            fold = self._work.load(known, each.instance)
        told = each.kept if reason == UNAWAITED else each.held is not None and _is_told(fold, reason)
        if fold is not None and not told:
            self._work.hold(fold, envelope, reason, unread=each.message.error is not None)


def decode_held(row: Held, definition: Definition, limits: Limits) -> Decoded:
    """A message that is held; what has come by an alias to its instance is that one's, whoever has the alias since."""
    message = decode(row.raw, definition, limits)
    return message if row.alias is not None else named_by_id(message, row.saga_id)


def _place(held: Held) -> UUID | Named | None:
    """What it waits for to be there: an instance, or an alias."""
    return held.saga_id if held.alias is None else (held.alias, held.business_key or "")


def _is_told(fold: Fold | None, reason: str) -> bool:
    return fold is not None and decide.TOLD_AS[reason] in fold.current.attention
