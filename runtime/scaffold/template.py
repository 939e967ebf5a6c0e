"""How a template becomes code: names put in, parts repeated, imports in order, and no line too long.

A template reads like the code that it makes. `$Process` and the like are names. What stands between `#: each step` and
`#: end` is there for each step; within it, what stands between `#: if undone` (or `#: if last`) and `#: endif` is there
for such a step alone. The code is laid out so that a formatter finds nothing to do, whether its lines have 88
characters or 120.
"""

from __future__ import annotations

import re
from string import Template
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runtime.scaffold.names import Process, Step

WIDTH = 88
"""The shortest lines that a formatter of today makes unless it is told to."""

_REPEATED = re.compile(r"^#: each step\n(.*?)^#: end\n", re.DOTALL | re.MULTILINE)
_CONDITION = re.compile(r"^#: if (undone|last)\n(.*?)^#: endif\n", re.DOTALL | re.MULTILINE)
_INDENT = " " * 4


def rendered(template: str, process: Process, imports: str) -> str:
    """The code of a template.

    Raises:
        KeyError: it has a name that is none.
    """

    def repeated(found: re.Match[str]) -> str:
        return "".join(_of_step(found[1], process, step) for step in process.steps)

    code = Template(_REPEATED.sub(repeated, template)).substitute(_names(process), imports=imports)
    code = code.replace("[\n]", "[]")  # what was there for no step
    return "".join(f"{line}\n" for line in _laid_out(code.rstrip().splitlines()))


def _of_step(part: str, process: Process, step: Step) -> str:
    kept = _CONDITION.sub(lambda found: found[2] if step.undone == (found[1] == "undone") else "", part)
    return Template(kept).substitute(_names(process, step))


def imports_of(*sections: Mapping[str, Sequence[str]]) -> str:
    """Import statements: modules and what is taken from them, nothing for the module itself; sections apart."""
    return "\n\n".join("\n".join(_statements(section)) for section in sections if section)


def _statements(section: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield from (f"import {module}" for module in sorted(section) if not section[module])
    for module in sorted(section):
        names = sorted(section[module], key=lambda name: (not name.isupper(), not name[0].isupper(), name.lower()))
        statement = f"from {module} import {', '.join(names)}"
        if names and len(statement) > WIDTH:
            yield "\n".join([f"from {module} import (", *(f"{_INDENT}{name}," for name in names), ")"])
        elif names:
            yield statement


def _names(process: Process, step: Step | None = None) -> dict[str, str]:
    names = {
        "Process": process.name,
        "process": process.module,
        "Start": process.start,
        "subject": process.subject,
        "letter": process.subject[0],
        "key": process.key,
        "flow": _flow(process),
    }
    return names if step is None else {**names, "Step": step.command, "step": step.name}


def _flow(process: Process) -> str:
    """The steps in their order, where a line is long enough for them: without a flow their order is the same."""
    flow = f"flow = {' >> '.join(each.name for each in process.steps)}"
    return (
        flow
        if len(_INDENT + flow) <= WIDTH
        else "# Without a flow the steps run in the order in which they stand here."
    )


def _laid_out(lines: Sequence[str]) -> Iterator[str]:
    """The lines, with what stands in the brackets of a long one below each other. Prose and SQL stay as they are."""
    in_text = False
    for line in lines:
        is_code = not in_text and '"""' not in line and not line.lstrip().startswith("#")
        in_text ^= line.count('"""') == 1
        if not is_code or len(line) <= WIDTH:
            yield line
            continue
        begin = line.index("(") + 1
        end = _closing(line, begin)
        indent = line[: len(line) - len(line.lstrip())]
        yield line[:begin]
        yield from (f"{indent}{_INDENT}{part}," for part in _parts(line[begin:end]))
        yield f"{indent}{line[end:]}"


def _closing(line: str, begin: int) -> int:
    """Where the bracket is closed that was opened before `begin`."""
    depth = 1
    for place in range(begin, len(line)):
        depth += {"(": 1, ")": -1}.get(line[place], 0)
        if not depth:
            return place
    raise ValueError(f"a bracket stays open: {line}")


def _parts(inside: str) -> list[str]:
    """What commas part, but for those in brackets."""
    return re.split(r", (?![^()]*\))", inside)
