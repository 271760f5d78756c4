"""Every forecaster looks back only, and answers NaN where it can't say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dags.forecasting.models import SeasonalNaive, Theta, WeeklyProfile, filled

MODELS = (SeasonalNaive(24), SeasonalNaive(168), Theta(), WeeklyProfile())


def waves(hours: int, seed: int = 0) -> np.ndarray:
    at = np.arange(hours)
    return 100 + 20 * np.sin(2 * np.pi * at / 24) + np.random.default_rng(seed).normal(0, 2, hours)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@given(later=st.lists(st.floats(-1e9, 1e9), min_size=30, max_size=30))
@settings(max_examples=15, deadline=None)
def test_what_comes_after_an_origin_does_not_change_its_path(model, later):
    values = waves(400)
    other = values.copy()
    other[370:] = later
    origins = [200, 320, 370]
    assert np.array_equal(model.paths(values, origins, 48), model.paths(other, origins, 48), equal_nan=True)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_gaps_are_bridged_and_never_become_zero(model):
    values = waves(700)
    values[100:130] = np.nan
    values[500:560] = np.nan
    path = model.paths(values, [700], 168)[0]
    assert np.isfinite(path).all()
    assert path.min() > 50


def test_the_naive_repeats_its_season():
    values = np.arange(200.0)
    path = SeasonalNaive(24).paths(values, [200], 60)[0]
    assert path[:24].tolist() == list(range(176, 200))
    assert path[24:48].tolist() == path[:24].tolist()
    assert np.isnan(SeasonalNaive(168).paths(values, [100], 5)).all()


def test_the_weekly_profile_knows_the_weekend():
    at = np.arange(5 * 168)
    values = np.where(at // 24 % 7 >= 5, 50.0, 100.0)
    path = WeeklyProfile().paths(values, [values.size], 168)[0]
    assert path[5 * 24 :].max() < 60 < 90 < path[24 : 5 * 24].min()


def test_theta_follows_a_daily_cycle():
    values = waves(600)
    path = Theta().paths(values, [576], 24)[0]
    assert np.abs(path - values[576:]).mean() < 4


def test_theta_repeats_a_constant():
    assert set(Theta().paths(np.full(300, 7.0), [300], 24)[0]) == {7.0}


def test_filling_takes_the_value_a_season_before():
    values = np.array([1.0, 2.0, np.nan, np.nan, np.nan])
    assert filled(values, 2).tolist() == [1.0, 2.0, 1.0, 2.0, 1.0]
