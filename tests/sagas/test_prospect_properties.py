"""Under the very code that brought an instance where it is nothing is wrong ahead of it, wherever that is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis.stateful import invariant

from sagas.items import Want
from sagas.prospect import prospect
from sagas.tally import wholes_in
from tests.sagas.test_decide_properties import RAISING, World

if TYPE_CHECKING:
    from sagas.instance import Instance


class Foreseen(World):
    """The same world, asked after every step what lies ahead."""

    @invariant()
    def nothing_is_wrong_ahead_under_its_own_code(self) -> None:
        instance = getattr(self, "instance", None)
        if instance is None or instance.phase.ended:
            return
        raising = set(RAISING)
        RAISING.clear()
        try:
            found = prospect(self.definition, self.with_items(instance), self.now)
        finally:
            RAISING.update(raising)
        assert found.flaws == ()
        assert found.mended is (True if "method_raised" in instance.attention else None)

    def with_items(self, instance: Instance) -> Instance:
        """With everything at hand that is kept beside it."""
        items = instance.items
        for name in self.items.lists:
            items = self.items.bring(items, Want(list_field=name, indexes=None))
        for path in wholes_in(instance.choices, self.definition.eaches):
            items = self.items.bring(items, Want(list_field="", path=path, before=instance.seq + 1))
        return replace(instance, items=items)


Foreseen.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestForeseen = Foreseen.TestCase
