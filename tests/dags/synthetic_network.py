"""A network of five weeks with daily and weekly cycles, as rows of the one-minute rollups."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from clickhouse_connect.driver.client import Client

END = datetime(2026, 3, 10, 15, 0, tzinfo=UTC)
"""The end of the synthetic history."""

START = END - timedelta(days=35)

SITES = {"horinger-1": 2.2e8, "qingpu-1": 6e7, "guian-1": 1.5e8}
"""Sites of the catalogue with their mean IT power, W."""


def cycle(hours: np.ndarray, seed: int, noise: float = 0.03) -> np.ndarray:
    """A mean of one with a daily and a weekly cycle, and noise."""
    rng = np.random.default_rng(seed)
    daily, weekly = np.sin(2 * np.pi * hours / 24), np.where(hours // 24 % 7 >= 5, -0.1, 0.04)
    return (1 + 0.25 * daily + weekly) * (1 + noise * rng.standard_normal(hours.size))


def power_rows(site: str, role: str, watts: np.ndarray, start: datetime, meter: str | None = None) -> pl.DataFrame:
    """Rows of power_1m: one reading a quarter of an hour, each the hour's mean."""
    minutes = [start + timedelta(minutes=15 * n) for n in range(4 * watts.size)]
    milliwatts = np.repeat(np.round(watts * 1e3).astype(np.int64), 4)
    return pl.DataFrame(
        {
            "minute": minutes,
            "site": site,
            "node": "",
            "meter": meter or role,
            "role": role,
            "topic_partition": 0,
            "samples": 1,
            "power_samples": 1,
            "milliwatts": milliwatts,
            "watts_min": milliwatts / 1e3,
            "watts_max": milliwatts / 1e3,
            "upto": 1,
        }
    )


def token_rows(region: str, scale: float, hours: np.ndarray, start: datetime, seed: int) -> pl.DataFrame:
    """Rows of tokens_1m: one in ten minutes."""
    requests = np.repeat(np.round(scale * cycle(hours, seed)).astype(np.int64), 6)
    return pl.DataFrame(
        {
            "minute": [start + timedelta(minutes=10 * n) for n in range(requests.size)],
            "site": "horinger-1",
            "region": region,
            "gateway": "gateway-1",
            "provider": "deepseek",
            "model": "deepseek-v3",
            "topic_partition": 0,
            "samples": requests,
            "requests": requests,
            "input_tokens": requests * 2000,
            "output_tokens": requests * 300,
            "upto": 1,
        }
    )


def lay_down_network(client: Client, start: datetime = START, end: datetime = END) -> None:
    """The synthetic network: utility and IT meters of three sites, demand of two regions."""
    hours = np.arange((end - start) // timedelta(hours=1))
    for seed, (site, watts) in enumerate(SITES.items()):
        it = watts * cycle(hours, seed)
        client.insert_arrow("power_1m", power_rows(site, "it", it, start).to_arrow())
        client.insert_arrow("power_1m", power_rows(site, "utility", it * 1.2, start).to_arrow())
    for seed, (region, scale) in enumerate({"shanghai": 4000.0, "guangdong": 9000.0}.items()):
        client.insert_arrow("tokens_1m", token_rows(region, scale, hours, start, 10 + seed).to_arrow())
