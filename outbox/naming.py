"""The aliases of instances: what an instance wants to be found by, who has that, and how a transaction asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from messages.value import value

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from uuid import UUID

    from outbox.holding import Held

Named = tuple[str, str]
"""(alias, value): what names an instance of a saga type beside its business key."""


@value
class AliasClaim:
    """What an instance wants to be found by, or does no more."""

    saga_type: str
    alias: str
    value: str
    saga_id: UUID

    @property
    def named(self) -> Named:
        """The alias with its value."""
        return self.alias, self.value


@value
class AliasOwner:
    """Who has an alias: the instance that wanted it, or another one, which has that business `key`.

    `awaited`: messages are held for whoever gets it.
    """

    saga_id: UUID
    key: str = ""
    awaited: bool = False


class Naming(Protocol):
    """The part of a transaction that is about aliases; see `outbox.interface.Unit`."""

    async def aliased(self, saga_type: str, wanted: Collection[Named]) -> Mapping[Named, UUID]:
        """Which instance has each alias; those that nobody has are left out. Locks nothing: see that it is still so."""
        ...

    async def take_aliases(
        self, claims: Sequence[AliasClaim], *, reusing: Collection[str], over: Collection[UUID]
    ) -> Sequence[AliasOwner]:
        """Give aliases to instances that are locked or being born, and say who has each, in the order given.

        Whoever has one keeps it; but of the types that are `reusing` keys only until it has ended, as those of `over`
        are about to in this transaction. Of two claims of one alias in one call, the first has it. Waits for a
        transaction that is taking the same one.
        """
        ...

    async def give_up_aliases(self, claims: Sequence[AliasClaim]) -> None:
        """Take aliases from the instances that have them."""
        ...

    async def held_by_alias(self, saga_type: str, wanted: Collection[Named]) -> Sequence[Held]:
        """Lock the messages that are held for whoever gets one of these aliases, in order of arrival."""
        ...
