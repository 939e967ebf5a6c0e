"""Where events carry the key of their instance: what a class may say of it, and what its author reads otherwise."""

# mypy: ignore-errors

from __future__ import annotations

import re
from typing import Annotated, NewType, Self
from uuid import UUID

import pytest
from pydantic import Field

from messages import Command, Event
from messages.errors import DefinitionError, MethodRaised, MissingKey
from sagas import Alias, Saga, definition_of, signal, start, step
from sagas.aliases import aliased, aliases_of
from sagas.difference import difference
from sagas.prospect import prospect
from testkit import Harness

Reference = NewType("Reference", str)


class Asked(Event, name="keys.Asked"):
    loan: str


class Imported(Event, name="keys.Imported"):
    reference: str
    many: list[str] = Field(default_factory=list)


class Renamed(Event, name="keys.Renamed"):
    loan: str = Field(alias="loanId")


class Scanned(Event, name="keys.Scanned"):
    parcel_no: str
    weight: float = 0.0


class Other(Event, name="keys.Other"):
    loan: str


class Check(Command, name="keys.Check"):
    loan: str


class Checked(Event, name="keys.Checked"):
    loan: str


class Common(Saga, abstract=True):
    """What every class here has."""

    loan: str = ""
    parcel: str | None = None
    reference: Annotated[Reference | None, Field(description="of the bank")] = None
    number: UUID | None = None
    box: str = ""
    lines: list[str] | None = None

    @start
    def asked(cls, event: Asked) -> Self:
        return cls(loan=event.loan)

    @signal
    def scanned(self, event: Scanned) -> None:
        self.parcel = event.parcel_no

    @step(success=Checked)
    def check(self) -> Check:
        return Check(loan=self.loan)


BY_PARCEL = {Scanned: Alias("parcel", at="parcel_no")}


def keys_of(cls: type[Saga], event: Event) -> str:
    """The key that an event carries for a saga class."""
    definition = definition_of(cls)
    return definition.keys[event.message_name].of(definition.type, event)


def problems(**keywords: object) -> list[str]:
    """What an author reads, without places."""
    with pytest.raises(DefinitionError) as caught:
        type(Common)("X", (Common,), {"__module__": __name__, "__qualname__": "X"}, key="loan", **keywords)
    text = re.sub(r" \([^()]+:\d+\)", "", str(caught.value))
    return re.sub(r"<(function|built-in).*?>", "<it>", text).splitlines()


def test_a_key_may_be_made_of_an_event() -> None:
    class X(Common, key="loan", keys={Scanned: lambda event: event.parcel_no.partition("/")[0]}): ...

    assert keys_of(X, Scanned(parcel_no="7/2")) == "7"
    with pytest.raises(MissingKey, match=r"keys= makes of keys.Scanned: a business key has 1 to 255 characters"):
        keys_of(X, Scanned(parcel_no="/2"))
    with pytest.raises(MissingKey, match="has 1 to 255 characters, this one has 300"):
        keys_of(X, Scanned(parcel_no="7" * 300))


@pytest.mark.parametrize("wrong", [None, 1.5, ["7"], True, b"7"], ids=repr)
def test_what_is_made_must_be_a_key(wrong: object) -> None:
    class X(Common, key="loan", keys={Scanned: lambda event: wrong}): ...

    with pytest.raises(MissingKey, match=r"keys= makes of keys\.Scanned: no business key"):
        keys_of(X, Scanned(parcel_no="7"))


@pytest.mark.parametrize("made", [7, UUID(int=7), "7"], ids=repr)
def test_a_key_may_be_made_as_a_text_a_number_or_a_uuid(made: object) -> None:
    class X(Common, key="loan", keys={Scanned: lambda event: made}): ...

    assert keys_of(X, Scanned(parcel_no="")) == str(made)


def test_what_raises_is_told_with_its_place() -> None:
    class X(Common, key="loan", keys={Scanned: lambda event: event.nothing}): ...

    said = r"^X\.keys\[Scanned\]: AttributeError: .*nothing.* \(test_correlation\.py:\d+, from pydantic"
    with pytest.raises(MethodRaised, match=said):
        keys_of(X, Scanned(parcel_no="7"))


def test_a_field_with_an_alias_is_found_under_either_name() -> None:
    class X(Common, key="loan", keys={Scanned: "parcel_no"}):
        @signal
        def renamed(self, event: Renamed) -> None: ...

    class Y(Common, key="loanId", keys={Scanned: "parcel_no", Asked: "loan"}):
        @signal
        def renamed(self, event: Renamed) -> None: ...

    event = Renamed(loanId="7")
    assert (keys_of(X, event), keys_of(Y, event)) == ("7", "7")
    assert definition_of(X).keys["keys.Renamed"].field == "loanId"


def test_an_event_may_carry_an_alias() -> None:
    class X(Common, key="loan", aliases=("parcel", "reference", "number"), keys=BY_PARCEL): ...

    definition = definition_of(X)
    assert definition.aliases == ("parcel", "reference", "number")
    assert definition.keys["keys.Scanned"].alias == "parcel"
    assert keys_of(X, Scanned(parcel_no="7")) == "7"
    assert definition.document["shape"]["aliases"] == ["number", "parcel", "reference"]
    assert definition.document["shape"]["heard"]["keys.Scanned"] == {
        "role": "signal",
        "of": "scanned",
        "kind": "success",
        "version": 1,
        "key": "parcel_no",
        "alias": "parcel",
    }


@pytest.mark.parametrize(
    ("keywords", "lines"),
    [
        (
            {"keys": {Scanned: "parcel"}},
            ["X: Scanned has no field 'parcel' (did you mean 'parcel_no'?), so it cannot be routed by key; "
             'name the field in keys={Scanned: "…"} or add it to the event'],
        ),
        (
            {"keys": {Scanned: "weight"}},
            ["X: Scanned.weight is float, which is no business key; a key is a str, an int or a UUID"],
        ),
        (
            {"keys": {Scanned: "parcel_no", Other: "loan"}},
            ["X: keys= names Other, which this saga does not start or go on with; remove it"],
        ),
        (
            {"keys": {Scanned: len}},
            ["X: keys= makes the key of Scanned with <it>; write a function or a lambda of one argument"],
        ),
        (
            {"keys": {Scanned: lambda event, more: event.parcel_no}},
            ["X.<lambda>: takes (event, more); write lambda event: …"],
        ),
        (
            {"keys": {Scanned: Alias("parcle", at="parcel_no")}, "aliases": ("parcel",)},
            ["X: X has no alias 'parcle' (did you mean 'parcel'?); there are parcel; add it: aliases=('parcle',)"],
        ),
        (
            {"keys": {Scanned: Alias("parcel", at="parcel_no")}},
            ["X: X has no alias 'parcel'; add it: aliases=('parcel',)"],
        ),
        (
            {"keys": {**BY_PARCEL, Asked: Alias("parcel", at="loan")}, "aliases": ("parcel",)},
            ["X: keys= finds Asked by the alias 'parcel', and it starts the saga: an instance is born by its own key; "
             "name the field that holds it, and keep the alias in the state"],
        ),
        (
            {"keys": BY_PARCEL, "aliases": ("parcel", "parcel", "parcle")},
            ["X: aliases= names 'parcel' twice; once is enough",
             "X: aliases= names 'parcle', which is no field (did you mean 'parcel'?); "
             "name a field of the saga, e.g. parcle: str | None = None"],
        ),
        (
            {"keys": BY_PARCEL, "aliases": ("parcel", "loan", "lines", "box")},
            ["X: aliases= names 'box', which every instance would have as '' from its birth; "
             "write box: … | None = None",
             "X: aliases= names 'lines', which is list[str] | None and no key; "
             "a key is a str, an int or a UUID, or None",
             "X: aliases= names 'loan', which is the key already; remove it"],
        ),
        (
            {"keys": {Scanned: "parcel_no"}, "aliases": "parcel"},
            ["X: aliases='parcel' will not do; write a tuple of names of fields of the saga, "
             'e.g. aliases=("payment_reference",)'],
        ),
        (
            {"keys": {Scanned: 7}},
            ["X: Scanned has no field 'loan', so it cannot be routed by key; "
             'name the field in keys={Scanned: "…"} or add it to the event',
             "X: keys={<class 'tests.sagas.test_correlation.Scanned'>: 7} will not do; write the events that carry the "
             'key elsewhere, each with the field, a function of the event, or Alias("…"), '
             'e.g. keys={OrderPlaced: "orderId"}'],
        ),
    ],
)  # fmt: skip
def test_the_author_reads(keywords: dict[str, object], lines: list[str]) -> None:
    assert sorted(problems(**keywords)) == sorted(lines)


def test_a_list_of_keys_is_no_key() -> None:
    with pytest.raises(DefinitionError, match=r"Imported.many is list\[str\], which is no business key"):

        class X(Common, key="loan", keys={Scanned: "parcel_no", Imported: "many"}):
            @start
            def imported(cls, event: Imported) -> Self:
                return cls(loan="")


def test_a_function_that_makes_a_key_is_recorded_by_what_it_does() -> None:
    def document(function: object) -> dict:
        class X(Common, key="loan", keys={Scanned: function}): ...

        return dict(definition_of(X).document)

    one = document(lambda event: event.parcel_no)
    same = document(
        lambda event: (
            event.parcel_no  # with a comment
        )
    )
    another = document(lambda event: event.parcel_no[:3] if event.weight in {1.0, 2.0} else "none")
    assert one["code"]["methods"]["keys[keys.Scanned]"] is not None
    assert one == same
    assert str(difference(one, another)) == "code: method keys[keys.Scanned] changed"
    assert one["shape"]["heard"]["keys.Scanned"]["key"] == "(expression)"


def test_an_alias_more_runs_and_an_alias_less_is_refused() -> None:
    class X(Common, key="loan", keys={Scanned: "parcel_no"}): ...

    class Y(Common, key="loan", name="X", keys={Scanned: "parcel_no"}, aliases=("parcel",)): ...

    without, with_one = definition_of(X).document, definition_of(Y).document
    more, less = difference(without, with_one), difference(with_one, without)
    assert [(change.text, change.verdict) for change in more.changes] == [("alias parcel is new", "accepted")]
    assert [(change.text, change.verdict) for change in less.changes] == [("alias parcel is gone", "refused")]


def test_an_event_that_comes_by_another_key_is_refused_under_the_same_version() -> None:
    class X(Common, key="loan", keys=BY_PARCEL, aliases=("parcel", "reference")): ...

    class Y(
        Common,
        key="loan",
        name="X",
        keys={Scanned: Alias("reference", at="parcel_no")},
        aliases=("parcel", "reference"),
    ): ...

    changes = difference(definition_of(X).document, definition_of(Y).document).changes
    assert [(change.text, change.verdict) for change in changes] == [
        ("event keys.Scanned: alias was parcel, is reference", "refused")
    ]


def test_what_an_instance_is_known_by_stands_in_no_release_in_the_way() -> None:
    class X(Common, key="loan", keys=BY_PARCEL, aliases=("parcel",)): ...

    class Y(Common, key="loan", name="X", keys={Scanned: "parcel_no"}): ...

    story = Harness(X).given(Asked(loan="7"))
    story = story.operator("pause").operator("resume")
    known = aliased(story.instance, {"parcel": "waiting"}, {}, story.now).instance
    assert aliases_of(known) == {"parcel": "waiting"}
    for definition in map(definition_of, (X, Y)):
        assert prospect(definition, known, story.now).flaws == ()
