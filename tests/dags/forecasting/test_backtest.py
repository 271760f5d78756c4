"""Bands are ordered, bounded and calibrated on the past alone; scores are what their names say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dags.forecasting.backtest import ENOUGH_HOURS, FEWEST_HOURS, backtest, bounds, pinball, plan
from dags.forecasting.models import SeasonalNaive


def series(seed: int, hours: int, gaps: float, scale: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    at = np.arange(hours)
    values = scale * np.maximum(1 + 0.5 * np.sin(2 * np.pi * at / 24) + rng.normal(0, 0.3, hours), 0)
    values[rng.random(hours) < gaps] = np.nan
    return values


@given(
    seed=st.integers(0, 10_000),
    hours=st.integers(FEWEST_HOURS, 900),
    gaps=st.sampled_from([0.0, 0.1, 0.4]),
    scale=st.sampled_from([1e-6, 1.0, 1e12]),
)
@settings(max_examples=40, deadline=None)
def test_quantiles_are_ordered_and_bounded_for_any_series(seed, hours, gaps, scale):
    values = series(seed, hours, gaps, scale)
    course = plan(hours)
    assert course is not None
    model = SeasonalNaive(24)
    bands = backtest("naive", values, model.paths(values, course.origins, course.horizon), course).bands
    bands = bands[np.isfinite(bands).all(axis=1)]
    assert (bands[:, 0] <= bands[:, 1]).all()
    assert (bands[:, 1] <= bands[:, 2]).all()
    assert (bands[:, 0] < bands[:, 2]).all(), "the history varies"
    low, high = bounds(values)
    assert bands.min() >= low >= 0
    assert bands.max() <= high * 1.001


def test_a_path_that_explodes_is_bounded():
    values = series(1, 840, 0, 1.0)
    course = plan(840)
    assert course is not None
    paths = np.full((len(course.origins), course.horizon), 1e300)
    assert backtest("wild", values, paths, course).bands.max() <= bounds(values)[1] * 1.001


def test_scores_use_only_what_was_known_at_each_origin():
    """A shock in the last day can't widen the bands of the origins before it."""
    values = series(2, 840, 0, 1.0)
    shocked = values.copy()
    shocked[-24:] += 50
    course = plan(840)
    assert course is not None
    paths = SeasonalNaive(24).paths(values, course.origins, course.horizon)
    calm = backtest("naive", values, paths, course).scores[0]
    after = backtest("naive", shocked, paths, course).scores[0]
    lost = calm.coverage * calm.hours - after.coverage * after.hours
    assert 0 < lost <= 24


def test_a_true_band_covers_what_it_says():
    covered = []
    for seed in range(6):
        values = series(seed, 840, 0, 1.0)
        course = plan(840)
        assert course is not None
        test = backtest("naive", values, SeasonalNaive(24).paths(values, course.origins, course.horizon), course)
        covered.append([score.coverage for score in test.scores])
    assert 0.75 < np.mean(covered) < 0.95


def test_pinball_of_one_hour_by_hand():
    loss = pinball(np.array([10.0]), np.array([[8.0, 9.0, 12.0]]))
    assert loss[0] == pytest.approx((0.1 * 2 + 0.5 * 1 + 0.1 * 2) / 3)


def test_history_decides_how_far_ahead_is_checked():
    assert plan(FEWEST_HOURS - 1) is None
    shortest, enough = plan(FEWEST_HOURS), plan(ENOUGH_HOURS)
    assert shortest is not None
    assert enough is not None
    assert (shortest.horizon, enough.horizon) == (24, 168)
    assert shortest.origins[-1] == FEWEST_HOURS
