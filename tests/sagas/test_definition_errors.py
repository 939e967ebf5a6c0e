"""A gallery of wrong classes: what their authors read."""

# mypy: ignore-errors
# ruff: noqa: F811, TC004, ANN001, ANN201, ANN202

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from messages import Command, Event
from messages.catalog.ordering import (
    CreateShippingLabel,
    MakePayment,
    OrderPlaced,
    OutOfStock,
    PaymentCompleted,
    ReleaseStock,
    ReserveStock,
    StockReleased,
    StockReserved,
)
from messages.errors import DefinitionError
from sagas import Retry, Saga, alternative, decision, definition_of, match, parallel, sleep, start, step, when

if TYPE_CHECKING:
    from decimal import Decimal as Money

Wrong = Callable[[], object]
GALLERY: dict[Wrong, tuple[str, ...]] = {}


def reads(*lines: str) -> Callable[[Wrong], Wrong]:
    """The author of this class reads these lines, without the places."""

    def hang(wrong: Wrong) -> Wrong:
        GALLERY[wrong] = lines
        return wrong

    return hang


class Ordered(Saga, abstract=True):
    """What every wrong class has that is right."""

    order_id: str

    @start
    def placed(cls, event: OrderPlaced):
        return cls(order_id=event.order_id)


class Reserving(Ordered, abstract=True):
    @step(success=StockReserved, failure=OutOfStock)
    def reserve(self) -> ReserveStock:
        return ReserveStock(order_id=self.order_id, lines=[])


class Labelling(Reserving, abstract=True):
    @step(success=StockReleased)
    def label(self) -> CreateShippingLabel:
        return CreateShippingLabel(order_id=self.order_id)


# -- the class statement


@reads(
    'X: no key=; name the field of the start event that tells one process from another, e.g. key="order_id", '
    "or write abstract=True for a class that others extend"
)
def without_a_key() -> None:
    class X(Reserving): ...


@reads(
    "X: unknown keyword kye= (did you mean 'key'?); "
    "there are key, version, deadline, name, keys, aliases, key_reuse, abstract"
)
def with_a_misspelt_keyword() -> None:
    class X(Reserving, key="order_id", kye="order_id"): ...


@reads(
    'X: key=7 will not do; write the name of a field, e.g. key="order_id"',
    "X: version='2' will not do; write a whole number from 1",
    "X: deadline=60 will not do; write a positive timedelta of at most 100 years, e.g. timedelta(minutes=5)",
    "X: name='a b' will not do; write at most 100 letters, digits, '_', '.' and '-', beginning with a letter",
    "X: keys={'OrderPlaced': 'id'} will not do; write the events that carry the key elsewhere, each with the field, "
    'a function of the event, or Alias("…"), e.g. keys={OrderPlaced: "orderId"}',
    "X: key_reuse='yes' will not do; write True or False",
    "X: abstract=1 will not do; write True or False",
)
def with_keywords_of_the_wrong_kind() -> None:
    class X(
        Reserving, key=7, version="2", deadline=60, name="a b", keys={"OrderPlaced": "id"}, key_reuse="yes", abstract=1
    ): ...


@reads(
    "X: deadline=datetime.timedelta(days=999999999, seconds=86399, microseconds=999999) will not do; "
    "write a positive timedelta of at most 100 years, e.g. timedelta(minutes=5)"
)
def with_a_deadline_that_no_date_can_hold() -> None:
    class X(Reserving, key="order_id", deadline=timedelta.max): ...


@reads("X: version=0 will not do; write a whole number from 1")
def with_version_zero() -> None:
    class X(Reserving, key="order_id", version=0): ...


@reads("X: an abstract saga takes no key=; write it in the class that extends this one")
def abstract_and_with_a_key() -> None:
    class X(Reserving, key="order_id", abstract=True): ...


@reads(
    "X: OrderPlaced has no field 'order' (did you mean 'order_id'?), so it cannot be routed by key; "
    'name the field in keys={OrderPlaced: "…"} or add it to the event'
)
def with_a_key_that_the_start_event_lacks() -> None:
    class X(Reserving, key="order"): ...


@reads("X: OrderPlaced.total is Decimal, which is no business key; a key is a str, an int or a UUID")
def with_a_key_that_cannot_be_one() -> None:
    class X(Reserving, key="total"): ...


@reads("X: keys= names OutOfStock, which this saga does not start or go on with; remove it")
def with_a_key_for_another_event() -> None:
    class X(Reserving, key="order_id", keys={OutOfStock: "order_id"}): ...


@reads("X: is generic; write abstract=True and extend it with its parameters filled in")
def generic_and_concrete() -> None:
    item = TypeVar("item")

    class X(Reserving, Generic[item], key="order_id"):
        what: item | None = None


@reads("X is abstract and cannot run; use a class that extends it")
def the_definition_of_an_abstract_class() -> None:
    class X(Reserving, abstract=True): ...

    definition_of(X)


# -- starting


@reads(
    "X: no @start; write a method that makes the saga of an event: @start / def placed(cls, event: OrderPlaced) -> Self"
)
def without_a_start() -> None:
    class X(Saga, key="order_id"):
        order_id: str

        @step(reply=False)
        def reserve(self) -> ReserveStock: ...


@reads("X: @start stands bare over a plain method; write `@start` and `def placed(cls, event: OrderPlaced)`")
def start_with_arguments() -> None:
    class X(Reserving, key="order_id"):
        @start(key="order_id")
        def begun(cls, event: OrderPlaced): ...


@reads("X.begun: OrderPlaced already starts the saga in 'placed'; keep one")
def two_starts_of_one_event() -> None:
    class X(Reserving, key="order_id"):
        @start
        def begun(cls, event: OrderPlaced): ...


@reads("X.placed: takes (cls); write def placed(cls, event)")
def a_start_without_an_event() -> None:
    class X(Reserving, key="order_id"):
        @start
        def placed(cls): ...


@reads("X.placed: assigns cls.count, which is lost: it works on a copy; assign in a reply hook, or pass it to cls(...)")
def a_start_that_keeps_something_on_the_class() -> None:
    class X(Reserving, key="order_id"):
        count: ClassVar[int] = 0

        @start
        def placed(cls, event: OrderPlaced):
            cls.count += 1
            return cls(order_id=event.order_id)


@reads(
    "X.placed: StockReserved starts the saga and is also a reply to one of its commands; "
    "use an event of its own for one of them"
)
def a_start_event_that_is_a_reply_too() -> None:
    class X(Reserving, key="order_id"):
        @start
        def placed(cls, event: StockReserved): ...


# -- steps


@reads("X: no steps; write at least one: @step / def reserve(self) -> ReserveStock")
def without_steps() -> None:
    class X(Ordered, key="order_id"): ...


@reads(
    "X.pay: lacks an annotation; annotate the command it builds, e.g. def pay(self) -> ReserveStock",
)
def a_step_without_an_annotation() -> None:
    class X(Reserving, key="order_id"):
        @step(success=PaymentCompleted)
        def pay(self): ...


@reads(
    "X.pay: returns StockReserved, which is no Command; annotate the command it builds, "
    "e.g. def pay(self) -> ReserveStock"
)
def a_step_that_returns_an_event() -> None:
    class X(Reserving, key="order_id"):
        @step(success=PaymentCompleted)
        def pay(self) -> StockReserved: ...


@reads("X.pay: returns MakePayment and ReserveStock; a step sends one command, make a step of each")
def a_step_that_returns_one_of_two() -> None:
    class X(Reserving, key="order_id"):
        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment | ReserveStock: ...


@reads("X.pay: Order is abstract and cannot travel; name a class that can")
def a_step_that_returns_an_abstract_command() -> None:
    class Order(Command, abstract=True): ...

    class X(Reserving, key="order_id"):
        @step(success=PaymentCompleted)
        def pay(self) -> Order: ...


@reads(
    "X.pay: annotation 'MakePayments': name 'MakePayments' is not defined; "
    "define it above the class and import it at run time, not under TYPE_CHECKING"
)
def a_step_with_an_unknown_annotation() -> None:
    class X(Reserving, key="order_id"):
        @step(success=PaymentCompleted)
        def pay(self) -> MakePayments: ...  # noqa: F821


@reads("X.pay: takes (self, amount); write def pay(self)")
def a_step_with_a_parameter() -> None:
    class X(Reserving, key="order_id"):
        @step(success=PaymentCompleted)
        def pay(self, amount) -> MakePayment: ...


@reads("X.pay: is async; write a plain method, it does no I/O and returns at once")
def an_async_step() -> None:
    class X(Reserving, key="order_id"):
        @step(success=PaymentCompleted)
        async def pay(self) -> MakePayment: ...


@reads("X.pay: is a generator; write a plain method, it does no I/O and returns at once")
def a_step_that_yields() -> None:
    class X(Reserving, key="order_id"):
        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment:
            yield


@reads("X: @step stands over a plain method, not over <property object>; remove what is between them")
def a_step_over_a_property() -> None:
    class X(Reserving, key="order_id"):
        @step
        @property
        def pay(self) -> MakePayment: ...


@reads(
    "X.pay: has no success reply, so it could never be done; write success=…, a hook @pay.on_success, "
    "or reply=False when nobody answers"
)
def a_step_without_success() -> None:
    class X(Reserving, key="order_id"):
        @step
        def pay(self) -> MakePayment: ...


@reads("X.pay: says reply=False and takes PaymentCompleted; remove one or the other")
def a_step_without_reply_that_has_one() -> None:
    class X(Reserving, key="order_id"):
        @step(reply=False, success=PaymentCompleted)
        def pay(self) -> MakePayment: ...


@reads(
    "X.pay: unknown keyword time_out= (did you mean 'timeout'?); there are timeout, retry, success, failure, "
    "transient, heartbeat, reply, in_doubt, on_silence, pivot"
)
def a_step_with_a_misspelt_keyword() -> None:
    class X(Reserving, key="order_id"):
        @step(time_out=timedelta(minutes=5), success=PaymentCompleted)
        def pay(self) -> MakePayment: ...


@reads(
    "X.pay: unknown keyword until=; there are timeout, retry, success, failure, transient, heartbeat, reply, in_doubt, "
    "on_silence, pivot"
)
def a_step_with_a_word_of_another_language() -> None:
    class X(Reserving, key="order_id"):
        @step(until="paid", success=PaymentCompleted)
        def pay(self) -> MakePayment: ...


@reads(
    "X.pay: timeout=30 will not do; write a positive timedelta of at most 100 years, e.g. timedelta(minutes=5)",
    "X.pay: retry=3 will not do; write Retry(attempts=5, backoff=timedelta(seconds=2))",
    "X.pay: success='PaymentCompleted' will not do; "
    "write an Event class, a tuple of which one is enough, or all_of(...)",
    "X.pay: failure=MakePayment will not do; write an Event class or a tuple of them",
    "X.pay: reply=None will not do; write True or False",
    'X.pay: in_doubt=\'hope\' will not do; write "undo" or "wait"',
    'X.pay: on_silence=True will not do; write "resend" or "new_attempt"',
)
def a_step_with_keywords_of_the_wrong_kind() -> None:
    class X(Reserving, key="order_id"):
        @step(
            timeout=30,
            retry=3,
            success="PaymentCompleted",
            failure=MakePayment,
            reply=None,
            in_doubt="hope",
            on_silence=True,
        )
        def pay(self) -> MakePayment: ...


@reads(
    "X.pay: Retry(attempts=0); write how many sends in all, at least 1",
    "X.pay: Retry(backoff=5); write a timedelta of at most 100 years",
    "X.pay: Retry(factor=0.5); write a number of at least 1",
    "X.pay: Retry(cap=datetime.timedelta(days=-1)); write a timedelta of at most 100 years",
    "X.pay: Retry(jitter=2); write a fraction from 0 to 1",
)
def a_step_with_a_senseless_retry() -> None:
    class X(Reserving, key="order_id"):
        @step(
            retry=Retry(attempts=0, backoff=5, factor=0.5, cap=timedelta(days=-1), jitter=2), success=PaymentCompleted
        )
        def pay(self) -> MakePayment: ...


@reads("X.pay: assigns self.paid, which is lost: it works on a copy; assign in a reply hook, or pass it to cls(...)")
def a_step_that_assigns() -> None:
    class X(Reserving, key="order_id"):
        paid: bool = False

        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment:
            self.paid = True
            return MakePayment(order_id=self.order_id, amount=1)


@reads("X.pay: assigns self.tries, which is lost: it works on a copy; assign in a reply hook, or pass it to cls(...)")
def a_step_that_assigns_through_another_method() -> None:
    class X(Reserving, key="order_id"):
        tries: int = 0

        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment:
            self._count()
            return MakePayment(order_id=self.order_id, amount=1)

        def _count(self) -> None:
            self.tries += 1


# -- replies


@reads(
    "X.pay: PaymentCompleted is declared twice, as success and as failure; each reply once per command, "
    "by a keyword or by a hook"
)
def one_reply_of_two_kinds() -> None:
    class X(Reserving, key="order_id"):
        @step(success=PaymentCompleted, failure=PaymentCompleted)
        def pay(self) -> MakePayment: ...


@reads("X.paid: PaymentCompleted is declared twice, as success; each reply once per command, by a keyword or by a hook")
def one_reply_by_keyword_and_by_hook() -> None:
    class X(Reserving, key="order_id"):
        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment: ...

        @pay.on_success
        def paid(self, reply: PaymentCompleted) -> None: ...


@reads(
    "X.refused: PaymentCompleted is declared twice, as success and as failure; each reply once per command, "
    "by a keyword or by a hook"
)
def one_reply_in_two_hooks() -> None:
    class X(Reserving, key="order_id"):
        @step
        def pay(self) -> MakePayment: ...

        @pay.on_success
        def paid(self, reply: PaymentCompleted) -> None: ...

        @pay.on_failure
        def refused(self, reply: OutOfStock | PaymentCompleted) -> None: ...


@reads("X.paid: lacks an annotation; annotate 'reply' with the reply of 'pay' that it takes")
def a_hook_without_an_annotation() -> None:
    class X(Reserving, key="order_id"):
        @step
        def pay(self) -> MakePayment: ...

        @pay.on_success
        def paid(self, reply) -> None: ...


@reads("X.paid: 'reply' is MakePayment, which is no Event; annotate the reply of 'pay' that it takes")
def a_hook_for_a_command() -> None:
    class X(Reserving, key="order_id"):
        @step
        def pay(self) -> MakePayment: ...

        @pay.on_success
        def paid(self, reply: MakePayment) -> None: ...


@reads("X.paid: Answer is abstract and cannot travel; name a class that can")
def a_hook_for_an_abstract_event() -> None:
    class Answer(Event, abstract=True): ...

    class X(Reserving, key="order_id"):
        @step
        def pay(self) -> MakePayment: ...

        @pay.on_success
        def paid(self, reply: Answer) -> None: ...


@reads(
    "X.paid: annotation 'Money': name 'Money' is not defined; "
    "define it above the class and import it at run time, not under TYPE_CHECKING"
)
def a_hook_for_a_type_that_only_checkers_know() -> None:
    class X(Reserving, key="order_id"):
        @step
        def pay(self) -> MakePayment: ...

        @pay.on_success
        def paid(self, reply: Money) -> None: ...


@reads("X.paid: takes (self); write def paid(self, reply)")
def a_hook_without_a_reply() -> None:
    class X(Reserving, key="order_id"):
        @step
        def pay(self) -> MakePayment: ...

        @pay.on_success
        def paid(self) -> None: ...


@reads("X.paid: is async; write a plain method, it does no I/O and returns at once")
def an_async_hook() -> None:
    class X(Reserving, key="order_id"):
        @step
        def pay(self) -> MakePayment: ...

        @pay.on_success
        async def paid(self, reply: PaymentCompleted) -> None: ...


@reads("X: @pay.on_success stands over a plain method, not over <classmethod object>; write it over a `def`")
def a_hook_over_a_classmethod() -> None:
    class X(Reserving, key="order_id"):
        @step
        def pay(self) -> MakePayment: ...

        @pay.on_success
        @classmethod
        def paid(cls, reply: PaymentCompleted) -> None: ...


@reads(
    "X.paid: assigns self.payment_ids, which is no field (did you mean 'payment_id'?); "
    "declare it in the class body, e.g. payment_ids: str | None = None"
)
def a_hook_that_assigns_what_is_no_field() -> None:
    class X(Reserving, key="order_id"):
        payment_id: str | None = None

        @step
        def pay(self) -> MakePayment: ...

        @pay.on_success
        def paid(self, reply: PaymentCompleted) -> None:
            self.payment_ids = reply.payment_id


@reads("X.pay: Paid and PaymentCompleted are both 'payment.PaymentCompleted'; a saga uses one class per message name")
def two_classes_of_one_message_name() -> None:
    class Paid(Event, name="payment.PaymentCompleted", version=2): ...

    class X(Reserving, key="order_id"):
        @step(success=(PaymentCompleted, Paid))
        def pay(self) -> MakePayment: ...


# -- compensations


@reads("X.undo: is a second compensation of 'reserve' beside 'release'; keep one")
def two_compensations() -> None:
    class X(Ordered, key="order_id"):
        @step(success=StockReserved)
        def reserve(self) -> ReserveStock: ...

        @reserve.compensation(success=StockReleased)
        def release(self) -> ReleaseStock: ...

        @reserve.compensation(reply=False)
        def undo(self) -> ReleaseStock: ...


@reads(
    "X.release: has no success reply, so it could never be done; write success=…, a hook @release.on_success, "
    "or reply=False when nobody answers"
)
def a_compensation_without_success() -> None:
    class X(Ordered, key="order_id"):
        @step(success=StockReserved)
        def reserve(self) -> ReserveStock: ...

        @reserve.compensation
        def release(self) -> ReleaseStock: ...


@reads(
    "X.release: unknown keyword in_doubt=; there are timeout, retry, success, failure, transient, heartbeat, reply",
)
def a_compensation_with_a_keyword_of_steps() -> None:
    class X(Ordered, key="order_id"):
        @step(success=StockReserved)
        def reserve(self) -> ReserveStock: ...

        @reserve.compensation(success=StockReleased, in_doubt="undo")
        def release(self) -> ReleaseStock: ...


@reads(
    "X: @….compensation stands over a plain method, not over <class 'str'>; remove what is between them",
)
def a_compensation_over_a_class() -> None:
    class X(Reserving, key="order_id"):
        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment: ...

        undo = pay.compensation(str)


# -- names


@reads("X.copy: the name 'copy' is Saga's own; choose another")
def a_step_of_a_reserved_name() -> None:
    class X(Ordered, key="order_id"):
        @step(success=PaymentCompleted)
        def copy(self) -> MakePayment: ...


@reads("X.paid: the name 'paid' is used twice in the class, and this replaces the earlier; rename one of them")
def two_hooks_of_one_name() -> None:
    class X(Ordered, key="order_id"):
        @step(success=StockReserved)
        def reserve(self) -> ReserveStock: ...

        @step
        def pay(self) -> MakePayment: ...

        @pay.on_success
        def paid(self, reply: PaymentCompleted) -> None: ...

        @reserve.on_failure
        def paid(self, reply: OutOfStock) -> None: ...


@reads(
    "X.paid: belongs to a 'pay' that a later 'pay' has replaced; "
    "rename one of them, or write the hooks and the compensation again for the later one",
    "X.pay: the name 'pay' is used twice in the class, and this replaces the earlier; rename one of them",
)
def two_steps_of_one_name() -> None:
    class X(Ordered, key="order_id"):
        @step
        def pay(self) -> MakePayment: ...

        @pay.on_success
        def paid(self, reply: PaymentCompleted) -> None: ...

        @step(success=StockReserved)
        def pay(self) -> ReserveStock: ...


@reads("X.release: the name 'release' is used twice in the class, and this replaces the earlier; rename one of them")
def two_compensations_of_one_name() -> None:
    class X(Ordered, key="order_id"):
        @step(success=StockReserved)
        def reserve(self) -> ReserveStock: ...

        @reserve.compensation(success=StockReleased)
        def release(self) -> ReleaseStock: ...

        @reserve.compensation(reply=False)
        def release(self) -> ReleaseStock: ...


@reads("X.pay: the name 'pay' is used twice in the class, and this replaces the earlier; rename one of them")
def two_bare_steps_of_one_name() -> None:
    class X(Ordered, key="order_id"):
        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment: ...

        @step(success=StockReserved)
        def pay(self) -> ReserveStock: ...


@reads("X.pay: the name 'pay' is used twice in the class, and this replaces the earlier; rename one of them")
def a_step_and_a_helper_of_one_name() -> None:
    class X(Reserving, key="order_id"):
        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment: ...

        def pay(self) -> int: ...


@reads("X.pay: the name 'pay' is used twice in the class, and this replaces the earlier; rename one of them")
def two_steps_of_one_name_in_an_abstract_class() -> None:
    class X(Ordered, abstract=True):
        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment: ...

        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment: ...


@reads("X.charge: stands under another name, 'pay'; call the method so too")
def a_step_under_another_name() -> None:
    def charge(self) -> MakePayment: ...

    class X(Reserving, key="order_id"):
        pay = step(success=PaymentCompleted)(charge)


@reads("X.reserved: belongs to 'reserve' of another class; write it in that class, or extend that class")
def a_hook_of_another_classs_step() -> None:
    class Other(Ordered, abstract=True):
        @step(failure=OutOfStock)
        def reserve(self) -> ReserveStock: ...

    class X(Reserving, key="order_id"):
        @Other.reserve.on_success
        def reserved(self, reply: StockReserved) -> None: ...


@reads("saga: @reserve.on_failure comes too late for its class; write it in the class body")
def a_hook_outside_of_any_class() -> None:
    @Reserving.reserve.on_failure
    def refused(self, reply: StockReleased) -> None: ...


@reads("saga: @reserve.compensation comes too late for its class; write it in the class body")
def a_compensation_outside_of_any_class() -> None:
    @Reserving.reserve.compensation(success=StockReleased)
    def release(self) -> ReleaseStock: ...


# -- the flow


@reads("X: flow holds the step 'pay' of another class; write or inherit it here")
def a_flow_with_a_step_of_another_class() -> None:
    class Other(Ordered, abstract=True):
        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment: ...

    class X(Reserving, key="order_id"):
        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment: ...

        flow = Reserving.reserve >> Other.pay >> pay


@reads("X: flow is 'reserve'; write flow = reserve >> pay, of steps joined by >>")
def a_flow_of_text() -> None:
    class X(Reserving, key="order_id"):
        flow = "reserve"


@reads("saga: a flow is annotated; write `flow = reserve >> pay` without an annotation, it is no state field")
def an_annotated_flow() -> None:
    from sagas.flow import Flow

    class X(Reserving, key="order_id"):
        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment: ...

        flow: Flow = pay


@reads("X: flow holds the hook 'paid'; only steps stand in a flow")
def a_flow_with_a_hook_in_it() -> None:
    class X(Ordered, key="order_id"):
        @step(success=StockReserved)
        def reserve(self) -> ReserveStock: ...

        @step
        def pay(self) -> MakePayment: ...

        @pay.on_success
        def paid(self, reply: PaymentCompleted) -> None: ...

        flow = paid >> reserve >> pay


@reads("X: flow holds the compensation 'release'; only steps stand in a flow")
def a_flow_with_a_compensation_in_it() -> None:
    class X(Ordered, key="order_id"):
        @step(success=StockReserved)
        def reserve(self) -> ReserveStock: ...

        @reserve.compensation(success=StockReleased)
        def release(self) -> ReleaseStock: ...

        flow = reserve >> release


@reads("X: flow holds the method 'pay', which lacks @step; only steps stand in a flow")
def a_flow_with_a_plain_method_in_it() -> None:
    class X(Ordered, key="order_id"):
        @step(success=StockReserved)
        def reserve(self) -> ReserveStock: ...

        def pay(self) -> MakePayment: ...

        flow = reserve >> pay


@reads("X: flow holds the step 'reserve' twice; write a second step with a name of its own")
def a_flow_with_a_step_twice() -> None:
    class X(Ordered, key="order_id"):
        @step(success=StockReserved)
        def reserve(self) -> ReserveStock: ...

        flow = reserve >> reserve


class Pivoting(Ordered, abstract=True):
    @step(success=PaymentCompleted, pivot=True)
    def pay(self) -> MakePayment:
        return MakePayment(order_id=self.order_id, amount=1)


@reads(
    "X.reserve: comes after the pivot 'pay' and may fail, but nothing is undone there; move it before, "
    "or give it an alternative()",
    "X.reserve: comes after the pivot 'pay', where nothing is undone; remove its compensation",
)
def a_step_after_the_pivot_that_would_have_to_be_taken_back() -> None:
    class X(Pivoting, key="order_id"):
        @step(success=StockReserved, failure=OutOfStock)
        def reserve(self) -> ReserveStock:
            return ReserveStock(order_id=self.order_id, lines=[])

        @reserve.compensation(success=StockReleased)
        def release(self) -> ReleaseStock:
            return ReleaseStock(order_id=self.order_id)


@reads(
    "X.reserve: comes after the pivot 'pay' and may fail, but nothing is undone there; move it before, "
    "or give it an alternative()"
)
def a_race_after_the_pivot_that_all_may_lose() -> None:
    class X(Reserving, Pivoting, key="order_id"):
        @step(success=StockReleased)
        def label(self) -> CreateShippingLabel:
            return CreateShippingLabel(order_id=self.order_id)

        flow = Pivoting.pay >> parallel(Reserving.reserve, label, first=1)


@reads("X.pay: is the pivot and is never undone; remove its compensation")
def a_pivot_with_a_compensation() -> None:
    class X(Ordered, key="order_id"):
        @step(success=StockReserved, pivot=True)
        def pay(self) -> ReserveStock:
            return ReserveStock(order_id=self.order_id, lines=[])

        @pay.compensation(success=StockReleased)
        def release(self) -> ReleaseStock:
            return ReleaseStock(order_id=self.order_id)


@reads("X.pay: is the pivot and stands in a branch; put it on the main line of the flow")
def a_pivot_in_a_branch() -> None:
    class X(Reserving, Pivoting, key="order_id"):
        flow = parallel(Reserving.reserve, Pivoting.pay)


@reads("X.label: is a second pivot beside 'pay'; there is one point of no return")
def a_second_pivot() -> None:
    class X(Pivoting, key="order_id"):
        @step(success=StockReleased, pivot=True)
        def label(self) -> CreateShippingLabel:
            return CreateShippingLabel(order_id=self.order_id)


@reads("X: parallel() holds fewer than two branches; write parallel(label, invoice)")
def a_parallel_of_one() -> None:
    class X(Reserving, key="order_id"):
        flow = parallel(Reserving.reserve)


@reads("X: parallel(first=2) of 2 branches; write a whole number from 1 to 1")
def a_race_in_which_all_win() -> None:
    class X(Labelling, key="order_id"):
        flow = parallel(Labelling.reserve, Labelling.label, first=2)


@reads("X: alternative() holds fewer than two branches; write alternative(by_air, by_sea)")
def an_alternative_of_one() -> None:
    class X(Reserving, key="order_id"):
        flow = alternative(Reserving.reserve)


@reads("X.nap: is not in the flow and would never be; add it or remove it")
def a_sleep_that_the_flow_leaves_out() -> None:
    class X(Reserving, key="order_id"):
        @sleep
        def nap(self) -> timedelta:
            return timedelta(days=1)


@reads("X: flow holds the sleep 'nap' twice; write a second one with a name of its own")
def a_sleep_twice() -> None:
    class X(Reserving, key="order_id"):
        @sleep
        def nap(self) -> timedelta:
            return timedelta(days=1)

        flow = nap >> Reserving.reserve >> nap


@reads("X: flow holds the sleep 'nap' of another class; write or inherit it here")
def a_sleep_of_another_class() -> None:
    class Other(Reserving, abstract=True):
        @sleep
        def nap(self) -> timedelta:
            return timedelta(days=1)

    class X(Reserving, key="order_id"):
        flow = Reserving.reserve >> Other.nap


@reads("X: match() has two cases that are both kept as '1'; keep one")
def a_match_with_two_cases_that_look_the_same() -> None:
    class X(Reserving, key="order_id"):
        @decision
        def way(self) -> int:
            return 1

        flow = match(way, {1: None, "1": None}, otherwise=Reserving.reserve)


@reads("X.large: stands in when() and lacks @decision; write it over the method")
def a_when_over_a_plain_method() -> None:
    class X(Reserving, key="order_id"):
        def large(self) -> bool:
            return True

        flow = when(large, Reserving.reserve)


@reads("X: when() asks the step 'reserve'; its first argument is a method of this class with @decision")
def a_when_over_a_step() -> None:
    class X(Reserving, key="order_id"):
        flow = when(Reserving.reserve, Reserving.reserve)


@reads("X.large: is asked by when() and does not return bool; annotate it -> bool")
def a_when_over_a_decision_that_is_no_bool() -> None:
    class X(Reserving, key="order_id"):
        @decision
        def large(self) -> str:
            return "yes"

        flow = when(large, Reserving.reserve)


@reads("X.large: is asked nowhere in the flow; write when(large, …), or remove @decision")
def a_decision_that_nobody_asks() -> None:
    class X(Reserving, key="order_id"):
        @decision
        def large(self) -> bool:
            return True


@reads("X.large: lacks an annotation; annotate its answer, e.g. def large(self) -> bool")
def a_decision_without_an_annotation() -> None:
    class X(Reserving, key="order_id"):
        @decision
        def large(self):
            return True

        flow = match(large, {True: Reserving.reserve})


@reads(
    "X.large: assigns self.order_id, which is lost: it works on a copy; assign in a reply hook, or pass it to cls(...)"
)
def a_decision_that_assigns() -> None:
    class X(Reserving, key="order_id"):
        @decision
        def large(self) -> bool:
            self.order_id = "x"
            return True

        flow = when(large, Reserving.reserve)


@reads("X.way: may answer right, for which match() has no case; add it or otherwise=")
def a_match_that_leaves_an_answer_out() -> None:
    class X(Reserving, key="order_id"):
        @decision
        def way(self) -> Literal["left", "right"]:
            return "left"

        flow = match(way, {"left": Reserving.reserve})


@reads("X.way: never answers up, for which match() has a case; remove it")
def a_match_with_a_case_too_many() -> None:
    class X(Reserving, key="order_id"):
        @decision
        def way(self) -> Literal["left", "right"]:
            return "left"

        flow = match(way, {"left": Reserving.reserve, "right": None, "up": None})


@reads("X.way: may give any answer, and match() has no otherwise=; add it, or annotate an Enum or a Literal")
def a_match_over_any_text() -> None:
    class X(Reserving, key="order_id"):
        @decision
        def way(self) -> str:
            return "left"

        flow = match(way, {"left": Reserving.reserve})


@reads("X: match() has a case 1.5; an answer is a string, a whole number, True, False or an Enum's")
def a_match_with_a_case_that_is_no_answer() -> None:
    class X(Reserving, key="order_id"):
        @decision
        def way(self) -> int:
            return 1

        flow = match(way, {1.5: None}, otherwise=Reserving.reserve)


@reads("X.pay: is not in the flow and would never run; add it or remove it")
def a_step_that_the_flow_leaves_out() -> None:
    class X(Ordered, key="order_id"):
        @step(success=StockReserved)
        def reserve(self) -> ReserveStock: ...

        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment: ...

        flow = reserve


@reads(
    "X: flow holds a step 'pay' that a later 'pay' has replaced; rename one of them",
    "X.pay: the name 'pay' is used twice in the class, and this replaces the earlier; rename one of them",
)
def a_flow_with_a_step_that_was_replaced() -> None:
    class X(Ordered, key="order_id"):
        @step(success=StockReserved)
        def reserve(self) -> ReserveStock: ...

        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment: ...

        flow = reserve >> pay

        def pay(self) -> None: ...


# -- the state


@reads("X: private attribute _tries would be lost with the first message; make it a field or a ClassVar")
def a_private_attribute() -> None:
    class X(Reserving, key="order_id"):
        _tries: int = 0


@reads(
    "X: field card holds a secret, which would be stored as asterisks and lost; "
    "keep a reference to it, the participant that needs it looks it up"
)
def a_secret_in_the_state() -> None:
    class Card(BaseModel):
        number: SecretStr

    class X(Reserving, key="order_id"):
        card: list[Card] | None = None


@reads("X: field draft is left out of the JSON and so would be lost; remove exclude=True")
def a_field_that_is_not_stored() -> None:
    class X(Reserving, key="order_id"):
        draft: str = Field(default="", exclude=True)


@reads("X: field pay and a method have the same name; rename one of them")
def a_field_named_like_a_step() -> None:
    class X(Reserving, key="order_id"):
        pay: str

        @step(success=PaymentCompleted)
        def pay(self) -> MakePayment: ...


@reads("X: is frozen, so no hook could keep anything; remove frozen=True")
def a_frozen_state() -> None:
    class X(Reserving, key="order_id"):
        model_config = ConfigDict(frozen=True)


@reads(
    "X: the annotation of a field names 'Money', which is not known here; "
    "define it above the class and import it at run time, not under TYPE_CHECKING"
)
def a_field_of_a_type_that_only_checkers_know() -> None:
    class X(Reserving, key="order_id"):
        total: Money = 0


@reads("X: field json hides a name of Saga's own; choose another")
def a_field_of_a_reserved_name() -> None:
    class X(Reserving, key="order_id"):
        json: str = ""


# -- many at once


@reads(
    "X: unknown keyword retries=; there are key, version, deadline, name, keys, aliases, key_reuse, abstract",
    "X.label: has no success reply, so it could never be done; write success=…, a hook @label.on_success, "
    "or reply=False when nobody answers",
    "X.pay: is not in the flow and would never run; add it or remove it",
    "X.paid: assigns self.paid_at, which is no field; declare it in the class body, e.g. paid_at: str | None = None",
)
def a_class_with_several_problems_tells_all_of_them_by_line() -> None:
    class X(Ordered, key="order_id", retries=3):
        @step
        def label(self) -> CreateShippingLabel: ...

        @step
        def pay(self) -> MakePayment: ...

        @pay.on_success
        def paid(self, reply: PaymentCompleted) -> None:
            self.paid_at = self.now

        flow = label


PLACE = re.compile(r" \((?P<file>[^():]+):(?P<line>\d+)\)")
ADDRESS = re.compile(r" object at 0x[0-9a-f]+|\(<function .*?>\)")


@pytest.mark.filterwarnings('ignore:Field name "json"')  # pydantic has an opinion of its own
@pytest.mark.parametrize("wrong", GALLERY, ids=lambda wrong: wrong.__name__)
def test_the_author_reads(wrong: Wrong) -> None:
    with pytest.raises(DefinitionError) as caught:
        wrong()
    text = ADDRESS.sub(" object", PLACE.sub("", str(caught.value)))
    assert text.splitlines() == list(GALLERY[wrong])


def test_a_problem_of_the_class_tells_the_line_of_the_class_statement() -> None:
    with pytest.raises(DefinitionError) as caught:
        without_a_key()
    place = PLACE.search(str(caught.value))
    assert place is not None
    assert place["file"] == __file__
    assert int(place["line"]) == without_a_key.__code__.co_firstlineno + 5


def test_a_problem_of_a_method_tells_the_line_of_the_method() -> None:
    with pytest.raises(DefinitionError) as caught:
        an_async_step()
    place = PLACE.search(str(caught.value))
    assert place is not None
    assert int(place["line"]) == an_async_step.__code__.co_firstlineno + 3


def test_what_cannot_wait_for_the_class_tells_its_line_too() -> None:
    for wrong, after in ((an_annotated_flow, 4), (a_hook_over_a_classmethod, 6), (a_step_over_a_property, 3)):
        with pytest.raises(DefinitionError) as caught:
            wrong()
        place = PLACE.search(str(caught.value))
        assert place is not None
        assert (place["file"], int(place["line"])) == (__file__, wrong.__code__.co_firstlineno + after)


def test_a_definition_error_is_a_type_error_that_names_the_saga() -> None:
    with pytest.raises(TypeError) as caught:
        without_a_key()
    assert isinstance(caught.value, DefinitionError)
    assert caught.value.saga_type == "X"
