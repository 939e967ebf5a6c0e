from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from transport.rabbitmq.acknowledging import Acknowledgement, Ledger


class Broker:
    """What RabbitMQ holds a channel to: a tag may be acknowledged once, and `multiple` needs a tag it still knows."""

    def __init__(self, delivered: int) -> None:
        self.unacknowledged = set(range(1, delivered + 1))

    def take(self, acknowledgements: list[Acknowledgement]) -> None:
        for tag, multiple in acknowledgements:
            assert tag in self.unacknowledged, f"PRECONDITION_FAILED - unknown delivery tag {tag}"
            self.unacknowledged -= {known for known in self.unacknowledged if known <= tag} if multiple else {tag}


def test_what_is_settled_in_order_takes_one_acknowledgement() -> None:
    ledger = Ledger(prefetch=100)

    assert ledger.settle([1, 2, 3]) == [(3, True)]
    assert ledger.settle([5, 4]) == [(5, True)]


def test_what_is_settled_above_a_hole_waits_for_it() -> None:
    ledger = Ledger(prefetch=100)

    assert ledger.settle([2, 3]) == []
    assert ledger.settle([1]) == [(3, True)]


def test_a_hole_that_persists_holds_nothing_up() -> None:
    ledger = Ledger(prefetch=100)

    assert ledger.settle([2, 3]) == []
    assert ledger.settle([4]) == [(2, False), (3, False)]
    assert ledger.settle([1]) == [(4, True)]


def test_half_a_prefetch_above_a_hole_does_not_wait_at_all() -> None:
    ledger = Ledger(prefetch=4)

    assert ledger.settle([3]) == []
    assert Ledger(prefetch=4).settle([2, 3]) == [(2, False), (3, False)]
    assert Ledger(prefetch=1).settle([2]) == [(2, False)]


def test_the_hole_itself_is_acknowledged_when_all_above_it_were() -> None:
    ledger = Ledger(prefetch=2)

    assert ledger.settle([2]) == [(2, False)]
    assert ledger.settle([1]) == [(1, True)]
    assert ledger.settle([3]) == [(3, True)]


def test_a_tag_settled_twice_is_acknowledged_once() -> None:
    ledger = Ledger(prefetch=2)

    assert ledger.settle([2, 2]) == [(2, False)]
    assert ledger.settle([2]) == []
    assert ledger.settle([1, 1]) == [(1, True)]
    assert ledger.settle([1, 2]) == []


@settings(max_examples=80, deadline=None)
@given(st.permutations(range(1, 21)), st.integers(1, 40), st.data())
def test_exactly_what_was_settled_is_acknowledged_in_ways_the_broker_accepts(
    order: list[int], prefetch: int, data: st.DataObject
) -> None:
    broker, ledger = Broker(20), Ledger(prefetch)
    settled: set[int] = set()
    rest = order[: data.draw(st.integers(0, 20), label="settled before the close")]
    while rest:
        size = data.draw(st.integers(1, len(rest)), label="settled together")
        burst, rest = rest[:size], rest[size:]
        again = data.draw(st.lists(st.sampled_from(sorted(settled)), max_size=2)) if settled else []
        settled |= set(burst)
        broker.take(ledger.settle([*burst, *again]))
        assert set(range(1, 21)) - broker.unacknowledged <= settled
        hole = min(set(range(1, 22)) - settled)
        assert not {tag for tag in broker.unacknowledged if tag < hole}  # nothing below the hole waits

    broker.take(ledger.flush())

    assert set(range(1, 21)) - broker.unacknowledged == settled
