"""Under the very code that brought an instance where it is nothing is wrong ahead of it, wherever that is."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import invariant

from sagas.prospect import prospect
from tests.sagas.test_decide_properties import RAISING, World


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
            found = prospect(self.definition, instance, self.now)
        finally:
            RAISING.update(raising)
        assert found.flaws == ()
        assert found.mended is (True if "method_raised" in instance.attention else None)


Foreseen.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestForeseen = Foreseen.TestCase
