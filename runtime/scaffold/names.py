"""The names in a new process: all of them follow from its own and those of its steps."""

from __future__ import annotations

import builtins
import keyword
import re
from collections import Counter
from dataclasses import dataclass

from sagas import Saga
from sagas.problems import listed

STEPS = ("reserve", "confirm")
"""Those of a process of which nobody has said which it has."""

LONGEST_NAME = 40
LONGEST_STEP = 20
LONGEST_WORD = 14
LONGEST_TABLE = 63
"""What PostgreSQL keeps of a name."""

_NAME = re.compile(r"([A-Z][a-z][a-z0-9]*)+")
_STEP = re.compile(r"[a-z]{2,}(_[a-z]+)*")
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_SUFFIXES = ("", "Done", "Refused", "Busy")
_OF_THE_TEMPLATES = {
    *("Command", "Context", "Event", "Harness", "Participant", "Retry", "Saga", "Self"),
    *("definition_of", "pytest", "start", "step", "text", "timedelta"),
    *("command", "connection", "context", "event", "reply"),
}
"""What the files import, and what their functions call their parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step: its method `pay_back`, its command `PayBack`; all but the last of a process are undone."""

    name: str
    undone: bool

    @property
    def command(self) -> str:
        """The class of its command."""
        return camel(self.name)

    @property
    def messages(self) -> tuple[str, ...]:
        """The classes of its messages."""
        undo = (f"Undo{self.command}", f"{self.command}Undone") if self.undone else ()
        return (*(f"{self.command}{suffix}" for suffix in _SUFFIXES), *undo)

    @property
    def members(self) -> tuple[str, ...]:
        """What it adds to the saga class."""
        undo = (f"undo_{self.name}", f"{self.name}_reference") if self.undone else ()
        return (self.name, f"{self.name}_done", *undo)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process: its class `RefundOrder`, its modules `refund_order`, its key `order_id`, its start event."""

    name: str
    steps: tuple[Step, ...]

    @property
    def module(self) -> str:
        """The name of its modules, and of its messages before the dot."""
        return snake(self.name)

    @property
    def subject(self) -> str:
        """What it is about: the last word of its name."""
        return self.module.rpartition("_")[2]

    @property
    def key(self) -> str:
        """The field that tells one process from another."""
        return f"{self.subject}_id"

    @property
    def start(self) -> str:
        """The class of the event that starts it."""
        return f"{self.name}Requested"

    @property
    def messages(self) -> list[str]:
        """The classes of all its messages, in the order of an import."""
        return sorted([self.start, *(name for step in self.steps for name in step.messages)], key=str.lower)


def process(name: str, steps: tuple[str, ...]) -> Process:
    """The process of this name with these steps, or with two of no name in particular.

    Raises:
        ValueError: a name cannot be one; the text says why, and what to write.
    """
    _check_name(name)
    for each in steps:
        _check_step(each)
    names = steps or STEPS
    made = Process(
        name=name,
        steps=tuple(Step(name=each, undone=number < len(names)) for number, each in enumerate(names, start=1)),
    )
    _check_twice(made)
    for step in made.steps:
        if len(f"{made.module}_{step.name}") > LONGEST_TABLE:
            raise ValueError(f"{step.name!r} is too long for a step of {name}; write a shorter one")
    return made


def camel(name: str) -> str:
    """`pay_back` as `PayBack`."""
    return "".join(word.capitalize() for word in name.split("_"))


def snake(name: str) -> str:
    """`RefundOrder` as `refund_order`."""
    return "_".join(word.lower() for word in _WORD.findall(name))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        wanted = camel(snake(name))
        near = f"; did you mean {wanted}?" if _NAME.fullmatch(wanted) and not keyword.iskeyword(wanted) else ""
        raise ValueError(
            f"{name!r} is no name for a process; write words of at least two letters as a class is written, "
            f"such as RefundOrder{near}"
        )
    subject = snake(name).rpartition("_")[2]
    if len(snake(name)) > LONGEST_NAME or len(subject) > LONGEST_WORD:
        raise ValueError(
            f"{name!r} is too long for a process; write at most {LONGEST_NAME} letters, and at most {LONGEST_WORD} in "
            "its last word, which names the key"
        )
    if name in _OF_THE_TEMPLATES or hasattr(builtins, name):
        raise ValueError(f"{name!r} has a meaning of its own in the code; choose another name, such as {name}Order")


def _check_step(name: str) -> None:
    if not _STEP.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a step; write it as a method is written, in small letters, such as pay_back"
        )
    if len(camel(name)) > LONGEST_STEP:
        raise ValueError(f"{name!r} is too long for a step; write at most {LONGEST_STEP} letters")
    taken = {*dir(Saga), "flow", "requested", *dir(builtins), *keyword.kwlist, *keyword.softkwlist, *_OF_THE_TEMPLATES}
    if taken & {name, camel(name)}:
        raise ValueError(f"{name!r} has a meaning of its own in the code; choose another name for the step")


def _check_twice(made: Process) -> None:
    classes = [made.name, made.start, *(name for step in made.steps for name in step.messages)]
    members = [made.key, *(name for step in made.steps for name in step.members)]
    twice = [name for name, times in Counter([*classes, *members]).items() if times > 1]
    if twice:
        raise ValueError(f"{listed(twice)} would be there twice; choose other names for the steps")
