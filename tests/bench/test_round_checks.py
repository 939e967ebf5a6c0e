from __future__ import annotations

from bench.services import ledger_problems, saga_problems

PLACED = ["order-1", "order-2"]


def test_one_completed_saga_for_each_order_is_no_problem() -> None:
    assert saga_problems(PLACED, [("order-2", "completed"), ("order-1", "completed")]) == []


def test_a_missing_a_doubled_an_unfinished_and_an_invented_saga_are_each_named() -> None:
    seen = [("order-1", "completed"), ("order-1", "shipping"), ("order-7", "completed")]
    assert saga_problems(PLACED, seen) == [
        "1 orders without a saga: order-2",
        "1 orders with several sagas: order-1",
        "1 orders not completed: order-1",
        "1 orders never placed: order-7",
    ]


def test_thousands_of_orders_are_counted_and_only_a_few_are_named() -> None:
    (problem,) = saga_problems([f"order-{number}" for number in range(1, 5001)], [])
    assert problem == "5000 orders without a saga: order-1, order-2, order-3, ..."


def test_a_command_may_arrive_twice_under_one_id() -> None:
    assert ledger_problems(PLACED, {"stock": {"order-1": {"id-1": 2}, "order-2": {"id-2": 1}}}) == []


def test_a_command_that_never_arrived_or_came_under_two_ids_is_a_problem() -> None:
    assert ledger_problems(PLACED, {"stock": {"order-1": {"id-1": 1, "id-2": 1}}}) == [
        "1 orders of which stock never heard: order-2",
        "1 orders for which stock got several commands: order-1",
    ]
