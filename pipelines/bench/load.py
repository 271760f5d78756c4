"""The events that are measured with: as many as asked for, always the same ones, and variations of them by name."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas import catalog
from schemas.envelope import Encoding
from schemas.events import TOKENS, UTILIZATION, EventType

CHUNK = 50_000
# A region's demand comes in by one gateway and is served by a few sites.
GATEWAYS = 8
SITES_PER_REGION = 3
DEVICES_PER_NODE = 8
# Events of ten minutes, so that a flush touches as many minutes as a worker that catches up after a restart; those of a
# replay are as dense, a day ago. Those of a history are of a whole day: nearly each is alone in its minute with what it
# is grouped by.
SPAN, DAY = timedelta(minutes=10), timedelta(days=1)
LATE = timedelta(hours=1)

Frame = Callable[[np.random.Generator, int, NDArray[np.int64]], pl.DataFrame]
"""Makes events: (random, number of the first, their times in ns since 1970)."""


@dataclass(frozen=True)
class Load:
    """Events of one kind as they travel; ``scale``: as many times the events as asked for, where the way is fast."""

    event_type: EventType
    encoding: Encoding
    frame: Frame
    rows_per_message: int = 1
    scale: int = 1
    span: timedelta = SPAN
    ended: timedelta = timedelta()
    """So long ago."""
    late_share: float = 0.0
    broken_every: int = 0
    """One of so many events is cut short; JSON alone."""
    keys: int = GATEWAYS

    def frames(self, events: int) -> Iterator[pl.DataFrame]:
        """Frames in time order that end now, or when they ended."""
        random = np.random.default_rng(1)
        end = int((datetime.now(UTC) - self.ended).timestamp() * 1e9)
        for first in range(0, events, CHUNK):
            count = min(CHUNK, events - first)
            age = (events - np.arange(first, first + count)) / events * self.span.total_seconds()
            times = end - (age * 1e9).astype(np.int64)
            if self.late_share:
                times -= (random.random(count) < self.late_share) * int(LATE.total_seconds() * 1e9)
            yield self.frame(random, first, times)


def tokens(random: np.random.Generator, first: int, times: NDArray[np.int64], tenants: int = 0) -> pl.DataFrame:
    """Finished requests, of the catalogue's tenants and models; or of that many tenants and 300 models."""
    count = len(times)
    regions, sites, models = catalog.regions(), catalog.sites(), catalog.gateway_models()
    packages = catalog.packages()
    if tenants:
        models = models.head(300)
        numbers = pl.Series(np.arange(tenants)).cast(pl.String)
        packages = pl.DataFrame({"tenant": "tenant-" + numbers, "package": "package-" + numbers})
    region = random.choice(regions.height, count, p=_shares(regions["demand_share"]))
    model = random.choice(models.height, count, p=_shares(models["demand_weight"]))
    package = random.integers(0, packages.height, count)
    site = (region * 7 + random.integers(0, SITES_PER_REGION, count)) % sites.height
    gateway = "gateway-" + pl.Series(region % GATEWAYS).cast(pl.String)
    duration = random.lognormal(0.5, 0.8, count)
    return pl.DataFrame(
        {
            "time": _times(times),
            "source": gateway,
            "id": pl.Series(np.arange(first, first + count)).cast(pl.String),
            "gateway": gateway,
            "region": regions["region"][region],
            "site": sites["site"][site],
            "tenant": packages["tenant"][package],
            "package": packages["package"][package],
            "provider": models["provider"][model],
            "model": models["model"][model],
            "requests": np.ones(count, np.int64),
            "input_tokens": random.integers(1, 8000, count),
            "output_tokens": random.integers(1, 2000, count),
            "duration_seconds": duration,
            "first_token_seconds": duration / 5,
        }
    )


def utilization(random: np.random.Generator, first: int, times: NDArray[np.int64], devices: int) -> pl.DataFrame:
    """Samples of that many accelerators in turn, spread over the sites."""
    count = len(times)
    sites, models = catalog.sites(), catalog.accelerator_models()
    device = np.arange(first, first + count) % devices
    node = device // DEVICES_PER_NODE
    model = node % models.height
    return pl.DataFrame(
        {
            "time": _times(times),
            "source": sites["site"][node % sites.height],
            "site": sites["site"][node % sites.height],
            "node": "node-" + pl.Series(node).cast(pl.String),
            "device": "gpu" + pl.Series(device % DEVICES_PER_NODE).cast(pl.String),
            "vendor": models["vendor"][model],
            "model": models["model"][model],
            "utilization": random.random(count),
            "memory_used_bytes": random.integers(0, 64 << 30, count),
            "memory_limit_bytes": np.full(count, 64 << 30),
            "temperature_celsius": random.normal(60, 5, count),
            "watts": random.normal(400, 40, count),
        }
    )


def _times(times: NDArray[np.int64]) -> pl.Series:
    return pl.Series(times).cast(pl.Datetime("ns", "UTC"))


def _shares(weights: pl.Series) -> NDArray[np.float64]:
    values = weights.cast(pl.Float64).to_numpy()
    return values / values.sum()


LOADS: dict[str, Load] = {
    "json": Load(TOKENS, "json", tokens),
    "arrow": Load(TOKENS, "arrow", tokens, 1000, scale=2),
    "array": Load(TOKENS, "array", tokens, 100),
    "tenants": Load(TOKENS, "arrow", partial(tokens, tenants=10_000), 1000, scale=2),
    "replay": Load(TOKENS, "arrow", tokens, 1000, scale=2, ended=DAY),
    "history": Load(TOKENS, "arrow", tokens, 1000, scale=2, span=DAY),
    "late": Load(TOKENS, "arrow", tokens, 1000, scale=2, late_share=0.05),
    "broken": Load(TOKENS, "json", tokens, broken_every=100),
    "devices-1k": Load(UTILIZATION, "arrow", partial(utilization, devices=1_000), 1000, scale=2, keys=47),
    "devices-100k": Load(UTILIZATION, "arrow", partial(utilization, devices=100_000), 1000, scale=2, keys=47),
}
"""By name, in the order in which they are measured."""

TOTALS: dict[str, dict[str, tuple[str, ...]]] = {
    "tokens": {
        "tokens": ("count()", "sum(input_tokens)", "sum(output_tokens)"),
        "tokens_1m": ("sum(samples)", "sum(input_tokens)", "sum(output_tokens)"),
        "usage_1m": ("sum(samples)", "sum(input_tokens)", "sum(output_tokens)"),
    },
    "utilization": {
        "utilization": ("count()", "sum(memory_used_bytes)"),
        "utilization_1m": ("sum(samples)", "sum(memory_used_bytes)"),
    },
}
"""By event type: the tables that must say the same of it, and what is summed there."""


_SUMMED = {"tokens": ("input_tokens", "output_tokens"), "utilization": ("memory_used_bytes",)}


def totals(event_type: EventType, frames: Iterable[pl.DataFrame]) -> tuple[int, ...]:
    """What the tables' sums should be for these events."""
    columns = _SUMMED[event_type.name]
    found = [(frame.height, *(int(frame[column].sum()) for column in columns)) for frame in frames]
    return tuple(map(sum, zip(*found, strict=True))) if found else (0,) * (1 + len(columns))
