"""Every file of a released version is replayed, whether a test still tells its story or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sagas.catalog.ordering import PlaceOrder
from sagas.catalog.subscription import Subscription
from sagas.catalog.trip import BookTrip
from testkit import golden

if TYPE_CHECKING:
    from sagas import Saga

HERE = Path(__file__).parent
RELEASED: dict[str, type[Saga]] = {
    "PlaceOrder-1": PlaceOrder,
    "BookTrip-1": BookTrip,
    "Subscription-1": Subscription,
}


def test_every_folder_is_that_of_a_version() -> None:
    assert {path.parent.name for path in HERE.glob("*/*.json")} == set(RELEASED)


@pytest.mark.parametrize("path", sorted(HERE.glob("*/*.json")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_story_of_a_released_version_goes_as_it_went(path: Path) -> None:
    golden.replay(RELEASED[path.parent.name], path)
