"""Goldens: what a story made a saga do, kept as a readable file and held against the code of today.

```python
def test_the_plane_is_full(golden: Golden) -> None:
    story = Harness(BookTrip).given(...).receives(PlaneFull(trip_id="t-1"))
    golden.check(story, "BookTrip-1/plane_full.json")
```

A file holds each act with the decisions that followed and the instance as it was stored then: its columns, its packed
progress, and the patches of its history. `replay` has the acts done again, once from the beginning and once from every
instance that was stored, and compares what was decided. How an instance was stored is held by reading it, so that a
file may be older than the form that is written today. What is prose (`waiting_for`) is not held.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from messages.errors import MessageError, OperationRefused
from sagas.compile import definition_of
from sagas.patch import rebuild
from testkit.harness import Harness
from testkit.recording import act_of, followed, happening, instance_of, record, stored_form, written

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sagas import Saga
    from sagas.definition import Definition
    from sagas.instance import Instance

_THEN, _ACTS = 6, 8  # how deep they are written, so that a difference shows the lines of the file, or a line per act
_REMEDY = (
    "Instances that run would go on otherwise than they began. If they may, write it anew with "
    "`pytest --golden-update`; if not, keep the old class for them and let the new one be the next version."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """The goldens in a folder. With `update` they are written instead of compared."""

    folder: Path
    update: bool = False

    def check(self, story: Harness, name: str) -> None:
        """Hold a story against its file.

        Raises:
            AssertionError: there is no such file, the story is another one than it tells, or something else followed.
        """
        check(story, self.folder / name, update=self.update)


def check(story: Harness, path: Path, *, update: bool = False) -> None:
    """Hold a story against a file; see `Golden.check`."""
    if any(entry.kind == "migrated" for entry in story.history):
        raise AssertionError(
            "a golden tells a story of one version, and this one goes on under another; let it end before migrates(...)"
        )
    told = record(story)
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{written(told)}\n", encoding="utf-8")
        return
    golden = _read(path)
    _must_be_of(story.definition, golden, path)
    now, then = [[act_of(each) for each in acts] for acts in (told["acts"], golden["acts"])]
    if now != then:
        raise AssertionError(
            f"the test tells another story than {_shown(path)}:\n{_difference(then, now, _ACTS)}\n"
            f"Write it anew with `pytest --golden-update`, or give the new story a file of its own."
        )
    replay(story.definition, path)


def replay(saga: type[Saga] | Definition, path: Path) -> None:
    """Do everything again that a file tells, from its beginning and from each instance that was stored on the way.

    Raises:
        AssertionError: something else follows today, or an instance cannot be read any more.
    """
    definition = definition_of(saga) if isinstance(saga, type) else saga
    golden = _read(path)
    _must_be_of(definition, golden, path)
    _Replayed(definition=definition, golden=golden, path=path).replay()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Replayed:
    """A golden under the code of today."""

    definition: Definition
    golden: Mapping[str, Any]
    path: Path

    @property
    def acts(self) -> Sequence[Mapping[str, Any]]:
        return self.golden["acts"]  # type: ignore[no-any-return]

    def replay(self) -> None:
        """One instance goes the whole way; beside it each one that was stored goes one act further."""
        story = Harness(self.definition)
        stored: list[Instance] = []
        patches: list[bytes] = []
        bodies: dict[str, bytes] = {}
        for number, act in enumerate(self.acts, 1):
            then = act["then"]
            patches += map(to_json, then.get("patches", ()))
            after = self._read(then["stored"], patches, number) if then else []
            expected = {**then, "stored": self._as_today(after[0])} if after else {}
            story.now = now = datetime.fromisoformat(act["at"])
            kept = tuple(story._kept)
            self._compare(story, act, expected, f"act {number}")
            for instance in stored:
                resumed = Harness.resumed(self.definition, instance, now=now, bodies=bodies, kept=kept)
                self._compare(resumed, act, expected, f"act {number}, with the instance stored before it,")
            bodies |= {sent["id"]: to_json(sent["body"]) for sent in then.get("sent", ()) if "body" in sent}
            stored = after or stored

    def _read(self, row: Mapping[str, Any], patches: Iterable[bytes], number: int) -> list[Instance]:
        """The instance that was stored after an act, as its row has it and as its history has it."""
        try:
            found = [instance_of(row), rebuild(patches)]
            by_row, by_history = map(self._as_today, found)
        except (LookupError, ValueError, TypeError) as error:
            raise AssertionError(
                f"{self._title}\nWhat was stored after act {number} cannot be read any more: {error!r}\n{_REMEDY}"
            ) from error
        if by_row != by_history:
            difference = _difference(by_row, by_history)
            raise AssertionError(
                f"{self._title}\nAfter act {number} its history does not amount to what its row holds:\n{difference}"
            )
        return found

    def _as_today(self, instance: Instance) -> dict[str, Any]:
        """The row that today's code would write of it: fields that are new have their defaults, others are gone."""
        load = self.definition.saga_class._load
        state = load(instance.state, now=instance.updated_at, saga_id=instance.saga_id)._dump()
        return stored_form(replace(instance, state=state))

    def _compare(self, story: Harness, act: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
        what = f"In {where} {act['act']} {act.get('message') or act.get('action') or act.get('seconds')}"
        before = story._instance
        try:
            story.act(act["act"], happening(act, self.definition))
        except (AssertionError, LookupError, ValueError, MessageError, OperationRefused) as error:
            raise AssertionError(f"{self._title}\n{what}: {error}\n{_REMEDY}") from error
        now = followed(story.acts[-1].decisions, before)
        if now:
            now["stored"] = self._as_today(story.instance)
        then, now = _decided(expected), _decided(now)
        if then != now:
            raise AssertionError(f"{self._title}\n{what}:\n{_difference(then, now)}\n{_REMEDY}")

    @property
    def _title(self) -> str:
        same = self.definition.digests.shape == self.golden["shape"]
        shape = "" if same else " (its shape is another one)"
        name = f"{self.definition.type} version {self.definition.version}{shape}"
        return f"{name} does not do any more what {_shown(self.path)} tells."


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise AssertionError(
            f"there is no {_shown(path)}; `pytest --golden-update` writes it, and it belongs into version control"
        )
    golden: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return golden


def _must_be_of(definition: Definition, golden: Mapping[str, Any], path: Path) -> None:
    here, there = (definition.type, definition.version), (golden["saga"], golden["version"])
    if here != there:
        raise AssertionError(
            f"{_shown(path)} tells of {there[0]} version {there[1]}, and this is {here[0]} version {here[1]}. Keep the "
            f"old class for the instances that run, with its goldens, and give the new version files of its own."
        )


def _decided(followed: Mapping[str, Any]) -> dict[str, Any]:
    """What followed, without the form in which the history has it: that is only read."""
    return {name: value for name, value in followed.items() if name != "patches"}


def _shown(path: Path) -> str:
    """A path as short as it can be where the tests are run."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _difference(then: object, now: object, depth: int = _THEN) -> str:
    one, other = written(then, depth).splitlines(), written(now, depth).splitlines()
    return "\n".join(unified_diff(one, other, "as recorded", "today", lineterm="", n=2))
