from __future__ import annotations

import pytest

from messages.errors import ConfigurationError
from transport import Binding, Queue, Topology
from transport.topology import (
    commands_exchange,
    dead_exchange,
    dead_queue,
    events_exchange,
    participant_queue,
    saga_queue,
)


def test_names_are_those_of_the_wire_contract() -> None:
    assert events_exchange("antiphon") == "antiphon.events"
    assert commands_exchange("antiphon") == "antiphon.commands"
    assert dead_exchange("antiphon") == dead_queue("antiphon") == "antiphon.dead"
    assert saga_queue("antiphon", "PlaceOrder") == "antiphon.saga.PlaceOrder"
    assert participant_queue("antiphon", "stock") == "antiphon.participant.stock"


def test_a_saga_queue_is_bound_to_the_events_it_consumes() -> None:
    queue = Queue.of_saga("shop", "PlaceOrder", events=["ordering.OrderPlaced", "stock.StockReserved"])

    assert queue.name == "shop.saga.PlaceOrder"
    assert queue.bindings == {
        Binding(exchange="shop.events", routing_key="ordering.OrderPlaced"),
        Binding(exchange="shop.events", routing_key="stock.StockReserved"),
    }


def test_an_event_reaches_every_queue_bound_to_it_and_a_command_its_one() -> None:
    topology = Topology(
        namespace="shop",
        queues=(
            Queue.of_saga("shop", "A", events=["x.Happened"]),
            Queue.of_saga("shop", "B", events=["x.Happened", "y.Happened"]),
            Queue.of_participant("shop", "stock", commands=["stock.Reserve"]),
        ),
    )

    assert topology.bound_to("shop.events", "x.Happened") == ("shop.saga.A", "shop.saga.B")
    assert topology.bound_to("shop.events", "y.Happened") == ("shop.saga.B",)
    assert topology.bound_to("shop.commands", "stock.Reserve") == ("shop.participant.stock",)
    assert topology.bound_to("shop.commands", "x.Happened") == ()


def test_the_default_exchange_reaches_a_queue_by_its_name() -> None:
    topology = Topology(namespace="shop", queues=(Queue.of_saga("shop", "A", events=[]),))

    assert topology.bound_to("", "shop.saga.A") == ("shop.saga.A",)
    assert topology.bound_to("", "shop.saga.B") == ()


def test_a_command_taken_by_two_queues_is_refused_and_both_are_named() -> None:
    queues = (
        Queue.of_participant("shop", "stock", commands=["stock.Reserve"]),
        Queue.of_participant("shop", "warehouse", commands=["stock.Reserve"]),
    )

    with pytest.raises(ConfigurationError, match=r"stock\.Reserve: taken by .*stock and shop\.participant\.warehouse"):
        Topology(namespace="shop", queues=queues)


def test_commands_that_nobody_takes_are_named() -> None:
    topology = Topology(namespace="shop", queues=(Queue.of_participant("shop", "stock", commands=["stock.Reserve"]),))

    assert topology.untaken(["stock.Reserve", "pay.Pay", "label.Print"]) == ("label.Print", "pay.Pay")


@pytest.mark.parametrize("namespace", ["", "Shop", "1shop", "shop-eu", "s" * 32, "shop\n"])
def test_a_namespace_that_cannot_name_a_schema_is_refused(namespace: str) -> None:
    with pytest.raises(ConfigurationError, match="ANTIPHON_NAMESPACE"):
        Topology(namespace=namespace)


def test_all_problems_are_told_together() -> None:
    queue = Queue.of_saga("shop", "A", events=["all.#"])

    with pytest.raises(ConfigurationError) as raised:
        Topology(namespace="Shop", queues=(queue, queue, Queue(name="q" * 256)))

    text = str(raised.value)
    assert "namespace 'Shop'" in text
    assert "queue shop.saga.A: described twice" in text
    assert "256 bytes" in text
    assert "wildcards" in text


def test_topologies_declared_one_after_the_other_stand_together() -> None:
    first = Topology(namespace="shop", queues=(Queue.of_saga("shop", "A", events=["x.Happened"]),))
    second = Topology(
        namespace="shop",
        queues=(
            Queue.of_saga("shop", "A", events=["y.Happened"]),
            Queue.of_participant("shop", "stock", commands=["stock.Reserve"]),
        ),
    )

    joined = first.joined(second)

    assert joined.bound_to("shop.events", "x.Happened") == joined.bound_to("shop.events", "y.Happened")
    assert joined.bound_to("shop.commands", "stock.Reserve") == ("shop.participant.stock",)
    with pytest.raises(ConfigurationError, match="taken by"):
        rival = Queue.of_participant("shop", "rival", commands=["stock.Reserve"])
        joined.joined(Topology(namespace="shop", queues=(rival,)))
