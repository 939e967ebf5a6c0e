"""A saga type as one process knows it, and who has the keys of the messages for it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from outbox.interface import KeyClaim
from sagas.instance import saga_id
from transport.topology import saga_queue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.decoding import Decoded
    from handlers.work import Definitions
    from messages.envelope import Envelope
    from outbox.interface import KeyOwner, Unit
    from sagas.definition import Definition
    from sagas.outcome import Arrived


class SagaType:
    """One saga type as this process knows it: its versions, the highest of which starts new instances.

    `latest` is that one, and reads and hears what instances of the others wait for as well.
    """

    def __init__(self, definitions: Definitions, namespace: str) -> None:
        self.definitions = definitions
        self.latest = _reading_all(definitions)
        self.name = self.latest.type
        self.namespace = namespace
        self.queue = saga_queue(namespace, self.name)

    def claim(self, start: Envelope | Arrived, body_hash: bytes, key: str, n: int) -> KeyClaim:
        """What a start asks for: to be the n-th of its key."""
        return KeyClaim(
            saga_type=self.name,
            key=key,
            saga_id=saga_id(self.namespace, self.name, key, n),
            n=n,
            start_id=start.message_id,
            start_hash=body_hash,
        )


def _reading_all(definitions: Definitions) -> Definition:
    """The highest version, with the events of all; where several know one, as the highest of them does."""
    versions = [definitions[version] for version in sorted(definitions)]
    latest = versions[-1]
    replies = {name: event for each in versions for name, event in each.events.items() if name not in each.starts}
    heard = {name: each for one in versions for name, each in one.heard.items() if name not in latest.events}
    keys = {name: key for each in versions for name, key in each.keys.items() if name in heard}
    return replace(
        latest,
        events={**replies, **latest.events},
        heard={**heard, **latest.heard},
        keys={**keys, **latest.keys},
        aliases=tuple(dict.fromkeys(name for each in versions for name in each.aliases)),
        told_by_children=frozenset().union(*(each.told_by_children for each in versions)),
    )


async def claim_keys(saga: SagaType, unit: Unit, messages: Sequence[Decoded]) -> dict[str, KeyOwner]:
    """Who has the keys of the messages: of all that start something, and where keys are used again, of all others."""
    reused = saga.latest.key_reuse
    used = {each.key for each in messages if each.key is not None and each.alias is None} if reused else ()
    latest = await unit.latest_keys(saga.name, used) if used else {}
    claims = {key: claim for key, claim in first_claims(saga, messages).items() if key not in latest}
    owners = await unit.claim_keys(list(claims.values())) if claims else ()
    return {**latest, **dict(zip(claims, owners, strict=True))}


def first_claims(saga: SagaType, messages: Sequence[Decoded]) -> dict[str, KeyClaim]:
    """What the first start of each key asks for, if nobody ever had the key."""
    claims: dict[str, KeyClaim] = {}
    for message in messages:
        envelope, key = message.envelope, message.key
        if envelope is None or message.event is None or key is None or envelope.name not in saga.latest.starts:
            continue
        if key not in claims:
            claims[key] = saga.claim(envelope, message.body_hash, key, 1)
    return claims


def leaving_held(owners: dict[str, KeyOwner]) -> dict[str, KeyOwner]:
    """The same owners, for whoever leaves to the sweep what is held for a birth, because that may be to blame."""
    return {key: replace(owner, awaited=False) for key, owner in owners.items()}
