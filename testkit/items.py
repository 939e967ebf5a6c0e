"""The items that are kept beside an instance under test, as a database keeps them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sagas.items import Items, with_bodies, with_owed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sagas.instance import Instance, StepProgress
    from sagas.items import Want
    from sagas.outcome import Decision

_FETCHED = 20  # few, so that tests fetch often


class ItemsBeside:
    """Those of one instance."""

    def __init__(self) -> None:
        self.lists: dict[str, Sequence[bytes]] = {}
        self._rested: dict[str, dict[int, tuple[StepProgress, bool]]] = {}

    def put(self, decision: Decision) -> Instance:
        """Keep what a decision puts aside; the instance as it would be loaded, with nothing at hand."""
        self.lists.update(decision.listed)
        for rested in decision.rested:
            self._rested.setdefault(rested.path, {})[rested.index] = (rested.step, rested.owed)
        return replace(decision.instance, items=Items())

    def bring(self, items: Items, want: Want) -> Items:
        """What is at hand, with what is wanted."""
        if want.path is not None:
            owed = [
                (index, step)
                for index, (step, owed) in self._rested.get(want.path, {}).items()
                if owed and step.do.ended < want.before
            ]
            owed.sort(key=lambda each: -each[1].do.ended)
            return with_owed(items, want.path, owed[: max(_FETCHED, len(items.owed.get(want.path, ())))])
        bodies = self.lists[want.list_field]
        indexes = range(len(bodies)) if want.indexes is None else want.indexes
        return with_bodies(items, want.list_field, {index: bodies[index] for index in indexes})

    def rested(self, path: str) -> dict[int, StepProgress]:
        """The items of a step that rest, by number."""
        return {index: step for index, (step, _) in self._rested.get(path, {}).items()}
