"""Who can be measured, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.antiphon import Antiphon
from bench.peer import PEERS
from bench.services import ByHand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.contender import Contender

_ALL: Sequence[Contender] = (
    Antiphon(),
    ByHand(name="asyncpg", title="by hand: aio-pika + asyncpg", module="bench.by_hand_asyncpg"),
    ByHand(name="orm", title="by hand: aio-pika + SQLAlchemy ORM", module="bench.by_hand_orm"),
    ByHand(name="floor", title="the floor: lean codec, same messages and rows", module="bench.floor"),
    *PEERS,
)
CONTENDERS = {contender.name: contender for contender in _ALL}
