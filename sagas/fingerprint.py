"""What the methods of a saga class do, as one hash each: equal when only comments, docstrings or layout changed.

It is recorded, never enforced: it knows nothing of what the methods call outside the class.
"""

from __future__ import annotations

import ast
import dis
import inspect
from hashlib import sha256
from types import CodeType, FunctionType
from typing import TYPE_CHECKING

from sagas.written import Written

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sagas.keys import EventKey

_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def fingerprints(members: Mapping[str, object]) -> dict[str, str | None]:
    """A hash of each method by name; None where there is no source to read."""
    methods = {name: _function(member) for name, member in members.items()}
    return {name: _fingerprint(method) for name, method in sorted(methods.items()) if method}


def fingerprints_of_keys(keys: Mapping[str, EventKey]) -> dict[str, str | None]:
    """A hash of each function that makes the key of an event."""
    found: dict[str, str | None] = {}
    for name, key in sorted(keys.items()):
        if isinstance(made_by := key.read, FunctionType):
            found[f"keys[{name}]"] = _of_lambda(made_by) if made_by.__name__ == "<lambda>" else _fingerprint(made_by)
    return found


def _of_lambda(function: FunctionType) -> str:
    """Of its byte code: its source begins anywhere in a line, and the lines of another Python are not compared."""
    return sha256(repr(list(_instructions(function.__code__))).encode()).hexdigest()


def _instructions(code: CodeType) -> Iterator[object]:
    for each in dis.get_instructions(code):
        argument = each.argval
        if isinstance(argument, CodeType):
            argument = list(_instructions(argument))
        elif isinstance(argument, frozenset):  # whose order is another in each process
            argument = sorted(map(repr, argument))
        yield each.opname, repr(argument)


def _function(member: object) -> FunctionType | None:
    """The function in a step, a classmethod, a property or a pydantic validator."""
    if isinstance(member, Written):
        return member._method
    for inner in ("wrapped", "__func__", "fget"):
        member = getattr(member, inner, None) or member
    return member if isinstance(member, FunctionType) else None


def _fingerprint(method: FunctionType) -> str | None:
    try:
        # Under a class of its own the method may keep its indentation, and with it its multi-line strings.
        tree = ast.parse("class _:\n" + inspect.getsource(method))
    except (OSError, SyntaxError):
        return None
    written = next(
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    )
    for node in ast.walk(written):
        if isinstance(node, _DOCUMENTED):
            node.body = _without_docstring(node.body)
    if not isinstance(written, ast.Lambda):
        written.decorator_list = []
    return sha256(ast.dump(written).encode()).hexdigest()


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    is_text = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return body[1:] if is_text else body
