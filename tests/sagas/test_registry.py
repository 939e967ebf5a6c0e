"""Which definition runs which instance."""

from __future__ import annotations

from types import ModuleType
from typing import Self

import pytest

import sagas.catalog.ordering
from messages.catalog.ordering import OrderPlaced, ReserveStock
from messages.errors import DefinitionError
from sagas import Registry, Saga, definition_of, start, step
from sagas.catalog.ordering import PlaceOrder
from sagas.registry import UnknownSaga, definitions_in


class Reserving(Saga, abstract=True):
    order_id: str

    @start
    def placed(cls, event: OrderPlaced) -> Self:
        return cls(order_id=event.order_id)

    @step(reply=False)
    def reserve(self) -> ReserveStock:
        return ReserveStock(order_id=self.order_id, lines=[])


class Second(Reserving, key="order_id", name="Orders", version=2): ...


class First(Reserving, key="order_id", name="Orders", version=1): ...


def test_the_highest_version_starts_new_instances() -> None:
    registry = Registry([definition_of(Second), definition_of(First)])
    assert registry.current("Orders") is definition_of(Second)


def test_every_version_runs_its_own_instances() -> None:
    registry = Registry([definition_of(Second), definition_of(First)])
    assert registry.find("Orders", 1) is definition_of(First)
    assert registry.find("Orders", 2) is definition_of(Second)


def test_two_classes_of_one_type_and_version_are_refused() -> None:
    class Other(Reserving, key="order_id", name="Orders", version=2): ...

    registry = Registry([definition_of(Second)])
    with pytest.raises(DefinitionError, match=r"Other: saga 'Orders' version 2 is already .*Second; give one of them"):
        registry.add(definition_of(Other))


def test_the_same_class_may_be_added_again() -> None:
    registry = Registry([definition_of(Second), definition_of(Second)])
    assert len(registry) == 1


def test_all_definitions_come_by_type_and_version() -> None:
    registry = Registry([definition_of(PlaceOrder), definition_of(Second), definition_of(First)])
    assert [(one.type, one.version) for one in registry] == [("Orders", 1), ("Orders", 2), ("PlaceOrder", 1)]
    assert registry.types == ("Orders", "PlaceOrder")


def test_an_unknown_type_gets_a_suggestion() -> None:
    with pytest.raises(UnknownSaga, match=r"no saga is called 'PlaceOrders' \(did you mean 'PlaceOrder'\?\)"):
        Registry([definition_of(PlaceOrder)]).current("PlaceOrders")


def test_an_unknown_version_tells_the_known_ones() -> None:
    with pytest.raises(UnknownSaga, match="known here in version 1 and 2, not 3"):
        Registry([definition_of(First), definition_of(Second)]).find("Orders", 3)


def test_a_module_gives_the_sagas_it_defines() -> None:
    assert definitions_in(sagas.catalog.ordering) == [definition_of(PlaceOrder)]


def test_a_module_does_not_give_what_it_only_imports_or_leaves_abstract() -> None:
    module = ModuleType("elsewhere")
    module.PlaceOrder, module.Reserving = PlaceOrder, Reserving  # type: ignore[attr-defined]
    assert definitions_in(module) == []
