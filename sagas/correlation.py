"""What a class says of the keys by which events find its instances, and all that is wrong with it."""

from __future__ import annotations

from operator import attrgetter
from types import FunctionType, NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Literal, Union, get_args, get_origin

from sagas.bytecode import uses_of_self
from sagas.checks import check_signature
from sagas.keys import EXPRESSION, Alias, EventKey, KeyValue, attribute_of
from sagas.problems import listed, suggestion

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from messages import Event
    from sagas.keys import Carried
    from sagas.problems import Problems
    from sagas.source import Source

_KEYS = get_args(KeyValue)


def keys_of(
    source: Source,
    problems: Problems,
    key: str,
    said: Mapping[type[Event], Carried],
    aliases: Collection[str],
    *,
    events: Mapping[str, type[Event]],
    starts: Collection[str],
) -> dict[str, EventKey]:
    """Where each event that is found by a key carries it; what is wrong with that is told to `problems`."""
    elsewhere = {event.message_name: carried for event, carried in said.items()}
    for event in said:
        if event.message_name not in events:
            problems.of_class(f"keys= names {event.__name__}, which this saga does not start or go on with; remove it")
    found = {}
    for name, event in events.items():
        carried = elsewhere.get(name, key)
        if isinstance(carried, Alias):
            problem = _alias_problem(event, carried, aliases, source.cls.__name__, starts=name in starts)
            if problem is not None:
                problems.of_class(problem)
                continue
        if carried and (read := _event_key(event, carried, problems)) is not None:
            found[name] = read
    return found


def _event_key(event: type[Event], carried: Carried, problems: Problems) -> EventKey | None:
    alias, at = (carried.name, carried.at or carried.name) if isinstance(carried, Alias) else (None, carried)
    if isinstance(at, str):
        if (problem := _field_problem(event, at)) is not None:
            problems.of_class(problem)
            return None
        own = attribute_of(event, at) or at
        field = event.model_fields[own]
        return EventKey(field=field.serialization_alias or field.alias or own, read=attrgetter(own), alias=alias)
    if not isinstance(at, FunctionType):
        text = f"keys= makes the key of {event.__name__} with {at!r}; write a function or a lambda of one argument"
        problems.of_class(text)
        return None
    check_signature(at, "event", problems)
    if writes := uses_of_self(at).writes:
        names = listed(f"{at.__code__.co_varnames[0]}.{name}" for name in sorted(writes))
        problems.of_method(at, f"assigns {names}; a key is only read from the event")
    return EventKey(field=EXPRESSION, read=at, alias=alias)


def _alias_problem(event: type[Event], said: Alias, aliases: Collection[str], saga: str, *, starts: bool) -> str | None:
    if starts:
        return (
            f"keys= finds {event.__name__} by the alias {said.name!r}, and it starts the saga: an instance is born by "
            f"its own key; name the field that holds it, and keep the alias in the state"
        )
    if said.name not in aliases:
        known = suggestion(said.name, aliases)
        there = f"; there are {listed(aliases)}" if aliases else ""
        return f"{saga} has no alias {said.name!r}{known}{there}; add it: aliases=({said.name!r},)"
    return None


def check_aliases(source: Source, problems: Problems, key: str | None, aliases: Collection[str]) -> None:
    """Each alias is a field of the state that can hold a key, and holds none before it has one."""
    fields = getattr(source.cls, "model_fields", {})
    for name in sorted({name for name in aliases if list(aliases).count(name) > 1}):
        problems.of_class(f"aliases= names {name!r} twice; once is enough")
    for name in dict.fromkeys(aliases):
        field = fields.get(name)
        if field is None:
            remedy = f"name a field of the saga, e.g. {name}: str | None = None"
            problems.of_class(f"aliases= names {name!r}, which is no field{suggestion(name, fields)}; {remedy}")
        elif name == key:
            problems.of_class(f"aliases= names {name!r}, which is the key already; remove it")
        elif not all(_can_be_key(each) for each in _alternatives(field.annotation) if each is not NoneType):
            shown = getattr(field.annotation, "__name__", None) or str(field.annotation)
            text = f"aliases= names {name!r}, which is {shown} and no key; a key is a str, an int or a UUID, or None"
            problems.of_class(text)
        elif not field.is_required() and field.get_default(call_default_factory=False) is not None:
            text = f"aliases= names {name!r}, which every instance would have as {field.default!r} from its birth"
            problems.of_class(f"{text}; write {name}: … | None = None")


def _field_problem(event: type[Event], name: str) -> str | None:
    """Why this field cannot route the event, if it cannot."""
    own = attribute_of(event, name)
    if own is None:
        known = suggestion(name, event.model_fields)
        return (
            f"{event.__name__} has no field {name!r}{known}, so it cannot be routed by key; "
            f'name the field in keys={{{event.__name__}: "…"}} or add it to the event'
        )
    annotation = event.model_fields[own].annotation
    if not _can_be_key(annotation):
        shown = str(annotation) if get_args(annotation) else getattr(annotation, "__name__", None) or str(annotation)
        return f"{event.__name__}.{name} is {shown}, which is no business key; a key is a str, an int or a UUID"
    return None


def _can_be_key(annotation: object) -> bool:
    return all(map(_is_key, _alternatives(annotation)))


def _is_key(each: object) -> bool:
    if get_origin(each) is Literal:
        return all(isinstance(value, str | int) and not isinstance(value, bool) for value in get_args(each))
    return isinstance(each, type) and get_origin(each) is None and each is not bool and issubclass(each, _KEYS)


def _alternatives(annotation: object) -> Iterator[object]:
    """What a value may be, seen through NewType, `type X = …`, Annotated and unions."""
    annotation = getattr(annotation, "__supertype__", annotation)
    annotation = getattr(annotation, "__value__", annotation)
    if get_origin(annotation) is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from _alternatives(each)
    else:
        yield annotation
