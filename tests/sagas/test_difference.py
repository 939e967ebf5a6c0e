"""What an edit of a saga changes, and whether running instances allow it under the same version."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from itertools import count
from textwrap import indent
from typing import TYPE_CHECKING

import pytest

from sagas import Definition, definition_of
from sagas.difference import Difference, difference
from sagas.digests import canonical

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = '''
from datetime import timedelta
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from messages import Command, Event
from sagas import Retry, Saga, start, step


class Placed(Event, name="edited.Placed"):
    order_id: str
    number: int = 1


class Reserve(Command, name="edited.Reserve"):
    order_id: str


class Reserved(Event, name="edited.Reserved"):
    reservation_id: str


class Sold(Event, name="edited.Sold"): ...


class Release(Command, name="edited.Release"): ...


class Released(Event, name="edited.Released"): ...


class Pay(Command, name="edited.Pay"):
    amount: int


class Paid(Event, name="edited.Paid"): ...


class Line(BaseModel):
    sku: str
    quantity: int = 1


class Order(Saga, key="order_id", version=1):
    """An order."""

    order_id: str
    lines: list[Line] = Field(default_factory=list)
    reservation_id: str | None = None

    @start
    def placed(cls, event: Placed) -> Self:
        return cls(order_id=event.order_id)

    @step(timeout=timedelta(minutes=1), failure=Sold)
    def reserve(self) -> Reserve:
        """Put it aside."""
        return Reserve(order_id=self.order_id)

    @reserve.on_success
    def reserved(self, reply: Reserved) -> None:
        self.reservation_id = reply.reservation_id

    @reserve.compensation(success=Released)
    def release(self) -> Release:
        return Release()

    @step(success=Paid)
    def pay(self) -> Pay:
        return Pay(amount=10)

    @step(reply=False)
    def tell(self) -> Pay:
        return Pay(amount=0)

    flow = reserve >> pay >> tell
'''

PARTS = ("shape", "policy", "state", "code")
NUMBERS = count()
Compile = Callable[..., Definition]


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compile:
    """Compiles the saga after some replacements in its source."""

    def compile_edited(*edits: tuple[str, str]) -> Definition:
        source = SOURCE
        for before, after in edits:
            assert before in source, before
            source = source.replace(before, after)
        path = tmp_path / f"edited_{next(NUMBERS)}.py"
        # Within a function, so that the messages of one edit are not in the way of those of another.
        path.write_text(f"def define():\n{indent(source, '    ')}\n    return Order\n")
        spec = importlib.util.spec_from_file_location("edited", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "edited", module)
        spec.loader.exec_module(module)
        return definition_of(module.define())

    return compile_edited


def changed_parts(old: Definition, new: Definition) -> set[str]:
    return {part for part in PARTS if getattr(old.digests, part) != getattr(new.digests, part)}


def told(old: Definition, new: Definition) -> Difference:
    return difference(old.document, new.document)


HOOK = """    @reserve.on_success
    def reserved(self, reply: Reserved) -> None:
        self.reservation_id = reply.reservation_id

"""
UNDO = """    @reserve.compensation(success=Released)
    def release(self) -> Release:
        return Release()

"""

SAME = {
    "comment": [("        return Release()", "        # gone\n        return Release()")],
    "docstring": [('"""Put it aside."""', '"""Reserve it."""'), ('"""An order."""', '"""The order."""')],
    "layout": [("Pay(amount=10)", "Pay(\n            amount=10,\n        )")],
    "hooks reordered": [(HOOK, ""), (UNDO, UNDO + HOOK)],
    "flow grouped": [("reserve >> pay >> tell", "reserve >> (pay >> tell)")],
    "flow left to the order written": [("    flow = reserve >> pay >> tell\n", "")],
    "seconds for a minute": [("timedelta(minutes=1)", "timedelta(seconds=60)")],
    "default said": [("@step(success=Paid)", "@step(success=Paid, timeout=timedelta(seconds=30), retry=Retry())")],
    "description of a field": [("quantity: int = 1", 'quantity: int = Field(default=1, description="pieces")')],
}


@pytest.mark.parametrize("edits", SAME.values(), ids=SAME)
def test_nothing_changes(compiled: Compile, edits: list[tuple[str, str]]) -> None:
    old, new = compiled(), compiled(*edits)
    assert changed_parts(old, new) == set()
    assert told(old, new) == Difference()


CODE = {
    "hook renamed": [("def reserved", "def was_reserved")],
    "parameter renamed": [("reply: Reserved", "answer: Reserved"), ("reply.reservation_id", "answer.reservation_id")],
    "message class renamed under the same name": [("Paid", "Payed"), ("edited.Payed", "edited.Paid")],
    "another amount": [("amount=10", "amount=20")],
    "default in the start": [("cls(order_id=event.order_id)", "cls(order_id=event.order_id, lines=[])")],
}


@pytest.mark.parametrize("edits", CODE.values(), ids=CODE)
def test_methods_may_change(compiled: Compile, edits: list[tuple[str, str]]) -> None:
    old, new = compiled(), compiled(*edits)
    assert changed_parts(old, new) <= {"code"}
    assert not told(old, new).refused


def test_a_changed_method_is_named(compiled: Compile) -> None:
    old, new = compiled(), compiled(("amount=10", "amount=20"))
    assert changed_parts(old, new) == {"code"}
    assert str(told(old, new)) == "code: method pay changed"


POLICY = {
    "timeout": ([("minutes=1", "minutes=2")], "policy: steps reserve do timeout was 60.0, is 120.0"),
    "retry": (
        [("@step(success=Paid)", "@step(success=Paid, retry=Retry(attempts=9))")],
        "policy: steps pay do retry attempts was 3, is 9",
    ),
    "deadline": ([("version=1", "version=1, deadline=timedelta(days=1)")], "policy: deadline was 604800.0, is 86400.0"),
    "in doubt": (
        [("failure=Sold", 'failure=Sold, in_doubt="wait"')],
        "policy: steps reserve in_doubt was undo, is wait",
    ),
    "key reuse": ([("version=1", "version=1, key_reuse=True")], "policy: key_reuse was False, is True"),
}


@pytest.mark.parametrize(("edits", "text"), POLICY.values(), ids=POLICY)
def test_policy_may_change(compiled: Compile, edits: list[tuple[str, str]], text: str) -> None:
    old, new = compiled(), compiled(*edits)
    assert changed_parts(old, new) == {"policy"}
    assert str(told(old, new)) == text
    assert not told(old, new).refused


ADDED = {
    "reply": (
        [("@step(success=Paid)", "@step(success=Paid, failure=Sold)")],
        "reply of step pay edited.Sold is new",
    ),
    "reply of a compensation": (
        [("success=Released)", "success=(Released, Sold))")],
        "reply of compensation release edited.Sold is new",
    ),
    "start event": (
        [
            (", key=", ', keys={Order0: "id"}, key='),
            ("class Line", 'class Order0(Event, name="edited.Order0"):\n    id: str\n\n\nclass Line'),
            ("event: Placed", "event: Placed | Order0"),
        ],
        "start event edited.Order0 is new",
    ),
    "newer version of a reply that reads the older": (
        [
            ("import Command, Event", "import Command, Event, upcast"),
            (
                'class Sold(Event, name="edited.Sold"): ...',
                'class Sold(Event, name="edited.Sold", version=2):\n    @upcast(1)\n    @classmethod\n'
                "    def same(cls, body: dict[str, object]) -> dict[str, object]:\n        return body",
            ),
        ],
        "reply of step reserve edited.Sold: version was 1, is 2, which reads the older",
    ),
}


@pytest.mark.parametrize(("edits", "text"), ADDED.values(), ids=ADDED)
def test_pure_additions_to_the_shape_are_allowed(compiled: Compile, edits: list[tuple[str, str]], text: str) -> None:
    old, new = compiled(), compiled(*edits)
    assert changed_parts(old, new) - {"code"} == {"shape"}
    assert [str(change.text) for change in told(old, new).changes if change.part == "shape"] == [text]
    assert not told(old, new).refused


REFUSED = {
    "step renamed": (
        [("def pay(", "def charge("), (">> pay >>", ">> charge >>")],
        ["flow was reserve >> pay >> tell, is reserve >> charge >> tell", "step pay is gone", "step charge is new"],
    ),
    "flow": (
        [("reserve >> pay >> tell", "pay >> reserve >> tell")],
        ["flow was reserve >> pay >> tell, is pay >> reserve >> tell"],
    ),
    "step removed": (
        [("    @step(reply=False)\n    def tell(self) -> Pay:\n        return Pay(amount=0)\n", ""), (" >> tell", "")],
        ["flow was reserve >> pay >> tell, is reserve >> pay", "step tell is gone"],
    ),
    "reply removed": ([(", failure=Sold", "")], ["reply of step reserve edited.Sold is gone"]),
    "reply of another kind": (
        [("failure=Sold", "transient=Sold")],
        ["reply of step reserve edited.Sold: kind was failure, is transient"],
    ),
    "reply of another version": (
        [('name="edited.Paid"', 'name="edited.Paid", version=2')],
        ["reply of step pay edited.Paid: version was 1, is 2"],
    ),
    "command of another version": (
        [('name="edited.Reserve")', 'name="edited.Reserve", version=2)')],
        ["step reserve sent edited.Reserve version 1, sends edited.Reserve version 2"],
    ),
    "another command": (
        [
            (
                "def pay(self) -> Pay:\n        return Pay(amount=10)",
                "def pay(self) -> Release:\n        return Release()",
            )
        ],
        ["step pay sent edited.Pay version 1, sends edited.Release version 1"],
    ),
    "no answer any more": ([("@step(success=Paid)", "@step(reply=False)")], ["step pay was answered, is not"]),
    "an answer of late": ([("@step(reply=False)", "@step(success=Paid)")], ["step tell was not answered, is"]),
    "compensation renamed": (
        [("def release", "def give_back")],
        ["compensation release of reserve is now called give_back"],
    ),
    "compensation removed": ([(UNDO, "")], ["compensation release of reserve is gone"]),
    "compensation added": (
        [
            (
                "    @step(reply=False)\n",
                "    @pay.compensation(reply=False)\n    def refund(self) -> Release: ...\n\n    @step(reply=False)\n",
            )
        ],
        ["compensation refund of pay is new"],
    ),
    "key": (
        [('key="order_id"', 'key="number"')],
        ["key was order_id, is number", "start event edited.Placed: key was order_id, is number"],
    ),
    "start event of another version": (
        [('name="edited.Placed"', 'name="edited.Placed", version=2')],
        ["start event edited.Placed: version was 1, is 2"],
    ),
    "another type": ([("version=1", 'version=1, name="Orders"')], ["type was Order, is Orders"]),
}


@pytest.mark.parametrize(("edits", "texts"), REFUSED.values(), ids=REFUSED)
def test_another_shape_is_refused_and_named(compiled: Compile, edits: list[tuple[str, str]], texts: list[str]) -> None:
    old, new = compiled(), compiled(*edits)
    assert "shape" in changed_parts(old, new)
    shape = [change for change in told(old, new).changes if change.part == "shape"]
    assert [change.text for change in shape] == texts
    assert all(change.refused for change in shape)
    assert told(old, new).refused


FIELD = "    reservation_id: str | None = None\n"
LOADS = {
    "optional field added": ([(FIELD, FIELD + "    note: str = ''\n")], "field note is new"),
    "field removed": ([("    lines: list[Line] = Field(default_factory=list)\n", "")], "field lines is gone"),
    "field widened": (
        [("order_id: str\n    lines", "order_id: str | int\n    lines")],
        "field order_id changed, old states load",
    ),
    "field with a default of late": (
        [("order_id: str\n    lines", "order_id: str = ''\n    lines")],
        "field order_id changed, old states load",
    ),
    "optional field added within": (
        [("quantity: int = 1", "quantity: int = 1\n    price: int | None = None")],
        "field lines changed, old states load",
    ),
    "field removed within": ([("\n    quantity: int = 1", "")], "field lines changed, old states load"),
}


@pytest.mark.parametrize(("edits", "text"), LOADS.values(), ids=LOADS)
def test_another_state_is_allowed_when_old_states_load(
    compiled: Compile, edits: list[tuple[str, str]], text: str
) -> None:
    old, new = compiled(), compiled(*edits)
    assert changed_parts(old, new) - {"code"} == {"state"}
    assert [change.text for change in told(old, new).changes if change.part == "state"] == [text]
    assert not told(old, new).refused


def test_a_nested_type_may_be_renamed(compiled: Compile) -> None:
    old, new = compiled(), compiled(("class Line(", "class Item("), ("list[Line]", "list[Item]"))
    assert changed_parts(old, new) == {"state"}
    assert told(old, new) == Difference()


BREAKS = {
    "required field added": (
        [("    order_id: str\n    lines", "    order_id: str\n    note: str\n    lines")],
        "field note is new and has no default, so old states do not load",
    ),
    "field of another type": (
        [(FIELD, "    reservation_id: int = 0\n")],
        "field reservation_id was string or null, is integer",
    ),
    "field narrowed": (
        [(FIELD, "    reservation_id: str = ''\n")],
        "field reservation_id was string or null, is string",
    ),
    "required field added within": (
        [("quantity: int = 1", "quantity: int = 1\n    price: int")],
        "field lines[…].price is new and has no default, so old states do not load",
    ),
    "field of another type within": (
        [("quantity: int = 1", "quantity: list[int] = []")],
        "field lines[…].quantity was integer, is array of integer",
    ),
    "field removed within what forbids others": (
        [
            ("\n    quantity: int = 1", ""),
            ("class Line(BaseModel):", "class Line(BaseModel):\n    model_config = ConfigDict(extra='forbid')"),
        ],
        "field lines[…].quantity is gone, and its class forbids fields it does not know",
    ),
    "limit set": (
        [("quantity: int = 1", "quantity: int = Field(default=1, le=5)")],
        "field lines[…].quantity was integer, is {'maximum': 5, 'type': 'integer'}",
    ),
}


@pytest.mark.parametrize(("edits", "text"), BREAKS.values(), ids=BREAKS)
def test_another_state_is_refused_when_old_states_might_not_load(
    compiled: Compile, edits: list[tuple[str, str]], text: str
) -> None:
    old, new = compiled(), compiled(*edits)
    state = [change for change in told(old, new).changes if change.part == "state"]
    assert [(change.text, change.refused) for change in state] == [(text, True)]
    assert told(old, new).refused


def test_methods_are_not_compared_between_pythons(compiled: Compile) -> None:
    old, new = compiled(), compiled(("amount=10", "amount=20"))
    document = {**old.document, "code": {"python": "3.99", "methods": {}}}
    changes = difference(document, new.document).changes
    assert [change.text.partition(",")[0] for change in changes] == ["Python was 3.99"]


def test_a_document_survives_its_own_json(compiled: Compile) -> None:
    import json

    document = compiled().document
    assert json.loads(canonical(dict(document))) == document
