"""Which attributes of `self` a method reads and which it assigns, as far as its byte code tells; likewise a class body.

Byte code is asked because source may be absent. It does not see what happens to `self` under another name.
"""

from __future__ import annotations

import dis
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_PARAMETERS = ""

Find = Callable[[str, bool], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uses:
    """Attributes of a method's first parameter."""

    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()

    def __or__(self, other: Uses) -> Uses:
        return Uses(reads=self.reads | other.reads, writes=self.writes | other.writes)


def uses_of_self(method: FunctionType, find: Find = lambda name, written: None) -> Uses:
    """What the method does to its first parameter, and what is done by the methods that it calls so.

    `find(name, written)` gives the method behind an attribute that is read or assigned, so that `self.note(reply)`
    counts for what `note` does, and `self.noted = reply` for what the setter of `noted` does.
    """
    found, seen, todo = Uses(), {method}, [method]
    while todo:
        own = _uses(todo.pop())
        found |= own
        behind = [*(find(name, False) for name in own.reads), *(find(name, True) for name in own.writes)]
        fresh = {other for other in behind if isinstance(other, FunctionType)} - seen
        seen |= fresh
        todo.extend(fresh)
    return found


def assigned_twice(body: CodeType) -> frozenset[str]:
    """The names that a class body gives a value more than once, none if it has branches of its own."""
    instructions = list(dis.get_instructions(body))
    if any("JUMP" in each.opname and "_IF_" in each.opname for each in instructions):
        return frozenset()
    names = Counter(str(each.argval) for each in instructions if each.opname == "STORE_NAME")
    return frozenset(name for name, times in names.items() if times > 1)


def _uses(method: FunctionType) -> Uses:
    code = method.__code__
    name = code.co_varnames[0] if code.co_argcount else _NO_PARAMETERS
    found = Uses()
    for part in _with_nested(code, name):
        found |= _uses_in(part, name)
    return found


def _with_nested(code: CodeType, name: str) -> Iterator[CodeType]:
    """The code and what is nested in it (lambdas, comprehensions) and sees the same variable."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and name in constant.co_freevars:
            yield from _with_nested(constant, name)


def _uses_in(code: CodeType, name: str) -> Uses:
    reads, writes = set(), set()
    loaded = copied = False  # is `self` on top of the stack? was it duplicated, as `self.x += 1` does?
    for instruction in dis.get_instructions(code):
        operation = instruction.opname
        if operation in ("LOAD_ATTR", "LOAD_METHOD") and loaded:
            reads.add(str(instruction.argval))
            if copied:
                writes.add(str(instruction.argval))
        elif operation in ("STORE_ATTR", "DELETE_ATTR") and loaded:
            writes.add(str(instruction.argval))
        copied = loaded and operation in ("COPY", "DUP_TOP")
        loaded = copied or _loads(instruction, name)
    return Uses(reads=frozenset(reads), writes=frozenset(writes))


def _loads(instruction: dis.Instruction, name: str) -> bool:
    """Whether the variable is on top of the stack after this; newer Pythons load two variables at once."""
    if not instruction.opname.startswith(("LOAD_FAST", "LOAD_DEREF", "STORE_FAST_LOAD_FAST")):
        return False
    argument = instruction.argval
    return bool(name) and (argument[-1] if isinstance(argument, tuple) else argument) == name
