"""What lies between a recorded version of a saga and a definition of this process: its names and branches of then.

Made of the recorded document alone: the class of then need not be there any more.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import field
from typing import TYPE_CHECKING, Any

from messages.errors import OperationRefused
from messages.value import value
from sagas.problems import listed, suggestion

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from sagas.definition import Definition
    from sagas.migrations import MigrationDefinition

_NUMBERED = ("alternative", "parallel", "repeat")
"""Parts of a flow without a name: they are known by their word, and by their number from the second."""


@value
class Branching:
    """A part of a flow with branches, as a document has it: the steps, rests and waits in each, by its label."""

    kind: str
    branches: Mapping[str, frozenset[str]]
    otherwise: frozenset[str] = frozenset()
    final: frozenset[str] = frozenset()

    def branch(self, label: str) -> frozenset[str]:
        """What stands in the branch of that label."""
        return self.branches.get(label, self.otherwise)


@value
class Passage:
    """The way from `version`, whose document is `old`, to the definition `new`.

    `pauses` are the rests and waits of then, `before` and `after` the branchings of then and of today.
    """

    version: int
    old: Mapping[str, Any]
    new: Definition
    migration: MigrationDefinition
    pauses: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, Branching] = field(default_factory=dict)
    after: Mapping[str, Branching] = field(default_factory=dict)

    @property
    def steps(self) -> Mapping[str, Any]:
        """The steps of then."""
        steps: Mapping[str, Any] = self.old["shape"]["steps"]
        return steps

    @property
    def there(self) -> str:
        """Where it leads to, for people."""
        return f"version {self.new.version}"

    def step(self, path: str) -> str:
        """The path of today of a step of then."""
        return _renamed(path, self.migration.steps)

    def place(self, path: str) -> str:
        """The same of any other place."""
        return _renamed(path, self.migration.places)

    def misfit(self, path: str, chosen: str) -> str | None:
        """Why what was kept at a branching of then cannot be read at the one of today; None: it can."""
        was, now = self.before.get(base_of(path)), self.after.get(base_of(self.place(path)))
        if was is None or now is None or was.kind != now.kind:
            return f"it cannot be told which part of {self.there} {path} is"
        for label in (chosen,) if was.kind in ("decision", "lifecycle") else was.branches:
            if gone := self._known(was.branch(label)) - now.branch(label):
                return f"{listed(sorted(gone))} stood in branch {label!r} of {path}, and does not in {self.there}"
        return None

    def _known(self, names: Collection[str]) -> set[str]:
        """Names of then by those of today, without those that are gone."""
        today = {self.step(name) if name in self.steps else self.place(name) for name in names}
        return today & {*self.new.steps, *self.new.sleeps, *self.new.waits}


def passage(version: int, document: Mapping[str, Any], definition: Definition) -> Passage:
    """The way from a recorded version to a definition.

    Raises:
        OperationRefused: the class does not say how, or what it says does not fit what was recorded.
    """
    name = definition.type
    if version >= definition.version:
        raise OperationRefused(
            f"{name} version {version} cannot be migrated to version {definition.version}: it goes to a higher version"
        )
    migration = definition.migrations.get(version)
    if migration is None:
        raise OperationRefused(
            f"the class of {name} version {definition.version} does not say how an instance of version {version} goes "
            f"on under it; write @migrate({version}) and @classmethod over a method that makes its state"
        )
    if definition.lists or any("each" in step for step in document["shape"]["steps"].values()):
        raise OperationRefused(
            f"{name} works off a list item by item in version {version} or {definition.version}, and the items stand "
            "beside the instance; such a saga is not migrated: keep the old class until its instances have ended"
        )
    pauses = dict(_pauses(document["shape"]["flow"]))
    found = Passage(
        version=version,
        old=document,
        new=definition,
        migration=migration,
        pauses=pauses,
        before=_branchings(document["shape"]["flow"]),
        after=_branchings(definition.document["shape"]["flow"]),
    )
    _check_names(found, "steps", migration.steps, found.steps)
    _check_names(found, "places", migration.places, {*pauses, *found.before})
    return found


def _check_names(found: Passage, keyword: str, renamed: Mapping[str, str], known: Collection[str]) -> None:
    said = f"{found.new.type}.{found.migration.name}, @migrate({found.version}, {keyword}=…)"
    for old in renamed:
        if old not in known:
            raise OperationRefused(
                f"{said}: version {found.version} has no {old!r}{suggestion(old, known)}; correct it"
            )
    if kept := sorted(set(renamed.values()) & (set(known) - renamed.keys())):
        raise OperationRefused(
            f"{said}: version {found.version} has {listed(kept)} already, and what was two cannot be one; correct it"
        )


def base_of(path: str) -> str:
    """The place of which this is one time that a loop has come to it, or what is kept below it."""
    return path.partition("/")[0].partition("[")[0]


def _renamed(path: str, names: Mapping[str, str]) -> str:
    base = base_of(path)
    return names.get(base, base) + path[len(base) :]


# -- what a document says of its flow


def _children(flow: object) -> dict[str, object]:
    """The parts of a part of a flow by label or number; none of a leaf."""
    if isinstance(flow, list):
        return {str(number): each for number, each in enumerate(flow)}
    if not isinstance(flow, dict):
        return {}
    for word in ("alternative", "parallel"):
        if word in flow:
            return _children(flow[word])
    if "repeat" in flow:
        return {"": flow["repeat"]}
    if "lifecycle" in flow:
        return dict(flow["lifecycle"]["entering"])
    if "decision" in flow:
        return {**flow["cases"], **({} if flow["otherwise"] is None else {_OTHERWISE: flow["otherwise"]})}
    return {}


_OTHERWISE = "\0"
"""No answer's label."""


def _names(flow: object) -> Iterator[str]:
    """The steps, rests and waits in a part of a flow."""
    if isinstance(flow, str):
        yield flow
    yield from (name for name, _ in _pauses(flow, deep=False))
    for child in _children(flow).values():
        yield from _names(child)


def _pauses(flow: object, *, deep: bool = True) -> Iterator[tuple[str, str]]:
    if isinstance(flow, dict):
        yield from ((str(flow[kind]), kind) for kind in ("sleep", "wait") if kind in flow)
    for child in _children(flow).values() if deep else ():
        yield from _pauses(child)


def _branchings(flow: object) -> dict[str, Branching]:
    """The branchings by the paths at which an instance keeps what became of them.

    A document does not tell the order of a decision's cases: where two of them hold parts without a name, the numbers
    of these are not known, and they are left out.
    """
    walk = _Walk()
    walk.through(flow)
    return {path: each for path, each in walk.found.items() if each.kind not in walk.unsure}


class _Walk:
    """A flow being walked as it was when its parts were numbered."""

    def __init__(self) -> None:
        self.found: dict[str, Branching] = {}
        self.unsure: set[str] = set()
        self._numbers = Counter[str]()

    def through(self, flow: object) -> None:
        """Note the branchings of a part of the flow."""
        words = flow if isinstance(flow, dict) else {}
        kind = next((word for word in (*_NUMBERED, "lifecycle", "decision") if word in words), "")
        children = _children(flow)
        path = self._path(kind) if kind in ("alternative", "repeat", "lifecycle") else ""
        for child in children.values():
            self.through(child)
        if kind in ("decision", "lifecycle"):
            holding = Counter(word for child in children.values() for word in set(_words(child)))
            self.unsure |= {word for word, branches in holding.items() if branches > 1}
        if kind:
            path = words["decision"] if kind == "decision" else path or self._path(kind)
            branches = {label: frozenset(_names(child)) for label, child in children.items()}
            otherwise = branches.pop(_OTHERWISE, frozenset())
            final = frozenset(words["lifecycle"]["final"]) if kind == "lifecycle" else frozenset()
            self.found[path] = Branching(kind=kind, branches=branches, otherwise=otherwise, final=final)

    def _path(self, word: str) -> str:
        self._numbers[word] += 1
        return word if self._numbers[word] == 1 else f"{word}#{self._numbers[word]}"


def _words(flow: object) -> Iterator[str]:
    """The parts without a name in a part of a flow, by their word."""
    if isinstance(flow, dict):
        yield from (word for word in _NUMBERED if word in flow)
    for child in _children(flow).values():
        yield from _words(child)
