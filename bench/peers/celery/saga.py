"""The ordering saga as a Celery chain of three tasks; errbacks undo the earlier ones when one of them fails."""

from __future__ import annotations

import gc
import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from celery import Celery, Task, signals
from celery.worker.consumer import Consumer
from kombu.serialization import register
from pipeline import LateRequest, PipelinedCelery, Publishing
from settings import settings

if TYPE_CHECKING:
    from celery.canvas import Signature
    from kombu import Producer

State = dict[str, Any]

VARIANT = os.environ["PEER_VARIANT"]
NAMESPACE = os.environ["PEER_NAMESPACE"]
FOLDER = Path(os.environ["PEER_FOLDER"])

register("orjson", orjson.dumps, orjson.loads, "application/x-orjson", "utf-8")


class LateTask(Task):  # type: ignore[misc]
    """A task whose message is acknowledged after the confirms."""

    Request = LateRequest


if VARIANT == "durable":
    app = PipelinedCelery("ordering", task_cls=LateTask)
    app.steps["consumer"].add(Publishing)
else:
    app = Celery("ordering")
# quorum queues make every worker declare 28 queues more for delayed tasks; there are none
Consumer.Blueprint.default_steps = [each for each in Consumer.Blueprint.default_steps if "DelayedDelivery" not in each]
app.conf.update(settings(VARIANT, NAMESPACE, os.environ["PEER_BROKER_URL"]))

ledger: Counter[str] = Counter()


@app.task(name="stock.reserve")
def reserve(state: State, lines: list[dict[str, Any]]) -> State:
    """Reserve the lines of the order."""
    ledger[state["order_id"]] += 1
    return {**state, "reservation_id": f"stock-{state['order_id']}"}


@app.task(name="payment.pay")
def pay(state: State, amount: str) -> State:
    """Take the amount."""
    ledger[state["order_id"]] += 1
    return {**state, "payment_id": f"payment-{state['order_id']}"}


@app.task(name="warehouse.label")
def label(state: State) -> State:
    """Create the shipping label."""
    ledger[state["order_id"]] += 1
    return {**state, "tracking_code": f"warehouse-{state['order_id']}"}


@app.task(name="stock.release")
def release(order_id: str) -> None:
    """Undo `reserve`."""


@app.task(name="payment.refund")
def refund(order_id: str) -> None:
    """Undo `pay`."""


@app.task(name="warehouse.void")
def void(order_id: str) -> None:
    """Undo `label`; for a step that would come after it."""


def ordering(order: dict[str, Any]) -> list[Signature]:
    """The steps of the saga of one order; the last one is a message to whoever ordered, with the saga's state."""
    order_id = order["order_id"]
    released = release.si(order_id)
    return [
        reserve.s({"order_id": order_id}, order["lines"]),
        pay.s(order["total"]).set(link_error=[released]),
        label.s().set(link_error=[refund.si(order_id).set(link=[released])]),
        app.signature("completed.order"),
    ]


def place(order: dict[str, Any], producer: Producer) -> None:
    """Start the saga: what `chain(*steps).apply_async()` sends, without the copies that it makes of every step."""
    first, *others = ordering(order)
    first.apply_async(chain=others[::-1], producer=producer)


@signals.worker_ready.connect
def tell_ready(sender: Consumer, **_: object) -> None:
    """Leave a file that says that this worker consumes."""
    if VARIANT != "default":
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        sender.timer.call_repeatedly(0.2, _look_up)
    (FOLDER / f"{sender.hostname}.ready").touch()


def _look_up() -> None:
    """Wake the worker's loop, which sees SIGTERM only between two events."""


@signals.worker_shutdown.connect
@signals.worker_process_shutdown.connect
def keep_ledger(**_: object) -> None:
    """Leave what this process has executed."""
    if ledger:
        path = FOLDER / f"{os.environ['PEER_PARTICIPANT']}-{os.getpid()}.ledger"
        path.write_text(json.dumps(ledger))
