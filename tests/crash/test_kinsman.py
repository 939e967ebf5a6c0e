"""The judge of parents and children bites: what is sound is left alone, and each thing that goes wrong is named."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.crash.kinsman import CHILD_TYPE, PARENT_TYPE, VERDICTS, Household
from tests.crash.rooms import room
from tests.crash.views import SagaRow

if TYPE_CHECKING:
    from collections.abc import Callable

MOVED, REFUSED = "plain-1", "refused-1~notary=fail"


def saga(key: str, phase: str, kind: str = CHILD_TYPE) -> SagaRow:
    return SagaRow(saga_id=f"id of {key}", saga_type=kind, business_key=key, status=phase, phase=phase)


def household(order: str, phase: str, kitchen: str, attic: str) -> Household:
    ends = {room(order, "kitchen"): kitchen, room(order, "attic"): attic}
    net = {(key, who): 1 for key, end in ends.items() for who in ("boxes", "carrier") if end == "completed"}
    swept = [key for key, end in ends.items() if end == "completed" and phase == "compensated"]
    net |= {(key, "sweeper"): 1 for key in swept}
    whole = {(key, who): net.get((key, who), 0) for key in ends for who in ("boxes", "carrier", "sweeper")}
    return Household(
        saga=saga(order, phase, PARENT_TYPE),
        children={key: saga(key, end) for key, end in ends.items() if end},
        parents={f"id of {key}": f"id of {order}" for key in ends},
        net=whole,
        undone_at={(order, "van"): 9, **{(key, "sweeper"): 5 for key in swept}},
    )


SOUND = household(MOVED, "completed", "completed", "completed")
TURNED = household(REFUSED, "compensated", "completed", "compensated")


def wrong(home: Household) -> list[str]:
    return [sentence for verdict in VERDICTS for sentence in verdict(home)]


@pytest.mark.parametrize("home", [SOUND, TURNED, household(REFUSED, "compensated", "", "compensated")])
def test_what_is_sound_is_left_alone(home: Household) -> None:
    assert wrong(home) == []


@pytest.mark.parametrize(
    ("home", "spoilt", "told"),
    [
        (SOUND, lambda home: replace(home, parents={}), "room plain-1/attic~carrier=late:0.3 has the parent None"),
        (
            SOUND,
            lambda home: replace(home, net={**home.net, (room(MOVED, "kitchen"), "carrier"): 0}),
            "is completed, and of carrier is left 0",
        ),
        (
            household(MOVED, "completed", "completed", "compensated"),
            lambda home: home,
            "removal plain-1 is completed, and its room plain-1/attic~carrier=late:0.3 is compensated",
        ),
        (
            TURNED,
            lambda home: replace(home, net={**home.net, (room(REFUSED, "kitchen"), "sweeper"): 2}),
            "and it was swept 2 times",
        ),
        (
            TURNED,
            lambda home: replace(home, undone_at={**home.undone_at, (REFUSED, "van"): 1}),
            "the van left before sweeper had undone refused-1/kitchen",
        ),
    ],
)
def test_what_is_wrong_is_named(home: Household, spoilt: Callable[[Household], Household], told: str) -> None:
    assert [sentence for sentence in wrong(spoilt(home)) if told in sentence]
