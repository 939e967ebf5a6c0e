from __future__ import annotations

import pytest

from bench.figures import Spread, paired_ratio, per, percentile, spread


def test_a_percentile_is_the_smallest_value_that_covers_the_share() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert percentile(values, 0.50) == 50
    assert percentile(values, 0.99) == 99
    assert percentile(values, 1) == 100


def test_a_percentile_of_few_values_is_one_of_them() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.50) == 2
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3
    assert percentile([7.0], 0.01) == 7


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0), ([1.0], 1.01)])
def test_a_percentile_of_nothing_or_beyond_everything_is_an_error(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, share)


def test_a_spread_has_the_median_between_the_extremes() -> None:
    assert spread([5.0, 1.0, 3.0]) == Spread(median=3, lowest=1, highest=5)
    assert spread([1.0, 2.0]).median == 1.5


def test_ratios_are_taken_within_a_round_so_that_a_slow_round_changes_none() -> None:
    assert paired_ratio({1: 300.0, 2: 30.0}, {1: 100.0, 2: 10.0}) == Spread(median=3, lowest=3, highest=3)


def test_only_rounds_that_both_finished_are_compared() -> None:
    assert paired_ratio({1: 300.0, 2: 200.0}, {2: 100.0, 3: 50.0}) == Spread(median=2, lowest=2, highest=2)
    assert paired_ratio({1: 300.0}, {2: 100.0}) is None
    assert paired_ratio({1: 300.0}, {1: 0.0}) is None


def test_a_cost_that_was_not_seen_is_unknown_and_not_nothing() -> None:
    assert per(12, 4) == 3
    assert per(0, 4) == 0
    assert per(None, 4) is None
    assert per(12, 0) is None
