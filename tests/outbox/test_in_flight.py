"""What the relay has in memory is bounded, and no destination is shut out of it for longer than it is crowded."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

from outbox.in_flight import MAX_BYTES, InFlight
from outbox.interface import ClaimedRow
from tests.outbox.building import command


def row(name: str, size: int) -> ClaimedRow:
    made = command(body=b" " * size)
    return ClaimedRow(outbox_id=1, token=uuid4(), attempts=0, outgoing=replace(made, routing_key=name))


def test_a_destination_with_nothing_under_way_is_not_crowded_whatever_another_has() -> None:
    thinned: list[None] = []
    flying = InFlight(thinned=lambda: thinned.append(None))
    large, larger = row("stock.ReserveStock", MAX_BYTES // 2), row("payment.MakePayment", MAX_BYTES + 1)
    ticket = flying.add(large, until=1.0, now=0.0)
    other = flying.add(larger, until=1.0, now=0.0)
    assert flying.crowded() == {large.outgoing.destination, larger.outgoing.destination}
    flying.pop(ticket)
    assert flying.crowded() == {larger.outgoing.destination}
    flying.pop(other)
    assert flying.crowded() == frozenset()
    assert len(thinned) == 2
