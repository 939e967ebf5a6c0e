"""What `@each` means in a class: which list it works off, who reads that, and all that is wrong with it."""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from sagas.checks import compensations_of, hooks_of, uses_of
from sagas.definition import EachDefinition
from sagas.keywords import EACH_KEYWORDS, sound
from sagas.listed import EachStep
from sagas.problems import suggestion
from sagas.steps import is_start
from sagas.written import Written

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sagas.problems import Problems
    from sagas.source import Source
    from sagas.steps import Word

AT_ONCE = 50


def each_of(step: EachStep, source: Source, problems: Problems) -> EachDefinition:
    """How a step works off a list."""
    method: FunctionType = step._method
    good = sound(step._each, EACH_KEYWORDS, lambda text: problems.of_method(method, text))
    fields: Mapping[str, Any] = getattr(source.cls, "model_fields", {})
    name, element = step._list_field, Any
    field = fields.get(name) if isinstance(name, str) else None
    if field is None:
        known = suggestion(name, fields) if isinstance(name, str) else ""
        problems.of_method(method, f"works off {name!r}, which is no field{known}; name a list of the state")
    elif get_origin(field.annotation) is not list or not get_args(field.annotation):
        problems.of_method(method, f"works off {name}, which is no list; annotate {name}: list[…]")
    else:
        [element] = get_args(field.annotation)
        _check_may_be_empty(str(name), field, method, problems)
    if step._keywords.get("pivot") is True:
        problems.of_method(method, "is a pivot and works off a list; put a step of its own behind it that is the pivot")
    return EachDefinition(
        list_field=str(name),
        at_once=good.get("at_once", AT_ONCE),  # type: ignore[arg-type]
        tolerate=good.get("tolerate", 0),  # type: ignore[arg-type]
        parse=TypeAdapter(element).validate_json,
    )


def _check_may_be_empty(name: str, field: Any, method: FunctionType, problems: Problems) -> None:  # noqa: ANN401
    """The methods that do not read the list get the state without it, and that has to load."""
    wanted: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    try:
        TypeAdapter(wanted).validate_python([])
    except ValidationError:
        text = f"works off {name}, which may not be empty; check in @start that there are items, not in the field"
        problems.of_method(method, text)


def readers_of(source: Source, lists: frozenset[str], problems: Problems) -> dict[str, frozenset[str]]:
    """The methods that read one of the lists, and which; none of those that get an item, and nobody fills one later."""
    readers = {}
    for name, method, of_items in _methods(source) if lists else ():
        uses = uses_of(method, source)
        if uses.writes & lists:
            text = (
                f"assigns self.{min(uses.writes & lists)}, which is worked off item by item; it is made in @start only"
            )
            problems.of_method(method, text)
        if (read := uses.reads & lists) and of_items:
            problems.of_method(method, f"reads self.{min(read)} for every item of it; it gets its own item")
        elif read:
            readers[name] = frozenset(read)
    return readers


def _methods(source: Source) -> Iterator[tuple[str, FunctionType, bool]]:
    """The methods that the engine calls, but for starts; and whether they get an item."""
    steps = [one for one in source.members.values() if isinstance(one, EachStep)]
    words: list[Word] = [*steps, *(undo for step in steps for undo in compensations_of(step, source))]
    of_items = {word._name for word in words}
    of_items |= {hook.method.__name__ for word in words for hook in hooks_of(word, source)}
    for name, member in source.members.items():
        method = member._method if isinstance(member, Written) else member
        if isinstance(method, FunctionType) and not is_start(member) and name == method.__name__:
            yield name, method, name in of_items
