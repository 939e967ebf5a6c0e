"""What can be known to be wrong with a saga class before it runs: its methods, its state, its names.

Every check tells all it finds to `Problems`; none raises.
"""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import TYPE_CHECKING, Any, get_args, get_overloads

from pydantic import BaseModel, Secret, SecretBytes, SecretStr
from pydantic.errors import PydanticUndefinedAnnotation

from sagas.bytecode import Uses, assigned_twice, uses_of_self
from sagas.listeners import is_query, listener_of
from sagas.migrate import is_migration
from sagas.problems import listed, suggestion
from sagas.steps import Compensation, Step, is_decision, is_start
from sagas.written import Hook, Hooked, Written, hook_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sagas.problems import Problems
    from sagas.source import Source

_SECRETS = (SecretStr, SecretBytes, Secret)
_ASYNC_OR_GENERATOR = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_OPEN_ENDED = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS


# -- methods


def check_signature(method: FunctionType, wanted: str, problems: Problems) -> None:
    """The method takes exactly the parameters in `wanted` ("self, reply") and is neither async nor a generator."""
    code = method.__code__
    surplus = code.co_kwonlyargcount or code.co_flags & _OPEN_ENDED
    if code.co_argcount != len(wanted.split(", ")) or surplus:
        shown = f"({', '.join(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])})"
        form = f"lambda {wanted}: …" if method.__name__ == "<lambda>" else f"def {method.__name__}({wanted})"
        problems.of_method(method, f"takes {shown}; write {form}")
    if code.co_flags & _ASYNC_OR_GENERATOR:
        kind = "a generator" if code.co_flags & inspect.CO_GENERATOR else "async"
        problems.of_method(method, f"is {kind}; write a plain method, it does no I/O and returns at once")


def check_assignments(source: Source, problems: Problems) -> None:
    """Hooks assign fields only; what builds a command or a first state, or decides, assigns nothing."""
    for name, member in source.members.items():
        if isinstance(member, Written):
            check = _check_builder if member._BUILDS else _check_fields_exist
            check(member._method, source, problems)
        elif is_start(member) or is_migration(member):
            _check_builder(member.__func__, source, problems)  # type: ignore[attr-defined]
        elif isinstance(member, FunctionType) and (is_decision(member) or is_query(member)):
            _check_builder(member, source, problems)
        elif isinstance(member, FunctionType) and name == member.__name__ and _has_self(member):
            _check_fields_exist(member, source, problems)


def _has_self(method: FunctionType) -> bool:
    return method.__code__.co_varnames[:1] == ("self",)


def _check_builder(method: FunctionType, source: Source, problems: Problems) -> None:
    writes = uses_of(method, source).writes
    if not writes:
        return
    names = listed(f"{method.__code__.co_varnames[0]}.{name}" for name in sorted(writes))
    problems.of_method(
        method, f"assigns {names}, which is lost: it works on a copy; assign in a reply hook, or pass it to cls(...)"
    )


def _check_fields_exist(method: FunctionType, source: Source, problems: Problems) -> None:
    fields = _fields(source)
    for name in sorted(uses_of_self(method).writes):
        if name not in fields and not isinstance(source.members.get(name), property):
            remedy = f"declare it in the class body, e.g. {name}: str | None = None"
            problems.of_method(method, f"assigns self.{name}, which is no field{suggestion(name, fields)}; {remedy}")


def uses_of(method: FunctionType, source: Source) -> Uses:
    """What a method reads and assigns of `self`, itself or through other methods of the class."""

    def find(name: str, written: bool) -> object:
        member = source.members.get(name)
        if isinstance(member, property):
            return member.fset if written else member.fget
        if isinstance(member, Written):
            member = member._method
        return None if written else member

    return uses_of_self(method, find)


def _fields(source: Source) -> dict[str, Any]:
    return getattr(source.cls, "model_fields", {})


# -- names


def check_names(source: Source, reserved: Iterable[str], problems: Problems) -> None:
    """No word of the language stands under a name of `Saga`'s own or under another than its method's."""
    taken = set(reserved)
    for name, member in source.members.items():
        method = _method_of(member)
        if method is None:
            continue
        own = method.__name__
        if own == name in taken:
            problems.of_method(method, f"the name {name!r} is Saga's own; choose another")
        elif isinstance(member, Written) and name != "flow" and source.members.get(own) is not member:
            problems.of_method(method, f"stands under another name, {name!r}; call the method so too")
    check_twice(source, problems)
    _check_belonging(source, problems)
    for step in [one for one in source.members.values() if isinstance(one, Step)]:
        undos = compensations_of(step, source)
        if len(undos) > 1:
            text = f"is a second compensation of {step._name!r} beside {undos[0]._name!r}; keep one"
            problems.of_method(undos[1]._method, text)


def check_twice(source: Source, problems: Problems) -> None:
    """No method of the class body replaces another thing of the same name."""
    for name in sorted(assigned_twice(source.body) if source.body else ()):
        member = vars(source.cls).get(name)
        method = _method_of(member) or (member if isinstance(member, FunctionType) else None)
        if method and not get_overloads(method):
            problems.of_method(
                method,
                f"the name {name!r} is used twice in the class, and this replaces the earlier; rename one of them",
            )


def _method_of(member: object) -> FunctionType | None:
    """The method under a word of the language; None for anything else."""
    if isinstance(member, Written):
        return member._method
    if is_start(member) or is_migration(member):
        member = getattr(member, "__func__", None)
    elif not (hook_of(member) or is_decision(member) or listener_of(member) or is_query(member)):
        return None
    return member if isinstance(member, FunctionType) else None


def _check_belonging(source: Source, problems: Problems) -> None:
    """Every hook, compensation and notice belongs to a step, compensation or wait that is in the class."""
    for member in source.members.values():
        hook = hook_of(member)
        method, word = (hook.method, hook.word) if hook else (_method_of(member), getattr(member, "_of", None))
        if method is None or not isinstance(word, Hooked) or source.members.get(word._name) is word:
            continue
        if source.wrote(word._body):
            remedy = "rename one of them, or write the hooks and the compensation again for the later one"
            problems.of_method(
                method, f"belongs to a {word._name!r} that a later {word._name!r} has replaced; {remedy}"
            )
        else:
            remedy = "write it in that class, or extend that class"
            problems.of_method(method, f"belongs to {word._name!r} of another class; {remedy}")


def compensations_of(step: Step[Any], source: Source) -> list[Compensation[Any]]:
    """The compensations of a step that this class or its bases wrote; one of a base is replaced by its name."""
    return list({undo._name: undo for undo in step._compensations if source.wrote(undo._body)}.values())


def hooks_of(word: Hooked, source: Source) -> list[Hook]:
    """The hooks of a word that this class or its bases wrote; those of a base are replaced by name."""
    hooks = [hook for hook in word._hooks if source.wrote(hook.body)]
    names = {hook.method.__name__: hook.body for hook in hooks}
    return [hook for hook in hooks if names[hook.method.__name__] == hook.body]


# -- state


def check_state(source: Source, reserved: Iterable[str], problems: Problems) -> None:
    """The fields survive their own JSON and hide nothing."""
    cls = source.cls
    assert issubclass(cls, BaseModel)  # noqa: S101 - Saga is one
    if not cls.__pydantic_complete__:
        _check_complete(cls, source, problems)
    if cls.model_config.get("frozen"):
        problems.of_class("is frozen, so no hook could keep anything; remove frozen=True")
    if cls.__pydantic_generic_metadata__["parameters"]:
        problems.of_class("is generic; write abstract=True and extend it with its parameters filled in")
    for name in cls.__private_attributes__:
        problems.of_class(
            f"private attribute {name} would be lost with the first message; make it a field or a ClassVar"
        )
    for name, field in cls.model_fields.items():
        if isinstance(field.default, (Written, FunctionType, classmethod)) or is_start(field.default):
            problems.of_class(f"field {name} and a method have the same name; rename one of them")
        elif name in reserved:
            problems.of_class(f"field {name} hides a name of Saga's own; choose another")
        if field.exclude:
            problems.of_class(f"field {name} is left out of the JSON and so would be lost; remove exclude=True")
        if _mentions_secret(field.annotation, set()):
            problems.of_class(
                f"field {name} holds a secret, which would be stored as asterisks and lost; "
                f"keep a reference to it, the participant that needs it looks it up"
            )


def _check_complete(cls: type[BaseModel], source: Source, problems: Problems) -> None:
    try:
        cls.model_rebuild(_types_namespace=source.local_names)
    except PydanticUndefinedAnnotation as error:
        problems.of_class(
            f"the annotation of a field names {error.name!r}, which is not known here; "
            f"define it above the class and import it at run time, not under TYPE_CHECKING"
        )


def _mentions_secret(annotation: object, seen: set[object]) -> bool:
    if annotation in _SECRETS:
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation in seen:
            return False
        seen.add(annotation)
        return any(_mentions_secret(field.annotation, seen) for field in annotation.model_fields.values())
    alias = getattr(annotation, "__value__", None)  # `type X = ...`
    return any(_mentions_secret(part, seen) for part in (*get_args(annotation), *([alias] if alias else [])))
