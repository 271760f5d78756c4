"""Token events for the benchmark: as many as asked for, always the same ones."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from pipelines.feed.producer import Producer
from schemas import catalog
from schemas.envelope import Encoding
from schemas.events import TOKENS
from schemas.settings import Settings

CHUNK = 50_000
# A region's demand comes in by one gateway and is served by a few sites.
GATEWAYS = 8
SITES_PER_REGION = 3
ROWS_PER_MESSAGE: dict[Encoding, int] = {"json": 1, "array": 100, "arrow": 1000}
# Events of ten minutes, so that a flush touches as many minutes as a worker that catches up after a restart.
SPAN = timedelta(minutes=10)


def frames(events: int, *, end: datetime) -> Iterator[pl.DataFrame]:
    """Frames of token events in time order that end at ``end``."""
    random = np.random.default_rng(1)
    regions, sites, models = catalog.regions(), catalog.sites(), catalog.gateway_models()
    shares = {"region": _shares(regions["demand_share"]), "model": _shares(models["demand_weight"])}
    packages = catalog.packages()
    for start in range(0, events, CHUNK):
        count = min(CHUNK, events - start)
        region = random.choice(regions.height, count, p=shares["region"])
        model = random.choice(models.height, count, p=shares["model"])
        package = random.integers(0, packages.height, count)
        site = (region * 7 + random.integers(0, SITES_PER_REGION, count)) % sites.height
        age = (events - np.arange(start, start + count)) / events * SPAN.total_seconds()
        gateway = pl.Series(region % GATEWAYS).cast(pl.String)
        duration = random.lognormal(0.5, 0.8, count)
        yield pl.DataFrame(
            {
                "time": pl.Series(int(end.timestamp() * 1e9) - (age * 1e9).astype(np.int64)).cast(
                    pl.Datetime("ns", "UTC")
                ),
                "source": "gateway-" + gateway,
                "id": pl.Series(np.arange(start, start + count)).cast(pl.String),
                "gateway": "gateway-" + gateway,
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


def _shares(weights: pl.Series) -> np.ndarray:
    values = weights.cast(pl.Float64).to_numpy()
    return values / values.sum()


def preload(settings: Settings, encoding: Encoding, events: int) -> None:
    """Put the events into the tokens topic."""
    with Producer(settings, f"bench-{encoding}") as producer:
        for frame in frames(events, end=datetime.now(UTC)):
            producer.send(TOKENS, frame, encoding=encoding, rows_per_message=ROWS_PER_MESSAGE[encoding])
