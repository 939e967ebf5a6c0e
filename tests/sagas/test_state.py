"""How a saga's state goes out as bytes and comes back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import inf
from typing import TYPE_CHECKING, Self
from uuid import UUID, uuid4

import pytest
from pydantic import AfterValidator, Field, computed_field
from pydantic_core import PydanticSerializationError

from messages.catalog.ordering import OrderLine, OrderPlaced, ReserveStock, StockReserved
from sagas import Saga, start, step
from sagas.catalog.ordering import PlaceOrder

if TYPE_CHECKING:
    from typing import Annotated
else:
    from typing import Annotated

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ID = uuid4()


def short(text: str) -> str:
    if len(text) > 3:
        message = "too long"
        raise ValueError(message)
    return text


class Every(Saga, key="order_id"):
    """Fields of every kind that JSON treats badly."""

    order_id: str = Field(alias="orderId")
    amount: Decimal = Decimal("0.10")
    ratio: float = inf
    blob: bytes = b"\x00\xff"
    wait: timedelta = timedelta(minutes=1)
    at: datetime = NOW
    ids: list[UUID] = Field(default_factory=list)
    pair: tuple[int, str] = (1, "a")
    note: Annotated[str, AfterValidator(short)] = ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> Decimal:
        return self.amount * 2

    @start
    def placed(cls, event: OrderPlaced) -> Self:
        return cls(order_id=event.order_id)

    @step(success=StockReserved)
    def reserve(self) -> ReserveStock:
        return ReserveStock(order_id=self.order_id, lines=[])


def loaded(state: bytes) -> Every:
    return Every._load(state, now=NOW, saga_id=ID)


def test_a_state_comes_back_as_it_went() -> None:
    state = Every(order_id="1", ids=[ID])
    assert loaded(state._dump()) == state


def test_an_unchanged_state_has_the_same_bytes() -> None:
    state = Every(order_id="1")._dump()
    assert loaded(state)._dump() == state


def test_nested_models_come_back() -> None:
    order = PlaceOrder(
        order_id="1", lines=[OrderLine(sku="a", quantity=2, unit_price=Decimal("1.50"))], total=Decimal(3)
    )
    assert PlaceOrder._load(order._dump(), now=NOW, saga_id=ID) == order


def test_each_load_is_a_copy_of_its_own() -> None:
    state = Every(order_id="1", ids=[])._dump()
    loaded(state).ids.append(ID)
    assert loaded(state).ids == []


def test_a_field_that_the_class_no_longer_has_is_passed_over() -> None:
    assert loaded(b'{"order_id": "1", "gone": true}').order_id == "1"


def test_an_authors_misspelt_field_is_an_error() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        PlaceOrder(order_id="1", lines=[], total=Decimal(1), reservation="r")  # type: ignore[call-arg]


def test_a_value_of_the_wrong_type_is_an_error() -> None:
    state = Every(order_id="1")
    state.at = "tomorrow"  # type: ignore[assignment]
    with pytest.raises(PydanticSerializationError, match="datetime"):
        state._dump()


def test_a_state_that_would_not_load_again_is_an_error() -> None:
    state = loaded(Every(order_id="1")._dump())
    state.note = "much too long"
    with pytest.raises(ValueError, match="too long"):
        loaded(state._dump())


def test_a_state_that_does_not_fit_the_class_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"order_id|orderId"):
        loaded(b"{}")


def test_the_engine_gives_time_and_identity() -> None:
    saga = loaded(Every(order_id="1")._dump())
    assert (saga.now, saga.saga_id) == (NOW, ID)


def test_time_and_identity_can_be_bound_to_a_saga_made_by_hand() -> None:
    saga = Every(order_id="1")
    saga._bind(now=NOW, saga_id=ID)
    assert (saga.now, saga.saga_id) == (NOW, ID)


def test_time_and_identity_are_no_part_of_the_state() -> None:
    saga = Every(order_id="1")
    before = saga._dump()
    saga._bind(now=NOW, saga_id=ID)
    assert saga._dump() == before
    assert saga == Every(order_id="1")


@pytest.mark.parametrize("name", ["now", "saga_id"])
def test_time_and_identity_are_read_only(name: str) -> None:
    saga = loaded(Every(order_id="1")._dump())
    with pytest.raises(AttributeError):
        setattr(saga, name, NOW)


@pytest.mark.parametrize("name", ["now", "saga_id"])
def test_time_and_identity_that_are_not_there_say_why(name: str) -> None:
    with pytest.raises(RuntimeError, match=rf"Every: self\.{name} is not known here; .* in @start .* there is none"):
        getattr(Every(order_id="1"), name)
