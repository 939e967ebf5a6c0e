"""The arithmetic of the benchmark: percentiles, medians and ratios of paired rounds. Pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The median of some rounds, with the lowest and the highest."""

    median: float
    lowest: float
    highest: float


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed: nearest rank, nothing made up.

    Raises:
        ValueError: there are no values, or `share` is not in (0, 1].
    """
    if not values or not 0 < share <= 1:
        raise ValueError(f"percentile {share} of {len(values)} values")
    return sorted(values)[math.ceil(share * len(values)) - 1]


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(median=statistics.median(values), lowest=min(values), highest=max(values))


def paired_ratio(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Spread | None:
    """How many times more ours is, round by round; None without a round that both finished.

    Rounds are paired because a busy neighbour slows a whole round down: the ratio within a round is steadier than the
    ratio of the medians.
    """
    ratios = [ours[number] / theirs[number] for number in ours.keys() & theirs.keys() if theirs[number] > 0]
    return spread(ratios) if ratios else None


def per(total: float | None, count: int) -> float | None:
    """`total` divided among `count`; None when either is missing."""
    return total / count if total is not None and count else None
