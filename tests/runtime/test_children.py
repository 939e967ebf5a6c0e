"""A parent and its child as processes: in one on SQLite, in two over RabbitMQ and PostgreSQL, and what people see."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runtime.conftest import Command, Settings
    from tests.runtime.processes import Process

DELIVERIES = '''
"""The child."""
from handlers import Participant
from messages import Command, Event
from sagas import Saga, announce, start, step, wait

class DeliveryRequested(Event, name="kin.DeliveryRequested"):
    delivery_id: str

class Pack(Command, name="kin.Pack"):
    delivery_id: str

class Packed(Event, name="kin.Packed"):
    delivery_id: str

class Unpack(Command, name="kin.Unpack"):
    delivery_id: str

class Unpacked(Event, name="kin.Unpacked"):
    delivery_id: str

class Arrived(Event, name="kin.Arrived"):
    delivery_id: str

class Delivered(Event, name="kin.Delivered"):
    delivery_id: str

class NotDelivered(Event, name="kin.NotDelivered"):
    delivery_id: str

class Delivery(Saga, key="delivery_id"):
    delivery_id: str

    @start
    def requested(cls, event: DeliveryRequested) -> "Delivery":
        return cls(delivery_id=event.delivery_id)

    @step(success=Packed)
    def pack(self) -> Pack:
        return Pack(delivery_id=self.delivery_id)

    @pack.compensation(success=Unpacked)
    def unpack(self) -> Unpack:
        return Unpack(delivery_id=self.delivery_id)

    @wait
    def arrived(self, event: Arrived) -> None:
        pass

    @announce("completed")
    def delivered(self) -> Delivered:
        return Delivered(delivery_id=self.delivery_id)

    @announce("compensated")
    def not_delivered(self) -> NotDelivered:
        return NotDelivered(delivery_id=self.delivery_id)

    flow = pack >> arrived

packer = Participant("packer")

@packer.handles
async def pack(command: Pack) -> Packed:
    return Packed(delivery_id=command.delivery_id)

@packer.handles
async def unpack(command: Unpack) -> Unpacked:
    return Unpacked(delivery_id=command.delivery_id)
'''

ORDERS = '''
"""The parent."""
from deliveries import Delivery, DeliveryRequested
from messages import Command, Event
from handlers import Participant
from sagas import Saga, cancel, child, start, step

class Ordered(Event, name="kin.Ordered"):
    order_id: str

class Withdrawn(Event, name="kin.Withdrawn"):
    order_id: str

class Bill(Command, name="kin.Bill"):
    order_id: str

class Billed(Event, name="kin.Billed"):
    order_id: str

class Order(Saga, key="order_id"):
    order_id: str

    @start
    def ordered(cls, event: Ordered) -> "Order":
        return cls(order_id=event.order_id)

    @child(Delivery, undo=None)
    def deliver(self) -> DeliveryRequested:
        return DeliveryRequested(delivery_id=f"d-{self.order_id}")

    @step(success=Billed)
    def bill(self) -> Bill:
        return Bill(order_id=self.order_id)

    @cancel
    def withdrawn(self, event: Withdrawn) -> None:
        pass

biller = Participant("biller")

@biller.handles
async def bill(command: Bill) -> Billed:
    return Billed(order_id=command.order_id)
'''


@pytest.fixture
def written(folder: Path) -> None:
    (folder / "deliveries.py").write_text(DELIVERIES)
    (folder / "orders.py").write_text(ORDERS)


def publish(antiphon: Command, settings: Settings, name: str, **body: object) -> None:
    done = antiphon("publish", f"kin.{name}", json.dumps(body), **settings)
    assert done.returncode == 0, done.stderr


def shown(antiphon: Command, settings: Settings, key: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(antiphon("sagas", "show", key, "--json", **settings).stdout)
    return told


@pytest.mark.usefixtures("written")
def test_in_one_process_on_sqlite(antiphon: Command, started: Callable[..., Process]) -> None:
    settings = {"modules": "deliveries,orders"}
    process = started("run", **settings)
    process.until("process.ready")
    publish(antiphon, settings, "Ordered", order_id="1")
    process.until("saga.wait_began", key="d-1")
    page = antiphon("sagas", "show", "1", **settings).stdout
    assert re.search(r"^  waiting for  the end of Delivery 'd-1' \(step deliver\)", page, re.MULTILINE)
    assert re.search(r"^Children$", page, re.MULTILINE)
    assert re.search(r"^Delivery +d-1 +running ", page, re.MULTILINE)
    page = antiphon("sagas", "show", "d-1", **settings).stdout
    assert re.search(r"^  parent +Order 1, running \(", page, re.MULTILINE)
    publish(antiphon, settings, "Arrived", delivery_id="d-1")
    process.until("saga.completed", key="1")
    parent, child = shown(antiphon, settings, "1"), shown(antiphon, settings, "d-1")
    assert [each["saga_id"] for each in parent["children"]] == [child["saga"]["saga_id"]]
    assert child["parent"]["saga_id"] == child["saga"]["parent_id"] == parent["saga"]["saga_id"]
    [began] = [each for each in parent["events"] if each["kind"] == "command_sent" and each["step"] == "deliver"]
    assert began["detail"]["child_id"] == child["saga"]["saga_id"]

    publish(antiphon, settings, "Ordered", order_id="2")
    process.until("saga.wait_began", key="d-2")
    publish(antiphon, settings, "Withdrawn", order_id="2")
    process.until("saga.compensated", key="2")
    listed = json.loads(antiphon("sagas", "list", "--children", "--json", **settings).stdout)
    assert {each["business_key"]: each["status"] for each in listed} == {"d-1": "completed", "d-2": "compensated"}
    of = antiphon("sagas", "list", "--parent", parent["saga"]["saga_id"], "--json", **settings)
    assert [each["business_key"] for each in json.loads(of.stdout)] == ["d-1"]


@pytest.mark.usefixtures("written")
def test_in_two_processes_over_a_broker(antiphon: Command, started: Callable[..., Process], servers: Settings) -> None:
    orders = started("run", **{**servers, "modules": "orders"})
    deliveries = started("run", **{**servers, "modules": "deliveries"})
    for process, participant in ((orders, "biller"), (deliveries, "packer")):
        process.until("process.ready")
        modules = "orders" if participant == "biller" else "deliveries"
        started("participant", participant, **{**servers, "modules": modules}).until("process.ready")
    there = {**servers, "modules": "orders,deliveries"}
    publish(antiphon, there, "Ordered", order_id="1")
    deliveries.until("saga.wait_began", key="d-1")
    publish(antiphon, there, "Arrived", delivery_id="d-1")
    orders.until("saga.completed", key="1")
    publish(antiphon, there, "Ordered", order_id="2")
    deliveries.until("saga.wait_began", key="d-2")
    publish(antiphon, there, "Withdrawn", order_id="2")
    orders.until("saga.compensated", key="2")
    assert shown(antiphon, there, "d-2")["saga"]["end_reason"] == "cancelled"
    assert not json.loads(antiphon("dead", "list", "--json", **there).stdout)
