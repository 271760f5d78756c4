"""On real series the models do as well as they were measured to; figures of a day and a week ahead."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dags.forecasting.outlook import outlook

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
PJM = DATA / "forecast" / "pjm_zone_load_until_2024-07.parquet"
BIOHPC = DATA / "gpu" / "biohpc_gpu_hourly_05_07_08_09_until_2025-07.parquet"

HOURS, APART, WINDOWS = 840, 400, 2

pytestmark = pytest.mark.data


def windows(values: np.ndarray) -> Iterator[np.ndarray]:
    for number in range(WINDOWS):
        end = values.size - number * APART
        yield values[end - HOURS : end]


def figures(series: list[np.ndarray]) -> tuple[float, float, float]:
    """Mean skill of Theta a day ahead, of the chosen a week ahead, and mean coverage of the chosen."""
    theta, chosen, coverage = [], [], []
    for values in series:
        for window in windows(values):
            seen = outlook(window)
            theta.append(seen.skill("dynamic_optimized_theta", 0))
            chosen.append(seen.skill(seen.chosen, 1))
            coverage += [score.coverage for test in seen.tests if test.model == seen.chosen for score in test.scores]
    assert all(0.1 <= covered <= 0.99 for covered in coverage)
    return float(np.mean(theta)), float(np.mean(chosen)), float(np.mean(coverage))


@pytest.mark.skipif(not PJM.exists(), reason="needs ../shared/data/forecast/pjm_zone_load_until_2024-07.parquet")
def test_grid_load_of_pjm_zones():
    zones = pl.read_parquet(PJM).sort("unique_id", "ds").partition_by("unique_id")
    theta, chosen, coverage = figures([zone["y"].cast(pl.Float64).to_numpy() for zone in zones])
    assert theta > 0.15, "measured before: .28 over other origins"
    assert chosen > 0.05
    assert 0.7 < coverage < 0.9


@pytest.mark.skipif(not BIOHPC.exists(), reason="needs ../shared/data/gpu/biohpc_gpu_hourly_…_until_2025-07.parquet")
def test_power_of_gpu_servers():
    servers = (
        pl.read_parquet(BIOHPC)
        .with_columns(pl.col("timestamp").cast(pl.Datetime("us")))
        .unique(["name", "timestamp"], keep="first")
        .sort("name", "timestamp")
        .upsample("timestamp", every="1h", group_by="name", maintain_order=True)
        .partition_by("name", maintain_order=True)
    )
    series = [server["powerave"].cast(pl.Float64).fill_null(np.nan).to_numpy() for server in servers]
    theta, chosen, coverage = figures([values[-4000:] for values in series])
    assert theta > 0.1, "measured before: .19 over other origins"
    assert chosen > 0.03
    assert 0.7 < coverage < 0.9
