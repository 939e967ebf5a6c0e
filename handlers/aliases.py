"""The aliases of instances within one transaction: looked up for its messages, taken and given up as instances change.

Nothing is written before it is asked for: by whoever is about to decide on what an alias may decide, and at the end.
What several instances have come to until then is one statement.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from messages.errors import DatabaseBusy
from outbox.naming import AliasClaim
from sagas.aliases import REFUSED, aliased, aliases_of, given

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    from handlers.decoding import Decoded
    from handlers.routing import Routed
    from handlers.saga_types import SagaType
    from handlers.work import Fold, Work
    from outbox.interface import Locked, Unit
    from outbox.naming import AliasOwner, Named
    from sagas.instance import Instance


async def find_aliases(saga: SagaType, unit: Unit, messages: Iterable[Decoded]) -> Mapping[Named, UUID]:
    """Which instances have the aliases that the messages carry. Asks nobody where none carries one."""
    if not saga.latest.aliases:
        return {}
    wanted = {(each.alias, each.key) for each in messages if each.alias is not None and each.key is not None}
    return await unit.aliased(saga.name, wanted) if wanted else {}


def still_there(aliases: Mapping[Named, UUID], locked: Locked) -> Mapping[Named, UUID]:
    """Those of instances that are locked now, which must still have them.

    Raises:
        DatabaseBusy: one has been given another since it was found by them.
    """
    for (alias, value), saga_id in aliases.items():
        instance = locked.instances.get(saga_id)
        if instance is not None and aliases_of(instance).get(alias) != value:
            raise DatabaseBusy(f"the {alias} {value!r} was given to another instance just now; the batch runs again")
    return {named: saga_id for named, saga_id in aliases.items() if saga_id in locked.instances}


class Aliases:
    """Which instances of one transaction have which alias: those that it has found, and what they have come to."""

    def __init__(self, unit: Unit, work: Work, found: Mapping[Named, UUID] | None = None) -> None:
        self.owners: dict[Named, UUID] = dict(found or {})
        self._unit = unit
        self._work = work
        self._seen: dict[UUID, tuple[bytes, bool]] = {}
        self._named: dict[UUID, tuple[Instance, frozenset[object]]] = {}

    def concern(self, each: Routed) -> bool:
        """Whether something is to be taken or given up first: by its instance, or of the alias that it carries."""
        named = (each.message.alias, each.message.key)
        return any(
            fold.current.saga_id == each.target or (named[0] is not None and named in self._names(fold))
            for fold in self._changed()
        )

    def _names(self, fold: Fold) -> frozenset[object]:
        """What an instance has, and what its state gives it."""
        known, names = self._named.get(fold.current.saga_id, (None, frozenset[object]()))
        if known is not fold.current:
            values, _ = given(fold.definition, fold.current)
            names = frozenset((*values.items(), *aliases_of(fold.current).items()))
            self._named[fold.current.saga_id] = fold.current, names
        return names

    def routed(self, each: Routed) -> Routed:
        """A message that comes by an alias with the instance that has it now; what names one by its id is for that."""
        message = each.message
        if message.alias is None or (message.claims is not None and each.target == message.claims):
            return each
        owner = self.owners.get((message.alias, message.key or ""))
        return each if owner == each.target else replace(each, target=owner, instance=None)

    async def settle(self) -> Sequence[tuple[Fold, Named, bool]]:
        """Let the instances have the aliases that their states give them by now, and record what has changed.

        Returns which have come to which, and whether messages may be held for that.
        """
        folds = self._changed()
        wanted = []
        for fold in folds:
            self._seen[fold.current.saga_id] = _state(fold)
            values, unfit = given(fold.definition, fold.current)
            has = aliases_of(fold.current)
            if values != has or unfit or REFUSED in fold.current.attention:
                wanted.append((fold, values, unfit, has))
        await self._give_up([claim for fold, values, _, has in wanted for claim in _claims(fold, has, values)])
        claims = [claim for fold, values, _, has in wanted for claim in _claims(fold, values, has)]
        owners = dict(zip(claims, await self._take(claims), strict=True)) if claims else {}
        return [
            (fold, claim.named, owners[claim].awaited)
            for fold, values, unfit, has in wanted
            for claim in self._record(fold, values, unfit, has, owners)
        ]

    def _changed(self) -> list[Fold]:
        """Those to which something has happened that may have changed their aliases, and not been looked at since."""
        return [
            fold
            for fold in self._work.folds.values()
            if fold.known
            and fold.history
            and self._seen.get(fold.current.saga_id) != _state(fold)
            and (fold.definition.aliases or aliases_of(fold.current))
        ]

    async def _give_up(self, claims: Sequence[AliasClaim]) -> None:
        if claims:
            await self._unit.give_up_aliases(claims)
        for claim in claims:
            if self.owners.get(claim.named) == claim.saga_id:
                del self.owners[claim.named]

    async def _take(self, claims: Sequence[AliasClaim]) -> Sequence[AliasOwner]:
        folds = self._work.folds.values()
        return await self._unit.take_aliases(
            claims,
            reusing={fold.definition.type for fold in folds if fold.definition.key_reuse},
            over={fold.current.saga_id for fold in folds if fold.current.phase.ended},
        )

    def _record(
        self,
        fold: Fold,
        values: Mapping[str, str],
        unfit: Mapping[str, str],
        has: Mapping[str, str],
        owners: Mapping[AliasClaim, AliasOwner],
    ) -> list[AliasClaim]:
        """What the instance has from now on; which of that is new."""
        gets, refused = {name: value for name, value in has.items() if values.get(name) == value}, dict(unfit)
        taken = []
        for claim in _claims(fold, values, has):
            owner = owners[claim]
            if owner.saga_id == claim.saga_id:
                self.owners[claim.named] = claim.saga_id
                gets[claim.alias] = claim.value
                taken.append(claim)
            else:
                refused[claim.alias] = f"{claim.value!r} is that of {self._told(owner)}, which keeps it"
        fold.take(aliased(fold.current, gets, refused, self._work.now), self._work.now, None)
        self._seen[fold.current.saga_id] = _state(fold)
        return taken

    def _told(self, owner: AliasOwner) -> str:
        fold = self._work.folds.get(owner.saga_id)
        key = fold.current.key if fold is not None else owner.key
        return f"the instance of {key!r} ({owner.saga_id})"


def _claims(fold: Fold, these: Mapping[str, str], but: Mapping[str, str]) -> list[AliasClaim]:
    """These aliases of an instance, without those that are the same in the others."""
    current = fold.current
    return [
        AliasClaim(saga_type=current.saga_type, alias=name, value=value, saga_id=current.saga_id)
        for name, value in these.items()
        if but.get(name) != value
    ]


def _state(fold: Fold) -> tuple[bytes, bool]:
    """What may give it other aliases, or let it do without one."""
    return fold.current.state, fold.current.phase.ended
